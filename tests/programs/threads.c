/* 32 threads; most blocks are freed or reallocated on another thread than the one that made them.
 * usage: threads parked|spawned — parked: the threads exist before the attach and outlive the truth;
 * spawned: they are started after it and have ended before it (R10). */
#include "truth.h"

#include <pthread.h>

#define THREADS 32
#define ROUNDS 10000
#define SLOTS 512

struct block {
    size_t bytes;
    long reallocated;
};

TRUTH_SITE(thread_malloc);
SITE struct block *thread_malloc(size_t n) {
    struct block *b = malloc(n);
    KEEP(b);
    b->bytes = n;
    b->reallocated = 0;
    truth_took(&site_thread_malloc, n);
    return b;
}

TRUTH_SITE(thread_realloc);
SITE struct block *thread_realloc(struct block *b, size_t n) {
    truth_gave(b->reallocated ? &site_thread_realloc : &site_thread_malloc, b->bytes);
    b = realloc(b, n);
    KEEP(b);
    b->bytes = n;
    b->reallocated = 1;
    truth_took(&site_thread_realloc, n);
    return b;
}

static void give(struct block *b) {
    truth_gave(b->reallocated ? &site_thread_realloc : &site_thread_malloc, b->bytes);
    free(b);
}

static struct inbox {
    pthread_mutex_t lock;
    struct block *slot[SLOTS];
    size_t count;
} inboxes[THREADS];

static void send(size_t to, struct block *b) {
    struct inbox *box = &inboxes[to];
    pthread_mutex_lock(&box->lock);
    int kept = box->count < SLOTS;
    if (kept)
        box->slot[box->count++] = b;
    pthread_mutex_unlock(&box->lock);
    if (!kept)
        give(b);
}

static struct block *receive(size_t at) {
    struct inbox *box = &inboxes[at];
    struct block *b = NULL;
    pthread_mutex_lock(&box->lock);
    if (box->count > 0)
        b = box->slot[--box->count];
    pthread_mutex_unlock(&box->lock);
    return b;
}

static pthread_barrier_t start, finish;
static int parked;

SITE void *work(void *argument) {
    size_t me = (size_t)argument;
    uint32_t random = (uint32_t)me * 2654435761u + 1;
    if (parked)
        pthread_barrier_wait(&start);
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1664525u + 1013904223u;
        struct block *b = thread_malloc(sizeof(struct block) + (random >> 8) % 500);
        if (i % 16 == 0)
            KEEP(b); /* leaked */
        else
            send((me + 1 + (random >> 20) % (THREADS - 1)) % THREADS, b);
        b = receive(me);
        if (b && i % 8 == 0)
            send((me + 5) % THREADS, thread_realloc(b, sizeof(struct block) + (random >> 12) % 900));
        else if (b)
            give(b);
    }
    if (parked) {
        pthread_barrier_wait(&finish);
        for (;;)
            pause();
    }
    return NULL;
}

/* Thread descriptors and TLS are libc's own. */
TRUTH_ANY(start_threads);
static pthread_t threads[THREADS];
SITE void start_threads(void) {
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            abort();
    NOT_A_TAIL_CALL();
}

int main(int argc, char **argv) {
    parked = argc > 1 && strcmp(argv[1], "parked") == 0;
    pthread_barrier_init(&start, NULL, THREADS + 1);
    pthread_barrier_init(&finish, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; i++)
        pthread_mutex_init(&inboxes[i].lock, NULL);
    if (parked) {
        start_threads();
        truth_ready();
        pthread_barrier_wait(&start);
        pthread_barrier_wait(&finish);
    } else {
        truth_ready();
        start_threads();
        for (size_t i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    truth_end();
    return 0;
}
