/* demo_leak: a tiny service for `cargo xtask demo`.
 *
 * Every request does what services do with memory:
 *   - it looks into a cache, which fills during the first seconds and then replaces (a plateau);
 *   - it parses into buffers that it frees again (churn);
 *   - it opens a session, and every fourth session is forgotten (the leak, about 100 KiB/s).
 * On SIGTERM it prints what it leaked, by its own count, and ends.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CACHE_SLOTS = 1024, PAGE_BYTES = 4096, SESSION_BYTES = 1000, REQUESTS_PER_SECOND = 400 };

/* Keeps the compiler from turning a call into a jump, which would take the caller off the stack,
 * and from removing an allocation whose content nobody reads. */
#define KEEP(p) __asm__ volatile("" : : "g"(p) : "memory")
#define NOINLINE __attribute__((noinline))

struct session {
    unsigned long id;
    char token[SESSION_BYTES - sizeof(unsigned long)];
};

static char *cache[CACHE_SLOTS];
static unsigned long leaked_bytes, leaked_objects;
static volatile sig_atomic_t stopped;

static void on_term(int signal) {
    (void)signal;
    stopped = 1;
}

static void *must(void *p) {
    if (!p)
        abort();
    return p;
}

NOINLINE static struct session *session_new(unsigned long id) {
    struct session *s = must(malloc(sizeof *s));
    s->id = id;
    memset(s->token, 'x', sizeof s->token);
    return s;
}

/* The defect: a session that asks to be remembered is never put into the table of sessions. */
NOINLINE static void authenticate(unsigned long id) {
    struct session *s = session_new(id);
    KEEP(s);
    if (id % 4 != 0) {
        free(s);
        return;
    }
    leaked_bytes += sizeof *s;
    leaked_objects += 1;
}

NOINLINE static void cache_page(unsigned long id) {
    char **slot = &cache[(id * 7) % CACHE_SLOTS];
    char *page = must(malloc(PAGE_BYTES));
    memset(page, (int)(id & 0xff), PAGE_BYTES);
    free(*slot);
    *slot = page;
    KEEP(slot);
}

NOINLINE static void parse(unsigned long id) {
    for (int i = 0; i < 8; i++) {
        char *buffer = must(malloc(64 + (id * 31 + (unsigned)i * 97) % 2000));
        buffer[0] = (char)i;
        KEEP(buffer);
        free(buffer);
    }
}

NOINLINE static void handle_request(unsigned long id) {
    parse(id);
    authenticate(id);
    cache_page(id);
    KEEP(id);
}

int main(void) {
    struct timespec pause = {0, 1000000000L / REQUESTS_PER_SECOND};
    signal(SIGTERM, on_term);
    for (unsigned long id = 0; !stopped; id++) {
        handle_request(id);
        nanosleep(&pause, NULL);
    }
    printf("%lu bytes in %lu objects leaked by authenticate\n", leaked_bytes, leaked_objects);
    return 0;
}
