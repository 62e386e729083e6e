//! Process trees and selections: children, recycled workers, short lives, names, cgroups; each call of
//! each process counted once, for the right process (R13, R14, R15, R28).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::{
    Program, Report, Running, Target, Tracer, Truth, assert_exact, deadline, memtrace,
    require_kernel,
};

fn trees() -> PathBuf {
    Program::c("trees").build()
}

fn follow(pid: u32) -> Tracer {
    Tracer::attach_with(pid, &["--follow"])
}

/// Outstanding bytes and objects and objects allocated under a function, over all processes.
fn under(report: &Report, function: &str) -> (u64, u64, u64) {
    let stacks = report
        .stacks
        .iter()
        .filter(|stack| stack.frames.iter().any(|frame| frame.name() == function));
    stacks.fold((0, 0, 0), |sum, stack| {
        (
            sum.0 + stack.outstanding_bytes,
            sum.1 + stack.outstanding_objects,
            sum.2 + stack.allocated_objects,
        )
    })
}

fn truth_of(truth: &Truth, function: &str) -> (u64, u64, u64) {
    let site = truth.site(function);
    let number = |value: i64| u64::try_from(value).unwrap();
    (
        number(site.outstanding_bytes),
        number(site.outstanding_objects),
        number(site.allocated_objects),
    )
}

#[track_caller]
fn assert_no_losses(report: &Report) {
    assert!(
        report.losses.values().all(|&count| count == 0),
        "{:?}",
        report.losses
    );
}

/// Starts memtrace on a selection and waits until the probes are on.
#[track_caller]
fn select(options: &[&str]) -> Tracer {
    let mut args = vec!["--format", "ndjson", "--top", "1000000", "-i", "200ms"];
    args.extend(options);
    let mut tracer = Tracer::start(&mut memtrace(&args));
    tracer.wait_attached();
    tracer
}

/// Waits for a report in which this program has ended with so many objects outstanding.
#[track_caller]
fn ended_with(tracer: &mut Tracer, pid: u32, objects: u64) -> Report {
    tracer.report_where("its last figures", |report| {
        report.processes.iter().any(|process| {
            process.pid == pid
                && process.state == "exited"
                && process.outstanding_objects >= objects
        })
    })
}

/// Parent, child and grandchild each hold their own; inherited blocks are nobody's leak, and a child
/// that frees them takes nothing from its parent (R13).
#[test]
fn tree_is_exact_for_each_process() {
    require_kernel!();
    let mut target = Target::spawn(&trees(), &["tree"]);
    let root = target.pid();
    let mut tracer = follow(root);
    target.go();
    let mut truths = Vec::new();
    for _ in 0..2 {
        truths.push(target.truth_of_child_or_self());
    }
    truths.push(target.truth_of_child_or_self());
    let report = tracer.finish();
    assert_no_losses(&report);
    let mut pids: Vec<u32> = truths.iter().map(|truth| truth.pid).collect();
    for truth in &truths {
        assert_exact(&report, truth, truth.pid);
        assert_eq!(report.process(truth.pid).state, "running");
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "three processes said their truth");
    assert_eq!(report.processes.len(), 3);
    assert_eq!(report.counter("unmatched_frees"), 100);
    target.assert_unharmed();
}

/// A process that shares the C library, and so its probes, with a traced one is none of it.
#[test]
fn others_that_share_the_probes_are_not_counted() {
    require_kernel!();
    let mut other = Target::spawn(&Program::c("alloc").build(), &["reuse"]);
    let mut target = Target::spawn(&trees(), &["tree"]);
    let root = target.pid();
    let mut tracer = follow(root);
    other.go();
    other.truth();
    target.go();
    let mut truths: Vec<Truth> = (0..3).map(|_| target.truth_of_child_or_self()).collect();
    truths.retain(|truth| truth.pid == root);
    let report = tracer.finish();
    assert_no_losses(&report);
    assert_exact(&report, &truths[0], root);
    assert!(report.processes.iter().all(|one| one.pid != other.pid()));
    assert!(
        report.overhead["probe_hits"]["heap"].as_u64().unwrap() < 10_000,
        "hits of others are not counted: {}",
        report.overhead
    );
    target.assert_unharmed();
    other.assert_unharmed();
}

/// Two hundred workers of fifty generations: what each held at its end adds up, to the byte, and the
/// program is one row.
#[test]
fn recycled_workers_add_up() {
    require_kernel!();
    let mut target = Target::spawn(&trees(), &["prefork", "4", "50", "20"]);
    let root = target.pid();
    let mut tracer = Tracer::attach_with(root, &["--follow", "--group-by", "process"]);
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_no_losses(&report);
    for site in ["worker_leak", "worker_cache", "root_leak"] {
        assert_eq!(under(&report, site), truth_of(&truth, site), "{site}");
    }
    let ended: u64 = report
        .processes
        .iter()
        .filter(|process| process.state == "exited")
        .map(|process| process.processes)
        .sum();
    assert_eq!(ended, 200);
    assert!(
        report.processes.len() < 100,
        "{} rows",
        report.processes.len()
    );
    let [group] = report.groups.as_slice() else {
        panic!("not one program: {:?}", report.groups)
    };
    assert_eq!(group.name.as_deref(), trees().to_str());
    assert_eq!(
        i64::try_from(group.outstanding_bytes).unwrap(),
        truth.outstanding().0
    );
    assert!(group.pids.contains(&root));
    target.assert_unharmed();
}

/// Three thousand processes that live for a moment are each counted, or their loss is.
#[test]
fn short_lives_are_counted() {
    require_kernel!();
    let mut target = Target::spawn(&trees(), &["storm", "3000"]);
    let mut tracer = follow(target.pid());
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_no_losses(&report);
    assert_eq!(
        under(&report, "worker_leak"),
        truth_of(&truth, "worker_leak")
    );
    target.assert_unharmed();
}

/// Nine thousand processes that began and ended while memtrace slept are caught up with: none of them is
/// dropped, though there are more than are kept at once.
#[test]
fn a_storm_while_asleep() {
    require_kernel!();
    let mut target = Target::spawn(&trees(), &["storm", "9000"]);
    let mut tracer = follow(target.pid());
    tracer.signal(libc::SIGSTOP);
    target.go();
    let truth = target.truth();
    tracer.signal(libc::SIGCONT);
    let report = tracer.finish();
    assert_no_losses(&report);
    assert_eq!(
        under(&report, "worker_leak"),
        truth_of(&truth, "worker_leak")
    );
    let ended = report.processes.iter().filter(|p| p.state == "exited");
    assert_eq!(ended.map(|p| p.processes).sum::<u64>(), 9000);
    assert!(
        report.processes.len() < 100,
        "{} rows",
        report.processes.len()
    );
    target.assert_unharmed();
}

/// Mappings and resident pages of a parent and its child are each one's own, to the byte; an inherited
/// mapping that the child unmaps takes nothing from its parent (R13). The sums of programs are those of
/// the processes: no reservations, and no page twice.
#[test]
fn mappings_of_a_tree() {
    require_kernel!();
    let mut target = Target::spawn(&trees(), &["maps"]);
    let root = target.pid();
    let pages = cfg!(target_arch = "x86_64");
    let probes = if pages {
        "heap,region,fault"
    } else {
        "heap,region"
    };
    let options = ["--follow", "--probe", probes, "--group-by", "process"];
    let mut tracer = Tracer::attach_with(root, &options);
    target.go();
    let truths: Vec<Truth> = (0..2).map(|_| target.truth_of_child_or_self()).collect();
    let mut report = tracer.finish();
    // A fault in the stack's uppermost page has nothing above it to be told by.
    report.losses.remove("stack_reads_failed");
    assert_no_losses(&report);
    for truth in &truths {
        for site in ["root_map", "child_map"] {
            let expected = truth_of(truth, site).0;
            for probe in ["region", "fault"].iter().take(1 + usize::from(pages)) {
                let found = report.bytes_by_function(truth.pid, probe, &[site]);
                let found = found.get(site).copied().unwrap_or(0);
                assert_eq!(found, expected, "{site} of {} by {probe}", truth.pid);
            }
        }
    }
    let child = truths.iter().find(|truth| truth.pid != root).unwrap();
    let reserved = report.bytes_by_function(child.pid, "region", &["reserve_map"]);
    assert_eq!(reserved["reserve_map"], 1000 * 4096);
    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.sum::<u64>();
    let of_processes = sum(&mut report.processes.iter().map(|p| p.outstanding_bytes));
    let of_groups = sum(&mut report.groups.iter().map(|g| g.outstanding_bytes));
    assert_eq!(of_groups, of_processes, "{:?}", report.groups);
    target.assert_unharmed();
}

/// A child that execs keeps what it held before, and is traced as the new program from its first
/// allocation (R15).
#[test]
fn exec_in_a_child() {
    require_kernel!();
    let program = trees();
    let mut target = Target::spawn(&program, &["exec", &program.to_string_lossy()]);
    let root = target.pid();
    let mut tracer = follow(root);
    target.go();
    let child = target.truth_of_child();
    let truth = target.truth();
    let report = tracer.finish();
    assert_no_losses(&report);
    assert_exact(&report, &truth, root);
    let image = |state: &str| {
        let mut found = report.processes.iter();
        found
            .find(|process| process.pid == child.pid && process.state == state)
            .map(|process| (process.outstanding_bytes, process.outstanding_objects))
    };
    assert_eq!(image("exec"), Some((220, 20)));
    assert_eq!(image("exited"), Some((350, 7)));
    target.assert_unharmed();
}

/// Programs started by posix_spawn, which shares memory until the exec, are traced from their first
/// allocation (R14, R15).
#[test]
fn spawned_programs() {
    require_kernel!();
    let program = trees();
    let mut target = Target::spawn(&program, &["spawn", &program.to_string_lossy(), "20"]);
    let root = target.pid();
    let mut tracer = follow(root);
    target.go();
    target.truth();
    let report = tracer.finish();
    assert_no_losses(&report);
    let spawned = report
        .processes
        .iter()
        .filter(|process| process.pid != root);
    let (processes, objects) = spawned.fold((0, 0), |(processes, objects), process| {
        (
            processes + process.processes,
            objects + process.outstanding_objects,
        )
    });
    assert_eq!((processes, objects), (20, 60));
    target.assert_unharmed();
}

/// Workers that were there before memtrace belong to the tree, too.
#[test]
fn children_from_before_the_attach() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("processes").build(), &["fork"]);
    target.go();
    let child = target.truth_of_child();
    let parent = target.truth();
    let mut tracer = follow(target.pid());
    let report = tracer.finish();
    let mut pids: Vec<u32> = report.processes.iter().map(|one| one.pid).collect();
    pids.sort_unstable();
    let mut both = vec![child.pid, parent.pid];
    both.sort_unstable();
    assert_eq!(pids, both);
    target.assert_unharmed();
}

/// `run --follow` traces a whole command from its first allocation, and ends with it.
#[test]
fn run_follows() {
    require_kernel!();
    let program = trees();
    let mut command = memtrace(&["run", "--follow", "--format", "json", "--top", "all", "--"]);
    command
        .arg(&program)
        .args(["prefork", "2", "3", "10"])
        .env("TRUTH_NOWAIT", "1");
    let mut tracer = Tracer::start(&mut command);
    let ended = tracer.wait();
    ended.assert_code(0);
    let truth = ended
        .stdout
        .lines()
        .find(|line| line.contains("\"sites\""))
        .unwrap();
    let truth = Truth::parse(truth);
    let start = ended.stdout.find("{\n").unwrap();
    let report = Report::parse(&ended.stdout[start..]);
    assert_no_losses(&report);
    for site in ["worker_leak", "root_leak"] {
        assert_eq!(under(&report, site), truth_of(&truth, site), "{site}");
    }
}

/// A copy of the program under a name of its own, so that no other process is selected.
fn named(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::copy(trees(), &path).unwrap();
    path
}

/// `--comm` takes those that run, and those that begin later from their first allocation on.
#[test]
fn by_name_now_and_later() {
    require_kernel!();
    let directory = tempfile::tempdir().unwrap();
    let program = named(directory.path(), "mt-trees-name");
    let mut before = Target::spawn(&program, &["tree"]);
    let mut tracer = select(&["--comm", "mt-trees-name"]);
    let mut later = Running::spawn(Command::new(&program).args(["quiet", "7"]));
    let pid = later.pid();
    later.wait(deadline(20)).assert_code(0);
    let report = ended_with(&mut tracer, pid, 7);
    let process = report.process(pid);
    assert_eq!(
        (process.outstanding_bytes, process.outstanding_objects),
        (350, 7)
    );
    before.go();
    let truths: Vec<Truth> = (0..3).map(|_| before.truth_of_child_or_self()).collect();
    let report = tracer.finish();
    assert_no_losses(&report);
    for truth in &truths {
        assert_exact(&report, truth, truth.pid);
    }
    before.assert_unharmed();
}

/// A process that takes the name while it runs is found at a later report.
#[test]
fn by_name_taken_later() {
    require_kernel!();
    let mut tracer = select(&["--comm", "mt-renamed"]);
    let mut target = Target::spawn(&trees(), &["name", "mt-renamed"]);
    let pid = target.pid();
    tracer.report_where("the renamed process", |report| {
        report.processes.iter().any(|process| process.pid == pid)
    });
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_no_losses(&report);
    // Five from before the attach are unknown, five are seen.
    assert_eq!(under(&report, "root_leak"), (305, 5, 5));
    assert_eq!(truth.site("root_leak").outstanding_objects, 10);
    target.assert_unharmed();
}

/// A memory cgroup of the test's own; gone with it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let root = if v1.exists() {
            v1
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let path = root.join(format!("memtrace-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn add(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What was in it was killed, and leaves it a moment later.
        let until = deadline(10);
        while std::fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
    }
}

/// `--cgroup` takes what is in it or below, what moves in, and what those fork; nothing else.
#[test]
fn by_cgroup() {
    require_kernel!();
    let cgroup = Cgroup::new("select");
    let below = Cgroup(cgroup.0.join("below"));
    std::fs::create_dir(&below.0).unwrap();
    let mut inside = Target::spawn(&trees(), &["tree"]);
    let mut moved = Target::spawn(&trees(), &["tree"]);
    let mut outside = Target::spawn(&trees(), &["tree"]);
    below.add(inside.pid());
    let mut tracer = select(&["--cgroup", &cgroup.0.to_string_lossy()]);
    cgroup.add(moved.pid());
    let pid = moved.pid();
    tracer.report_where("the moved process", |report| {
        report.processes.iter().any(|process| process.pid == pid)
    });
    let mut truths = Vec::new();
    for target in [&mut inside, &mut moved] {
        target.go();
        truths.extend((0..3).map(|_| target.truth_of_child_or_self()));
    }
    outside.go();
    (0..3).for_each(|_| drop(outside.truth_of_child_or_self()));
    let report = tracer.finish();
    assert_no_losses(&report);
    for truth in &truths {
        assert_exact(&report, truth, truth.pid);
    }
    assert_eq!(report.processes.len(), 6);
    for target in [inside, moved, outside] {
        target.assert_unharmed();
    }
    drop(below);
}

/// `--all` takes every process but memtrace, those that begin later too. Only one size, so that the
/// machine's other processes do not fill the tables.
#[test]
fn all_processes() {
    require_kernel!();
    let before = Target::spawn(&trees(), &["tree"]);
    let mut args = vec!["--all", "--min-size", "50", "--max-size", "50"];
    args.extend(["--format", "json", "--top", "1000000"]);
    let mut tracer = Tracer::start(&mut memtrace(&args));
    tracer.wait_attached();
    let mut later = Target::spawn(&trees(), &["tree"]);
    later.go();
    (0..3).for_each(|_| drop(later.truth_of_child_or_self()));
    let tracer_pid = tracer.pid();
    let mut report = tracer.finish();
    let is_traced = |pid| report.processes.iter().any(|one| one.pid == pid);
    assert!(is_traced(before.pid()) && is_traced(later.pid()));
    assert!(!is_traced(tracer_pid));
    // Of a hundred sizes one is 50; that block is freed again.
    report.stacks.retain(|stack| stack.pid == later.pid());
    assert_eq!(under(&report, "root_leak"), (0, 0, 1));
    for target in [before, later] {
        target.assert_unharmed();
    }
}
