//! The target programs on their own: each builds, runs, and tells a truth that adds up. Needs no root.

use std::path::Path;

use memtrace_tests::{Program, Target, Truth, preload};

fn truth_of(program: &Path, args: &[&str], env: &[(&str, &Path)]) -> Truth {
    let mut target = Target::spawn_with(program, args, env);
    target.go();
    let truth = target.truth();
    target.assert_unharmed();
    truth
}

/// C on glibc, musl (dynamic and static) and static glibc: what every allocator does alike is equal.
#[test]
fn c_programs_agree_across_c_libraries() {
    let glibc = truth_of(&Program::c("alloc").build(), &["all"], &[]);
    for other in [
        Program::c("alloc").musl(),
        Program::c("alloc").musl().fully_static(),
        Program::c("alloc").fully_static(),
    ] {
        let other = truth_of(&other.build(), &["all"], &[]);
        for site in [
            "leak_calloc",
            "leak_posix_memalign",
            "leak_realloc_vector",
            "leak_strdup",
        ] {
            assert_eq!(glibc.site(site), other.site(site));
        }
    }
}

/// realloc(p, 0) frees on glibc, jemalloc and tcmalloc, and keeps a block on mimalloc and musl (R4).
#[test]
fn realloc_zero_differs_by_allocator() {
    let program = Program::c("alloc").build();
    let objects = |program: &Path, env: &[(&str, &Path)]| {
        truth_of(program, &["realloc_zero"], env)
            .site("leak_realloc_zero")
            .outstanding_objects
    };
    assert_eq!(objects(&program, &[]), 0);
    assert_eq!(
        objects(&program, &[("LD_PRELOAD", &preload("libjemalloc.so.2"))]),
        0
    );
    assert_eq!(
        objects(
            &program,
            &[("LD_PRELOAD", &preload("libtcmalloc_minimal.so.4"))]
        ),
        0
    );
    assert_eq!(
        objects(&program, &[("LD_PRELOAD", &preload("libmimalloc.so.2.0"))]),
        1000
    );
    assert_eq!(objects(&Program::c("alloc").musl().build(), &[]), 1000);
}

/// Every other program runs through and holds something.
#[test]
fn every_program_tells_a_truth() {
    let plugin = Program::c("plugin").shared_object().build();
    let plugin = plugin.to_string_lossy();
    let cases: [(Program, &[&str]); 12] = [
        (Program::cpp("cxx"), &["all"]),
        (Program::c("interposed").flag("-fno-builtin"), &["header"]),
        (
            Program::c("interposed").flag("-fno-builtin"),
            &["longjmp_after"],
        ),
        (Program::c("custom"), &[]),
        (Program::c("threads"), &["parked"]),
        (Program::c("threads"), &["spawned"]),
        (Program::c("deep"), &["bursts", "3072"]),
        (Program::c("deep"), &["contexts", "1000"]),
        (Program::c("stack_c"), &[]),
        (Program::cpp("stack_cpp"), &[]),
        (Program::c("seccomp"), &["strict"]),
        (Program::c("processes"), &["clone_vm"]),
    ];
    for (program, args) in cases {
        let truth = truth_of(&program.build(), args, &[]);
        assert!(truth.outstanding().0 > 0, "{program:?} {args:?}: {truth:?}");
    }
    let mut target = Target::spawn(&Program::c("dl").build(), &[&plugin, "plugin_make"]);
    target.go();
    target.step("loaded");
    target.go();
    assert_eq!(
        target
            .truth()
            .site("leak_through_plugin")
            .outstanding_objects,
        200
    );
}

/// Rust with libc's malloc, jemalloc and mimalloc: the same program holds the same.
#[test]
fn rust_programs_agree_across_allocators() {
    let [libc, jemalloc, mimalloc] = ["", "jemalloc", "mimalloc"]
        .map(|allocator| truth_of(&Program::rust("rust_alloc", allocator), &[], &[]));
    if libc.sites != jemalloc.sites || libc.sites != mimalloc.sites {
        panic!("{libc:?}\n{jemalloc:?}\n{mimalloc:?}");
    }
}
