/* A chain of callers whose every frame, file and line must be in the report: `@name` marks the line of
 * the call made in `name`. Built -O2 without frame pointers. */
#include "truth.h"

TRUTH_SITE(c_leak);
SITE void *c_leak(size_t n) {
    void *p = malloc(n); /* @c_leak */
    KEEP(p);
    truth_took(&site_c_leak, n);
    return p;
}

/* Inlined into c_inner: a frame without a call of its own. */
static inline __attribute__((always_inline)) void *c_inlined(size_t n) {
    void *p = c_leak(n + 1); /* @c_inlined */
    KEEP(p);
    return p;
}

SITE void *c_inner(size_t n) {
    volatile char room[3000]; /* a large frame */
    room[n % 3000] = 1;
    void *p = c_inlined(n * 2); /* @c_inner */
    KEEP(room);
    return p;
}

SITE void c_middle(int rounds) {
    for (int i = 0; i < rounds; i++) {
        KEEP(c_inner((size_t)i)); /* @c_middle */
    }
}

/* A frame of a size that is known only at run time. */
SITE void c_outer(int rounds, size_t dynamic) {
    char *room = __builtin_alloca(dynamic);
    memset(room, 1, dynamic);
    c_middle(rounds); /* @c_outer */
    KEEP(room);
}

int main(void) {
    truth_ready();
    c_outer(100, 777 + (size_t)getpid() % 16); /* @main */
    NOT_A_TAIL_CALL();
    truth_end();
    return 0;
}
