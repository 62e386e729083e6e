/* Allocators' own functions beyond malloc and free, found by name in the preloaded library (R16).
 * usage: LD_PRELOAD=… family jemalloc|tcmalloc|mimalloc|tcmalloc_more|mimalloc_more */
#include "truth.h"

#include <dlfcn.h>

static void *must(const char *name) {
    void *f = dlsym(RTLD_DEFAULT, name);
    if (!f) {
        truth_say("missing", name);
        _exit(98);
    }
    return f;
}

static void *(*make)(size_t);
static void *(*make_zeroed)(size_t, size_t);
static void *(*make_aligned)(size_t, size_t);
static void *(*make_x)(size_t, int);
static void *(*resize)(void *, size_t);
static void *(*resize_x)(void *, size_t, int);
static size_t (*resize_in_place)(void *, size_t, size_t, int);
static void (*give)(void *);
static void (*give_x)(void *, int);
static void (*give_sized)(void *, size_t);
static void (*give_sized_x)(void *, size_t, int);

#define FAMILY_SITE(name, parameters, call, bytes)                                                 \
    TRUTH_SITE(name);                                                                              \
    SITE void *name parameters {                                                                   \
        void *p = call;                                                                            \
        KEEP(p);                                                                                   \
        truth_took(&site_##name, bytes);                                                           \
        return p;                                                                                  \
    }
FAMILY_SITE(family_malloc, (size_t n), make(n), n)
FAMILY_SITE(family_calloc, (size_t a, size_t b), make_zeroed(a, b), a *b)
FAMILY_SITE(family_aligned, (size_t a, size_t b), make_aligned(a, b), 64 * 5)
FAMILY_SITE(family_mallocx, (size_t n, int flags), make_x(n, flags), n)
FAMILY_SITE(family_realloc, (void *old, size_t n), resize(old, n), n)
FAMILY_SITE(family_rallocx, (void *old, size_t n, int flags), resize_x(old, n, flags), n)

/* In place or not at all: the result is the size that can be used, and the request counts when that is
 * enough for it. */
TRUTH_SITE(family_xallocx);
SITE void family_xallocx(void *p, size_t old, size_t n) {
    size_t usable = resize_in_place(p, n, 0, 0);
    KEEP(usable);
    if (usable >= n) {
        truth_gave(&site_family_mallocx, old);
        truth_took(&site_family_xallocx, n);
    }
}

static void jemalloc(void) {
    for (size_t i = 1; i <= 40; i++) {
        void *p = family_mallocx(i * 100, 0);
        family_xallocx(p, i * 100, i % 2 ? i * 100 + 20 : i * 90);
    }
    for (size_t i = 1; i <= 90; i++) {
        void *p = family_mallocx(i * 16, i % 2 ? 0 : 6 /* MALLOCX_LG_ALIGN(6) */);
        if (i % 3 == 0) {
            p = family_rallocx(p, i * 40, 0);
            truth_gave(&site_family_mallocx, i * 16);
            if (i % 2) {
                give_x(p, 0);
                truth_gave(&site_family_rallocx, i * 40);
            }
        } else if (i % 3 == 1) {
            give_sized_x(p, i * 16, i % 2 ? 0 : 6);
            truth_gave(&site_family_mallocx, i * 16);
        }
    }
}

static void malloc_like(void) {
    for (size_t i = 1; i <= 90; i++) {
        void *p = family_malloc(i * 8);
        if (i % 3 == 0) {
            p = family_realloc(p, i * 50);
            truth_gave(&site_family_malloc, i * 8);
            if (i % 2) {
                give(p);
                truth_gave(&site_family_realloc, i * 50);
            }
        } else if (i % 3 == 1) {
            give_sized(p, i * 8);
            truth_gave(&site_family_malloc, i * 8);
        }
        p = family_calloc(i, 3);
        if (i % 2) {
            give(p);
            truth_gave(&site_family_calloc, i * 3);
        }
    }
}

/* How a function takes its arguments: p is a block, n a size, a an alignment, h a heap. */
enum kind { N, N_A, N_A_OFFSET, A_N, COUNT_N, COUNT_N_A, POSIX, H_N, H_N_A, P_N, P_N_A, P_COUNT_N, P_COUNT_N_A };
enum give_kind { GIVE, GIVE_N, GIVE_A, GIVE_N_A };

struct more {
    const char *name;
    int kind;
};

static const struct more tc_takes[] = {
    {"tc_malloc_skip_new_handler", N}, {"tc_valloc", N}, {"tc_pvalloc", N}, {"tc_new", N},
    {"tc_new_nothrow", N}, {"tc_newarray", N}, {"tc_newarray_nothrow", N}, {"tc_new_aligned", N_A},
    {"tc_newarray_aligned", N_A}, {"tc_memalign", A_N}, {"tc_posix_memalign", POSIX},
    {"tc_calloc", COUNT_N}, {"tc_realloc", P_N}, {0},
};
static const struct more tc_gives[] = {
    {"tc_cfree", GIVE}, {"tc_delete", GIVE}, {"tc_delete_nothrow", GIVE}, {"tc_deletearray", GIVE},
    {"tc_delete_sized", GIVE_N}, {"tc_deletearray_sized", GIVE_N}, {"tc_delete_aligned", GIVE_A},
    {"tc_deletearray_aligned", GIVE_A}, {"tc_delete_sized_aligned", GIVE_N_A}, {0},
};
static const struct more mi_takes[] = {
    {"mi_zalloc", N}, {"mi_valloc", N}, {"mi_pvalloc", N}, {"mi_new", N}, {"mi_new_nothrow", N},
    {"mi_malloc_aligned", N_A}, {"mi_zalloc_aligned", N_A}, {"mi_new_aligned", N_A},
    {"mi_malloc_aligned_at", N_A_OFFSET}, {"mi_zalloc_aligned_at", N_A_OFFSET},
    {"mi_memalign", A_N}, {"mi_aligned_alloc", A_N}, {"mi_posix_memalign", POSIX},
    {"mi_mallocn", COUNT_N}, {"mi_new_n", COUNT_N}, {"mi_calloc_aligned", COUNT_N_A},
    {"mi_heap_malloc", H_N}, {"mi_heap_zalloc", H_N}, {"mi_heap_malloc_aligned", H_N_A},
    {"mi_reallocf", P_N}, {"mi_rezalloc", P_N}, {"mi_realloc_aligned", P_N_A},
    {"mi_rezalloc_aligned", P_N_A}, {"mi_reallocn", P_COUNT_N}, {"mi_recalloc", P_COUNT_N},
    {"mi_reallocarray", P_COUNT_N}, {"mi_new_realloc", P_N}, {"mi_new_reallocn", P_COUNT_N},
    {"mi_recalloc_aligned", P_COUNT_N_A}, {0},
};
static const struct more mi_gives[] = {
    {"mi_cfree", GIVE}, {"mi_free_size", GIVE_N}, {"mi_free_aligned", GIVE_A},
    {"mi_free_size_aligned", GIVE_N_A}, {0},
};

/* One block of n bytes, a multiple of 64, by a function of its kind. */
TRUTH_SITE(family_more);
SITE void *family_more(enum kind kind, void *f, void *argument, size_t n) {
    typedef size_t z;
    void *p = argument;
    switch (kind) {
    case N: p = ((void *(*)(z, void *))f)(n, &p); break;
    case N_A: p = ((void *(*)(z, z))f)(n, 64); break;
    case N_A_OFFSET: p = ((void *(*)(z, z, z))f)(n, 64, 8); break;
    case A_N: p = ((void *(*)(z, z))f)(64, n); break;
    case COUNT_N: p = ((void *(*)(z, z))f)(n / 4, 4); break;
    case COUNT_N_A: p = ((void *(*)(z, z, z))f)(n / 4, 4, 64); break;
    case POSIX:
        if (((int (*)(void **, z, z))f)(&p, 64, n) != 0)
            p = NULL;
        break;
    case H_N: p = ((void *(*)(void *, z))f)(p, n); break;
    case H_N_A: p = ((void *(*)(void *, z, z))f)(p, n, 64); break;
    case P_N: p = ((void *(*)(void *, z))f)(p, n); break;
    case P_N_A: p = ((void *(*)(void *, z, z))f)(p, n, 64); break;
    case P_COUNT_N: p = ((void *(*)(void *, z, z))f)(p, n / 4, 4); break;
    case P_COUNT_N_A: p = ((void *(*)(void *, z, z, z))f)(p, n / 4, 4, 64); break;
    }
    KEEP(p);
    if (!p)
        _exit(97);
    truth_took(&site_family_more, n);
    return p;
}

static void give_by(enum give_kind kind, void *f, void *p, size_t n) {
    switch (kind) {
    case GIVE: ((void (*)(void *))f)(p); break;
    case GIVE_N: ((void (*)(void *, size_t))f)(p, n); break;
    case GIVE_A: ((void (*)(void *, size_t))f)(p, 64); break;
    case GIVE_N_A: ((void (*)(void *, size_t, size_t))f)(p, n, 64); break;
    }
    truth_gave(&site_family_more, n);
}

/* Every function makes nine blocks, of which four are given back in the usual way; then every function
 * that frees gives five blocks back. */
static void more(const struct more *takes, const struct more *gives, void *heap) {
    for (const struct more *m = takes; m->name; m++) {
        void *f = must(m->name);
        for (size_t i = 1; i <= 9; i++) {
            void *argument = m->kind >= P_N ? family_malloc(24) : heap;
            void *p = family_more(m->kind, f, argument, i * 64);
            if (m->kind >= P_N)
                truth_gave(&site_family_malloc, 24);
            if (i % 2 == 0)
                give_by(GIVE, (void *)give, p, i * 64);
        }
    }
    for (const struct more *m = gives; m->name; m++)
        for (size_t i = 1; i <= 5; i++) {
            const char *aligned = gives == tc_gives ? "tc_memalign" : "mi_memalign";
            void *p = family_more(A_N, must(aligned), NULL, i * 128);
            give_by(m->kind, must(m->name), p, i * 128);
        }
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "";
    void (*run)(void) = malloc_like;
    if (strcmp(which, "jemalloc") == 0) {
        make_x = (void *(*)(size_t, int))must("mallocx");
        resize_x = (void *(*)(void *, size_t, int))must("rallocx");
        resize_in_place = (size_t(*)(void *, size_t, size_t, int))must("xallocx");
        give_x = (void (*)(void *, int))must("dallocx");
        give_sized_x = (void (*)(void *, size_t, int))must("sdallocx");
        run = jemalloc;
    } else {
        const char *p = which[0] == 't' ? "tc_" : "mi_";
        char name[64];
        snprintf(name, sizeof name, "%smalloc", p);
        make = (void *(*)(size_t))must(name);
        snprintf(name, sizeof name, "%scalloc", p);
        make_zeroed = (void *(*)(size_t, size_t))must(name);
        snprintf(name, sizeof name, "%srealloc", p);
        resize = (void *(*)(void *, size_t))must(name);
        snprintf(name, sizeof name, "%sfree", p);
        give = (void (*)(void *))must(name);
        snprintf(name, sizeof name, "%sfree_size%s", p, p[0] == 't' ? "d" : "");
        give_sized = (void (*)(void *, size_t))must(name);
        /* tc_memalign(align, size), mi_malloc_aligned(size, align) */
        make_aligned = (void *(*)(size_t, size_t))must(p[0] == 't' ? "tc_memalign" : "mi_malloc_aligned");
    }
    truth_ready();
    if (strcmp(which, "tcmalloc_more") == 0) {
        more(tc_takes, tc_gives, NULL);
    } else if (strcmp(which, "mimalloc_more") == 0) {
        more(mi_takes, mi_gives, ((void *(*)(void))must("mi_heap_get_default"))());
    } else {
        run();
    }
    for (int i = 0; make_aligned && i < 10; i++) {
        void *p = which[0] == 't' ? family_aligned(64, 320) : family_aligned(320, 64);
        if (i % 2) {
            give(p);
            truth_gave(&site_family_aligned, 320);
        }
    }
    truth_end();
    return 0;
}
