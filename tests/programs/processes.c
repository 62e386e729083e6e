/* fork, vfork, shared address spaces and exec (R13, R14, R15).
 * usage: processes fork|vfork_exec|clone_vm|exec|exec_other PATH
 *   fork        the child frees inherited blocks, leaks its own, prints its own truth first
 *   vfork_exec  children that exec at once
 *   clone_vm    a child in the same address space frees the parent's blocks and makes new ones
 *   exec        leaks, prints its truth, execs into itself: `ready` again, another truth
 *   exec_other  the same into another program (`after_exec` of PATH) */
#include "truth.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

TRUTH_MALLOC_SITE(parent_leak)
TRUTH_MALLOC_SITE(child_leak)
TRUTH_MALLOC_SITE(before_exec)
TRUTH_MALLOC_SITE(after_exec)

static void *blocks[1000];

static void do_fork(void) {
    for (size_t i = 0; i < 1000; i++)
        blocks[i] = parent_leak(i + 1);
    int go[2], done[2];
    if (pipe(go) || pipe(done))
        abort();
    pid_t child = fork();
    if (child == 0) {
        char c;
        truth_reset();
        for (size_t i = 0; i < 1000; i++)
            free(blocks[i]); /* inherited: not the parent's */
        for (size_t i = 0; i < 300; i++)
            child_leak(100 + i);
        /* A block of the parent's size at the parent's address, live in both. */
        KEEP(blocks[0] = child_leak(1));
        truth_print();
        if (write(done[1], "d", 1) != 1 || read(go[0], &c, 1) < 0)
            _exit(1);
        _exit(0);
    }
    char c;
    if (read(done[0], &c, 1) != 1)
        abort();
    for (size_t i = 0; i < 1000; i += 2) {
        free(blocks[i]);
        truth_gave(&site_parent_leak, i + 1);
    }
    truth_end();
    if (write(go[1], "g", 1) != 1)
        abort();
    waitpid(child, NULL, 0);
}

static void do_vfork_exec(void) {
    for (volatile int i = 0; i < 20; i++) {
        parent_leak(100);
        pid_t child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(1);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0)
            abort();
        free(parent_leak(50));
        truth_gave(&site_parent_leak, 50);
    }
    truth_end();
}

static char child_stack[256 << 10] __attribute__((aligned(64)));
static int shared_child(void *argument) {
    (void)argument;
    for (size_t i = 0; i < 1000; i += 2) {
        free(blocks[i]);
        truth_gave(&site_parent_leak, i + 1);
    }
    for (size_t i = 0; i < 100; i++)
        child_leak(64);
    _exit(0);
}

static void do_clone_vm(void) {
    for (size_t i = 0; i < 1000; i++)
        blocks[i] = parent_leak(i + 1);
    pid_t child = clone(shared_child, child_stack + sizeof child_stack,
                        CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        abort();
    truth_end();
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    truth_ready();
    if (strcmp(mode, "fork") == 0) {
        do_fork();
    } else if (strcmp(mode, "vfork_exec") == 0) {
        do_vfork_exec();
    } else if (strcmp(mode, "clone_vm") == 0) {
        do_clone_vm();
    } else if (strcmp(mode, "exec") == 0 || strcmp(mode, "exec_other") == 0) {
        for (size_t i = 0; i < 100; i++)
            before_exec(1000);
        truth_print();
        truth_step("exec");
        const char *path = strcmp(mode, "exec") == 0 ? "/proc/self/exe" : argv[2];
        execl(path, "processes", "after", (char *)NULL);
        return 97;
    } else if (strcmp(mode, "after") == 0) {
        for (size_t i = 0; i < 50; i++)
            after_exec(77);
        truth_end();
    } else {
        return 99;
    }
    return 0;
}
