/* Allocators' own functions beyond malloc and free, found by name in the preloaded library (R16).
 * usage: LD_PRELOAD=… family jemalloc|tcmalloc|mimalloc */
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
        const char *p = strcmp(which, "tcmalloc") == 0 ? "tc_" : "mi_";
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
    run();
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
