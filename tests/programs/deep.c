/* Call paths that look alike from their innermost end.
 * usage: deep alternating|bursts|random BYTES   two callers of one chain of BYTES of frames
 *        deep recursion DEPTH                   one very deep recursion
 *        deep contexts COUNT                    COUNT different call paths, a block each
 *        deep rounds COUNT                      the same six times, a step `round` before each */
#include "truth.h"

static int sink;

SITE void *bottom(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    return p;
}

/* About 256 bytes of stack each. */
SITE void *chain(int depth, size_t n) {
    volatile char room[200];
    room[depth % 200] = (char)depth;
    void *p = depth == 0 ? bottom(n) : chain(depth - 1, n);
    KEEP(room);
    return p;
}

/* Two callers with frames of one size, called from one place. */
#define CALLER(name)                                                                               \
    TRUTH_SITE(name);                                                                              \
    SITE void *name(int depth, size_t n) {                                                         \
        void *p = chain(depth, n);                                                                 \
        KEEP(p);                                                                                   \
        truth_took(&site_##name, n);                                                               \
        return p;                                                                                  \
    }
CALLER(caller_a)
CALLER(caller_b)

static void call(int b, int depth) {
    void *(*volatile f)(int, size_t) = b ? caller_b : caller_a;
    struct truth_site *site = b ? &site_caller_b : &site_caller_a;
    size_t n = b ? 70 : 30;
    void *p = f(depth, n);
    if (sink++ % 5 == 0) {
        free(p);
        truth_gave(site, n);
    }
}

TRUTH_SITE(recursion);
SITE void *recursion(int depth, size_t n) {
    void *p;
    if (depth > 0) {
        p = recursion(depth - 1, n);
        KEEP(p);
        return p;
    }
    p = malloc(n);
    KEEP(p);
    truth_took(&site_recursion, n);
    return p;
}

/* Each path through left and right is a context of its own. */
TRUTH_SITE(left);
TRUTH_SITE(right);
SITE void *right(unsigned path, int depth);
SITE void *left(unsigned path, int depth) {
    void *p;
    if (depth == 0) {
        p = malloc(16);
        truth_took(&site_left, 16);
    } else {
        p = path & 1 ? right(path >> 1, depth - 1) : left(path >> 1, depth - 1);
    }
    KEEP(p);
    return p;
}
SITE void *right(unsigned path, int depth) {
    void *p;
    if (depth == 0) {
        p = malloc(24);
        truth_took(&site_right, 24);
    } else {
        p = path & 1 ? right(path >> 1, depth - 1) : left(path >> 1, depth - 1);
    }
    KEEP(p);
    return p;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 99;
    const char *mode = argv[1];
    int number = atoi(argv[2]);
    int depth = number / 256;
    truth_ready();
    if (strcmp(mode, "alternating") == 0) {
        for (int i = 0; i < 2000; i++)
            call(i & 1, depth);
    } else if (strcmp(mode, "bursts") == 0) {
        for (int i = 0; i < 2000; i++)
            call(i / 500 & 1, depth);
    } else if (strcmp(mode, "random") == 0) {
        uint32_t random = 1;
        for (int i = 0; i < 2000; i++) {
            random = random * 1664525u + 1013904223u;
            call(random >> 30 == 0, depth);
        }
    } else if (strcmp(mode, "recursion") == 0) {
        for (int i = 0; i < 100; i++)
            recursion(number, 40);
    } else if (strcmp(mode, "contexts") == 0 || strcmp(mode, "rounds") == 0) {
        int bits = 0, rounds = mode[0] == 'r' ? 6 : 1;
        while (1 << bits < number)
            bits++;
        for (int round = 0; round < rounds; round++) {
            if (rounds > 1)
                truth_step("round");
            for (int i = 0; i < number; i++)
                left((unsigned)i, bits);
        }
    } else {
        return 99;
    }
    truth_end();
    return 0;
}
