/* What once went wrong, one mode each; see tests/regressions.rs.
 * usage: regressions quick|burst|hole|left_outer|first_thread|called_at_once PLUGIN|new_paths */
#include "truth.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>

/* Ends at once, with a block that is never freed. */
TRUTH_SITE(quick_leak);
SITE void quick_leak(void) {
    void *p = malloc(999);
    KEEP(p);
    truth_took(&site_quick_leak, 999);
}

/* Ends at once too, after two hundred call paths, as many stacks as the ring buffer holds, none of which is freed. */
TRUTH_SITE(burst_leak);
SITE void burst_leak(void) {
    void *p = malloc(10);
    KEEP(p);
    truth_took(&site_burst_leak, 10);
}

SITE void burst(int depth) {
    if (depth > 0)
        burst(depth - 1);
    else
        burst_leak();
    NOT_A_TAIL_CALL();
}

/* A caller with a large array that nobody has written to. */
TRUTH_SITE(beyond_hole);
SITE void beyond_hole(void) {
    void *p = malloc(10);
    KEEP(p);
    truth_took(&site_beyond_hole, 10);
}

SITE void has_hole(void) {
    char untouched[20000];
    KEEP(untouched);
    beyond_hole();
    KEEP(untouched);
}

/* An allocator that is left by longjmp; what is called after that is not nested in it. */
static jmp_buf out;
SITE void *pool_take(size_t n) {
    KEEP(n);
    longjmp(out, 1);
}
SITE void pool_give(void *p) {
    KEEP(p);
}

TRUTH_SITE(after_jump);
SITE void after_jump(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    truth_took(&site_after_jump, n);
}

SITE void deeper(size_t n) {
    after_jump(n);
    NOT_A_TAIL_CALL();
}

static void left_outer(void) {
    for (size_t i = 1; i <= 50; i++) {
        if (setjmp(out) == 0)
            KEEP(pool_take(1000));
        deeper(i);
        deeper(i);
    }
}

/* main ends, the process goes on. */
TRUTH_SITE(without_main);
SITE void without_main(void) {
    void *p = malloc(40);
    KEEP(p);
    truth_took(&site_without_main, 40);
}

static void *worker(void *first) {
    pthread_join(*(pthread_t *)first, NULL);
    truth_step("alone");
    for (int i = 0; i < 100; i++)
        without_main();
    truth_end();
    exit(0);
}

/* A library whose function is called as soon as it is there. */
static void called_at_once(const char *plugin) {
    void *library = dlopen(plugin, RTLD_NOW);
    void *(*leak)(size_t) = library ? (void *(*)(size_t))dlsym(library, "plugin_make") : NULL;
    if (!leak)
        _exit(98);
    KEEP(leak(5555));
}

/* A call path that was never taken before, every half millisecond. */
TRUTH_SITE(on_new_path);
SITE void on_new_path(void) {
    void *p = malloc(48);
    KEEP(p);
    truth_took(&site_on_new_path, 48);
}

SITE void one(unsigned path, int depth);
SITE void zero(unsigned path, int depth) {
    if (depth == 0)
        on_new_path();
    else
        (path & 1 ? one : zero)(path >> 1, depth - 1);
    NOT_A_TAIL_CALL();
}
SITE void one(unsigned path, int depth) {
    if (depth == 0)
        on_new_path();
    else
        (path & 1 ? one : zero)(path >> 1, depth - 1);
    NOT_A_TAIL_CALL();
}

static void new_paths(void) {
    for (unsigned path = 0; path < 1500; path++) {
        zero(path, 12);
        usleep(500);
    }
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "quick") == 0) {
        quick_leak();
        return 0;
    }
    if (strcmp(mode, "burst") == 0) {
        for (int depth = 0; depth < 200; depth++)
            burst(depth);
        return 0;
    }
    truth_ready();
    if (strcmp(mode, "hole") == 0) {
        for (int i = 0; i < 20; i++)
            has_hole();
    } else if (strcmp(mode, "left_outer") == 0) {
        left_outer();
    } else if (strcmp(mode, "first_thread") == 0) {
        static pthread_t first, second;
        first = pthread_self();
        pthread_create(&second, NULL, worker, &first);
        pthread_exit(NULL);
    } else if (strcmp(mode, "called_at_once") == 0 && argc > 2) {
        called_at_once(argv[2]);
    } else if (strcmp(mode, "new_paths") == 0) {
        new_paths();
    } else {
        return 99;
    }
    truth_end();
    return 0;
}
