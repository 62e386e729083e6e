//! Which frames at the top of a stack are the allocator's own. Pure.
//!
//! They are marked and kept: a report dims or hides them so that the first frame a person reads is
//! their own code, and the data still has them.

use crate::report::model::Frame;

/// Allocator functions by their whole name, without parameters.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    // musl names its malloc so; its `malloc` is another name of the same place.
    "default_malloc",
    // glibc's internal names, which static programs' symbol tables have first.
    "__malloc", "__calloc", "__realloc", "__free", "__cfree", "__memalign", "__aligned_alloc",
    "__posix_memalign", "__valloc", "__pvalloc", "__reallocarray", "__munmap",
    "malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign",
    "valloc", "pvalloc", "free", "cfree", "free_sized", "free_aligned_sized", "mmap", "mmap64",
    "munmap", "mremap", "brk", "sbrk", "__brk", "__sbrk", "__mmap", "__mmap64", "__mremap",
    "mallocx", "rallocx", "xallocx", "sdallocx", "dallocx", "nallocx", "sallocx", "smallocx",
    "operator new", "operator new[]", "operator delete", "operator delete[]",
    "std::get_temporary_buffer", "__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc",
    "__rust_dealloc", "__rg_alloc", "__rg_realloc", "__rg_alloc_zeroed",
    "__rdl_alloc", "__rdl_realloc", "__rdl_alloc_zeroed",
];

/// Beginnings of names that only allocators and the layers above them have.
#[rustfmt::skip]
const PREFIXES: &[&str] = &[
    // glibc and musl
    "__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_memalign", "__libc_free",
    "__libc_valloc", "__libc_pvalloc", "__libc_reallocarray", "__libc_cfree", "_int_malloc", "_int_realloc", "_int_memalign", "_int_free",
    "_mid_memalign", "sysmalloc",
    // jemalloc, tcmalloc, mimalloc
    "je_", "_rjem_", "tcmalloc::", "tc_malloc", "tc_calloc", "tc_realloc", "tc_memalign", "tc_free",
    "tc_posix_memalign", "tc_valloc", "tc_pvalloc", "tc_new", "tc_delete",
    "(anonymous namespace)::do_malloc", "_mi_", "mi_malloc", "mi_zalloc", "mi_calloc", "mi_realloc",
    "mi_rezalloc", "mi_recalloc", "mi_heap_malloc", "mi_heap_zalloc", "mi_heap_calloc",
    "mi_heap_realloc", "mi_new", "mi_try_new", "mi_free", "mi_memalign", "mi_aligned_alloc",
    "mi_posix_memalign", "mi_valloc", "mi_pvalloc", "mi_expand", "mi_theap_malloc",
    "mi_theap_zalloc", "mi_cfree", "mi_heap_alloc_new", "TCMallocInternal", "tc_cfree",
    "__size_returning_new",
    // C++
    "std::allocator<", "std::__new_allocator<", "std::allocator_traits<", "std::_Vector_base<",
    "std::__allocate_guarded<", "std::__allocate_at_least", "std::__detail::_Hashtable_alloc<",
    "std::__1::allocator<", "std::__1::allocator_traits<", "std::__1::__allocate_at_least",
    "std::__1::__libcpp_allocate", "std::__1::__libcpp_operator_new",
    "std::__1::__allocation_result", "std::__1::__allocation_guard<",
    "__gnu_cxx::new_allocator<", "__gnu_cxx::malloc_allocator<", "__gnu_cxx::__alloc_traits<",
    // Rust
    "alloc::alloc::", "alloc::raw_vec::", "std::alloc::", "core::alloc::", "hashbrown::raw::alloc::",
    "std::sys::alloc::", "__rustc::__rust_alloc", "__rustc::__rust_realloc", "__rustc::__rdl_",
    "__rustc::__rg_", "<alloc::alloc::Global as ", "<std::alloc::System as ", "<core::alloc::",
    "<alloc::raw_vec::", "<tikv_jemallocator::Jemalloc as ", "<jemallocator::Jemalloc as ",
    "<mimalloc::MiMalloc as ", "<snmalloc_rs::SnMalloc as ", "tikv_jemallocator::", "mimalloc::",
];

/// Beginnings of names inside of allocators that other programs could have too: they count between
/// frames of the same object that are an allocator's for certain.
#[rustfmt::skip]
const INNER: &[&str] = &[
    // glibc and musl
    "tcache_", "ptmalloc_", "malloc_", "arena_", "new_heap", "grow_heap", "systrim", "alloc_perturb",
    "__default_morecore", "__glibc_morecore", "alloc_slot", "alloc_group",
    "alloc_meta", "__malloc_", "__expand_heap", "__simple_malloc", "__bin_chunk", "__vm_",
    // jemalloc
    "large_", "imalloc", "ialloc", "irealloc", "iralloc", "ipalloc", "extent_", "ehooks_", "pages_",
    "os_pages_map", "base_", "pa_", "pac_", "hpa_", "ecache_", "sz_", "rtree_", "tsd_", "edata_",
    // tcmalloc, mimalloc, snmalloc
    "do_malloc", "do_memalign", "do_realloc", "debug_cpp_alloc", "mi_", "snmalloc::",
];

/// Parts that mark a Rust wrapper of a global allocator, wherever it is defined.
const RUST_TRAITS: &[&str] = &[
    " as core::alloc::global::GlobalAlloc>::",
    " as core::alloc::Allocator>::",
];

/// Whether a demangled name is a function of an allocator, or a layer between one and the code that
/// wanted memory. Containers' own methods are not: they say what grew.
pub fn is_allocator(function: &str) -> bool {
    let name = without_decoration(function);
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || RUST_TRAITS.iter().any(|part| name.contains(part))
}

/// Without parameters, clone suffixes, symbol versions and glibc's mark of internal aliases: `operator new(unsigned long)`,
/// `malloc.part.0`, `malloc@@GLIBC_2.2.5`.
fn without_decoration(function: &str) -> &str {
    let name = function.split(" [clone").next().unwrap_or(function);
    let name = name.strip_prefix("__GI_").unwrap_or(name);
    let name = match name.find('(') {
        // `(anonymous namespace)::f(int)` and `operator()(int)` have a pair that is no list.
        Some(0) => name,
        Some(_) if name.starts_with("operator new") || name.starts_with("operator delete") => {
            name.split('(').next().unwrap_or(name)
        }
        Some(at) => &name[..at],
        None => name,
    };
    let name = name.split('@').next().unwrap_or(name);
    for suffix in [".part.", ".isra.", ".constprop.", ".cold", ".lto_priv."] {
        if let Some((base, _)) = name.split_once(suffix) {
            return base;
        }
    }
    name
}

/// Whether a name is one that functions inside of allocators have.
fn may_be_inner(function: &str) -> bool {
    let name = without_decoration(function);
    INNER.iter().any(|prefix| name.starts_with(prefix))
}

/// Marks the run of allocator frames that begins at the innermost one; the first frame that is not
/// the allocator's ends it. A stack of nothing else keeps its marks too.
///
/// Frames without a name, or with one that others could have, count when an allocator function of
/// their own object called them: a stripped jemalloc between `mmap` and its `malloc`.
pub fn mark_allocators(frames: &mut [Frame]) {
    let mut end = 0;
    for (index, frame) in frames.iter().enumerate() {
        let Some(doubtful) = frames.get(end..index) else {
            break;
        };
        if frame.function.as_deref().is_some_and(is_allocator) {
            if doubtful.iter().any(|d| d.module != frame.module) {
                break;
            }
            end = index + 1;
        } else if !frame.function.as_deref().is_none_or(may_be_inner) {
            break;
        }
    }
    for (index, frame) in frames.iter_mut().enumerate() {
        frame.allocator = index < end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        let unnamed = function == "?";
        Frame {
            function: (!unnamed).then(|| function.to_owned()),
            module: Some("/lib/libc.so".to_owned()),
            ..Frame::default()
        }
    }

    fn marked(functions: &[&str]) -> usize {
        let mut frames: Vec<_> = functions.iter().map(|f| frame(f)).collect();
        mark_allocators(&mut frames);
        let count = frames.iter().take_while(|f| f.allocator).count();
        assert!(
            frames[count..].iter().all(|f| !f.allocator),
            "only the top run is marked"
        );
        count
    }

    /// Allocators' functions of every family are known, under every spelling.
    #[test]
    fn allocator_names() {
        for name in [
            "malloc",
            "calloc",
            "__libc_malloc",
            "malloc@@GLIBC_2.2.5",
            "__GI___libc_realloc",
            "__malloc",
            "__calloc",
            "__libc_reallocarray",
            "TCMallocInternalCalloc",
            "__GI___mmap64",
            "malloc.part.0",
            "je_malloc",
            "_rjem_je_arena_malloc_hard",
            "tc_new",
            "mi_malloc_aligned",
            "_mi_malloc_generic",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::align_val_t)",
            "__gnu_cxx::new_allocator<int>::allocate(unsigned long, void const*)",
            "std::__new_allocator<char>::allocate(unsigned long, void const*)",
            "std::allocator_traits<std::allocator<int> >::allocate(std::allocator<int>&, unsigned long)",
            "std::_Vector_base<int, std::allocator<int> >::_M_allocate(unsigned long)",
            "alloc::alloc::alloc",
            "alloc::alloc::Global::alloc_impl",
            "alloc::alloc::exchange_malloc",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "__rust_alloc",
            "__rustc::__rust_alloc",
            "alloc::raw_vec::RawVec<T,A>::grow_one",
            "__rdl_alloc",
            "alloc::raw_vec::RawVecInner<A>::with_capacity_in",
            "std::alloc::System::alloc_impl",
            "<std::alloc::System as core::alloc::global::GlobalAlloc>::alloc",
            "<my::Counting as core::alloc::global::GlobalAlloc>::alloc",
        ] {
            assert!(is_allocator(name), "{name}");
        }
    }

    /// Users' functions, containers' methods and libc's start code are not the allocator's.
    #[test]
    fn other_names() {
        for name in [
            "main",
            "leaky(int)",
            "my_malloc_user",
            "mallocator::run",
            "xmalloc",
            "zmalloc",
            "std::vector<int, std::allocator<int> >::push_back(int const&)",
            "std::vector<int, std::allocator<int> >::_M_realloc_insert<int>(int&&)",
            "alloc::vec::Vec<T,A>::push",
            "alloc::string::String::with_capacity",
            "free_user",
            "__libc_start_main",
            "__libc_start_call_main",
            "operator==(Newish const&)",
            "Pool::operator new(unsigned long)",
            "mi",
            "je",
            "allocate",
            "do_work",
            "(anonymous namespace)::handler(int)",
            "tc_parse",
            "__malloc_user",
            "mi_update",
            "__libc_fork",
        ] {
            assert!(!is_allocator(name), "{name}");
        }
    }

    /// Only the run from the innermost frame is marked; an allocator farther out is code like any.
    #[test]
    fn only_the_top_run() {
        assert_eq!(
            marked(&[
                "malloc",
                "operator new(unsigned long)",
                "f",
                "malloc",
                "main"
            ]),
            2
        );
        assert_eq!(marked(&["f", "malloc"]), 0);
        assert_eq!(marked(&["malloc"]), 1);
        assert_eq!(marked(&[]), 0);
    }

    /// Frames without a name, and inner functions, belong to the run only between allocator frames.
    #[test]
    fn frames_between() {
        assert_eq!(
            marked(&[
                "mmap",
                "extent_alloc_mmap",
                "arena_extent_alloc",
                "malloc",
                "f"
            ]),
            4
        );
        assert_eq!(marked(&["malloc", "extent_of_my_file", "main"]), 1);
        assert_eq!(marked(&["mmap", "?", "?", "malloc", "f"]), 4);
        assert_eq!(marked(&["malloc", "?", "f"]), 1);
        assert_eq!(marked(&["?", "f"]), 0);
        let mut frames: Vec<_> = [
            "mmap",
            "?",
            "malloc",
            "?",
            "operator new(unsigned long)",
            "f",
        ]
        .iter()
        .map(|f| frame(f))
        .collect();
        frames[1].module = Some("/lib/libjemalloc.so".to_owned());
        frames[2].module = frames[1].module.clone();
        frames[3].module = Some("/app/stripped".to_owned());
        mark_allocators(&mut frames);
        assert_eq!(frames.iter().filter(|f| f.allocator).count(), 3);
    }
}
