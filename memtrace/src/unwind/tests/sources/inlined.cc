// C++ as -O2 inlines it: a lambda into its own function's other lambda, that one into a function made
// for it, make_shared into all of them.
#include "capture.h"
#include <algorithm>
#include <memory>
#include <vector>

struct Item {
    NOINLINE explicit Item(int n);
    int n;
};

Item::Item(int n) : n(n) {
    CAPTURE();
    NOT_A_TAIL_CALL();
}

static std::vector<std::shared_ptr<Item>> kept;

NOINLINE void fill(std::vector<int> &numbers) {
    auto keep = [&](int n) { kept.push_back(std::make_shared<Item>(n)); };
    std::for_each(numbers.begin(), numbers.end(), [&](int n) { keep(n); });
    NOT_A_TAIL_CALL();
}

int main(int, char **argv) {
    paths = argv;
    std::vector<int> numbers{3};
    fill(numbers);
}
