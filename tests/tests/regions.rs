//! `--probe region`: mappings to the byte, by who made them (R18–R21, R26).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use memtrace_tests::{Program, Report, Target, Tracer, Truth, require_kernel};

const SITES: [&str; 8] = [
    "take_private",
    "take_shared",
    "take_file",
    "reserve",
    "replace",
    "grow",
    "commit",
    "raise_brk",
];

fn maps() -> Program {
    Program::c("maps")
}

/// Attaches, lets the program do its work and takes the last report while it still lives.
#[track_caller]
fn traced(args: &[&str], probes: &str) -> (Report, Truth, Target) {
    let mut target = Target::spawn(&maps().build(), args);
    let mut tracer = Tracer::attach_with(target.pid(), &["--probe", probes]);
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    (report, truth, target)
}

#[track_caller]
fn assert_sites(report: &Report, truth: &Truth, pid: u32) {
    let got = report.bytes_by_function(pid, "region", &SITES);
    for site in SITES {
        let expected = truth.site(site).outstanding_bytes;
        let bytes = got.get(site).copied().unwrap_or(0);
        assert_eq!(i64::try_from(bytes).unwrap(), expected, "{site}: {got:?}");
    }
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

/// Bytes of a process's mappings in a range, by access.
fn mapped(pid: u32, from: u64, to: u64, wanted: impl Fn(&str) -> bool) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let lines = text.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let inside = end.min(to).saturating_sub(start.max(from));
        wanted(rest).then_some(inside)
    });
    lines.sum()
}

/// Four threads map, cut, move, grow and protect at random, and half of the calls fail: every
/// function's bytes are what the program says, and all of them what /proc/PID/smaps says (R18).
#[test]
fn torture() {
    require_kernel!();
    assert_torture(|pid| Tracer::attach_with(pid, &["--probe", "region"]));
}

/// The same where programs at the kernel's functions would be skipped: 9,000 of 80,000 calls were, on
/// 7.2.
#[test]
fn torture_where_the_kernel_can_be_preempted() {
    require_kernel!();
    assert_torture(|pid| Tracer::attach_preemptible(pid, "region"));
}

#[track_caller]
fn assert_torture(attach: impl Fn(u32) -> Tracer) {
    let mut target = Target::spawn(&maps().build(), &["torture", "20000"]);
    let mut tracer = attach(target.pid());
    target.go();
    let (from, to) = target.arena();
    let truth = target.truth();
    let report = tracer.finish();
    assert_sites(&report, &truth, target.pid());
    let writable = mapped(target.pid(), from, to, |rest| rest.starts_with("rw"));
    let in_use: u64 = report
        .stacks_of(target.pid(), "region")
        .filter(|stack| matches!(stack.kind.as_deref(), Some("anonymous" | "shared")))
        .filter(|stack| stack.frames.iter().any(|frame| frame.name() == "work"))
        .map(|stack| stack.outstanding_bytes)
        .sum();
    assert_eq!(in_use, writable);
    for stack in report.stacks_of(target.pid(), "region") {
        assert!(stack.complete, "{}", stack.describe());
    }
    target.assert_unharmed();
}

/// The end of the heap goes up and down, and refusals change nothing (R19).
#[test]
fn brk_up_and_down() {
    require_kernel!();
    let (report, truth, target) = traced(&["brk"], "region");
    assert_sites(&report, &truth, target.pid());
    target.assert_unharmed();
}

/// With the heap traced too, what malloc maps is its reserve and not added to the blocks; the stack
/// below the return probe is whole (R20, R26).
#[test]
fn arenas_are_the_allocator_s_own() {
    require_kernel!();
    let (report, _, target) = traced(&["arenas"], "heap,region");
    let pid = target.pid();
    let in_arena: Vec<_> = report
        .stacks_of(pid, "region")
        .filter(|stack| stack.frames.iter().any(|f| f.name() == "arena_of_its_own"))
        .collect();
    assert!(!in_arena.is_empty());
    for stack in &in_arena {
        let kind = stack.kind.as_deref().unwrap();
        assert!(
            matches!(kind, "allocator" | "reservation"),
            "{}",
            stack.describe()
        );
        assert!(stack.complete, "{}", stack.describe());
    }
    let large: u64 = in_arena
        .iter()
        .filter(|stack| stack.kind.as_deref() == Some("allocator"))
        .map(|stack| stack.outstanding_bytes)
        .sum();
    assert!(large >= 64 * 300_000, "{large}");
    let stacks: u64 = report
        .stacks_of(pid, "region")
        .filter(|stack| stack.kind.as_deref() == Some("thread-stack"))
        .map(|stack| stack.outstanding_bytes)
        .sum();
    assert_eq!(
        stacks,
        64 * ((8 << 20) + 4096),
        "64 stacks of 8 MiB and a guard page"
    );
    // The heap's blocks and nothing of its reserve.
    let heap: u64 = report
        .heap_stacks(pid)
        .map(|stack| stack.outstanding_bytes)
        .sum();
    assert_eq!(report.process(pid).outstanding_bytes, heap);
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    target.assert_unharmed();
}

/// A program that maps and never unmaps: the function is named, by every byte and mapping.
#[test]
fn a_leak_of_mappings() {
    require_kernel!();
    let (report, truth, target) = traced(&["leak"], "region");
    let leak = report
        .stacks_of(target.pid(), "region")
        .find(|stack| stack.frames.iter().any(|f| f.name() == "leak_mapping"))
        .expect("a stack of the leak");
    let site = truth.site("leak_mapping");
    assert_eq!(
        i64::try_from(leak.outstanding_bytes).unwrap(),
        site.outstanding_bytes
    );
    assert_eq!(
        i64::try_from(leak.outstanding_objects).unwrap(),
        site.outstanding_objects
    );
    assert_eq!(
        report.process(target.pid()).outstanding_bytes,
        leak.outstanding_bytes
    );
    assert_eq!(report.overhead["probe_hits"]["heap"], 0);
    target.assert_unharmed();
}

/// A program started by memtrace: its heap's first growth has its stack, and the total is what brk
/// moved.
#[test]
fn from_the_first_mapping() {
    require_kernel!();
    let program = maps().build();
    let mut command = memtrace_tests::memtrace(&[
        "run", "--probe", "region", "--format", "json", "--top", "all", "--output",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    command.arg(&file).arg("--").arg(&program).arg("leak");
    command.env("TRUTH_NOWAIT", "1");
    let mut tracer = Tracer::start(&mut command);
    tracer.wait().assert_code(0);
    let report = Report::parse(&std::fs::read_to_string(&file).unwrap());
    let pid = report
        .processes
        .iter()
        .find(|p| p.state == "exited")
        .unwrap()
        .pid;
    let leaked = report.bytes_by_function(pid, "region", &["leak_mapping"]);
    assert_eq!(leaked["leak_mapping"], 100 * 16 * 4096);
}
