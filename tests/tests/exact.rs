//! `--format json` is exact to the byte and the object: every function and case of R1–R17 on glibc.

use memtrace_tests::{Program, Target, Tracer, Truth, assert_exact, require_kernel};

fn alloc() -> Program {
    Program::c("alloc")
}

fn interposed() -> Program {
    Program::c("interposed").flag("-fno-builtin")
}

/// Attaches, runs the scenario, compares, and sees that the target ends well.
#[track_caller]
fn check(program: &Program, args: &[&str], options: &[&str]) -> (memtrace_tests::Report, Truth) {
    let mut target = Target::spawn(&program.build(), args);
    let mut tracer = Tracer::attach_with(target.pid(), options);
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, target.pid());
    target.assert_unharmed();
    (report, truth)
}

macro_rules! exact {
    ($($(#[$doc:meta])+ $name:ident: $program:expr, $args:expr $(, $option:expr)*;)+) => { $(
        $(#[$doc])+
        #[test]
        fn $name() {
            require_kernel!();
            check(&$program, &$args, &[$($option),*]);
        }
    )+ };
}

exact! {
    /// malloc and free (R1, R3).
    malloc: alloc(), ["malloc"];
    /// malloc(0) is one object of no bytes (R1).
    malloc_zero: alloc(), ["malloc_zero"];
    /// A malloc that fails is nothing (R1).
    malloc_fails: alloc(), ["malloc_fails"];
    /// malloc above the mmap threshold: the mapping is no second block (R9, R20).
    malloc_mapped: alloc(), ["malloc_mapped"];
    /// free(NULL) does nothing (R2).
    free_null: alloc(), ["free_null"];
    /// calloc(a, b) is a·b bytes (R6).
    calloc: alloc(), ["calloc"];
    /// A calloc that overflows or fails is nothing (R6).
    calloc_overflow: alloc(), ["calloc_overflow"];
    /// realloc(NULL, n), which calls malloc (R4, R9).
    realloc_null: alloc(), ["realloc_null"];
    /// realloc that grows, in place where it can (R4).
    realloc_grow: alloc(), ["realloc_grow"];
    /// realloc that shrinks (R4).
    realloc_shrink: alloc(), ["realloc_shrink"];
    /// realloc that moves (R4).
    realloc_moved: alloc(), ["realloc_moved"];
    /// realloc(p, 0) frees on glibc, where heaptrack sees a leak (R4, peers 1).
    realloc_zero: alloc(), ["realloc_zero"];
    /// realloc(NULL, 0) is malloc(0) (R4).
    realloc_null_zero: alloc(), ["realloc_null_zero"];
    /// A realloc that fails leaves the old block, which memleak drops (R4, peers 2).
    realloc_fails: alloc(), ["realloc_fails"];
    /// realloc of mapped blocks, by mremap (R4, R20).
    realloc_mapped: alloc(), ["realloc_mapped"];
    /// A vector that doubles: one block lives at the end (R4).
    realloc_vector: alloc(), ["realloc_vector"];
    /// reallocarray of a live block (R4).
    reallocarray: alloc(), ["reallocarray"];
    /// reallocarray(NULL) fires three functions for one block (R9, peers 4).
    reallocarray_null: alloc(), ["reallocarray_null"];
    /// reallocarray that overflows leaves the old block (R4).
    reallocarray_overflow: alloc(), ["reallocarray_overflow"];
    /// posix_memalign with every alignment; align 8 also calls malloc (R7, R9).
    posix_memalign: alloc(), ["posix_memalign"];
    /// A posix_memalign that fails leaves its out-pointer at a live block (R7, peers 7).
    posix_memalign_fails: alloc(), ["posix_memalign_fails"];
    /// aligned_alloc shares its address with memalign: one hit (R8, peers 3).
    aligned_alloc: alloc(), ["aligned_alloc"];
    /// memalign (R7, R8).
    memalign: alloc(), ["memalign"];
    /// valloc (R16).
    valloc: alloc(), ["valloc"];
    /// pvalloc counts what was asked for, not the pages (R16).
    pvalloc: alloc(), ["pvalloc"];
    /// cfree shares its address with free: one hit (R8).
    cfree: alloc(), ["cfree"];
    /// malloc called from within libc (R16).
    strdup: alloc(), ["strdup"];
    /// All of it in one process.
    everything: alloc(), ["all"];
    /// Ten million calls that reuse the same addresses from two sites (R3, R11).
    ten_million_calls: alloc(), ["reuse"];

    /// 32 threads that free and reallocate each other's blocks (R3, R4).
    threads: Program::c("threads"), ["parked"];
    /// The same with threads that begin and end under the trace (R10).
    threads_that_end: Program::c("threads"), ["spawned"];

    /// operator new and delete in all forms (R9, R16).
    cxx_forms: Program::cpp("cxx"), ["forms"];
    /// bad_alloc thrown through operator new; the target survives it (R10, R25).
    cxx_bad_alloc: Program::cpp("cxx"), ["bad_alloc"];
    /// A constructor that throws gives its block back (R10).
    cxx_constructor_throws: Program::cpp("cxx"), ["constructor_throws"];
    /// A vector's growth belongs to who pushed (R9).
    cxx_containers: Program::cpp("cxx"), ["containers"];

    /// A malloc in the executable that passes libc's address on: one block (R9).
    interposed_forwards: interposed(), ["forwards"];
    /// A malloc that returns another address than libc's: both live (R9).
    interposed_header: interposed(), ["header"];
    /// longjmp out of malloc before anything was made (R10).
    #[cfg(not(target_arch = "aarch64"))]
    longjmp_before: interposed(), ["longjmp_before"];
    /// longjmp out of malloc after libc made the block (R10).
    #[cfg(not(target_arch = "aarch64"))]
    longjmp_after: interposed(), ["longjmp_after"];

    /// An allocator of the program's own that longjmps out when it is empty (R10, R17).
    custom_allocator: Program::c("custom"), [] as [&str; 0],
        "--alloc-fn", "pool_take:2", "--free-fn", "pool_give:2";

    /// The child of a fork frees and allocates: the parent's blocks stay (R13).
    fork: Program::c("processes"), ["fork"];
    /// vfork and exec in the child change nothing (R14).
    vfork_exec: Program::c("processes"), ["vfork_exec"];
}

/// Frees and reallocs of blocks from before the attach subtract nothing and are counted (R2, R21).
#[test]
fn blocks_from_before_the_attach() {
    require_kernel!();
    let mut target = Target::spawn(&alloc().build(), &["before_attach"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, target.pid());
    assert_eq!(report.counter("unmatched_frees"), 200, "{:?}", report.notes);
    target.assert_unharmed();
}

/// A process in the target's address space frees and allocates: the address space counts (R14).
#[test]
fn shared_address_space() {
    require_kernel!();
    check(&Program::c("processes"), &["clone_vm"], &[]);
}

/// Probes on a malloc nested a hundred deep harm nobody, and what is not known is named (R10, R12).
#[test]
fn nested_a_hundred_deep() {
    require_kernel!();
    let mut target = Target::spawn(&interposed().build(), &["nested"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    if report.losses.values().all(|&count| count == 0) {
        assert_exact(&report, &truth, target.pid());
    }
    target.assert_unharmed();
}

/// A realloc that is left by longjmp: its old block's fate is unknown, and that is counted (R10, R12).
#[test]
fn longjmp_out_of_realloc_is_counted() {
    require_kernel!();
    let mut target = Target::spawn(&interposed().build(), &["longjmp_realloc"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    if report.counter("vanished_reallocs") == 0 {
        assert_exact(&report, &truth, target.pid());
    }
    target.assert_unharmed();
}

/// Where return addresses come in a register a call that was left cannot be told from one that goes on while
/// calls are made from deeper in the stack: blocks stand under it, the last one until it is known to have
/// vanished, and that is counted (R10, R12).
#[cfg(target_arch = "aarch64")]
#[test]
fn longjmp_is_counted() {
    require_kernel!();
    for mode in ["longjmp_before", "longjmp_after"] {
        let mut target = Target::spawn(&interposed().build(), &[mode]);
        let mut tracer = Tracer::attach(target.pid());
        target.go();
        let (_, objects) = target.truth().outstanding();
        let report = tracer.finish();
        let shown = shown_objects(&report, target.pid());
        assert!((objects - 1..=objects).contains(&shown), "{mode}: {shown}");
        assert!(report.counter("vanished_calls") >= 199, "{mode}");
        target.assert_unharmed();
    }
}

#[cfg(target_arch = "aarch64")]
fn shown_objects(report: &memtrace_tests::Report, pid: u32) -> i64 {
    let stacks = report.heap_stacks(pid);
    stacks
        .map(|s| i64::try_from(s.outstanding_objects).unwrap_or(i64::MAX))
        .sum()
}

/// --min-size and --max-size keep blocks of these sizes, both included.
#[test]
fn size_filters() {
    require_kernel!();
    let mut target = Target::spawn(&alloc().build(), &["malloc"]);
    let mut tracer =
        Tracer::attach_with(target.pid(), &["--min-size", "1000", "--max-size", "1500"]);
    target.go();
    target.truth();
    let report = tracer.finish();
    // Sizes 1 to 2000, those of i = size - 1 divisible by three freed.
    let kept: Vec<u64> = (1000..=1500).filter(|size| (size - 1) % 3 != 0).collect();
    let process = report.process(target.pid());
    assert_eq!(process.outstanding_objects, kept.len() as u64);
    assert_eq!(process.outstanding_bytes, kept.iter().sum::<u64>());
    target.assert_unharmed();
}
