/* Memory that runs out.
 * usage: oom leak BLOCK_BYTES PAUSE_MS   leaks touched blocks until it is killed
 *        oom wait BLOCK_BYTES PAUSE_MS   the same once SIGUSR1 has come, for want of an input
 *        oom pause                       does nothing until SIGTERM
 *        oom hold BYTES                  leaks so much, says `step full`, then waits
 *        oom churn                       allocates, touches and frees without end */
#include "truth.h"

#include <signal.h>

TRUTH_SITE(leak_page_cache);
SITE void *leak_page_cache(size_t n) {
    char *p = malloc(n); /* @leak_page_cache */
    if (p != NULL)
        memset(p, 0x5a, n);
    KEEP(p);
    truth_took(&site_leak_page_cache, n);
    return p;
}

TRUTH_SITE(churn_request);
SITE void churn_request(size_t n) {
    char *p = malloc(n);
    if (p != NULL)
        memset(p, 0x5a, n);
    KEEP(p);
    truth_took(&site_churn_request, n);
    free(p);
    truth_gave(&site_churn_request, n);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "leak";
    size_t size = argc > 2 ? strtoull(argv[2], NULL, 10) : 65536;
    useconds_t pause = argc > 3 ? (useconds_t)strtoull(argv[3], NULL, 10) * 1000 : 0;
    if (strcmp(mode, "wait") == 0 || strcmp(mode, "pause") == 0) {
        int signal = strcmp(mode, "wait") == 0 ? SIGUSR1 : SIGTERM;
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, signal);
        sigprocmask(SIG_BLOCK, &set, NULL);
        sigwait(&set, &signal);
        if (signal == SIGTERM)
            return 0;
    }
    truth_ready();
    if (strcmp(mode, "hold") == 0) {
        for (size_t held = 0; held < size; held += 65536)
            leak_page_cache(65536);
        truth_step("full");
        return 0;
    }
    if (strcmp(mode, "churn") == 0) {
        for (size_t i = 0;; i++) {
            churn_request(100000 + i % 7 * 10000);
            usleep(500);
        }
    }
    for (;;) {
        leak_page_cache(size); /* @leak_loop */
        if (pause > 0)
            usleep(pause);
    }
}
