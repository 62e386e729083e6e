// C++: templates, namespaces, a lambda called by the library.
#include "capture.h"
#include <algorithm>
#include <vector>

namespace shop {

template <typename T> struct Cart {
    std::vector<T> items;
    NOINLINE void add(const T &item);
};

template <typename T> void Cart<T>::add(const T &item) {
    items.reserve(2);
    CAPTURE(); // add captures
    NOT_A_TAIL_CALL();
    items.push_back(item);
}

NOINLINE void fill(Cart<long> &cart, std::vector<int> &numbers) {
    std::for_each(numbers.begin(), numbers.end(), [&](int n) __attribute__((noinline)) {
        cart.add(n); // lambda calls
        NOT_A_TAIL_CALL();
    });
    NOT_A_TAIL_CALL();
}

} // namespace shop

int main(int, char **argv) {
    paths = argv;
    shop::Cart<long> cart;
    std::vector<int> numbers{3, 1, 2};
    shop::fill(cart, numbers); // main calls
}
