//! The same programs are exact on every allocator of R16: musl, jemalloc, tcmalloc, mimalloc, C++, Rust.

use std::path::{Path, PathBuf};

use memtrace_tests::{Program, Report, Target, Tracer, assert_exact, preload, require_kernel};

#[track_caller]
fn check(program: &Path, args: &[&str], library: Option<PathBuf>) -> Report {
    let env: Vec<(&str, &Path)> = library
        .as_deref()
        .map(|path| ("LD_PRELOAD", path))
        .into_iter()
        .collect();
    let mut target = Target::spawn_with(program, args, &env);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, target.pid());
    target.assert_unharmed();
    report
}

macro_rules! exact {
    ($($(#[$doc:meta])+ $name:ident: $program:expr, $args:expr $(, $library:expr)?;)+) => { $(
        $(#[$doc])+
        #[test]
        fn $name() {
            require_kernel!();
            check(&$program, &$args, None$(.or(Some(preload($library))))?);
        }
    )+ };
}

exact! {
    /// musl, linked dynamically.
    musl: Program::c("alloc").musl().build(), ["all", "-strdup"];
    /// musl, linked statically: `free` and others can be missing.
    musl_static: Program::c("alloc").musl().fully_static().build(), ["all", "-strdup"];
    /// glibc, linked statically, with its symbols.
    glibc_static: Program::c("alloc").fully_static().build(), ["all"];

    /// jemalloc preloaded under C.
    jemalloc: Program::c("alloc").build(), ["all"], "libjemalloc.so.2";
    /// tcmalloc preloaded under C.
    tcmalloc: Program::c("alloc").build(), ["all"], "libtcmalloc_minimal.so.4";
    /// mimalloc preloaded under C.
    mimalloc: Program::c("alloc").build(), ["all"], "libmimalloc.so.2.0";

    /// jemalloc's own operator new and delete.
    cxx_jemalloc: Program::cpp("cxx").build(), ["forms", "constructor_throws", "containers"], "libjemalloc.so.2";
    /// tcmalloc's own operator new and delete.
    cxx_tcmalloc: Program::cpp("cxx").build(), ["forms", "constructor_throws", "containers"], "libtcmalloc_minimal.so.4";
    /// mimalloc's own operator new and delete.
    cxx_mimalloc: Program::cpp("cxx").build(), ["forms", "constructor_throws", "containers"], "libmimalloc.so.2.0";

    /// bad_alloc thrown by jemalloc's operator new: the target survives it (R10, R25).
    bad_alloc_jemalloc: Program::cpp("cxx").build(), ["bad_alloc"], "libjemalloc.so.2";
    /// bad_alloc thrown by tcmalloc's operator new.
    bad_alloc_tcmalloc: Program::cpp("cxx").build(), ["bad_alloc"], "libtcmalloc_minimal.so.4";

    /// mallocx, rallocx, xallocx, dallocx, sdallocx.
    jemalloc_own_functions: Program::c("family").build(), ["jemalloc"], "libjemalloc.so.2";
    /// tc_malloc and its kin.
    tcmalloc_own_functions: Program::c("family").build(), ["tcmalloc"], "libtcmalloc_minimal.so.4";
    /// mi_malloc and its kin.
    mimalloc_own_functions: Program::c("family").build(), ["mimalloc"], "libmimalloc.so.2.0";

    /// tcmalloc's operators, aligned and sized forms under its own names.
    tcmalloc_other_functions: Program::c("family").build(), ["tcmalloc_more"], "libtcmalloc_minimal.so.4";
    /// mimalloc's aligned, zeroing, counting, resizing and heap functions.
    mimalloc_other_functions: Program::c("family").build(), ["mimalloc_more"], "libmimalloc.so.2.0";

    /// 32 threads on jemalloc, with blocks that change threads.
    threads_jemalloc: Program::c("threads").build(), ["parked"], "libjemalloc.so.2";
    /// 32 threads on mimalloc.
    threads_mimalloc: Program::c("threads").build(), ["parked"], "libmimalloc.so.2.0";

    /// Rust with libc's malloc.
    rust: Program::rust("rust_alloc", ""), [];
    /// Rust with jemalloc under its prefix (`_rjem_`).
    rust_jemalloc: Program::rust("rust_alloc", "jemalloc"), [];
    /// Rust with mimalloc.
    rust_mimalloc: Program::rust("rust_alloc", "mimalloc"), [];
}

/// Debian's musl has no unwind tables for its own functions: what strdup allocates is exact as a sum, and
/// its stack names strdup and says that it is cut.
#[test]
fn musl_without_unwind_tables() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").musl().build(), &["strdup"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    let site = truth.site("leak_strdup");
    let stacks: Vec<_> = report
        .heap_stacks(target.pid())
        .filter(|stack| stack.frames.iter().any(|frame| frame.name() == "strdup"))
        .collect();
    let bytes: u64 = stacks.iter().map(|stack| stack.outstanding_bytes).sum();
    assert_eq!(i64::try_from(bytes), Ok(site.outstanding_bytes));
    for stack in stacks {
        let reaches = stack.frames.iter().any(|frame| frame.name() == "main");
        assert_eq!(stack.complete, reaches, "{}", stack.describe());
    }
    target.assert_unharmed();
}

/// A stripped static program has no names: memtrace says so, and leaves it in peace (R16).
#[test]
fn stripped_static_program_is_named() {
    require_kernel!();
    let program = Program::c("alloc").fully_static().flag("-s").build();
    let mut target = Target::spawn(&program, &["malloc"]);
    let mut tracer = Tracer::start(&mut memtrace_tests::memtrace(&[
        "--pid",
        &target.pid().to_string(),
        "--format",
        "json",
        "--duration",
        "1s",
    ]));
    let ended = tracer.wait();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let said = format!("{}\n{}", ended.stderr, ended.stdout).to_lowercase();
    assert!(
        ["stripped", "no symbols", "without symbols", "symbol table"]
            .iter()
            .any(|word| said.contains(word)),
        "nothing says why there are no probes:\n{said}"
    );
    assert!(said.contains("--probe region"), "no remedy:\n{said}");
    target.go();
    target.truth();
    target.assert_unharmed();
}

/// Coverage names each allocator that has probes, with its functions.
#[test]
fn coverage_names_the_family() {
    require_kernel!();
    let report = check(
        &Program::c("alloc").build(),
        &["malloc"],
        Some(preload("libjemalloc.so.2")),
    );
    let jemalloc = report
        .coverage
        .iter()
        .find(|entry| entry.object.contains("libjemalloc"));
    assert!(
        jemalloc.is_some_and(|entry| entry.family == "jemalloc"
            && entry.functions.iter().any(|name| name == "malloc")),
        "{:?}",
        report.coverage
    );
}
