/* Process trees with a known truth for each process.
 * usage: trees tree|maps|prefork|exec|spawn|storm|name|quiet ...
 *   tree              parent → child → grandchild; each leaks its own, frees inherited blocks
 *   maps              parent and child map and touch memory, the child unmaps what it inherited
 *   prefork W G N     W workers at a time, G generations, each leaks N blocks of 100 bytes and 10 of 1000, and ends
 *   exec PATH         a child leaks, then becomes `PATH quiet 7`, which leaks 7 blocks
 *   spawn PATH N      N children, one after another, by posix_spawn: `PATH quiet 3`
 *   storm N           N children, each mallocs once and ends, as fast as it goes
 *   name NAME         sets its name, leaks 5 blocks
 *   quiet N           leaks N blocks of 50 bytes and ends, without a word
 * Each process prints its truth as a line of its own, in one write. */
#include "truth.h"

#include <errno.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

extern char **environ;

TRUTH_MALLOC_SITE(root_leak)
TRUTH_MALLOC_SITE(child_leak)
TRUTH_MALLOC_SITE(grandchild_leak)
TRUTH_MALLOC_SITE(worker_leak)
TRUTH_MALLOC_SITE(worker_cache)
TRUTH_MALLOC_SITE(quiet_leak)

static void *inherited[100];

#define PAGE 4096UL

/* Touched pages: mapped and resident are the same bytes. */
#define MAPPING_SITE(name)                                                                         \
    TRUTH_SITE(name);                                                                              \
    SITE char *name(size_t pages) {                                                                \
        char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); \
        if (p == MAP_FAILED)                                                                       \
            abort();                                                                               \
        for (size_t i = 0; i < pages; i++)                                                         \
            p[i * PAGE] = 1;                                                                       \
        truth_took(&site_##name, pages * PAGE);                                                    \
        return p;                                                                                  \
    }
MAPPING_SITE(root_map)
MAPPING_SITE(child_map)

/* Address space only. */
SITE void reserve_map(size_t pages) {
    if (mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        abort();
}

static int await(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) != child)
        if (errno != EINTR)
            return -1;
    return status;
}

static void do_tree(void) {
    for (size_t i = 0; i < 100; i++)
        inherited[i] = root_leak(10 + i);
    int hold[2];
    if (pipe(hold))
        abort();
    pid_t child = fork();
    if (child == 0) {
        truth_reset();
        for (size_t i = 0; i < 100; i++)
            free(inherited[i]);
        for (size_t i = 0; i < 200; i++)
            child_leak(30);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            truth_reset();
            for (size_t i = 0; i < 50; i++)
                grandchild_leak(70 + i);
            for (size_t i = 0; i < 5; i++) {
                void *p = grandchild_leak(500);
                free(p);
                truth_gave(&site_grandchild_leak, 500);
            }
            truth_print();
            char c;
            if (read(hold[0], &c, 1) < 0)
                _exit(1);
            _exit(0);
        }
        truth_print();
        char c;
        if (read(hold[0], &c, 1) < 0)
            _exit(1);
        _exit(await(grandchild) == 0 ? 0 : 1);
    }
    for (size_t i = 0; i < 100; i += 2) {
        free(inherited[i]);
        truth_gave(&site_root_leak, 10 + i);
    }
    truth_end();
    if (write(hold[1], "go", 2) != 2 || await(child) != 0)
        abort();
}

/* The child unmaps what it inherited, which takes nothing from its parent. */
static void do_maps(void) {
    char *inherited_map = root_map(64);
    int hold[2];
    if (pipe(hold))
        abort();
    pid_t child = fork();
    if (child == 0) {
        truth_reset();
        munmap(inherited_map, 64 * PAGE);
        reserve_map(1000);
        child_map(48);
        char *some = child_map(32);
        munmap(some + 16 * PAGE, 16 * PAGE);
        truth_gave(&site_child_map, 16 * PAGE);
        truth_print();
        char c;
        if (read(hold[0], &c, 1) < 0)
            _exit(1);
        _exit(0);
    }
    munmap(inherited_map, 24 * PAGE);
    truth_gave(&site_root_map, 24 * PAGE);
    truth_end();
    if (write(hold[1], "g", 1) != 1 || await(child) != 0)
        abort();
}

/* The parent's truth has what the workers hold at their end, too. */
static void do_prefork(int workers, int generations, int blocks) {
    root_leak(4096);
    for (int generation = 0; generation < generations; generation++) {
        for (int worker = 0; worker < workers; worker++) {
            pid_t child = fork();
            if (child == 0) {
                for (int i = 0; i < blocks; i++)
                    worker_leak(100);
                for (int i = 0; i < 10; i++)
                    free(worker_cache(1000));
                _exit(0);
            }
            for (int i = 0; i < blocks; i++)
                truth_took(&site_worker_leak, 100);
            for (int i = 0; i < 10; i++) {
                truth_took(&site_worker_cache, 1000);
                truth_gave(&site_worker_cache, 1000);
            }
        }
        for (int worker = 0; worker < workers; worker++)
            if (wait(NULL) < 0)
                abort();
    }
    truth_end();
}

static void do_exec(char *path) {
    pid_t child = fork();
    if (child == 0) {
        truth_reset();
        for (size_t i = 0; i < 20; i++)
            child_leak(11);
        truth_print();
        execl(path, "trees", "quiet", "7", (char *)NULL);
        _exit(97);
    }
    for (size_t i = 0; i < 3; i++)
        root_leak(8);
    if (await(child) != 0)
        abort();
    truth_end();
}

static void do_spawn(char *path, int count) {
    for (int i = 0; i < count; i++) {
        char *argv[] = {"trees", "quiet", "3", NULL};
        pid_t child;
        if (posix_spawn(&child, path, NULL, NULL, argv, environ) != 0 || await(child) != 0)
            abort();
    }
    truth_end();
}

static void do_storm(int count) {
    int alive = 0;
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0) {
            worker_leak(24);
            _exit(0);
        }
        if (child > 0) {
            alive++;
            truth_took(&site_worker_leak, 24);
        }
        while (alive > 0 && (alive > 64 || child < 0)) {
            if (wait(NULL) > 0)
                alive--;
            else
                break;
        }
    }
    while (alive > 0 && wait(NULL) > 0)
        alive--;
    truth_end();
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "quiet") == 0) {
        for (int i = 0; i < atoi(argv[2]); i++)
            quiet_leak(50);
        return 0;
    }
    if (strcmp(mode, "name") == 0) {
        for (size_t i = 0; i < 5; i++)
            root_leak(60);
        prctl(PR_SET_NAME, argv[2]);
    }
    truth_ready();
    if (strcmp(mode, "tree") == 0) {
        do_tree();
    } else if (strcmp(mode, "maps") == 0) {
        do_maps();
    } else if (strcmp(mode, "prefork") == 0) {
        do_prefork(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    } else if (strcmp(mode, "exec") == 0) {
        do_exec(argv[2]);
    } else if (strcmp(mode, "spawn") == 0) {
        do_spawn(argv[2], atoi(argv[3]));
    } else if (strcmp(mode, "storm") == 0) {
        do_storm(atoi(argv[2]));
    } else if (strcmp(mode, "name") == 0) {
        for (size_t i = 0; i < 5; i++)
            root_leak(61);
        truth_end();
    } else {
        return 99;
    }
    return 0;
}
