/* Mappings of every kind, made, cut, moved and protected. The truth is kept page by page; only bytes
 * are told, per function and, for the whole arena, per protection.
 *
 *   maps torture STEPS   every thread works at random on a slice of one arena
 *   maps brk             the heap's end goes up and down
 *   maps leak            mappings that are never unmapped
 *   maps arenas          64 threads with a stack and an arena of malloc each
 *   maps huge            memory in huge pages, touched
 *   maps release         memory touched, and given back in several ways */
#include "truth.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PAGE 4096UL
#define THREADS 4
#define SLICE 512
enum { NOBODY, PRIVATE, SHARED, FILES, RESERVED, REPLACED, GROWN, COMMITTED, SITES };

TRUTH_SITE(take_private);
TRUTH_SITE(take_shared);
TRUTH_SITE(take_file);
TRUTH_SITE(reserve);
TRUTH_SITE(replace);
TRUTH_SITE(grow);
TRUTH_SITE(commit);
TRUTH_SITE(raise_brk);

static char *arena;
static int file;
static unsigned char owner[THREADS * SLICE];

static void check(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "maps: %s: %s\n", what, strerror(errno));
        _exit(121);
    }
}

static unsigned long page_of(char *p) { return (unsigned long)(p - arena) / PAGE; }

static void own(char *p, unsigned long pages, int who) { memset(owner + page_of(p), who, pages); }

static void map_at(char *p, unsigned long length, int prot, int flags, int fd, const char *what) {
    void *got = mmap(p, length, prot, flags | MAP_FIXED, fd, 0);
    check(got == p, what);
}

SITE void take_private(char *p, unsigned long pages) {
    map_at(p, pages * PAGE - 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, "private");
    own(p, pages, PRIVATE);
}

SITE void take_shared(char *p, unsigned long pages) {
    map_at(p, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, "shared");
    own(p, pages, SHARED);
}

SITE void take_file(char *p, unsigned long pages) {
    map_at(p, pages * PAGE, PROT_READ, MAP_PRIVATE, file, "file");
    own(p, pages, FILES);
}

SITE void reserve(char *p, unsigned long pages) {
    map_at(p, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, "reserve");
    own(p, pages, RESERVED);
}

SITE void replace(char *p, unsigned long pages) {
    map_at(p, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, "replace");
    own(p, pages, REPLACED);
}

/* The old range is one mapping: all of one owner. */
SITE void grow(char *p, unsigned long pages, char *to, unsigned long new_pages) {
    int who = owner[page_of(p)];
    void *got = to == p ? mremap(p, pages * PAGE, new_pages * PAGE, 0)
                        : mremap(p, pages * PAGE, new_pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (got == MAP_FAILED)
        return;
    check(got == to, "mremap");
    own(p, pages, NOBODY);
    own(to, new_pages, GROWN);
    own(to, pages < new_pages ? pages : new_pages, who);
}

SITE void commit(char *p, unsigned long pages) {
    check(mprotect(p, pages * PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect");
    own(p, pages, COMMITTED);
}

static void give(char *p, unsigned long pages) {
    check(munmap(p, pages * PAGE) == 0, "munmap");
    own(p, pages, NOBODY);
}

/* None of these changes anything. */
static void fail(char *p) {
    check(mmap(p + 1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED, "bad mmap");
    check(mmap(NULL, 1UL << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED, "huge mmap");
    check(munmap(p + 1, PAGE) != 0, "bad munmap");
    check(mremap(p, PAGE, 1UL << 60, MREMAP_MAYMOVE) == MAP_FAILED, "bad mremap");
    check(mprotect(p + 1, PAGE, PROT_NONE) != 0, "bad mprotect");
}

static unsigned random_of(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static int alike(char *p, unsigned long pages) {
    unsigned long at = page_of(p);
    for (unsigned long i = 1; i < pages; i++)
        if (owner[at + i] != owner[at])
            return 0;
    return owner[at] != NOBODY && owner[at] != FILES;
}

static int steps;

static void *work(void *argument) {
    unsigned state = (unsigned)(size_t)argument + 1;
    char *slice = arena + (size_t)argument * SLICE * PAGE;
    for (int i = 0; i < steps; i++) {
        unsigned long pages = 1 + random_of(&state) % 24;
        char *p = slice + random_of(&state) % (SLICE - 64) * PAGE;
        unsigned long more = 1 + random_of(&state) % 40;
        char *to = slice + random_of(&state) % (SLICE - 64) * PAGE;
        switch (random_of(&state) % 10) {
        case 0: take_private(p, pages); break;
        case 1: take_shared(p, pages); break;
        case 2: take_file(p, pages); break;
        case 3: reserve(p, pages); break;
        case 4: replace(p, pages); break;
        case 5:
            if (to + more * PAGE <= p || p + pages * PAGE <= to) {
                take_private(p, pages);
                grow(p, pages, to, more);
            }
            break;
        case 6:
            if (alike(p, pages))
                grow(p, pages, p, more);
            break;
        case 7:
            reserve(p, pages);
            commit(p + pages / 2 * PAGE, pages - pages / 2);
            break;
        case 8: give(p, pages); break;
        case 9: fail(p); break;
        }
    }
    return NULL;
}

static void count(void) {
    struct truth_site *sites[SITES] = {
        NULL, &site_take_private, &site_take_shared, &site_take_file, &site_reserve,
        &site_replace, &site_grow, &site_commit};
    for (unsigned i = 0; i < THREADS * SLICE; i++)
        if (owner[i] != NOBODY)
            sites[owner[i]]->outstanding_bytes += (long long)PAGE;
}

static void torture(void) {
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "thread");
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    count();
}

static void *brk_now(void *end) { return (void *)syscall(SYS_brk, end); }

SITE void raise_brk(long bytes) {
    char *end = brk_now(NULL);
    check(brk_now(end + bytes) == end + bytes, "brk");
    NOT_A_TAIL_CALL();
}

static void up_and_down(void) {
    char *begin = brk_now(NULL);
    raise_brk(1 << 20);
    brk_now((void *)(1UL << 62)); /* fails */
    brk_now(NULL);
    raise_brk(123);
    check(brk_now(begin + (1 << 19)) == begin + (1 << 19), "brk down");
    raise_brk(3 * PAGE + 5);
    unsigned long top = (unsigned long)brk_now(NULL), bottom = (unsigned long)begin;
    top = (top + PAGE - 1) / PAGE * PAGE;
    bottom = (bottom + PAGE - 1) / PAGE * PAGE;
    site_raise_brk.outstanding_bytes = (long long)(top - bottom);
}

TRUTH_SITE(leak_mapping);
SITE void leak_mapping(void) {
    char *p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "leak");
    memset(p, 1, 16 * PAGE);
    truth_took(&site_leak_mapping, 16 * PAGE);
}

static pthread_barrier_t all_there, all_seen;

TRUTH_ANY(arena_of_its_own);
SITE void arena_of_its_own(void) {
    KEEP(malloc(1000));
    /* Above the threshold: a mapping for this block alone. */
    KEEP(malloc(300000));
}

static void *thread_with_arena(void *unused) {
    arena_of_its_own();
    pthread_barrier_wait(&all_there);
    pthread_barrier_wait(&all_seen);
    return unused;
}

static void arenas(void) {
    pthread_t thread;
    pthread_barrier_init(&all_there, NULL, 65);
    pthread_barrier_init(&all_seen, NULL, 65);
    for (int i = 0; i < 64; i++)
        check(pthread_create(&thread, NULL, thread_with_arena, NULL) == 0, "thread");
    pthread_barrier_wait(&all_there);
}

TRUTH_SITE(touch_huge);
SITE void touch_huge(void) {
    unsigned long huge = 2UL << 20, length = 17 * huge;
    char *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "mmap");
    char *aligned = (char *)(((size_t)p + huge - 1) & ~(huge - 1));
    madvise(aligned, 16 * huge, MADV_HUGEPAGE);
    for (unsigned long at = 0; at < 16 * huge; at += PAGE)
        aligned[at] = 1;
    site_touch_huge.outstanding_bytes = (long long)(16 * huge);
}

TRUTH_SITE(touch_and_release);
SITE void touch_and_release(void) {
    char *p = mmap(NULL, 96 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "mmap");
    for (int i = 0; i < 64; i++)
        p[i * PAGE] = 1;
    /* Read only: the kernel's page of zeros, no memory. */
    for (int i = 64; i < 96; i++)
        KEEP(((volatile char *)p)[i * PAGE]);
    madvise(p, 16 * PAGE, MADV_DONTNEED);
    munmap(p + 16 * PAGE, 16 * PAGE);
    /* Memory that the kernel touches. */
    lseek(file, 0, SEEK_SET);
    check(read(file, p, 8 * PAGE) == 8 * PAGE, "read");
    site_touch_and_release.outstanding_bytes = (64 - 32 + 8) * (long long)PAGE;
}

int main(int argc, char **argv) {
    check(argc > 1, "what?");
    char name[] = "/tmp/maps-XXXXXX";
    file = mkstemp(name);
    check(file >= 0 && unlink(name) == 0 && ftruncate(file, 64 * PAGE) == 0, "file");
    arena = mmap(NULL, THREADS * SLICE * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* Not accessible and nobody's, so that nothing else is put there. */
    check(arena != MAP_FAILED, "arena");
    truth_ready();
    char text[64];
    snprintf(text, sizeof text, "%lx-%lx", (unsigned long)arena, (unsigned long)arena + sizeof owner * PAGE);
    truth_say("arena", text);
    if (strcmp(argv[1], "torture") == 0) {
        steps = atoi(argv[2]);
        torture();
    } else if (strcmp(argv[1], "brk") == 0) {
        up_and_down();
    } else if (strcmp(argv[1], "leak") == 0) {
        for (int i = 0; i < 100; i++)
            leak_mapping();
    } else if (strcmp(argv[1], "arenas") == 0) {
        arenas();
    } else if (strcmp(argv[1], "release") == 0) {
        touch_and_release();
    } else {
        touch_huge();
    }
    truth_end();
    if (strcmp(argv[1], "arenas") == 0)
        pthread_barrier_wait(&all_seen);
    return 0;
}
