/* A process under a strict seccomp filter (R25): it must live on.
 * usage: seccomp strict|filter   SECCOMP_MODE_STRICT, or a filter that kills on all but a few calls */
#include "truth.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

TRUTH_SITE(leak_malloc);
SITE void *leak_malloc(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    truth_took(&site_leak_malloc, n);
    return p;
}

#define ALLOW(name)                                                                                \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    /* Heap enough for all that follows: strict mode has no brk. */
    void *first = malloc(100000);
    KEEP(first);
    free(first);
    if (strcmp(mode, "strict") == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
            return 98;
    } else {
        static struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), ALLOW(read), ALLOW(write), ALLOW(brk),
            ALLOW(mmap), ALLOW(munmap), ALLOW(getpid), ALLOW(exit), ALLOW(exit_group),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
        static struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
            return 98;
    }
    /* getpid is not allowed in strict mode: the harness knows the pid. */
    truth_say("ready", "0");
    truth_wait_line();
    for (size_t i = 1; i <= 200; i++) {
        void *p = leak_malloc(i);
        if (i % 2) {
            free(p);
            truth_gave(&site_leak_malloc, i);
        }
    }
    static char text[256];
    struct truth_site *s = &site_leak_malloc;
    int n = snprintf(text, sizeof text,
                     "{\"pid\":0,\"sites\":[{\"function\":\"leak_malloc\",\"exact\":true,"
                     "\"outstanding_bytes\":%lld,\"outstanding_objects\":%lld,"
                     "\"allocated_bytes\":%lld,\"allocated_objects\":%lld}]}\n",
                     s->outstanding_bytes, s->outstanding_objects, s->allocated_bytes,
                     s->allocated_objects);
    truth_write(text, (size_t)n);
    truth_wait_line();
    syscall(SYS_exit, 0);
    return 0;
}
