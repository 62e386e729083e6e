/* A shared object that allocates with libc's malloc. */
#include <stdlib.h>

__attribute__((noinline, noipa)) void *plugin_make(size_t n) {
    void *p = malloc(n);
    __asm__ volatile("" : : "g"(p) : "memory");
    return p;
}
