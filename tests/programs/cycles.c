/* What a load test does to a service: cycles, each after a line on stdin. Every one leaks, the first
 * one fills a cache, and all of them work with memory that they give back.
 * usage: cycles COUNT */
#include "truth.h"

enum { BLOCK = 4096, LEAKED = 16, CACHED = 64, BUFFERS = 100 };

TRUTH_SITE(leak_in_cycle);
SITE void *leak_in_cycle(void) {
    void *p = malloc(BLOCK);
    memset(p, 1, BLOCK);
    KEEP(p);
    truth_took(&site_leak_in_cycle, BLOCK);
    return p;
}

TRUTH_SITE(fill_once);
SITE void *fill_once(void) {
    void *p = malloc(BLOCK);
    memset(p, 1, BLOCK);
    KEEP(p);
    truth_took(&site_fill_once, BLOCK);
    return p;
}

SITE void work(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    free(p);
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 1;
    truth_ready();
    for (int cycle = 0; cycle < count; cycle++) {
        for (int i = 0; cycle == 0 && i < CACHED; i++)
            fill_once();
        for (int i = 0; i < LEAKED; i++)
            leak_in_cycle();
        for (size_t i = 1; i <= BUFFERS; i++)
            work(i * 10);
        truth_step("cycle");
    }
    truth_end();
    return 0;
}
