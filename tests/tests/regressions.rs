//! What once went wrong, each with the test that would have shown it.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::process::Stdio;

use memtrace_tests::{
    Program, Report, Stack, Target, Tracer, assert_exact, assert_stacks_reach, memtrace,
    require_kernel,
};

fn program() -> Program {
    Program::c("regressions")
}

#[track_caller]
fn stack_with<'a>(report: &'a Report, function: &str) -> &'a Stack {
    report
        .stacks
        .iter()
        .find(|stack| stack.frames.iter().any(|frame| frame.name() == function))
        .unwrap_or_else(|| panic!("no stack with {function}: {:?}", report.stacks))
}

/// The report of a program that `run` starts and that waits for nobody.
#[track_caller]
fn run(mode: &str) -> Report {
    let output = memtrace(&["run", "--format", "json", "--top", "all", "--"])
        .arg(program().build())
        .arg(mode)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Report::parse(&String::from_utf8_lossy(&output.stdout))
}

/// A program that ends before anyone can read its mappings, or while they are read, has whole stacks
/// all the same.
#[test]
fn a_program_that_ends_at_once_has_stacks() {
    require_kernel!();
    for _ in 0..5 {
        let report = run("quick");
        let stack = stack_with(&report, "quick_leak");
        assert_eq!(
            (stack.outstanding_bytes, stack.outstanding_objects),
            (999, 1)
        );
        let whole = stack.complete && stack.frames.iter().any(|frame| frame.name() == "main");
        assert!(whole, "{}", stack.describe());
    }
}

/// Two hundred call paths before the first look at the mappings all have whole stacks.
#[test]
fn a_burst_before_the_mappings_are_known() {
    require_kernel!();
    for _ in 0..3 {
        let report = run("burst");
        let mut objects = 0;
        for stack in &report.stacks {
            let has = |name| stack.frames.iter().any(|frame| frame.name() == name);
            assert!(stack.complete, "{}", stack.describe());
            if has("burst_leak") {
                assert!(has("main"), "{}", stack.describe());
                objects += stack.outstanding_objects;
            }
        }
        assert_eq!(objects, 200, "{:?}", report.losses);
    }
}

/// Pages of the stack that nobody has touched do not end its copy.
#[test]
fn a_hole_in_the_stack_hides_nothing() {
    require_kernel!();
    let mut target = Target::spawn(&program().build(), &["hole"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, target.pid());
    assert_stacks_reach(&report, &truth, target.pid(), "main");
    target.assert_unharmed();
}

/// Calls made after an allocator was left by longjmp are not taken for its inner ones (R10).
#[test]
fn calls_after_a_longjmp_are_their_own() {
    require_kernel!();
    let mut target = Target::spawn(&program().build(), &["left_outer"]);
    let options = ["--alloc-fn", "pool_take:1", "--free-fn", "pool_give:1"];
    let mut tracer = Tracer::attach_with(target.pid(), &options);
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, target.pid());
    assert_stacks_reach(&report, &truth, target.pid(), "deeper");
    target.assert_unharmed();
}

/// A process whose `main` ends with `pthread_exit` goes on being traced, and that calls may have
/// been missed meanwhile is said (R12).
#[test]
fn the_first_thread_may_end() {
    require_kernel!();
    let mut target = Target::spawn(&program().build(), &["first_thread"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "100ms"]);
    target.go();
    target.step("alone");
    tracer.report_where("moved probes", |report| report.counter("probes_moved") == 1);
    target.go();
    target.truth();
    let report = tracer.finish();
    assert_eq!(report.losses.keys().collect::<Vec<_>>(), ["probes_moved"]);
    let stack = stack_with(&report, "without_main");
    assert_eq!(
        (stack.outstanding_bytes, stack.outstanding_objects),
        (4000, 100)
    );
    target.assert_unharmed();
}

/// The first call of a library that was loaded a moment ago has a whole stack.
#[test]
fn a_library_may_be_called_at_once() {
    require_kernel!();
    let plugin = Program::c("plugin").shared_object().build();
    let plugin = plugin.to_string_lossy();
    let mut target = Target::spawn(&program().build(), &["called_at_once", &plugin]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    target.truth();
    let report = tracer.finish();
    let stack = stack_with(&report, "plugin_make");
    assert_eq!(stack.outstanding_bytes, 5555);
    let whole = stack.complete && stack.frames.iter().any(|frame| frame.name() == "main");
    assert!(whole, "{}", stack.describe());
    target.assert_unharmed();
}

/// A call path that appears while a report is taken has its stack in that report, or its copy is
/// counted as lost (R12).
#[test]
fn a_call_path_new_during_a_report_has_its_stack() {
    require_kernel!();
    let mut target = Target::spawn(&program().build(), &["new_paths"]);
    let options = ["--interval", "100ms"];
    let mut tracer = Tracer::attach_stream(target.pid(), &options);
    target.go();
    target.truth();
    tracer.signal(libc::SIGINT);
    let ended = tracer.wait();
    ended.assert_code(0);
    let reports: Vec<Report> = ended.stdout.lines().map(Report::parse).collect();
    assert!(reports.len() > 5, "{} reports", reports.len());
    for report in reports {
        let unnamed = report.stacks.iter().filter(|stack| stack.frames.len() < 2);
        let missing: Vec<String> = unnamed.map(Stack::describe).collect();
        let lost = report.counter("stack_copies_lost");
        assert!(missing.is_empty() || lost > 0, "{missing:?}");
    }
    target.assert_unharmed();
}

/// A ring buffer without room for one stack copy could never name a stack.
#[test]
fn a_ring_buffer_holds_a_stack() {
    let output = memtrace(&["--pid", "1", "--ring-bytes", "32KiB"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("64KiB"), "{stderr}");
}
