//! Verdicts on live programs (R23): leaks are found, and what is none is called by its name.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use memtrace_tests::{Program, Report, Stack, Target, Tracer, require_kernel};

/// Fourteen reports, 400 ms apart; the last one counts.
#[track_caller]
fn watch(mode: &str) -> (Report, u32) {
    let mut target = Target::spawn(&Program::c("live").build(), &[mode]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "400ms", "--count", "14"]);
    target.go();
    let report = tracer.last_report();
    target.assert_unharmed();
    (report, pid)
}

#[track_caller]
fn stack_of<'a>(report: &'a Report, pid: u32, mode: &str) -> &'a Stack {
    report
        .heap_stacks(pid)
        .filter(|stack| stack.frames.iter().any(|frame| frame.name() == mode))
        .max_by_key(|stack| stack.allocated_objects)
        .unwrap_or_else(|| panic!("no stack has {mode}"))
}

macro_rules! verdicts {
    ($($(#[$doc:meta])+ $name:ident: $mode:literal is $($verdict:literal)|+;)+) => { $(
        $(#[$doc])+
        #[test]
        fn $name() {
            require_kernel!();
            let (report, pid) = watch($mode);
            let stack = stack_of(&report, pid, $mode);
            let verdict = stack.verdict.as_str();
            assert!(
                [$($verdict),+].contains(&verdict),
                "{verdict} ({}): {}", stack.confidence, stack.describe()
            );
            let growing = [$($verdict),+].contains(&"growing");
            assert_eq!(report.process(pid).verdict == "growing", growing, "the process's verdict");
        }
    )+ };
}

verdicts! {
    /// A fast leak.
    leak: "leak" is "growing";
    /// A leak of a few KB a second.
    slow_leak: "slow_leak" is "growing";
    /// A cache that fills and then stays at its bound.
    cache_that_fills: "cache" is "plateau" | "steady";
    /// A start-up that allocates for a second and a half.
    warm_up: "warmup" is "plateau" | "steady";
    /// A garbage collector's sawtooth.
    sawtooth: "sawtooth" is "sawtooth";
    /// One spike.
    spike: "spike" is "spike";
    /// A working set that turns over.
    steady: "steady" is "steady" | "plateau";
}

/// A leak among short-lived requests: one of the two stacks of its function grows, and it is the leak's.
#[test]
fn leak_in_noise() {
    require_kernel!();
    let (report, pid) = watch("noisy_leak");
    let mut growing = report
        .heap_stacks(pid)
        .filter(|stack| stack.verdict == "growing");
    let leak = growing.next();
    assert!(
        leak.is_some_and(|stack| stack.freed_objects == 0),
        "{:?}",
        report
            .heap_stacks(pid)
            .map(Stack::describe)
            .collect::<Vec<_>>()
    );
    assert!(growing.next().is_none(), "a second stack is called growing");
}

/// The growth of a steady leak is measured: within a fifth of what was allocated over the time.
#[test]
fn growth_is_measured() {
    require_kernel!();
    let (report, pid) = watch("leak");
    let stack = stack_of(&report, pid, "leak");
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    let rate = stack.outstanding_bytes as f64 / report.duration_seconds;
    let ratio = stack.growth_bytes_per_second / rate;
    assert!(
        (0.8..1.25).contains(&ratio),
        "{} against {rate}",
        stack.growth_bytes_per_second
    );
}

/// Before five intervals there is no verdict.
#[test]
fn too_early_is_said() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "200ms", "--count", "3"]);
    target.go();
    let report = tracer.last_report();
    assert_eq!(stack_of(&report, pid, "leak").verdict, "too-early");
    target.assert_unharmed();
}
