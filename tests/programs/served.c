/* A library for a server's workers: what `leak_request` allocates is never freed. */
#include <stdlib.h>
#include <string.h>

__attribute__((noinline, noipa)) void *leak_request(size_t bytes) {
    void *p = malloc(bytes);
    if (p == NULL)
        abort();
    memset(p, 1, bytes);
    __asm__ volatile("" : : "g"(p) : "memory");
    return p;
}
