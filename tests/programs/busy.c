// A busy service: 10,000 call paths. In each interval a tenth of them allocates and frees: 500 that are
// always busy, and 500 others, drawn anew. One path in fifty keeps a block of each hundred. Every path
// has held one block since the start.
//   busy MILLISECONDS   an interval; ends when standard input does
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PATHS = 10000, BUSY = 500, OTHERS = 500, DEPTH = 16 };

static uint64_t state = 1;

static uint32_t below(uint32_t end) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % end;
}

typedef void *step(uint32_t path, int depth);
static step left, right;

// The path's bits say which way to go; what comes back is used, so that no call is a jump.
#define STEP(name) \
    __attribute__((noinline)) static void *name(uint32_t path, int depth) { \
        void *block = depth == 0 ? malloc(96) : (path & 1 ? left : right)(path >> 1, depth - 1); \
        __asm__ volatile("" : "+r"(block)); \
        return block; \
    }
STEP(left)
STEP(right)

static void work(uint32_t path) {
    uint32_t calls = below(2000 / (path / 10 + 1) + 3) + 1;
    for (uint32_t call = 0; call < calls; call++) {
        void *block = left(path, DEPTH);
        if (path % 50 != 0 || call % 100 != 0) {
            free(block);
        }
    }
}

int main(int argc, char **argv) {
    long milliseconds = argc > 1 ? atol(argv[1]) : 5000;
    for (uint32_t path = 0; path < PATHS; path++) {
        if (left(path, DEPTH) == NULL) {
            return 1;
        }
    }
    printf("ready\n");
    fflush(stdout);
    struct pollfd input = {.fd = 0, .events = POLLIN};
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        for (uint32_t path = 0; path < BUSY; path++) {
            work(path);
        }
        for (int other = 0; other < OTHERS; other++) {
            work(BUSY + below(PATHS - BUSY));
        }
        next.tv_nsec += milliseconds % 1000 * 1000000;
        next.tv_sec += milliseconds / 1000 + next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long wait = (next.tv_sec - now.tv_sec) * 1000 + (next.tv_nsec - now.tv_nsec) / 1000000;
        if (poll(&input, 1, wait > 0 ? (int)wait : 0) != 0) {
            return 0;
        }
    }
}
