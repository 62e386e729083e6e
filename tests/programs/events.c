/* Calls of which every one is known: says each as `call PID WHAT`, in the words of `memtrace events`.
 * usage: events [all | tree | flood N]
 *   all    allocators, mappings and brk, those that fail too
 *   tree   fork, vfork, and a fork that execs `events leaf`
 *   flood  N times malloc and free */
#include "truth.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Only the values of pointers that were freed are told. */
#pragma GCC diagnostic ignored "-Wuse-after-free"

static char said[16384];
static size_t length;

/* Kept until all is over: writing is not one of the calls, but takes its time. */
__attribute__((format(printf, 1, 2))) static void call(const char *format, ...) {
    va_list values;
    va_start(values, format);
    length += (size_t)snprintf(said + length, sizeof said - length, "call %d ", (int)getpid());
    length += (size_t)vsnprintf(said + length, sizeof said - length, format, values);
    va_end(values);
    said[length++] = '\n';
}

/* Sizes that the compiler must not know: it would warn of them, or leave the call out. */
static volatile size_t huge = (size_t)1 << 62, none, page = 4096;
/* Nor this: it makes malloc of such a realloc. */
static void *volatile nothing;

/* A frame of its own. */
SITE void allocators(void *early);
SITE void allocators(void *early) {
    void *a = malloc(24);
    call("malloc(24) = %p", a);
    void *b = calloc(3, 5);
    call("calloc(15) = %p", b);
    void *a2 = realloc(a, 5000);
    call("realloc(%p, 5000) = %p", a, a2);
    void *c = realloc(nothing, 40);
    call("realloc(NULL, 40) = %p", c);
    void *d = NULL;
    if (posix_memalign(&d, 64, 100) != 0)
        _exit(121);
    call("posix_memalign(100) = %p", d);
    void *e = aligned_alloc(64, 128);
    call("memalign(128) = %p", e);
    void *z = malloc(none);
    call("malloc(0) = %p", z);
    KEEP(malloc(huge));
    call("malloc(%zu) = NULL", huge);
    KEEP(realloc(b, huge));
    call("realloc(%p, %zu) = NULL", b, huge);
    free(a2);
    call("free(%p)  5000 bytes", a2);
    free(b);
    call("free(%p)  15 bytes", b);
    KEEP(realloc(c, none));
    call("realloc(%p, 0) = NULL (freed)", c);
    free(NULL);
    free(d);
    call("free(%p)  100 bytes", d);
    free(e);
    call("free(%p)  128 bytes", e);
    free(z);
    call("free(%p)  0 bytes", z);
    free(early);
    call("free(%p)", early);
}

static void mappings(void) {
    char *m = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    call("mmap(8192, rw-) = %p", (void *)m);
    mprotect(m, 2 * page, PROT_READ);
    call("mprotect(%p, 8192, r--) = 0", (void *)m);
    madvise(m, page, MADV_DONTNEED);
    call("madvise(%p, 4096, DONTNEED) = 0", (void *)m);
    char *n = mremap(m, 2 * page, 4 * page, MREMAP_MAYMOVE);
    call("mremap(%p, 8192, 16384) = %p", (void *)m, (void *)n);
    munmap(n, 4 * page);
    call("munmap(%p, 16384) = 0", (void *)n);
    mmap(NULL, none, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    call("mmap(0, r--) = EINVAL");
    munmap((void *)(page + 1), page);
    call("munmap(%p, 4096) = EINVAL", (void *)(page + 1));
    mmap(NULL, page, PROT_READ, MAP_SHARED, 999, 0);
    call("mmap(4096, r-- shared, fd 999) = EBADF");
    void *end = (void *)syscall(SYS_brk, none);
    call("brk(NULL) = %p", end);
    void *up = (char *)end + 2 * page;
    KEEP(syscall(SYS_brk, up));
    call("brk(%p) = %p", up, up);
    KEEP(syscall(SYS_brk, end));
    call("brk(%p) = %p", end, end);
    KEEP(syscall(SYS_brk, huge));
    call("brk(%p) = %p refused", (void *)huge, end);
}

static void wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
}

static void tree(const char *self) {
    pid_t child = fork();
    if (child == 0) {
        KEEP(malloc(31));
        _exit(0);
    }
    wait_for(child);
    call("fork = %d", (int)child);
    child = vfork();
    if (child == 0)
        _exit(0);
    wait_for(child);
    call("vfork = %d", (int)child);
    child = fork();
    if (child == 0) {
        execl(self, self, "leaf", (char *)NULL);
        _exit(122);
    }
    wait_for(child);
    call("fork = %d", (int)child);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "all";
    if (strcmp(what, "leaf") == 0) {
        void *p = malloc(77);
        KEEP(p);
        free(p);
        return 0;
    }
    void *early = malloc(11);
    KEEP(early);
    truth_ready();
    if (strcmp(what, "tree") == 0)
        tree("/proc/self/exe");
    else if (strcmp(what, "flood") == 0)
        for (long i = argc > 2 ? atol(argv[2]) : 0; i > 0; i--) {
            void *p = malloc(100);
            KEEP(p);
            free(p);
        }
    else {
        allocators(early);
        mappings();
    }
    truth_write(said, length);
    truth_say("done", what);
    if (!truth_nowait())
        truth_wait_line();
    return 0;
}
