//! Processes and memtrace itself begin, change and end: exec, fork, exit, signals, outputs, `run`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memtrace_tests::{
    Ended, Program, Report, Running, Target, Tracer, Truth, assert_exact, deadline, line_of,
    memtrace, memtrace_bin, require_kernel, site_stacks,
};

/// After an exec the new image is traced from its first allocation, and the old one's state is kept (R15).
#[test]
fn exec_into_itself() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("processes").build(), &["exec"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach(pid);
    target.go();
    let before = target.truth();
    target.step("exec");
    target.go();
    target.ready_again();
    target.go();
    let after = target.truth();
    let report = tracer.finish();
    assert_images(&report, pid, &before, &after);
    target.assert_unharmed();
}

/// The same into a program with another C library, which needs probes of its own.
#[test]
fn exec_into_another_c_library() {
    require_kernel!();
    let other = Program::c("processes").musl().build();
    let mut target = Target::spawn(
        &Program::c("processes").build(),
        &["exec_other", &other.to_string_lossy()],
    );
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "100ms"]);
    target.go();
    let before = target.truth();
    target.step("exec");
    target.go();
    target.ready_again();
    tracer.report_where("probes on musl", |report| {
        report
            .coverage
            .iter()
            .any(|entry| entry.family == "musl" && !entry.functions.is_empty())
    });
    target.go();
    let after = target.truth();
    let report = tracer.finish();
    assert_images(&report, pid, &before, &after);
    target.assert_unharmed();
}

#[track_caller]
fn assert_images(report: &Report, pid: u32, before: &Truth, after: &Truth) {
    let old = report
        .processes
        .iter()
        .find(|process| process.pid == pid && process.state == "exec");
    let old = old.unwrap_or_else(|| panic!("the old image is gone: {:?}", report.processes));
    assert_eq!(
        i64::try_from(old.outstanding_bytes).unwrap(),
        before.outstanding().0
    );
    let new = report.process(pid);
    assert_eq!(new.state, "running");
    assert_eq!(
        i64::try_from(new.outstanding_bytes).unwrap(),
        after.outstanding().0
    );
    assert_eq!(
        i64::try_from(new.outstanding_objects).unwrap(),
        after.outstanding().1
    );
    let stacks = site_stacks(report, after, "after_exec");
    assert_eq!(
        stacks
            .iter()
            .map(|stack| stack.outstanding_bytes)
            .sum::<u64>(),
        50 * 77
    );
}

/// A target that ends by itself ends the session with its last state, symbolized.
#[test]
fn target_that_ends_leaves_its_last_state() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("quick").build(), &["0"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach(pid);
    target.go();
    let truth = target.truth();
    let report = tracer.last_report();
    assert_exact(&report, &truth, pid);
    assert_eq!(report.process(pid).state, "exited");
    for stack in site_stacks(&report, &truth, "quick_leak") {
        let line = line_of("quick.c", "quick_leak");
        assert!(
            stack
                .frames
                .iter()
                .any(|frame| frame.is_at("quick.c", line)),
            "{}",
            stack.describe()
        );
        assert!(
            stack.frames.iter().any(|frame| frame.name() == "main"),
            "{}",
            stack.describe()
        );
    }
    assert!(target.wait().status.success());
}

/// A target that is killed does the same.
#[test]
fn target_that_is_killed_leaves_its_last_state() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach(pid);
    target.go();
    let truth = target.truth();
    target.signal(libc::SIGKILL);
    let report = tracer.last_report();
    assert_exact(&report, &truth, pid);
    assert_eq!(report.process(pid).state, "exited");
}

/// A target that is killed while memtrace attaches: it ends, with 0 or with one line that names the pid.
#[test]
fn target_killed_while_attaching() {
    require_kernel!();
    let program = Program::c("live").build();
    for delay in [0, 2, 5, 10, 20, 40, 80, 120, 160, 240] {
        let mut target = Target::spawn(&program, &["leak"]);
        let pid = target.pid().to_string();
        target.go();
        let mut tracer = Tracer::start(&mut memtrace(&["--pid", &pid, "--format", "json"]));
        // No synchronisation: a different moment of the attach each time.
        std::thread::sleep(std::time::Duration::from_millis(delay));
        target.signal(libc::SIGKILL);
        target.wait();
        let ended = tracer.wait();
        match ended.code() {
            0 => {
                Report::parse(ended.stdout.trim_end());
            }
            1 => ended.assert_fails_with_one_line(&[&pid]),
            code => panic!("exit code {code}: {}", ended.stderr),
        }
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

/// Two memtraces on one target: each is exact, and neither disturbs the other when it ends.
#[test]
fn two_memtraces_on_one_target() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("processes").build(), &["exec"]);
    let pid = target.pid();
    let mut first = Tracer::attach(pid);
    let mut second = Tracer::attach(pid);
    target.go();
    let truth = target.truth();
    assert_exact(&first.finish(), &truth, pid);
    assert_exact(&second.finish(), &truth, pid);
}

/// SIGTERM ends with the last report and exit code 0, like Ctrl-C.
#[test]
fn sigterm_ends_with_the_last_report() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    let truth = target.truth();
    tracer.signal(libc::SIGTERM);
    assert_exact(&tracer.last_report(), &truth, target.pid());
    target.assert_unharmed();
}

/// A closed pipe is success, quickly, in every format.
#[test]
fn closed_pipe_is_success() {
    require_kernel!();
    for format in ["text", "ndjson", "json"] {
        let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
        target.go();
        let pid = target.pid().to_string();
        let mut command = memtrace(&[
            "--pid",
            &pid,
            "--format",
            format,
            "--interval",
            "100ms",
            "--duration",
            "2s",
        ]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{format}: {status} {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("roken pipe"),
            "{stderr}"
        );
        target.assert_unharmed();
    }
}

/// A full disk under --output: exit code 1, one line with the path, the target unharmed.
#[test]
fn full_disk_under_output() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("deep").build(), &["contexts", "1024"]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_string_lossy().into_owned();
    let script = format!(
        "mount -t tmpfs -o size=16k tmpfs {folder} && exec {} --pid {} --format json --top 100000 \
         --duration 3s --output {folder}/report.json",
        memtrace_bin().display(),
        target.pid()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let mut tracer = Tracer::start(&mut command);
    tracer.wait_attached();
    target.go();
    target.truth();
    let ended = tracer.wait();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("report.json"), "{last}");
    assert!(last.to_lowercase().contains("space"), "{last}");
    target.assert_unharmed();
}

/// --output writes the report to the file and nothing to stdout.
#[test]
fn output_goes_to_the_file() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let mut tracer = Tracer::attach_with(target.pid(), &["--output", &file.to_string_lossy()]);
    target.go();
    let truth = target.truth();
    tracer.signal(libc::SIGINT);
    let ended = tracer.wait();
    ended.assert_code(0);
    assert_eq!(ended.stdout, "");
    let report = Report::parse(std::fs::read_to_string(&file).unwrap().trim_end());
    assert_exact(&report, &truth, target.pid());
    target.assert_unharmed();
}

/// --fail-on growing is exit code 3 for a leak, and 0 for one slower than asked for.
#[test]
fn fail_on_growing() {
    require_kernel!();
    for (mode, rule, code) in [
        ("leak", "growing", 3),
        ("leak", "growing:1KiB", 3),
        ("leak", "growing:1GiB", 0),
        ("steady", "growing", 0),
    ] {
        let mut target = Target::spawn(&Program::c("live").build(), &[mode]);
        let pid = target.pid().to_string();
        target.go();
        let mut tracer = Tracer::start(&mut memtrace(&[
            "--pid",
            &pid,
            "--format",
            "json",
            "--interval",
            "400ms",
            "--count",
            "14",
            "--fail-on",
            rule,
        ]));
        let ended = tracer.wait();
        ended.assert_code(code);
        target.assert_unharmed();
    }
}

/// --count ends by itself after so many reports, --duration after so long.
#[test]
fn count_and_duration_end_it() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    target.go();
    let pid = target.pid().to_string();
    let mut tracer = Tracer::start(&mut memtrace(&[
        "--pid",
        &pid,
        "--format",
        "ndjson",
        "--interval",
        "200ms",
        "--count",
        "3",
    ]));
    let ended = tracer.wait();
    ended.assert_code(0);
    assert_eq!(ended.stdout.lines().count(), 3);
    let mut tracer = Tracer::start(&mut memtrace(&[
        "--pid",
        &pid,
        "--format",
        "json",
        "--interval",
        "200ms",
        "--duration",
        "1s",
    ]));
    let seconds = tracer.last_report().duration_seconds;
    assert!((0.9..3.0).contains(&seconds), "{seconds}");
    target.assert_unharmed();
}

/// --group-by function and module keep the sums.
#[test]
fn groups_keep_the_sums() {
    require_kernel!();
    for group in ["function", "module"] {
        let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc", "calloc"]);
        let mut tracer = Tracer::attach_with(target.pid(), &["--group-by", group]);
        target.go();
        let (bytes, objects) = target.truth().outstanding();
        let report = tracer.finish();
        let sums = report
            .heap_stacks(target.pid())
            .fold((0, 0), |sums, stack| {
                (
                    sums.0 + stack.outstanding_bytes,
                    sums.1 + stack.outstanding_objects,
                )
            });
        assert_eq!(
            sums,
            (
                u64::try_from(bytes).unwrap(),
                u64::try_from(objects).unwrap()
            ),
            "{group}"
        );
        target.assert_unharmed();
    }
}

/// --older keeps only what has lived that long.
#[test]
fn older_keeps_only_survivors() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let mut tracer = Tracer::attach_with(target.pid(), &["--older", "1h"]);
    target.go();
    target.truth();
    let report = tracer.finish();
    let shown: u64 = report
        .heap_stacks(target.pid())
        .map(|stack| stack.outstanding_objects)
        .sum();
    assert_eq!(shown, 0);
    target.assert_unharmed();
}

fn run(options: &[&str], program: &Path, args: &[&str]) -> (Ended, Report) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let mut command = memtrace(&["run", "--format", "json", "--top", "1000000", "--output"]);
    command
        .arg(&file)
        .args(options)
        .arg("--")
        .arg(program)
        .args(args)
        .env("TRUTH_NOWAIT", "1");
    let ended = Running::spawn(&mut command).wait(deadline(120));
    let report = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("no report: {error}\n{}", ended.stderr));
    (ended, Report::parse(report.trim_end()))
}

fn truth_in(ended: &Ended) -> Truth {
    let line = ended.stdout.lines().find(|line| line.starts_with('{'));
    Truth::parse(line.expect("the program printed its truth"))
}

/// `run` is exact from the first allocation on, for a dynamic and a static program. (For
/// C++ see the next one; Rust's runtime allocates before main.)
#[test]
fn run_misses_nothing() {
    require_kernel!();
    let programs: [(PathBuf, &[&str]); 3] = [
        (Program::c("alloc").build(), &["all"]),
        (
            Program::c("alloc").musl().fully_static().build(),
            &["all", "-strdup"],
        ),
        (Program::c("quick").build(), &["0"]),
    ];
    for (program, args) in programs {
        let (ended, report) = run(&[], &program, args);
        ended.assert_code(0);
        let mut truth = truth_in(&ended);
        if program.to_string_lossy().contains("/alloc-") {
            // What main itself allocates before `ready`, which an attach would not see.
            let main = report.heap_stacks(truth.pid).filter(|stack| {
                stack
                    .frames
                    .iter()
                    .find(|frame| !frame.allocator)
                    .is_some_and(|f| f.name() == "main")
            });
            assert_eq!(
                main.map(|stack| stack.outstanding_objects).sum::<u64>(),
                200
            );
            let site = r#"{"function":"main","exact":false,"outstanding_bytes":0,"outstanding_objects":0,"allocated_bytes":0,"allocated_objects":0}"#;
            truth.sites.push(serde_json::from_str(site).unwrap());
        }
        assert_exact(&report, &truth, truth.pid);
        assert_eq!(report.process(truth.pid).state, "exited");
    }
}

/// What C++ frees on its way out (static objects, atexit, a thread's locals) is freed in the report
/// of `run`, too: the one real leak is left.
#[test]
fn run_sees_what_is_freed_at_exit() {
    require_kernel!();
    let program = Program::cpp("at_exit").flag("-pthread").build();
    let (ended, report) = run(&[], &program, &[]);
    ended.assert_code(0);
    let truth = truth_in(&ended);
    assert_exact(&report, &truth, truth.pid);
    let (fill, keep) = (truth.site("fill"), truth.site("keep"));
    assert_eq!((fill.allocated_objects, fill.outstanding_objects), (240, 0));
    assert_eq!((keep.allocated_objects, keep.outstanding_bytes), (2, 7));
}

/// `run` passes arguments as they are, the program's output, and its exit status on.
#[test]
fn run_passes_arguments_and_status() {
    require_kernel!();
    let program = Program::c("quick").build();
    let args = ["7", "two words", "--pid", "", "*", "ä"];
    let (ended, _) = run(&[], &program, &args);
    ended.assert_code(7);
    let passed: Vec<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("argument "))
        .collect();
    assert_eq!(passed, args[1..]);
}

/// `run` passes a signal's death on as 128 + signal; --fail-on speaks only when the status was 0.
#[test]
fn run_passes_a_signal_on_as_status() {
    require_kernel!();
    let program = Program::c("quick").build();
    let (ended, _) = run(&[], &program, &["-15"]);
    assert_eq!(ended.code(), 128 + 15, "{:?}", ended.status.signal());
    let (ended, _) = run(&["--fail-on", "growing"], &program, &["9"]);
    assert_eq!(ended.code(), 9);
}

/// `run` hands stdin through, forwards SIGTERM to the program, and reports its end.
#[test]
fn run_forwards_stdin_and_signals() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let mut command = memtrace(&["run", "--format", "json", "--output"]);
    command
        .arg(&file)
        .arg("--")
        .arg(Program::c("alloc").build())
        .arg("malloc");
    let mut running = Running::spawn(&mut command);
    running.stdout_line(deadline(90), "ready", |line| line.starts_with("ready "));
    running.send_line("go");
    let line = running.stdout_line(deadline(90), "the truth", |line| line.starts_with('{'));
    running.signal(libc::SIGTERM);
    let ended = running.wait(deadline(90));
    assert_eq!(ended.code(), 128 + 15, "{}", ended.stderr);
    let truth = Truth::parse(&line);
    let report = Report::parse(std::fs::read_to_string(&file).unwrap().trim_end());
    let (bytes, _) = truth.outstanding();
    assert!(report.process(truth.pid).outstanding_bytes >= u64::try_from(bytes).unwrap());
}

/// `run` of a command that is not there: exit code 1 and one line with its name.
#[test]
fn run_of_a_missing_command() {
    require_kernel!();
    let mut command = memtrace(&["run", "--", "/no/such/command"]);
    Running::spawn(&mut command)
        .wait(deadline(90))
        .assert_fails_with_one_line(&["/no/such/command"]);
}

/// A return probe under strict seccomp does not kill the target on this kernel, or is not placed (R25).
#[test]
fn strict_seccomp_is_survived() {
    require_kernel!();
    for mode in ["strict", "filter"] {
        let mut target = Target::spawn(&Program::c("seccomp").build(), &[mode]);
        let pid = target.pid().to_string();
        let mut tracer = Tracer::start(&mut memtrace(&["--pid", &pid, "--format", "json"]));
        // Either it traces, exactly, or it refuses with the reason.
        let mut refused = None;
        let until = deadline(90);
        while refused.is_none() {
            if !tracer.is_running() {
                refused = Some(tracer.wait());
            } else if tracer.has_attached() {
                break;
            }
            assert!(std::time::Instant::now() < until);
        }
        target.go();
        let truth = target.truth();
        match refused {
            Some(ended) => ended.assert_fails_with_one_line(&["seccomp"]),
            None => assert_exact(&tracer.finish(), &truth, target.pid()),
        }
        target.assert_unharmed();
    }
}
