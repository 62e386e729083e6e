//! Runtimes that manage memory, as real processes: recognized, with what their heap grew by, what to run
//! next, and the names that their perf maps give to their frames.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::{Process, Report, Target, Tracer, require_kernel};

const MIB: i64 = 1 << 20;
const PYTHON: &str = "import sys\nprint('ready', 0, flush=True)\nsys.stdin.readline()\n\
                      l=[str(i)*50 for i in range(100000)]\n\
                      print('{\"pid\":0,\"sites\":[]}', flush=True)\nsys.stdin.readline()";

fn source(name: &str) -> String {
    let folder = std::env::var_os("MEMTRACE_TEST_SOURCES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("programs"),
        PathBuf::from,
    );
    folder.join(name).to_str().unwrap().to_owned()
}

/// A perf map that goes with the test.
struct PerfMap(PathBuf);

impl PerfMap {
    fn of(pid: u32) -> Self {
        Self(format!("/tmp/perf-{pid}.map").into())
    }
}

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[track_caller]
fn assert_runtime(process: &Process, name: &str, next: &str, least: i64) {
    let runtime = process.runtime.as_ref().expect("a runtime");
    assert_eq!(runtime.name, name);
    assert!(runtime.advice.contains(next), "{}", runtime.advice);
    let grown = runtime.heap_growth_bytes.unwrap();
    assert!(grown >= least && grown < 200 * MIB, "{name} grew {grown}");
}

/// A stack has a frame of code that no file holds, with a name that is right.
#[track_caller]
fn assert_named(report: &Report, pid: u32, right: impl Fn(&str) -> bool) {
    let mut frames = report.heap_stacks(pid).flat_map(|stack| &stack.frames);
    let named =
        frames.any(|frame| frame.module.is_none() && frame.function.as_deref().is_some_and(&right));
    let stacks: Vec<_> = report.heap_stacks(pid).map(|s| s.describe()).collect();
    assert!(named, "no such name in:\n{}", stacks.join("\n"));
}

/// Python, Node.js and Java, traced at once: each is named, its heap grew by what the program keeps, the
/// next command is one for it, and compiled frames of Node.js and Java have the names of their perf maps.
#[test]
fn are_recognized() {
    require_kernel!();
    let mut python =
        Target::spawn_slow(Path::new("/usr/bin/python3"), &["-X", "perf", "-c", PYTHON]);
    let mut node = Target::spawn_slow(
        Path::new("node"),
        &[
            "--perf-basic-prof",
            // The map only: no log of the engine's in the working directory.
            "--no-logfile-per-isolate",
            "--logfile=/dev/null",
            &source("grow.js"),
        ],
    );
    let classes = tempfile::tempdir().unwrap();
    let folder = classes.path().to_str().unwrap();
    let compiled = Command::new("javac")
        .args(["-d", folder, &source("Grow.java")])
        .status();
    assert!(compiled.unwrap().success(), "javac");
    let mut java = Target::spawn_slow(
        Path::new("java"),
        &[
            "-XX:+UseSerialGC",
            "-Xms4m",
            "-Xmx128m",
            "-cp",
            folder,
            "Grow",
        ],
    );
    let (python_pid, node_pid, java_pid) = (python.pid(), node.pid(), java.pid());
    let _maps = [node_pid, java_pid, python_pid].map(PerfMap::of);
    let (second, third) = (node_pid.to_string(), java_pid.to_string());
    // All new call paths of three runtimes at once find room, however late memtrace gets to run.
    let mut tracer = Tracer::attach_with(
        python_pid,
        &["--pid", &second, "--pid", &third, "--ring-bytes", "64MiB"],
    );
    for target in [&mut python, &mut node, &mut java] {
        target.go();
        target.truth();
    }
    // As the advice says.
    let written = Command::new("jcmd")
        .args([&third, "Compiler.perfmap"])
        .output();
    assert!(written.unwrap().status.success(), "jcmd");
    let report = tracer.finish();
    assert_runtime(report.process(python_pid), "python", "tracemalloc", 8 * MIB);
    assert_runtime(
        report.process(node_pid),
        "node",
        "--heapsnapshot-signal",
        8 * MIB,
    );
    let histogram = format!("jcmd {java_pid} GC.class_histogram");
    assert_runtime(report.process(java_pid), "jvm", &histogram, 24 * MIB);
    assert_named(&report, node_pid, |name| name.starts_with("JS:"));
    assert_named(&report, java_pid, |name| {
        name.contains("Interpreter") || name.contains("java.nio") || name.contains("Grow")
    });
    for target in [python, node, java] {
        target.assert_unharmed();
    }
}

/// Go and Ruby, by their mappings: each is named, Ruby's heap grew by what the program keeps, the next
/// command is one for it. Go's threads have their stacks in its heap, which is not taken for stacks for that.
#[test]
fn go_and_ruby_are_recognized() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("grow-go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([program.as_os_str(), source("grow.go").as_ref()])
        .env("HOME", folder.path())
        .output()
        .expect("go (apt-get install golang-go)");
    assert!(built.status.success(), "{built:?}");
    let mut go = Target::spawn_slow(&program, &[]);
    let mut ruby = Target::spawn_slow(Path::new("/usr/bin/ruby"), &[&source("grow.rb")]);
    let (go_pid, ruby_pid) = (go.pid(), ruby.pid());
    let second = ruby_pid.to_string();
    let mut tracer = Tracer::attach_with(go_pid, &["--pid", &second, "--probe", "region"]);
    for target in [&mut go, &mut ruby] {
        target.go();
        target.truth();
    }
    let report = tracer.finish();
    assert_runtime(report.process(go_pid), "go", "go tool pprof", 16 * MIB);
    let parts = report.process(go_pid).reconciliation.as_ref().unwrap();
    assert!(parts["stack"].unwrap() < MIB as u64, "{parts:?}");
    let dump = format!("rbtrace -p {ruby_pid}");
    assert_runtime(report.process(ruby_pid), "ruby", &dump, 4 * MIB);
    for target in [go, ruby] {
        target.assert_unharmed();
    }
}
