/* A program that ends with memory held: -DLEAK plants a leak, -DMOVED puts functions elsewhere. */
#include <stdlib.h>

#define SITE __attribute__((noinline, noclone))
void *volatile kept[10000];
int count;

#ifdef MOVED
/* Other code first: every address after it is another. */
SITE int padding(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += i * (n ^ i);
    return sum;
}
#endif

static inline void *small_block(size_t size) {
    void *p = malloc(size);
    kept[count++] = p;
    return p;
}

SITE void planted_leak(void) {
    kept[count++] = malloc(1000);
    __asm__ volatile("" ::: "memory");
}

SITE void session_table(int n) {
    for (int i = 0; i < n; i++)
        kept[count++] = malloc(64);
    __asm__ volatile("" ::: "memory");
}

SITE void buffers(int n) {
    for (int i = 0; i < n; i++) {
        void *p = malloc(4096);
        if (i % 2)
            free(p);
        else
            kept[count++] = p;
    }
    __asm__ volatile("" ::: "memory");
}

int main(void) {
#ifdef MOVED
    count = padding(0);
#endif
    session_table(300);
    buffers(40);
    small_block(77);
#ifdef LEAK
    for (int i = 0; i < 50; i++)
        planted_leak();
#endif
    return 0;
}
