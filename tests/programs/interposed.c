/* An executable with a malloc of its own above libc's (R9, R10).
 * usage: interposed forwards|header|longjmp_before|longjmp_after
 *   forwards        the wrapper returns libc's address: one block
 *   header          it returns another address (a header before the block): both live
 *   longjmp_before  it jumps out before anything was allocated
 *   longjmp_after   it jumps out with libc's block made: that block lives
 *   longjmp_realloc its realloc jumps out before anything was done: the old block lives
 *   nested          its malloc calls itself a hundred times before it calls libc's */
#include "truth.h"

#include <setjmp.h>

extern void *__libc_malloc(size_t);
extern void __libc_free(void *);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_calloc(size_t, size_t);

static enum { FORWARDS, HEADER, BEFORE, AFTER, REALLOC, NESTED } mode;
static int jumping, in_site, nested;
static jmp_buf out;
static void *made;

__attribute__((noinline, noipa)) void *malloc(size_t n) {
    if (jumping && mode == BEFORE)
        longjmp(out, 1);
    if (mode == NESTED && in_site && nested < 100) {
        nested++;
        void *inner = malloc(n);
        KEEP(inner);
        return inner;
    }
    void *p = __libc_malloc(mode == HEADER && in_site ? n + 16 : n);
    KEEP(p);
    if (jumping && mode == AFTER) {
        made = p;
        longjmp(out, 1);
    }
    if (mode == HEADER && in_site)
        p = (char *)p + 16;
    return p;
}

static int in_wrapped_free;
__attribute__((noinline, noipa)) void free(void *p) {
    if (mode == HEADER && in_wrapped_free)
        p = (char *)p - 16;
    __libc_free(p);
    NOT_A_TAIL_CALL();
}

__attribute__((noinline, noipa)) void *calloc(size_t a, size_t b) {
    void *p = __libc_calloc(a, b);
    KEEP(p);
    return p;
}

__attribute__((noinline, noipa)) void *realloc(void *p, size_t n) {
    if (jumping)
        longjmp(out, 1);
    p = __libc_realloc(p, n);
    KEEP(p);
    return p;
}

TRUTH_SITE(leak_wrapped);
SITE void *leak_wrapped(size_t n) {
    in_site = 1;
    nested = 0;
    void *p = malloc(n);
    in_site = 0;
    KEEP(p);
    truth_took(&site_leak_wrapped, n);
    if (mode == HEADER)
        truth_took(&site_leak_wrapped, n + 16);
    return p;
}

TRUTH_SITE(jump_out);
SITE void jump_out(size_t n) {
    made = NULL;
    if (setjmp(out) == 0) {
        jumping = 1;
        KEEP(malloc(n));
        abort();
    }
    jumping = 0;
    if (made)
        truth_took(&site_jump_out, n);
}

SITE void jump_out_of_realloc(void *p) {
    if (setjmp(out) == 0) {
        jumping = 1;
        KEEP(realloc(p, 100000));
        abort();
    }
    jumping = 0;
}

int main(int argc, char **argv) {
    static const char *const modes[] = {"forwards",      "header",          "longjmp_before",
                                        "longjmp_after", "longjmp_realloc", "nested"};
    mode = 6;
    for (int i = 0; argc > 1 && i < 6; i++)
        if (strcmp(argv[1], modes[i]) == 0)
            mode = i;
    if (mode == 6)
        return 99;
    truth_ready();
    for (size_t i = 1; i <= 200; i++) {
        if (mode == BEFORE || mode == AFTER)
            jump_out(i * 5);
        void *p = leak_wrapped(i * 3);
        if (mode == REALLOC)
            jump_out_of_realloc(p);
        if (i % 2) {
            in_wrapped_free = 1;
            free(p);
            in_wrapped_free = 0;
            truth_gave(&site_leak_wrapped, i * 3);
            if (mode == HEADER)
                truth_gave(&site_leak_wrapped, i * 3 + 16);
        }
    }
    truth_end();
    return 0;
}
