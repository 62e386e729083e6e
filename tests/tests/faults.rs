//! `--probe fault`: resident memory by who touched it first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use memtrace_tests::{Program, Report, Target, Tracer, Truth, require_kernel};

/// Resident anonymous bytes of a process.
fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("RssAnon:"))
        .unwrap();
    line.split_ascii_whitespace()
        .next()
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// What grew while a mode of `maps` did its work, and the report of it.
#[track_caller]
fn traced(mode: &str, probes: &str) -> (Report, Truth, Target, u64) {
    traced_by(mode, |pid| Tracer::attach_with(pid, &["--probe", probes]))
}

#[track_caller]
fn traced_by(mode: &str, attach: impl Fn(u32) -> Tracer) -> (Report, Truth, Target, u64) {
    let mut target = Target::spawn(&Program::c("maps").build(), &[mode]);
    let mut tracer = attach(target.pid());
    let before = anonymous(target.pid());
    target.go();
    let truth = target.truth();
    let growth = anonymous(target.pid()) - before;
    let report = tracer.finish();
    (report, truth, target, growth)
}

fn bytes(report: &Report, pid: u32, function: &str) -> u64 {
    let sums = report.bytes_by_function(pid, "fault", &[function]);
    sums.get(function).copied().unwrap_or(0)
}

/// Every page of a leak stands under the function that touched it, with the whole stack.
#[test]
fn a_leak_by_pages() {
    require_kernel!();
    assert_leak(traced("leak", "fault"));
}

/// The same where programs at raw tracepoints would be skipped.
#[test]
fn a_leak_by_pages_where_the_kernel_can_be_preempted() {
    require_kernel!();
    assert_leak(traced_by("leak", |pid| {
        Tracer::attach_preemptible(pid, "fault")
    }));
}

#[track_caller]
fn assert_leak((report, truth, target, growth): (Report, Truth, Target, u64)) {
    let expected = truth.site("leak_mapping").outstanding_bytes.cast_unsigned();
    let found = bytes(&report, target.pid(), "leak_mapping");
    assert_eq!(found, expected);
    assert!(found * 100 >= growth * 95, "{found} of {growth}");
    let first = report.stacks_of(target.pid(), "fault").next().unwrap();
    assert!(first.complete && first.frames.iter().any(|f| f.name() == "leak_mapping"));
    assert_eq!(report.process(target.pid()).outstanding_bytes, {
        report
            .stacks_of(target.pid(), "fault")
            .map(|s| s.outstanding_bytes)
            .sum::<u64>()
    });
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    target.assert_unharmed();
}

/// Pages given back by madvise and munmap are gone, those only read are none, those that `read`
/// filled are there (before Linux 5.15 under the path that touched these pages before, the same one).
#[test]
fn pages_given_back() {
    require_kernel!();
    let (report, truth, target, _) = traced("release", "fault");
    let expected = truth
        .site("touch_and_release")
        .outstanding_bytes
        .cast_unsigned();
    assert_eq!(bytes(&report, target.pid(), "touch_and_release"), expected);
    target.assert_unharmed();
}

/// One fault brings a huge page: all 2 MiB of it stand under its stack, and are said to be inferred.
#[test]
fn huge_pages_are_whole() {
    require_kernel!();
    let (report, truth, target, _) = traced("huge", "fault");
    let expected = truth.site("touch_huge").outstanding_bytes.cast_unsigned();
    assert_eq!(bytes(&report, target.pid(), "touch_huge"), expected);
    let huge = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if !std::fs::read_to_string(huge)
        .unwrap_or_default()
        .contains("[never]")
    {
        assert!(
            report.counter("pages_inferred_bytes") > 0,
            "{:?}",
            report.notes
        );
    }
    target.assert_unharmed();
}

/// With all probes at once every figure is as with one alone, and the process's sum counts nothing
/// twice.
#[test]
fn together_without_double_count() {
    require_kernel!();
    let (report, truth, target, _) = traced("leak", "heap,region,fault");
    let pid = target.pid();
    let expected = truth.site("leak_mapping").outstanding_bytes.cast_unsigned();
    assert_eq!(bytes(&report, pid, "leak_mapping"), expected);
    let regions = report.bytes_by_function(pid, "region", &["leak_mapping"]);
    assert_eq!(regions["leak_mapping"], expected);
    let heap: u64 = report.heap_stacks(pid).map(|s| s.outstanding_bytes).sum();
    assert_eq!(report.process(pid).outstanding_bytes, heap + expected);
    target.assert_unharmed();
}

/// A Python program whose lists grow: nearly all of the growth has a stack.
#[test]
fn python_grows() {
    require_kernel!();
    let script = "import sys\nprint('ready', 0, flush=True)\nsys.stdin.readline()\n\
                  l=[str(i)*50 for i in range(200000)]\n\
                  print('{\"pid\":0,\"sites\":[]}', flush=True)\nsys.stdin.readline()";
    let mut target = Target::spawn(Path::new("/usr/bin/python3"), &["-c", script]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_with(pid, &["--probe", "fault"]);
    let before = anonymous(pid);
    target.go();
    target.truth();
    let growth = anonymous(pid) - before;
    let report = tracer.finish();
    let named: u64 = report
        .stacks_of(pid, "fault")
        .filter(|stack| stack.complete && stack.frames.len() > 3)
        .map(|stack| stack.outstanding_bytes)
        .sum();
    assert!(named * 100 >= growth * 95, "{named} of {growth}");
    target.assert_unharmed();
}
