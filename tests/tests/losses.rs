//! Nothing is lost silently (R12): each forced loss has its name in the report, the sums still add up,
//! and no verdict is given that the loss could explain.

use memtrace_tests::{
    Program, Report, Target, Tracer, assert_exact, assert_stacks_reach, require_kernel,
};

/// The verdicts that say something.
const SAID: [&str; 6] = [
    "growing",
    "plateau",
    "sawtooth",
    "spike",
    "steady",
    "shrinking",
];

fn shown_objects(report: &Report, pid: u32) -> u64 {
    report
        .heap_stacks(pid)
        .map(|stack| stack.outstanding_objects)
        .sum()
}

/// A tiny live table: recorded and lost add up to what was allocated, in objects and bytes.
#[test]
fn tiny_live_table_adds_up() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["many"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_with(pid, &["--live-entries", "1000"]);
    target.go();
    let (bytes, objects) = target.truth().outstanding();
    let report = tracer.finish();
    let process = report.process(pid);
    let lost = report.losses.get("live_table_full").copied().unwrap_or(0);
    let lost_bytes = report
        .losses
        .get("live_table_full_bytes")
        .copied()
        .unwrap_or(0);
    assert!(lost > 0, "{:?}", report.losses);
    assert_eq!(
        process.outstanding_objects + lost,
        u64::try_from(objects).unwrap()
    );
    assert_eq!(
        process.outstanding_bytes + lost_bytes,
        u64::try_from(bytes).unwrap()
    );
    for stack in report.heap_stacks(pid) {
        assert!(
            !SAID.contains(&stack.verdict.as_str()),
            "{}: {}",
            stack.verdict,
            stack.describe()
        );
    }
    target.assert_unharmed();
}

/// A live table that fills under a leak: the flat line after it is not called a plateau or steady.
#[test]
fn full_live_table_withholds_the_verdict() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(
        pid,
        &[
            "--interval",
            "200ms",
            "--count",
            "15",
            "--live-entries",
            "500",
        ],
    );
    target.go();
    let report = tracer.last_report();
    assert!(report.counter("live_table_full") > 0, "{:?}", report.losses);
    for stack in report.heap_stacks(pid) {
        let verdict = stack.verdict.as_str();
        assert!(
            verdict == "too-early" || verdict == "growing",
            "{verdict}: {}",
            stack.describe()
        );
    }
    assert!(["too-early", "growing"].contains(&report.process(pid).verdict.as_str()));
    target.assert_unharmed();
}

/// A stopped collector: the live table goes on; what the ring could not take is named, the sum is exact.
#[test]
fn stopped_collector_keeps_the_sum() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("deep").build(), &["contexts", "4096"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_with(pid, &["--ring-bytes", "256KiB"]);
    tracer.signal(libc::SIGSTOP);
    target.go();
    let (bytes, objects) = target.truth().outstanding();
    tracer.signal(libc::SIGCONT);
    let report = tracer.finish();
    assert!(
        report.counter("stack_copies_lost") > 0,
        "{:?} {:?}",
        report.losses,
        report.notes
    );
    let process = report.process(pid);
    assert_eq!(process.outstanding_bytes, u64::try_from(bytes).unwrap());
    assert_eq!(process.outstanding_objects, u64::try_from(objects).unwrap());
    assert_eq!(shown_objects(&report, pid), u64::try_from(objects).unwrap());
    // What has no stack says why.
    for stack in report.heap_stacks(pid).filter(|stack| !stack.complete) {
        assert!(
            stack.frames.iter().any(|frame| frame.reason.is_some()),
            "an incomplete stack without a reason: {}",
            stack.describe()
        );
    }
    target.assert_unharmed();
}

/// A stack copy that was lost is asked for again at the next hit, until every stack is known.
#[test]
fn lost_stack_copies_are_asked_for_again() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("deep").build(), &["rounds", "32"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "100ms", "--ring-bytes", "256KiB"]);
    target.go();
    target.step("round");
    tracer.signal(libc::SIGSTOP);
    target.go();
    target.step("round");
    tracer.signal(libc::SIGCONT);
    for round in 2..=6 {
        // The collector has drained the ring when it has reported after the round.
        let wanted = 32 * (round - 1);
        tracer.report_where("the round's objects", |report| {
            report.process(pid).outstanding_objects >= wanted
        });
        target.go();
        if round < 6 {
            target.step("round");
        }
    }
    let truth = target.truth();
    let report = tracer.finish();
    assert!(
        report.counter("stack_copies_lost") > 0,
        "{:?} {:?}",
        report.losses,
        report.notes
    );
    assert_exact(&report, &truth, pid);
    assert_stacks_reach(&report, &truth, pid, "main");
    target.assert_unharmed();
}

/// With nothing forced, nothing is lost: `losses` is empty.
#[test]
fn no_losses_in_quiet_times() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["all"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    target.truth();
    let report = tracer.finish();
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    target.assert_unharmed();
}
