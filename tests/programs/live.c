/* Programs as they live, for verdicts (R23): each runs until stdin ends.
 * usage: live leak|slow_leak|noisy_leak|warmup|cache|sawtooth|spike|steady */
#include "truth.h"

#include <poll.h>
#include <time.h>

TRUTH_MALLOC_SITE(leak)
TRUTH_MALLOC_SITE(slow_leak)
TRUTH_MALLOC_SITE(noisy_leak)
TRUTH_MALLOC_SITE(warmup)
TRUTH_MALLOC_SITE(cache)
TRUTH_MALLOC_SITE(sawtooth)
TRUTH_MALLOC_SITE(spike)
TRUTH_MALLOC_SITE(steady)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t state = 12345;
static uint32_t draw(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

#define MAX 200000
static void *held[MAX];
static size_t count;

static void give_all(size_t to) {
    while (count > to)
        free(held[--count]);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    truth_ready();
    double start = now();
    for (long tick = 0;; tick++) {
        double t = now() - start;
        if (strcmp(mode, "leak") == 0) {
            for (int i = 0; i < 10; i++)
                leak(1000);
        } else if (strcmp(mode, "slow_leak") == 0) {
            if (tick % 20 == 0)
                slow_leak(64);
        } else if (strcmp(mode, "noisy_leak") == 0) {
            /* Requests that hold memory for a while, and a leak among them. */
            size_t slot = draw(400);
            free(held[slot]);
            held[slot] = noisy_leak(500 + draw(1000));
            if (tick % 3 == 0)
                noisy_leak(4000);
        } else if (strcmp(mode, "warmup") == 0) {
            if (t < 1.5)
                warmup(2000);
        } else if (strcmp(mode, "cache") == 0) {
            /* Bounded: at 500 entries the oldest makes room. */
            size_t slot = (size_t)tick % 500;
            free(held[slot]);
            held[slot] = cache(3000);
        } else if (strcmp(mode, "sawtooth") == 0) {
            /* A collector every 0.9 s or so. */
            held[count++] = sawtooth(1500);
            if ((long)(t / 0.9) != (long)((t - 0.005) / 0.9) || count == MAX)
                give_all(20);
        } else if (strcmp(mode, "spike") == 0) {
            if (t > 2.0 && t < 2.7 && count < 2000)
                for (int i = 0; i < 10; i++)
                    held[count++] = spike(10000);
            if (t >= 2.7)
                give_all(0);
        } else if (strcmp(mode, "steady") == 0) {
            size_t slot = draw(300);
            free(held[slot]);
            held[slot] = steady(500 + draw(100));
        } else {
            return 99;
        }
        struct pollfd in = {.fd = 0, .events = POLLIN};
        if (poll(&in, 1, 2) != 0)
            break;
    }
    return 0;
}
