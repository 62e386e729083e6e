/* What tracing costs, told by the traced program itself.
 *
 * Reads commands, a line each, and answers each with one line; between them it rests:
 *   pairs N   N windows of malloc+free pairs; answers with the nanoseconds of CPU time a pair took
 *             in each. One block in 4096 leaks.
 *   hold N    N live blocks of 16 bytes more; "held N"
 *   paths N   one block from each of N different call paths (at most 1024), ten calls deep
 *   serve N   N requests: each hashes 4 KiB and keeps 64 bytes; "served N"
 *   touch N   N windows of page faults, each the first touch of a page; answers with the nanoseconds of
 *             CPU time that one took in each
 *   churn N   N pairs on each of those 1024 paths in turn, so that none of them is new
 * CPU time, so that what else the machine does counts little. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SITE __attribute__((noinline, noclone))
/* The compiler sees neither what becomes of a block nor a call in tail position. */
#define KEEP(p) __asm__ volatile("" : : "g"(p) : "memory")

#define WINDOW_NS 20e6
#define LEAK_EVERY 4096

static double cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

SITE static void pairs(long count) {
    for (long i = 0; i < count; i++) {
        void *p = malloc(32 + (size_t)(i & 7) * 16);
        KEEP(p);
        free(p);
    }
}

SITE static void leak(void) {
    void *p = malloc(48);
    KEEP(p);
}

/* Nanoseconds a pair in one window. The clock is a system call: read it seldom. */
SITE static double window(void) {
    double begin = cpu_ns(), spent;
    long count = 0;
    do {
        pairs(LEAK_EVERY);
        leak();
        count += LEAK_EVERY + 1;
    } while ((spent = cpu_ns() - begin) < WINDOW_NS);
    return spent / (double)count;
}

SITE static void hold(long count) {
    for (long i = 0; i < count; i++) {
        void *p = malloc(16);
        KEEP(p);
    }
}

/* A path's number is spelled in the return addresses: a bit chooses the function called. */
SITE static void left(unsigned path, int depth, int keep);
SITE static void right(unsigned path, int depth, int keep);

static inline void descend(unsigned path, int depth, int keep) {
    if (depth == 0) {
        void *p = malloc(24);
        KEEP(p);
        if (!keep)
            free(p);
    } else if (path & 1) {
        right(path >> 1, depth - 1, keep);
    } else {
        left(path >> 1, depth - 1, keep);
    }
    KEEP(path);
}

SITE static void left(unsigned path, int depth, int keep) {
    descend(path, depth, keep);
    __asm__ volatile("# left" : : : "memory");
}

SITE static void right(unsigned path, int depth, int keep) {
    descend(path, depth, keep);
    __asm__ volatile("# right" : : : "memory");
}

SITE static void keep_request(unsigned long hash) {
    char *p = malloc(64);
    memset(p, (int)hash, 64);
    KEEP(p);
}

SITE static void serve(long count) {
    static unsigned char request[4096];
    unsigned long hash = 14695981039346656037UL;
    for (long i = 0; i < count; i++) {
        for (size_t at = 0; at < sizeof request; at++)
            hash = (hash ^ request[at]) * 1099511628211UL;
        request[i & 4095] = (unsigned char)hash;
        keep_request(hash);
    }
}

#define PAGE 4096
#define PAGES 4096

/* Nanoseconds a page that is touched for the first time. */
SITE static double touch(void) {
    size_t size = (size_t)PAGES * PAGE;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE) != 0)
        exit(1);
    double begin = cpu_ns();
    for (size_t at = 0; at < size; at += PAGE)
        memory[at] = 1;
    double spent = cpu_ns() - begin;
    munmap(memory, size);
    return spent / PAGES;
}

#define PATHS 1024
#define DEPTH 10

int main(void) {
    char line[64], word[16];
    long n;
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %ld", word, &n) != 2 || n < 0)
            return 2;
        if (strcmp(word, "pairs") == 0) {
            for (long i = 0; i < n; i++)
                printf("%.1f ", window());
            putchar('\n');
        } else if (strcmp(word, "hold") == 0) {
            hold(n);
            printf("held %ld\n", n);
        } else if (strcmp(word, "paths") == 0) {
            for (long i = 0; i < n; i++)
                descend((unsigned)i % PATHS, DEPTH, 1);
            printf("paths %ld\n", n);
        } else if (strcmp(word, "serve") == 0) {
            serve(n);
            printf("served %ld\n", n);
        } else if (strcmp(word, "touch") == 0) {
            for (long i = 0; i < n; i++)
                printf("%.1f ", touch());
            putchar('\n');
        } else if (strcmp(word, "churn") == 0) {
            for (long i = 0; i < n; i++)
                for (unsigned path = 0; path < PATHS; path++)
                    descend(path, DEPTH, 0);
            printf("churned %ld\n", n);
        } else {
            return 2;
        }
    }
    return 0;
}
