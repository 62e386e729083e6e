/* Code made at run time: a stub calls the allocating function, and /tmp/perf-PID.map names it.
 * usage: jit plain|prefixed   addresses without and with 0x
 *        jit contained        writes it into a /tmp of its own, as in a container
 *        jit none             writes no map (the test puts something else in its place) */
#define _GNU_SOURCE
#include "truth.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>

TRUTH_SITE(leak_below_jit);
SITE void leak_below_jit(void) {
    KEEP(malloc(123));
    truth_took(&site_leak_below_jit, 123);
}

static void (*stub)(void);

SITE void call_jit(void) {
    stub();
    NOT_A_TAIL_CALL();
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "none";
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        return 98;
    /* push rbp; mov rbp, rsp; mov rax, leak_below_jit; call rax; pop rbp; ret */
    unsigned char text[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0,    0,    0,   0,
                            0,    0,    0,    0,    0xff, 0xd0, 0x5d, 0xc3};
    void (*target)(void) = leak_below_jit;
    memcpy(text + 6, &target, 8);
    memcpy(code + 256, text, sizeof text);
    if (mprotect(code, 4096, PROT_READ | PROT_EXEC) != 0)
        return 98;
    stub = (void (*)(void))(uintptr_t)(code + 256);
    if (strcmp(mode, "contained") == 0 &&
        (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
         mount("tmpfs", "/tmp", "tmpfs", 0, NULL) != 0))
        return 98;
    static char path[64], line[128];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    if (strcmp(mode, "none") != 0) {
        int n = snprintf(line, sizeof line, "%s%lx %lx jit_function\n",
                         strcmp(mode, "prefixed") == 0 ? "0x" : "", (long)(code + 256),
                         (long)sizeof text);
        FILE *f = fopen(path, "w");
        if (!f || fwrite(line, 1, (size_t)n, f) != (size_t)n || fclose(f) != 0)
            return 98;
    }
    truth_ready();
    for (int i = 0; i < 100; i++)
        call_jit();
    truth_end();
    if (strcmp(mode, "none") != 0)
        unlink(path);
    return 0;
}
