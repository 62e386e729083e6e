/* What every target program shares: it waits for `go`, allocates in named functions ("sites"), counts
 * for itself what it holds, and prints that truth as one line of JSON. Nothing here allocates: output
 * goes through write(2) from a static buffer, input through read(2).
 *
 * On stdout:   ready PID            waits for a line (not with TRUTH_NOWAIT=1)
 *              step NAME            waits for a line (not with TRUTH_NOWAIT=1)
 *              {"pid":…,"sites":…}  the truth; truth_end() then waits for a line or the end of stdin
 *
 * A site counts requested bytes. A free is booked where the block was allocated; a realloc that
 * succeeds is one free of the old block and one allocation of the new one, at the realloc's site. */
#ifndef TRUTH_H
#define TRUTH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
/* A function that stays a frame of its own: never inlined, cloned or analysed across. */
#ifdef __cplusplus
#define SITE extern "C" __attribute__((noinline, noipa))
#else
#define SITE __attribute__((noinline, noipa))
#endif
/* The compiler must believe that the pointer is used. */
#define KEEP(p) __asm__ volatile("" : : "g"(p) : "memory")
/* Keeps the call before it from becoming a jump, which would take the caller out of the stack. */
#define NOT_A_TAIL_CALL() __asm__ volatile("" : : : "memory")

struct truth_site {
    const char *function;
    long long outstanding_bytes, outstanding_objects;
    long long allocated_bytes, allocated_objects;
    /* 0: the function calls something whose own allocations nobody can know (dlopen, …). */
    long long exact;
} __attribute__((aligned(64)));

extern struct truth_site __start_truth_sites[];
extern struct truth_site __stop_truth_sites[];

#define TRUTH_SITE_(name, is_exact)                                                                \
    static struct truth_site site_##name __attribute__((used, section("truth_sites"))) = {          \
        #name, 0, 0, 0, 0, is_exact}
/* A function of a library, by its full name, that allocates by rules of its own. */
#define TRUTH_ANY_NAMED(id, name)                                                                  \
    static struct truth_site site_##id __attribute__((used, section("truth_sites"))) = {           \
        name, 0, 0, 0, 0, 0}
#define TRUTH_SITE(name) TRUTH_SITE_(name, 1)
#define TRUTH_ANY(name) TRUTH_SITE_(name, 0)

UNUSED static void truth_took(struct truth_site *site, size_t bytes) {
    __atomic_fetch_add(&site->outstanding_bytes, (long long)bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&site->outstanding_objects, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&site->allocated_bytes, (long long)bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&site->allocated_objects, 1, __ATOMIC_RELAXED);
}

UNUSED static void truth_gave(struct truth_site *site, size_t bytes) {
    __atomic_fetch_sub(&site->outstanding_bytes, (long long)bytes, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&site->outstanding_objects, 1, __ATOMIC_RELAXED);
}

/* A site that mallocs what it is asked for. */
#define TRUTH_MALLOC_SITE(name)                                                                    \
    TRUTH_SITE(name);                                                                              \
    SITE void *name(size_t n) {                                                                    \
        void *p = malloc(n);                                                                       \
        KEEP(p);                                                                                   \
        truth_took(&site_##name, n);                                                               \
        return p;                                                                                  \
    }

/* After fork: the child counts its own. */
UNUSED static void truth_reset(void) {
    for (struct truth_site *s = __start_truth_sites; s < __stop_truth_sites; s++)
        s->outstanding_bytes = s->outstanding_objects = s->allocated_bytes = s->allocated_objects = 0;
}

UNUSED static void truth_write(const char *text, size_t length) {
    while (length > 0) {
        ssize_t n = write(1, text, length);
        if (n <= 0)
            _exit(120);
        text += n;
        length -= (size_t)n;
    }
}

/* One line from stdin, or its end. */
UNUSED static void truth_wait_line(void) {
    char c = 0;
    while (c != '\n' && read(0, &c, 1) == 1)
        ;
}

UNUSED static int truth_nowait(void) {
    const char *value = getenv("TRUTH_NOWAIT");
    return value != NULL && value[0] == '1';
}

UNUSED static void truth_say(const char *word, const char *rest) {
    static char line[256];
    int n = snprintf(line, sizeof line, "%s %s\n", word, rest);
    truth_write(line, (size_t)n);
}

UNUSED static void truth_ready(void) {
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    truth_say("ready", pid);
    if (!truth_nowait())
        truth_wait_line();
}

UNUSED static void truth_step(const char *name) {
    truth_say("step", name);
    if (!truth_nowait())
        truth_wait_line();
}

UNUSED static void truth_print(void) {
    static char text[32768];
    size_t n = 0;
    long long bytes = 0, objects = 0;
    const char *comma = "";
    n += (size_t)snprintf(text + n, sizeof text - n, "{\"pid\":%d,\"sites\":[", (int)getpid());
    for (struct truth_site *s = __start_truth_sites; s < __stop_truth_sites; s++) {
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "%s{\"function\":\"%s\",\"exact\":%s,\"outstanding_bytes\":%lld,"
                              "\"outstanding_objects\":%lld,\"allocated_bytes\":%lld,"
                              "\"allocated_objects\":%lld}",
                              comma, s->function, s->exact ? "true" : "false", s->outstanding_bytes,
                              s->outstanding_objects, s->allocated_bytes, s->allocated_objects);
        comma = ",";
        bytes += s->outstanding_bytes;
        objects += s->outstanding_objects;
    }
    n += (size_t)snprintf(text + n, sizeof text - n,
                          "],\"total_outstanding_bytes\":%lld,\"total_outstanding_objects\":%lld}\n",
                          bytes, objects);
    truth_write(text, n);
}

/* The truth, and then a pause in which the live state can be read. */
UNUSED static void truth_end(void) {
    truth_print();
    if (!truth_nowait())
        truth_wait_line();
}

#endif
