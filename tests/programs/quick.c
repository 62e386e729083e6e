/* Leaks and ends at once, without waiting: what is known must have been gathered while it lived.
 * usage: quick [STATUS | SIGNAL as -N] [ARGUMENTS…]; prints its arguments, one a line, when there are any more */
#include "truth.h"

#include <signal.h>

TRUTH_SITE(quick_leak);
SITE void *quick_leak(size_t n) {
    void *p = malloc(n); /* @quick_leak */
    KEEP(p);
    truth_took(&site_quick_leak, n);
    return p;
}

int main(int argc, char **argv) {
    int end = argc > 1 ? atoi(argv[1]) : 0;
    truth_ready();
    for (size_t i = 1; i <= 100; i++)
        quick_leak(i); /* @main */
    truth_print();
    for (int a = 2; a < argc; a++)
        truth_say("argument", argv[a]);
    if (end < 0)
        raise(-end);
    return end;
}
