//! The names of allocators' functions and how each is called. Checked against the sources' headers
//! and against what Debian 12's libraries export.

use memtrace_common::Function::{
    self, Calloc, Free0, PosixMemalign, Realloc, ReallocArray, Size0, Size1, Xallocx,
};

use super::Family;

/// ISO C, POSIX and the C libraries' own, in the order of importance for naming; aliases last.
pub(super) const STANDARD: &[(&str, Function)] = &[
    ("malloc", Size0),
    ("calloc", Calloc),
    ("realloc", Realloc),
    ("free", Free0),
    ("memalign", Size1),
    ("aligned_alloc", Size1),
    ("posix_memalign", PosixMemalign),
    ("valloc", Size0),
    ("pvalloc", Size0),
    ("reallocarray", ReallocArray),
    // BSD: like realloc, but a failure frees the old block (by a nested free).
    ("reallocf", Realloc),
    // C23.
    ("free_sized", Free0),
    ("free_aligned_sized", Free0),
    ("cfree", Free0),
    ("__libc_malloc", Size0),
    ("__libc_calloc", Calloc),
    ("__libc_realloc", Realloc),
    ("__libc_free", Free0),
    ("__libc_cfree", Free0),
    ("__libc_memalign", Size1),
    ("__libc_valloc", Size0),
    ("__libc_pvalloc", Size0),
    ("__libc_reallocarray", ReallocArray),
    ("__posix_memalign", PosixMemalign),
];

/// jemalloc's own interface (jemalloc.h, 3.0 to 5.3).
pub(super) const JEMALLOC: &[(&str, Function)] = &[
    ("mallocx", Size0),
    ("rallocx", Realloc),
    ("xallocx", Xallocx),
    ("dallocx", Free0),
    ("sdallocx", Free0),
];

/// Prefixes that jemalloc is commonly built with; others are found by [`JEMALLOC_MARKER`].
pub(super) const JEMALLOC_PREFIXES: &[&str] = &["je_", "_rjem_"];

/// A name that every jemalloc has behind its prefix and nobody else has.
pub(super) const JEMALLOC_MARKER: &str = "mallctlnametomib";

/// gperftools (tcmalloc.h, 2.10) and Google's tcmalloc.
pub(super) const TCMALLOC: &[(&str, Function)] = &[
    ("tc_malloc", Size0),
    ("tc_malloc_skip_new_handler", Size0),
    ("tc_calloc", Calloc),
    ("tc_realloc", Realloc),
    ("tc_free", Free0),
    ("tc_free_sized", Free0),
    ("tc_cfree", Free0),
    ("tc_memalign", Size1),
    ("tc_posix_memalign", PosixMemalign),
    ("tc_valloc", Size0),
    ("tc_pvalloc", Size0),
    ("tc_new", Size0),
    ("tc_new_nothrow", Size0),
    ("tc_new_aligned", Size0),
    ("tc_new_aligned_nothrow", Size0),
    ("tc_newarray", Size0),
    ("tc_newarray_nothrow", Size0),
    ("tc_newarray_aligned", Size0),
    ("tc_newarray_aligned_nothrow", Size0),
    ("tc_delete", Free0),
    ("tc_delete_nothrow", Free0),
    ("tc_delete_sized", Free0),
    ("tc_delete_aligned", Free0),
    ("tc_delete_aligned_nothrow", Free0),
    ("tc_delete_sized_aligned", Free0),
    ("tc_deletearray", Free0),
    ("tc_deletearray_nothrow", Free0),
    ("tc_deletearray_sized", Free0),
    ("tc_deletearray_aligned", Free0),
    ("tc_deletearray_aligned_nothrow", Free0),
    ("tc_deletearray_sized_aligned", Free0),
    ("TCMallocInternalMalloc", Size0),
    ("TCMallocInternalCalloc", Calloc),
    ("TCMallocInternalRealloc", Realloc),
    ("TCMallocInternalFree", Free0),
    ("TCMallocInternalFreeSized", Free0),
    ("TCMallocInternalFreeAlignedSized", Free0),
    ("TCMallocInternalSdallocx", Free0),
    ("TCMallocInternalMemalign", Size1),
    ("TCMallocInternalAlignedAlloc", Size1),
    ("TCMallocInternalPosixMemalign", PosixMemalign),
    ("TCMallocInternalValloc", Size0),
    ("TCMallocInternalPvalloc", Size0),
    ("TCMallocInternalReallocArray", ReallocArray),
    // They give the block in the first result register, its size in the second.
    ("__size_returning_new", Size0),
    ("__size_returning_new_aligned", Size0),
    ("__size_returning_new_hot_cold", Size0),
    ("__size_returning_new_aligned_hot_cold", Size0),
];

/// mimalloc (mimalloc.h, 1.7 to 3.1). Sizes stand first except where an alignment, a heap or a
/// block does.
pub(super) const MIMALLOC: &[(&str, Function)] = &[
    ("mi_malloc", Size0),
    ("mi_calloc", Calloc),
    ("mi_realloc", Realloc),
    ("mi_free", Free0),
    ("mi_zalloc", Size0),
    ("mi_malloc_small", Size0),
    ("mi_zalloc_small", Size0),
    ("mi_mallocn", Calloc),
    ("mi_reallocn", ReallocArray),
    ("mi_reallocf", Realloc),
    ("mi_rezalloc", Realloc),
    ("mi_recalloc", ReallocArray),
    ("mi_expand", Realloc),
    ("mi__expand", Realloc),
    ("mi_malloc_aligned", Size0),
    ("mi_malloc_aligned_at", Size0),
    ("mi_zalloc_aligned", Size0),
    ("mi_zalloc_aligned_at", Size0),
    ("mi_calloc_aligned", Calloc),
    ("mi_calloc_aligned_at", Calloc),
    ("mi_realloc_aligned", Realloc),
    ("mi_realloc_aligned_at", Realloc),
    ("mi_rezalloc_aligned", Realloc),
    ("mi_rezalloc_aligned_at", Realloc),
    ("mi_recalloc_aligned", ReallocArray),
    ("mi_recalloc_aligned_at", ReallocArray),
    ("mi_aligned_recalloc", ReallocArray),
    ("mi_aligned_offset_recalloc", ReallocArray),
    ("mi_free_size", Free0),
    ("mi_free_size_aligned", Free0),
    ("mi_free_aligned", Free0),
    ("mi_cfree", Free0),
    ("mi_posix_memalign", PosixMemalign),
    ("mi_memalign", Size1),
    ("mi_aligned_alloc", Size1),
    ("mi_valloc", Size0),
    ("mi_pvalloc", Size0),
    ("mi_reallocarray", ReallocArray),
    ("mi_new", Size0),
    ("mi_new_nothrow", Size0),
    ("mi_new_aligned", Size0),
    ("mi_new_aligned_nothrow", Size0),
    ("mi_new_n", Calloc),
    ("mi_new_realloc", Realloc),
    ("mi_new_reallocn", ReallocArray),
    ("mi_heap_malloc", Size1),
    ("mi_heap_zalloc", Size1),
    ("mi_heap_malloc_small", Size1),
    ("mi_heap_malloc_aligned", Size1),
    ("mi_heap_malloc_aligned_at", Size1),
    ("mi_heap_zalloc_aligned", Size1),
    ("mi_heap_zalloc_aligned_at", Size1),
    ("mi_heap_alloc_new", Size1),
    // Version 3's per-thread heaps, where the functions above end.
    ("mi_theap_malloc", Size1),
    ("mi_theap_zalloc", Size1),
    ("mi_theap_malloc_small", Size1),
    ("mi_theap_zalloc_small", Size1),
    ("mi_theap_malloc_aligned", Size1),
    ("mi_theap_malloc_aligned_at", Size1),
    ("mi_theap_zalloc_aligned", Size1),
    ("mi_theap_zalloc_aligned_at", Size1),
    // mimalloc's `_aligned_malloc(alignment, size)`; Windows has the arguments the other way round.
    ("_aligned_malloc", Size1),
    ("vfree", Free0),
];

/// mimalloc's functions whose arguments fit no calling convention that the kernel side knows, and
/// those that allocate without being told a size. They call the functions above only in part.
pub(super) const MIMALLOC_NOT_MEASURED: &[&str] = &[
    "mi_heap_calloc",
    "mi_heap_mallocn",
    "mi_heap_realloc",
    "mi_heap_reallocn",
    "mi_heap_reallocf",
    "mi_heap_rezalloc",
    "mi_heap_recalloc",
    "mi_heap_alloc_new_n",
    "mi_heap_strdup",
    "mi_heap_strndup",
    "mi_heap_realpath",
    "mi_reallocarr",
    "mi_strdup",
    "mi_strndup",
    "mi_realpath",
    "mi_theap_calloc",
    "mi_theap_realloc",
];

/// C++ operator new and delete in all mangled forms (Itanium ABI, `size_t` is `unsigned long`).
pub(super) const OPERATORS: &[(&str, Function)] = &[
    ("_Znwm", Size0),
    ("_Znam", Size0),
    ("_ZnwmRKSt9nothrow_t", Size0),
    ("_ZnamRKSt9nothrow_t", Size0),
    ("_ZnwmSt11align_val_t", Size0),
    ("_ZnamSt11align_val_t", Size0),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", Size0),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", Size0),
    // Google's tcmalloc: with a hint how hot the block is.
    ("_Znwm12__hot_cold_t", Size0),
    ("_Znam12__hot_cold_t", Size0),
    ("_ZnwmRKSt9nothrow_t12__hot_cold_t", Size0),
    ("_ZnamRKSt9nothrow_t12__hot_cold_t", Size0),
    ("_ZnwmSt11align_val_t12__hot_cold_t", Size0),
    ("_ZnamSt11align_val_t12__hot_cold_t", Size0),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t12__hot_cold_t", Size0),
    ("_ZnamSt11align_val_tRKSt9nothrow_t12__hot_cold_t", Size0),
    ("_ZdlPv", Free0),
    ("_ZdaPv", Free0),
    ("_ZdlPvm", Free0),
    ("_ZdaPvm", Free0),
    ("_ZdlPvRKSt9nothrow_t", Free0),
    ("_ZdaPvRKSt9nothrow_t", Free0),
    ("_ZdlPvSt11align_val_t", Free0),
    ("_ZdaPvSt11align_val_t", Free0),
    ("_ZdlPvmSt11align_val_t", Free0),
    ("_ZdaPvmSt11align_val_t", Free0),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", Free0),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", Free0),
];

/// Functions that only glibc has: the first in its library, the others in static programs.
pub(super) const GLIBC_MARKERS: &[&str] = &[
    "gnu_get_libc_version",
    "_int_malloc",
    "__malloc_arena_thread_freeres",
    "malloc_printerr",
];

/// Functions that only musl has: its loader's stages, and its allocators' inner functions.
pub(super) const MUSL_MARKERS: &[&str] = &[
    "__dls2b",
    "__dls3",
    "__libc_malloc_impl",
    "__simple_malloc",
    "__malloc_atfork",
    "__malloc_alloc_meta",
    "__bin_chunk",
];

/// All markers, to be looked up.
pub(super) const MARKERS: &[&str] = &[
    "gnu_get_libc_version",
    "_int_malloc",
    "__malloc_arena_thread_freeres",
    "malloc_printerr",
    "__dls2b",
    "__dls3",
    "__libc_malloc_impl",
    "__simple_malloc",
    "__malloc_atfork",
    "__malloc_alloc_meta",
    "__bin_chunk",
    "__minimal_malloc",
];

/// True for families whose own operator new and delete do not go through `malloc` and `free`.
/// libstdc++'s and libc++'s do, and stand in objects without an allocator.
pub(super) const fn has_operators(family: Family) -> bool {
    matches!(
        family,
        Family::Jemalloc | Family::Tcmalloc | Family::Mimalloc | Family::Other
    )
}

/// What an allocator of a family is expected to have, without its prefix.
pub(super) const fn expected(family: Family) -> &'static [&'static str] {
    match family {
        Family::Glibc => &[
            "malloc",
            "calloc",
            "realloc",
            "free",
            "memalign",
            "aligned_alloc",
            "posix_memalign",
            "valloc",
            "pvalloc",
            "reallocarray",
        ],
        Family::Musl => &[
            "malloc",
            "calloc",
            "realloc",
            "free",
            "memalign",
            "aligned_alloc",
            "posix_memalign",
            "reallocarray",
        ],
        Family::Jemalloc => &[
            "malloc",
            "calloc",
            "realloc",
            "free",
            "aligned_alloc",
            "posix_memalign",
            "mallocx",
            "rallocx",
            "xallocx",
            "dallocx",
            "sdallocx",
        ],
        Family::Tcmalloc => &[
            "malloc",
            "calloc",
            "realloc",
            "free",
            "memalign",
            "aligned_alloc",
            "posix_memalign",
            "_Znwm",
            "_ZdlPv",
        ],
        Family::Mimalloc => &["malloc", "calloc", "realloc", "free", "malloc_aligned"],
        Family::Other | Family::Custom => &["malloc", "calloc", "realloc", "free"],
    }
}
