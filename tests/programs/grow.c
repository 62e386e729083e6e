/* Resident memory that grows, each mode in another way:
 *
 *   grow heap       blocks that are kept
 *   grow fragment   blocks of which one in 64 is kept: the rest stays with the allocator
 *   grow mapping    a mapping of its own, touched
 *   grow stacks     threads that once went deep
 *   grow shared     shared memory, touched */
#include "truth.h"
#include <pthread.h>
#include <sys/mman.h>

#define MIB (1UL << 20)
#define BLOCKS (64 << 10)
#define THREADS 32

TRUTH_SITE(keep_blocks);
SITE void keep_blocks(void) {
    for (int i = 0; i < 24 << 10; i++) {
        char *p = malloc(1000);
        memset(p, 1, 1000);
        truth_took(&site_keep_blocks, 1000);
        KEEP(p);
    }
}

static char *blocks[BLOCKS];

TRUTH_SITE(keep_few);
SITE void keep_few(void) {
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(500);
        memset(blocks[i], 1, 500);
        truth_took(&site_keep_few, 500);
    }
    /* The last one too, or the top of the heap would be given back. */
    for (int i = 0; i < BLOCKS; i++)
        if (i % 64 != 63) {
            free(blocks[i]);
            truth_gave(&site_keep_few, 500);
        }
}

SITE void map_and_touch(int flags) {
    char *p = mmap(NULL, 24 * MIB, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        _exit(121);
    memset(p, 1, 24 * MIB);
    KEEP(p);
}

static pthread_barrier_t all_deep, all_seen;

SITE void go_deep(void) {
    volatile char deep[MIB];
    for (size_t at = 0; at < sizeof deep; at += 4096)
        deep[at] = 1;
    NOT_A_TAIL_CALL();
}

static void *deep_thread(void *unused) {
    go_deep();
    pthread_barrier_wait(&all_deep);
    pthread_barrier_wait(&all_seen);
    return unused;
}

static void stacks(void) {
    pthread_t thread;
    pthread_barrier_init(&all_deep, NULL, THREADS + 1);
    pthread_barrier_init(&all_seen, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&thread, NULL, deep_thread, NULL) != 0)
            _exit(121);
    pthread_barrier_wait(&all_deep);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    truth_ready();
    if (strcmp(mode, "heap") == 0)
        keep_blocks();
    else if (strcmp(mode, "fragment") == 0)
        keep_few();
    else if (strcmp(mode, "mapping") == 0)
        map_and_touch(MAP_PRIVATE);
    else if (strcmp(mode, "shared") == 0)
        map_and_touch(MAP_SHARED);
    else if (strcmp(mode, "stacks") == 0)
        stacks();
    else
        return 2;
    truth_end();
    if (strcmp(mode, "stacks") == 0)
        pthread_barrier_wait(&all_seen);
    return 0;
}
