/* Every allocation function of libc, in every case that has a rule (R1–R9), one scenario each.
 * usage: alloc SCENARIO… | alloc all [-SCENARIO…]: all of them, but those not */
#include "truth.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>

static void *blocks[2000];

/* Sizes that no compiler may know to be impossible. */
static volatile size_t impossible = (size_t)1 << (8 * sizeof(size_t) - 2);
static volatile size_t zero = 0;

#define ALLOCATOR(name, parameters, call, bytes)                                                   \
    TRUTH_SITE(name);                                                                              \
    SITE void *name parameters {                                                                   \
        void *p = call;                                                                            \
        KEEP(p);                                                                                   \
        if (p)                                                                                     \
            truth_took(&site_##name, bytes);                                                       \
        return p;                                                                                  \
    }

ALLOCATOR(leak_malloc, (size_t n), malloc(n), n)
ALLOCATOR(leak_malloc_zero, (void), malloc(zero), 0)
ALLOCATOR(leak_malloc_huge, (size_t n), malloc(n), n)
ALLOCATOR(leak_calloc, (size_t a, size_t b), calloc(a, b), a *b)
ALLOCATOR(leak_calloc_overflow, (size_t a, size_t b), calloc(a, b), a *b)
ALLOCATOR(leak_aligned_alloc, (size_t align, size_t n), aligned_alloc(align, n), n)
ALLOCATOR(leak_memalign, (size_t align, size_t n), memalign(align, n), n)
ALLOCATOR(leak_valloc, (size_t n), valloc(n), n)
ALLOCATOR(leak_strdup, (const char *text), strdup(text), strlen(text) + 1)
ALLOCATOR(first_block, (size_t n), malloc(n), n)

/* An out-pointer that still holds a live block's address when the call fails (R7). */
TRUTH_SITE(leak_posix_memalign);
SITE int leak_posix_memalign(void **out, size_t align, size_t n) {
    int result = posix_memalign(out, align, n);
    KEEP(*out);
    if (result == 0)
        truth_took(&site_leak_posix_memalign, n);
    return result;
}

/* What a realloc did is read from its result, never from its arguments (R4). */
static void book_realloc(struct truth_site *to, struct truth_site *from, void *old, size_t old_bytes,
                         void *new, size_t bytes) {
    if (new) {
        if (old)
            truth_gave(from, old_bytes);
        truth_took(to, bytes);
    } else if (bytes == 0 && old) {
        truth_gave(from, old_bytes);
    }
}

#define REALLOCATOR(name)                                                                          \
    TRUTH_SITE(name);                                                                              \
    SITE void *name(struct truth_site *from, void *old, size_t old_bytes, size_t n) {              \
        void *p = realloc(old, n);                                                                 \
        KEEP(p);                                                                                   \
        book_realloc(&site_##name, from, old, old_bytes, p, n);                                    \
        return p;                                                                                  \
    }

REALLOCATOR(leak_realloc_null)
REALLOCATOR(leak_realloc_grow)
REALLOCATOR(leak_realloc_shrink)
REALLOCATOR(leak_realloc_moved)
REALLOCATOR(leak_realloc_zero)
REALLOCATOR(leak_realloc_null_zero)
REALLOCATOR(leak_realloc_fails)
REALLOCATOR(leak_realloc_mapped)
REALLOCATOR(leak_realloc_vector)
REALLOCATOR(leak_realloc_unknown)

TRUTH_SITE(leak_reallocarray);
SITE void *leak_reallocarray(struct truth_site *from, void *old, size_t old_bytes, size_t a, size_t b) {
    size_t bytes = 0;
    int overflow = __builtin_mul_overflow(a, b, &bytes);
    void *p = reallocarray(old, a, b);
    KEEP(p);
    if (!overflow)
        book_realloc(&site_leak_reallocarray, from, old, old_bytes, p, bytes);
    return p;
}

#define GIVE(site, p, n)                                                                           \
    do {                                                                                           \
        free(p);                                                                                   \
        truth_gave(&site_##site, n);                                                               \
    } while (0)

static void scenario_malloc(void) {
    for (size_t i = 0; i < 2000; i++)
        blocks[i] = leak_malloc(i + 1);
    for (size_t i = 0; i < 2000; i += 3)
        GIVE(leak_malloc, blocks[i], i + 1);
}

static void scenario_malloc_zero(void) {
    for (size_t i = 0; i < 10; i++)
        blocks[i] = leak_malloc_zero();
    for (size_t i = 0; i < 4; i++)
        GIVE(leak_malloc_zero, blocks[i], 0);
}

static void scenario_malloc_fails(void) {
    for (size_t i = 0; i < 10; i++)
        if (leak_malloc_huge(impossible + i))
            abort();
    leak_malloc(77);
}

/* Above the mmap threshold: the allocator's own mapping is not a second block (R20). */
static void scenario_malloc_mapped(void) {
    for (size_t i = 0; i < 8; i++)
        blocks[i] = leak_malloc_huge(1 << 20);
    for (size_t i = 0; i < 3; i++)
        GIVE(leak_malloc_huge, blocks[i], 1 << 20);
    leak_malloc_huge((size_t)300 << 20);
}

static void scenario_free_null(void) {
    for (int i = 0; i < 1000; i++)
        free((void *)zero);
    leak_malloc(33);
}

static void scenario_calloc(void) {
    for (size_t i = 1; i <= 500; i++) {
        void *p = leak_calloc(i, 3);
        if (i % 2)
            GIVE(leak_calloc, p, i * 3);
    }
    leak_calloc(0, 8);
    leak_calloc(8, 0);
    leak_calloc(1 << 10, 1 << 12);
}

static void scenario_calloc_overflow(void) {
    for (size_t i = 0; i < 10; i++)
        if (leak_calloc_overflow(impossible, 4) || leak_calloc_overflow(impossible, 1))
            abort();
    leak_calloc(5, 7);
}

static void scenario_realloc_null(void) {
    for (size_t i = 1; i <= 100; i++) {
        void *p = leak_realloc_null(NULL, NULL, 0, i * 10);
        if (i % 4 == 0)
            GIVE(leak_realloc_null, p, i * 10);
    }
}

/* The last block before the top of the heap can grow where it is. */
static void scenario_realloc_grow(void) {
    for (int i = 0; i < 50; i++) {
        void *p = first_block(24);
        p = leak_realloc_grow(&site_first_block, p, 24, 64);
        p = leak_realloc_grow(&site_leak_realloc_grow, p, 64, 3000);
        if (i % 2)
            GIVE(leak_realloc_grow, p, 3000);
    }
}

static void scenario_realloc_shrink(void) {
    for (int i = 0; i < 50; i++) {
        void *p = first_block(5000);
        p = leak_realloc_shrink(&site_first_block, p, 5000, 100);
        if (i % 2)
            GIVE(leak_realloc_shrink, p, 100);
    }
}

/* A neighbour in the way: the block must move. */
static void scenario_realloc_moved(void) {
    for (int i = 0; i < 50; i++) {
        void *p = first_block(100);
        leak_malloc(100);
        p = leak_realloc_moved(&site_first_block, p, 100, 200000);
        if (i % 2)
            GIVE(leak_realloc_moved, p, 200000);
    }
}

/* glibc, tcmalloc and jemalloc free and return NULL; musl and mimalloc return a live block. */
static void scenario_realloc_zero(void) {
    for (int i = 0; i < 1000; i++)
        leak_realloc_zero(&site_first_block, first_block(100), 100, zero);
}

static void scenario_realloc_null_zero(void) {
    for (int i = 0; i < 10; i++)
        leak_realloc_null_zero(NULL, NULL, 0, zero);
}

/* The call fails, the old block lives on, and is freed at last for half of them. */
static void scenario_realloc_fails(void) {
    for (int i = 0; i < 100; i++) {
        void *p = first_block(1000);
        if (leak_realloc_fails(&site_first_block, p, 1000, impossible))
            abort();
        if (i % 2)
            GIVE(first_block, p, 1000);
    }
}

/* mremap below: still one block. */
static void scenario_realloc_mapped(void) {
    for (int i = 0; i < 10; i++) {
        void *p = first_block(1 << 20);
        p = leak_realloc_mapped(&site_first_block, p, 1 << 20, 8 << 20);
        p = leak_realloc_mapped(&site_leak_realloc_mapped, p, 8 << 20, 2 << 20);
        if (i % 2)
            GIVE(leak_realloc_mapped, p, 2 << 20);
    }
}

static void scenario_realloc_vector(void) {
    for (int i = 0; i < 20; i++) {
        size_t n = 0;
        void *p = NULL;
        for (size_t next = 16; next <= 1 << 16; next *= 2) {
            p = leak_realloc_vector(&site_leak_realloc_vector, p, n, next);
            n = next;
        }
        if (i % 2)
            GIVE(leak_realloc_vector, p, n);
    }
}

static void scenario_reallocarray(void) {
    for (size_t i = 1; i <= 50; i++) {
        void *p = first_block(16);
        p = leak_reallocarray(&site_first_block, p, 16, i, 40);
        if (i % 2)
            GIVE(leak_reallocarray, p, i * 40);
    }
}

static void scenario_reallocarray_null(void) {
    for (size_t i = 1; i <= 50; i++)
        leak_reallocarray(NULL, NULL, 0, i, 8);
}

static void scenario_reallocarray_overflow(void) {
    for (size_t i = 1; i <= 50; i++)
        if (leak_reallocarray(&site_first_block, first_block(64), 64, impossible, 16))
            abort();
}

static void scenario_posix_memalign(void) {
    for (size_t align = sizeof(void *); align <= 4096; align *= 2)
        for (size_t i = 0; i < 20; i++) {
            void *p = NULL;
            if (leak_posix_memalign(&p, align, 100 + i) != 0)
                abort();
            if (i % 2)
                GIVE(leak_posix_memalign, p, 100 + i);
        }
}

/* EINVAL and ENOMEM leave the out-pointer as it was: here at a live block (R7). */
static void scenario_posix_memalign_fails(void) {
    for (int i = 0; i < 20; i++) {
        void *p = first_block(500);
        void *out = p;
        if (leak_posix_memalign(&out, 3, 64) != EINVAL)
            abort();
        if (leak_posix_memalign(&out, 64, impossible) != ENOMEM)
            abort();
        if (i % 2)
            GIVE(first_block, p, 500);
    }
}

static void scenario_aligned_alloc(void) {
    for (size_t align = 8; align <= 4096; align *= 2)
        for (size_t i = 1; i <= 20; i++) {
            void *p = leak_aligned_alloc(align, align * i);
            if (p && i % 2)
                GIVE(leak_aligned_alloc, p, align * i);
        }
    if (leak_aligned_alloc(64, impossible))
        abort();
}

static void scenario_memalign(void) {
    for (size_t align = 16; align <= 4096; align *= 2)
        for (size_t i = 1; i <= 20; i++) {
            void *p = leak_memalign(align, 10 * i);
            if (p && i % 2)
                GIVE(leak_memalign, p, 10 * i);
        }
}

static void scenario_valloc(void) {
    for (size_t i = 1; i <= 20; i++) {
        void *p = leak_valloc(10 * i);
        if (p && i % 2)
            GIVE(leak_valloc, p, 10 * i);
    }
}

static void scenario_strdup(void) {
    for (size_t i = 0; i < 20; i++) {
        const char *text = "the quick brown fox jumps over the lazy dog" + i;
        char *p = leak_strdup(text);
        if (i % 2)
            GIVE(leak_strdup, p, strlen(text) + 1);
    }
}

#if defined(__GLIBC__) && !defined(TRUTH_STATIC)
/* An old name of libc; only where libc's is the allocator in use (not under LD_PRELOAD). */
static void *libc_function(const char *name, const char *version) {
    Dl_info of_malloc, of_it;
    void *f = version ? dlvsym(RTLD_DEFAULT, name, version) : dlsym(RTLD_DEFAULT, name);
    void *m = dlsym(RTLD_DEFAULT, "malloc");
    if (!f || !m || !dladdr(f, &of_it) || !dladdr(m, &of_malloc))
        return NULL;
    return of_it.dli_fbase == of_malloc.dli_fbase ? f : NULL;
}
static void *(*pvalloc_here)(size_t);
static void (*cfree_here)(void *);
ALLOCATOR(leak_pvalloc, (size_t n), pvalloc_here(n), n)

static void look_up(void) {
    pvalloc_here = (void *(*)(size_t))libc_function("pvalloc", NULL);
    cfree_here = (void (*)(void *))libc_function("cfree", "GLIBC_2.2.5");
}
static void scenario_pvalloc(void) {
    for (size_t i = 1; pvalloc_here && i <= 20; i++) {
        void *p = leak_pvalloc(10 * i);
        if (p && i % 2)
            GIVE(leak_pvalloc, p, 10 * i);
    }
}
static void scenario_cfree(void) {
    for (size_t i = 0; cfree_here && i < 20; i++) {
        void *p = leak_malloc(40);
        if (i % 2) {
            cfree_here(p);
            truth_gave(&site_leak_malloc, 40);
        }
    }
}
#else
static void look_up(void) {}
static void scenario_pvalloc(void) {}
static void scenario_cfree(void) {}
#endif

/* Blocks from before the attach: freed and reallocated after it (R2, R21). */
static void *old_blocks[200];
TRUTH_ANY(before_the_attach);
static void scenario_before_attach(void) {
    for (size_t i = 0; i < 100; i++)
        free(old_blocks[i]);
    for (size_t i = 100; i < 150; i++) {
        void *p = realloc(old_blocks[i], 4000);
        KEEP(p);
        free(p);
    }
    for (size_t i = 150; i < 200; i++)
        leak_realloc_unknown(&site_before_the_attach, old_blocks[i], 0, 5000);
    leak_malloc(11);
}

/* Nothing is freed: what is recorded and what is lost must add up. */
ALLOCATOR(leak_many, (size_t n), malloc(n), n)
static void scenario_many(void) {
    for (size_t i = 0; i < 5000; i++)
        leak_many(100 + i % 50);
}

/* Ten million calls: the same addresses again and again, from two sites in turn (R11). */
ALLOCATOR(reuse_a, (size_t n), malloc(n), n)
ALLOCATOR(reuse_b, (size_t n), malloc(n), n)
static void scenario_reuse(void) {
    for (size_t i = 0; i < 2500000; i++) {
        size_t n = 16 + i % 64;
        void *a = reuse_a(n);
        if (i % 100000 != 0)
            GIVE(reuse_a, a, n);
        void *b = reuse_b(n);
        if (i % 50000 != 0)
            GIVE(reuse_b, b, n);
    }
}

static const struct scenario {
    const char *name;
    void (*run)(void);
    int in_all;
} scenarios[] = {
    {"malloc", scenario_malloc, 1},
    {"malloc_zero", scenario_malloc_zero, 1},
    {"malloc_fails", scenario_malloc_fails, 1},
    {"malloc_mapped", scenario_malloc_mapped, 1},
    {"free_null", scenario_free_null, 1},
    {"calloc", scenario_calloc, 1},
    {"calloc_overflow", scenario_calloc_overflow, 1},
    {"realloc_null", scenario_realloc_null, 1},
    {"realloc_grow", scenario_realloc_grow, 1},
    {"realloc_shrink", scenario_realloc_shrink, 1},
    {"realloc_moved", scenario_realloc_moved, 1},
    {"realloc_zero", scenario_realloc_zero, 1},
    {"realloc_null_zero", scenario_realloc_null_zero, 1},
    {"realloc_fails", scenario_realloc_fails, 1},
    {"realloc_mapped", scenario_realloc_mapped, 1},
    {"realloc_vector", scenario_realloc_vector, 1},
    {"reallocarray", scenario_reallocarray, 1},
    {"reallocarray_null", scenario_reallocarray_null, 1},
    {"reallocarray_overflow", scenario_reallocarray_overflow, 1},
    {"posix_memalign", scenario_posix_memalign, 1},
    {"posix_memalign_fails", scenario_posix_memalign_fails, 1},
    {"aligned_alloc", scenario_aligned_alloc, 1},
    {"memalign", scenario_memalign, 1},
    {"valloc", scenario_valloc, 1},
    {"pvalloc", scenario_pvalloc, 1},
    {"cfree", scenario_cfree, 1},
    {"strdup", scenario_strdup, 1},
    {"before_attach", scenario_before_attach, 0},
    {"many", scenario_many, 0},
    {"reuse", scenario_reuse, 0},
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

static int excluded(int argc, char **argv, const char *name) {
    for (int a = 1; a < argc; a++)
        if (argv[a][0] == '-' && strcmp(argv[a] + 1, name) == 0)
            return 1;
    return 0;
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < 200; i++)
        old_blocks[i] = malloc(300 + i);
    look_up();
    /* The C library's own first-time allocations, if any, come before the attach. */
    void *first = strdup("warm");
    KEEP(first);
    free(first);
    truth_ready();
    for (int a = 1; a < argc && argv[a][0] != '-'; a++) {
        int found = 0;
        for (size_t i = 0; i < SCENARIOS; i++)
            if (strcmp(argv[a], scenarios[i].name) == 0 ||
                (strcmp(argv[a], "all") == 0 && scenarios[i].in_all &&
                 !excluded(argc, argv, scenarios[i].name))) {
                scenarios[i].run();
                found = 1;
            }
        if (!found)
            return 99;
    }
    truth_end();
    return 0;
}
