// C++: operator new in all its forms, exceptions through allocation, containers (R9, R10, R16).
// usage: cxx SCENARIO… | cxx all
#include "truth.h"

#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

static volatile size_t impossible = (size_t)1 << 62;

// What a throw allocates for itself.
TRUTH_ANY_NAMED(exception, "__cxa_allocate_exception");
TRUTH_ANY_NAMED(message, "std::runtime_error::runtime_error");

struct Plain {
    char bytes[48];
};
struct Counted { // an array of these carries a count before its first element
    char bytes[40];
    ~Counted() { KEEP(bytes); }
};
struct alignas(64) Aligned {
    char bytes[128];
};
struct Thrower {
    char bytes[96];
    explicit Thrower(bool throws) {
        KEEP(bytes);
        if (throws)
            throw std::runtime_error("constructor");
    }
};

#define NEW_SITE(name, type, parameters, call, size)                                               \
    TRUTH_SITE(name);                                                                              \
    SITE type *name parameters {                                                                   \
        type *p = call;                                                                            \
        KEEP(p);                                                                                   \
        if (p)                                                                                     \
            truth_took(&site_##name, size);                                                        \
        return p;                                                                                  \
    }

NEW_SITE(new_plain, Plain, (), new Plain, sizeof(Plain))
NEW_SITE(new_nothrow, Plain, (), new (std::nothrow) Plain, sizeof(Plain))
NEW_SITE(new_array, char, (size_t n), new char[n], n)
NEW_SITE(new_array_nothrow, char, (size_t n), new (std::nothrow) char[n], n)
NEW_SITE(new_array_counted, Counted, (size_t n), new Counted[n], n * sizeof(Counted) + sizeof(size_t))
NEW_SITE(new_aligned, Aligned, (), new Aligned, sizeof(Aligned))
NEW_SITE(new_aligned_nothrow, Aligned, (), new (std::nothrow) Aligned, sizeof(Aligned))
NEW_SITE(new_aligned_array, Aligned, (size_t n), new Aligned[n], n * sizeof(Aligned))
NEW_SITE(new_direct, void, (size_t n), ::operator new(n), n)
NEW_SITE(new_direct_aligned, void, (size_t n), ::operator new(n, std::align_val_t(256)), n)
NEW_SITE(new_throws, char, (size_t n), new char[n], n)
NEW_SITE(new_constructor, Thrower, (bool throws), new Thrower(throws), sizeof(Thrower))

static void forms() {
    for (size_t i = 1; i <= 60; i++) {
        bool give = i % 3 == 0;
        Plain *plain = new_plain();
        if (give) {
            delete plain; // sized
            truth_gave(&site_new_plain, sizeof(Plain));
        }
        plain = new_nothrow();
        if (give) {
            ::operator delete(plain, std::nothrow);
            truth_gave(&site_new_nothrow, sizeof(Plain));
        }
        char *array = new_array(i * 7);
        if (give) {
            delete[] array;
            truth_gave(&site_new_array, i * 7);
        }
        array = new_array_nothrow(i * 9);
        if (give) {
            ::operator delete[](array, std::nothrow);
            truth_gave(&site_new_array_nothrow, i * 9);
        }
        Counted *counted = new_array_counted(i);
        if (give) {
            delete[] counted; // sized array form
            truth_gave(&site_new_array_counted, i * sizeof(Counted) + sizeof(size_t));
        }
        Aligned *aligned = new_aligned();
        if (give) {
            delete aligned; // sized and aligned
            truth_gave(&site_new_aligned, sizeof(Aligned));
        }
        aligned = new_aligned_nothrow();
        if (give) {
            ::operator delete(aligned, std::align_val_t(alignof(Aligned)), std::nothrow);
            truth_gave(&site_new_aligned_nothrow, sizeof(Aligned));
        }
        aligned = new_aligned_array(i);
        if (give) {
            delete[] aligned;
            truth_gave(&site_new_aligned_array, i * sizeof(Aligned));
        }
        void *direct = new_direct(i * 11);
        if (give) {
            ::operator delete(direct);
            truth_gave(&site_new_direct, i * 11);
        }
        direct = new_direct_aligned(i * 256);
        if (give) {
            ::operator delete(direct, i * 256, std::align_val_t(256));
            truth_gave(&site_new_direct_aligned, i * 256);
        }
    }
    alignas(Plain) char room[sizeof(Plain)];
    Plain *placed = new (room) Plain; // allocates nothing
    KEEP(placed);
}

// bad_alloc is thrown through operator new: the target must survive it (R10, R25).
static void bad_alloc() {
    for (int i = 0; i < 50; i++) {
        bool caught = false;
        try {
            KEEP(new_throws(impossible));
        } catch (const std::bad_alloc &) {
            caught = true;
        }
        if (!caught)
            abort();
        if (new_array_nothrow(impossible) != nullptr)
            abort();
        char *p = new_throws(100);
        if (i % 2) {
            delete[] p;
            truth_gave(&site_new_throws, 100);
        }
    }
}

// A constructor throws: the block is given back before the catch.
static void constructor_throws() {
    for (int i = 0; i < 50; i++) {
        try {
            KEEP(new_constructor(i % 2 == 0));
        } catch (const std::runtime_error &) {
            truth_took(&site_new_constructor, sizeof(Thrower));
            truth_gave(&site_new_constructor, sizeof(Thrower));
        }
    }
}

TRUTH_SITE(grow_vector);
SITE void grow_vector(std::vector<uint64_t> *v) {
    size_t before = v->capacity();
    v->push_back(1);
    KEEP(v->data());
    if (v->capacity() != before) {
        if (before)
            truth_gave(&site_grow_vector, before * sizeof(uint64_t));
        truth_took(&site_grow_vector, v->capacity() * sizeof(uint64_t));
    }
}

static void containers() {
    static std::vector<uint64_t> vectors[20];
    for (auto &v : vectors)
        for (int i = 0; i < 1000; i++)
            grow_vector(&v);
    for (int i = 0; i < 10; i++) {
        truth_gave(&site_grow_vector, vectors[i].capacity() * sizeof(uint64_t));
        std::vector<uint64_t>().swap(vectors[i]);
    }
}

static const struct scenario {
    const char *name;
    void (*run)();
} scenarios[] = {
    {"forms", forms},
    {"bad_alloc", bad_alloc},
    {"constructor_throws", constructor_throws},
    {"containers", containers},
};

int main(int argc, char **argv) {
    // The first throw sets up the runtime's own tables.
    try {
        throw std::runtime_error("warm");
    } catch (const std::runtime_error &) {
    }
    truth_ready();
    for (int a = 1; a < argc; a++)
        for (auto &s : scenarios)
            if (strcmp(argv[a], s.name) == 0 || strcmp(argv[a], "all") == 0)
                s.run();
    truth_end();
    return 0;
}
