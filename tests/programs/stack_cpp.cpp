// The same for C++: operator new, a method, a template and a lambda; `@name` marks the calls.
#include "truth.h"

#include <vector>

TRUTH_SITE(cpp_leak);
SITE char *cpp_leak(size_t n) {
    char *p = new char[n]; // @cpp_leak
    KEEP(p);
    truth_took(&site_cpp_leak, n);
    return p;
}

namespace service {
class Cache {
  public:
    __attribute__((noinline, noipa)) void insert(size_t n) {
        KEEP(cpp_leak(n)); // @insert
        entries++;
    }
    size_t entries = 0;
};

template <typename T> __attribute__((noinline, noipa)) void fill(T *cache, size_t count) {
    for (size_t i = 1; i <= count; i++) {
        cache->insert(i); // @fill
    }
    NOT_A_TAIL_CALL();
}
} // namespace service

template <typename F> __attribute__((noinline, noipa)) void with_callback(F f) {
    f(50); // @with_callback
    NOT_A_TAIL_CALL();
}

int main() {
    truth_ready();
    static service::Cache cache;
    with_callback([](size_t count) __attribute__((noinline)) { // @main
        service::fill(&cache, count); // @lambda
        NOT_A_TAIL_CALL();
    });
    truth_end();
    return 0;
}
