/* Objects loaded after the attach (R16).
 * usage: dl PLUGIN.so FUNCTION [MALLOC FREE]
 * FUNCTION(size) of the plugin allocates (with libc's malloc, its own, or the functions named). */
#include "truth.h"

#include <dlfcn.h>

/* What the dynamic loader allocates is its own affair. */
TRUTH_ANY(load);
SITE void *load(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    KEEP(handle);
    return handle;
}

TRUTH_SITE(leak_before);
SITE void *leak_before(size_t n) {
    void *p = malloc(n);
    KEEP(p);
    truth_took(&site_leak_before, n);
    return p;
}

TRUTH_SITE(leak_through_plugin);
SITE void *leak_through_plugin(void *(*f)(size_t), size_t n) {
    void *p = f(n);
    KEEP(p);
    truth_took(&site_leak_through_plugin, n);
    return p;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 99;
    truth_ready();
    for (size_t i = 0; i < 10; i++)
        leak_before(10);
    void *handle = load(argv[1]);
    if (!handle) {
        truth_say("missing", dlerror());
        return 98;
    }
    void *(*make)(size_t) = (void *(*)(size_t))dlsym(handle, argv[2]);
    void (*give)(void *) = argc > 3 ? (void (*)(void *))dlsym(handle, argv[3]) : free;
    if (!make || !give)
        return 97;
    /* Whoever wants exact numbers of the new object's own functions waits until they are probed. */
    truth_step("loaded");
    for (size_t i = 1; i <= 300; i++) {
        void *p = leak_through_plugin(make, i * 4);
        if (i % 3 == 0) {
            give(p);
            truth_gave(&site_leak_through_plugin, i * 4);
        }
    }
    truth_end();
    return 0;
}
