use super::*;
use crate::target::object::tests::synthetic_named;
use std::path::Path;

fn names(allocators: &Allocators) -> Vec<&str> {
    allocators
        .functions
        .iter()
        .map(|f| f.names[0].as_str())
        .collect()
}

fn library(name: &str) -> Option<Object> {
    let directories = [
        "/lib/x86_64-linux-gnu",
        "/lib/aarch64-linux-gnu",
        "/lib64",
        "/lib",
    ];
    directories
        .iter()
        .find_map(|d| Object::open(&Path::new(d).join(name)).ok())
}

fn function<'a>(allocators: &'a Allocators, name: &str) -> &'a FoundFunction {
    let mut found = allocators
        .functions
        .iter()
        .filter(|f| f.names.iter().any(|n| n == name));
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {allocators:?}"));
    assert!(found.next().is_none(), "{name} is there twice");
    first
}

/// glibc: aliases share one entry, nothing that a libc of this age has is missing.
#[test]
fn glibc() {
    let Some(libc) = library("libc.so.6") else {
        return;
    };
    let found = find(&libc, &CustomFunctions::default()).unwrap();
    assert_eq!(found.families, [Family::Glibc]);
    assert!(found.missing.is_empty(), "{:?}", found.missing);
    let memalign = function(&found, "memalign");
    assert!(memalign.names.iter().any(|n| n == "__libc_memalign"));
    assert_eq!(memalign.function, Function::Size1);
    assert_eq!(
        function(&found, "malloc").names,
        ["malloc", "__libc_malloc"]
    );
    let offsets: BTreeSet<u64> = found.functions.iter().map(|f| f.file_offset).collect();
    assert_eq!(offsets.len(), found.functions.len());
}

/// Libraries without an allocator have no families: libstdc++'s operator new calls malloc.
#[test]
fn no_allocator() {
    for name in ["libstdc++.so.6", "libm.so.6", "ld-linux-x86-64.so.2"] {
        let Some(object) = library(name) else {
            continue;
        };
        let found = find(&object, &CustomFunctions::default()).unwrap();
        assert!(
            found.functions.is_empty() && found.families.is_empty(),
            "{name}: {found:?}"
        );
    }
}

/// jemalloc: operator new and delete are entries of their own, mallocx and its kin too.
#[test]
fn jemalloc() {
    let object = synthetic_named(&[
        "malloc",
        "free",
        "mallocx",
        "xallocx",
        "sdallocx",
        "mallctlnametomib",
        "_Znwm",
        "_ZdlPvmSt11align_val_t",
        "_ZnwmPv",
        "je_malloc_default",
    ]);
    let found = find(&object, &CustomFunctions::default()).unwrap();
    assert_eq!(found.families, [Family::Jemalloc]);
    assert_eq!(
        names(&found),
        [
            "malloc",
            "free",
            "mallocx",
            "xallocx",
            "sdallocx",
            "_Znwm",
            "_ZdlPvmSt11align_val_t"
        ]
    );
    assert_eq!(function(&found, "xallocx").function, Function::Xallocx);
    assert!(found.missing.contains(&"posix_memalign".to_owned()));
}

/// Rust's prefixed jemalloc in a program that has musl inside: both are found, internals are not.
#[test]
fn prefixed_jemalloc_beside_musl() {
    let object = synthetic_named(&[
        "malloc",
        "free",
        "__libc_malloc",
        "__libc_malloc_impl",
        "_rjem_malloc",
        "_rjem_sdallocx",
        "_rjem_mallctlnametomib",
        "_rjem_je_malloc_default",
        "_rjem_je_mallctlnametomib",
        "_rjem_je_malloc",
    ]);
    let found = find(&object, &CustomFunctions::default()).unwrap();
    assert_eq!(found.families, [Family::Musl, Family::Jemalloc]);
    assert_eq!(
        names(&found),
        ["malloc", "free", "_rjem_malloc", "_rjem_sdallocx"]
    );
    assert_eq!(function(&found, "malloc").family, Family::Musl);
}

/// A prefix nobody has heard of is found by the one name that every jemalloc has.
#[test]
fn unknown_jemalloc_prefix() {
    let object = synthetic_named(&[
        "je_arrow_mallocx",
        "je_arrow_dallocx",
        "je_arrow_mallctlnametomib",
    ]);
    let found = find(&object, &CustomFunctions::default()).unwrap();
    assert_eq!(names(&found), ["je_arrow_mallocx", "je_arrow_dallocx"]);
    assert!(found.missing.contains(&"je_arrow_malloc".to_owned()));
}

/// mimalloc linked into a program without overriding malloc; what cannot be measured is said.
#[test]
fn mimalloc_inside() {
    let object = synthetic_named(&["mi_malloc", "mi_free", "mi_heap_malloc", "mi_heap_realloc"]);
    let found = find(&object, &CustomFunctions::default()).unwrap();
    assert_eq!(found.families, [Family::Mimalloc]);
    assert_eq!(function(&found, "mi_heap_malloc").function, Function::Size1);
    assert!(found.missing.contains(&"mi_calloc".to_owned()));
    assert!(
        found.notes[0].contains("mi_heap_realloc"),
        "{:?}",
        found.notes
    );
}

/// An unknown allocator is taken when it has malloc and free; operators come with it.
#[test]
fn unknown_allocator() {
    let found = find(
        &synthetic_named(&["malloc", "free", "_Znwm"]),
        &CustomFunctions::default(),
    )
    .unwrap();
    assert_eq!(
        (found.families.as_slice(), found.functions.len()),
        (&[Family::Other][..], 3)
    );
    let lone = find(
        &synthetic_named(&["free", "_Znwm"]),
        &CustomFunctions::default(),
    )
    .unwrap();
    assert!(lone.functions.is_empty() && lone.families.is_empty());
}

/// The user's own functions and prefixes (R17).
#[test]
fn custom_functions_and_prefixes() {
    let mut custom = CustomFunctions::default();
    custom.add_alloc("pool_take", 2).unwrap();
    custom.add_free("pool_give", 1).unwrap();
    custom.add_prefix("zz_").unwrap();
    let object = synthetic_named(&["pool_take", "pool_give", "zz_malloc", "zz_free"]);
    let found = find(&object, &custom).unwrap();
    assert_eq!(found.families, [Family::Custom]);
    assert_eq!(function(&found, "pool_take").function, Function::Size2);
    assert_eq!(function(&found, "pool_give").function, Function::Free1);
    assert_eq!(function(&found, "zz_malloc").function, Function::Size0);
    assert_eq!(found.missing, ["zz_calloc", "zz_realloc"]);
}

/// What the user asks for is checked before anything is searched.
#[test]
fn custom_functions_are_checked() {
    let mut custom = CustomFunctions::default();
    let error = custom.add_alloc("f1", 6).unwrap_err();
    assert!(error.to_string().contains("count from 0 to 5"), "{error}");
    assert!(custom.add_free("x", 0).is_err() && custom.add_prefix("").is_err());
}

/// Only functions that free need no return probe.
#[test]
fn return_probes() {
    assert!(!needs_return(Function::Free0) && !needs_return(Function::Free5));
    assert!(needs_return(Function::Realloc) && needs_return(Function::Xallocx));
}

/// Each of Debian's allocator libraries is recognized, with nothing missing.
#[test]
fn debians_libraries() {
    for (name, family, all) in [
        ("libjemalloc.so.2", Family::Jemalloc, true),
        ("libtcmalloc_minimal.so.4", Family::Tcmalloc, true),
        ("libmimalloc.so.2", Family::Mimalloc, true),
        ("ld-musl-x86_64.so.1", Family::Musl, true),
    ] {
        let Some(object) = library(name) else {
            continue;
        };
        let found = find(&object, &CustomFunctions::default()).unwrap();
        assert_eq!(found.families, [family], "{name}");
        assert_eq!(found.missing.is_empty(), all, "{name}: {:?}", found.missing);
        assert_eq!(function(&found, "malloc").names[0], "malloc", "{name}");
    }
}
