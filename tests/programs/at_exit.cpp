// C++ that frees on its way out: static objects, an atexit handler, a thread's locals. The truth is
// printed by what is destroyed last, so it is that of the process's end.
#include "truth.h"

#include <thread>
#include <vector>

// Made first, so destroyed last.
static struct Last {
    ~Last() { truth_print(); }
} last;

TRUTH_SITE(fill);
TRUTH_SITE(keep);

// A container whose blocks are counted where they are taken and given.
struct Blocks {
    std::vector<char *> blocks;
    ~Blocks() {
        for (size_t i = 0; i < blocks.size(); i++) {
            delete[] blocks[i];
            truth_gave(&site_fill, i + 1);
        }
    }
};

SITE void fill(Blocks *to, size_t n) {
    char *p = new char[n];
    KEEP(p);
    truth_took(&site_fill, n);
    to->blocks.push_back(p); // reserved: takes nothing
}

static Blocks at_exit;
static thread_local Blocks of_thread;

SITE void *keep(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    truth_took(&site_keep, n);
    return p;
}

static void *handed_back;
static void give_back() {
    free(handed_back);
    truth_gave(&site_keep, 5000);
}

// The vector's own block, for which nobody keeps account.
TRUTH_ANY(prepare);
SITE void prepare(Blocks *blocks, size_t room) { blocks->blocks.reserve(room); }

TRUTH_ANY(start_thread_of_program);
SITE void start_thread_of_program() {
    std::thread([] {
        prepare(&of_thread, 40);
        for (size_t n = 1; n <= 40; n++)
            fill(&of_thread, n);
    }).join();
}

int main() {
    atexit(give_back);
    handed_back = keep(5000);
    keep(7); // the only leak
    prepare(&at_exit, 200);
    for (size_t n = 1; n <= 200; n++)
        fill(&at_exit, n);
    start_thread_of_program();
    return 0;
}
