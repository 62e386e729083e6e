/* An allocator of the program's own, named with --alloc-fn and --free-fn (R17), that also longjmps out
 * of itself when it has no memory (R10). pool_take(tag, size, flags): the size is the second argument.
 * pool_give(pool, pointer): the pointer is the second. */
#include "truth.h"

#include <setjmp.h>

static char pool[8 << 20] __attribute__((aligned(64)));
static size_t used;
static jmp_buf out_of_memory;

__attribute__((noinline, noipa)) void *pool_take(int tag, size_t size, int flags) {
    KEEP((size_t)tag + (size_t)flags);
    if (size > sizeof pool - used)
        longjmp(out_of_memory, 1);
    void *p = pool + used;
    used += (size + 63) & ~(size_t)63;
    return p;
}

__attribute__((noinline, noipa)) void pool_give(void *from, void *p) {
    KEEP(from);
    KEEP(p);
}

TRUTH_SITE(take_from_pool);
SITE void *take_from_pool(size_t n) {
    if (setjmp(out_of_memory))
        return NULL;
    void *p = pool_take(7, n, 0);
    KEEP(p);
    truth_took(&site_take_from_pool, n);
    return p;
}

TRUTH_SITE(leak_malloc);
SITE void *leak_malloc(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    truth_took(&site_leak_malloc, n);
    return p;
}

int main(void) {
    truth_ready();
    for (size_t i = 1; i <= 500; i++) {
        void *p = take_from_pool(i);
        if (take_from_pool(100 << 20) != NULL)
            abort();
        if (i % 3 == 0) {
            pool_give(pool, p);
            truth_gave(&site_take_from_pool, i);
        }
        leak_malloc(i);
    }
    truth_end();
    return 0;
}
