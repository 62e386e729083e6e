//! Full stacks in optimised builds without frame pointers: every caller up to `main`, file and line.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use memtrace_tests::{
    Program, Report, Running, Target, Tracer, Truth, assert_exact, assert_stacks_reach, deadline,
    line_of, require_kernel, site_stacks,
};

#[track_caller]
fn trace(program: &Path, args: &[&str], options: &[&str]) -> (Report, Truth, u32) {
    let mut target = Target::spawn(program, args);
    let mut tracer = Tracer::attach_with(target.pid(), options);
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    let pid = target.pid();
    target.assert_unharmed();
    (report, truth, pid)
}

/// Each frame from the site outwards: part of its name, its mark in the source, inlined or not.
#[track_caller]
fn assert_chain(report: &Report, truth: &Truth, source: &str, chain: &[(&str, &str, bool)]) {
    let site = &truth.sites[0].function;
    let stacks = site_stacks(report, truth, site);
    assert!(!stacks.is_empty(), "no stack has {site}");
    for stack in stacks {
        assert!(stack.complete, "{}", stack.describe());
        let first = stack
            .frames
            .iter()
            .position(|frame| frame.name() == site)
            .unwrap();
        for (i, &(name, mark, inlined)) in chain.iter().enumerate() {
            let line = line_of(source, mark);
            let frame = stack.frames.get(first + i);
            assert!(
                frame.is_some_and(|frame| {
                    frame
                        .function
                        .as_deref()
                        .is_some_and(|function| function.contains(name))
                        && frame.is_at(source, line)
                        && frame.inlined == inlined
                }),
                "frame {i} is not {name} at {source}:{line} (inlined {inlined}) but {frame:?}\n{}",
                stack.describe()
            );
        }
    }
}

/// C: a large frame, an inlined function, a frame of dynamic size.
#[test]
fn c_chain_to_main() {
    require_kernel!();
    let (report, truth, pid) = trace(&Program::c("stack_c").build(), &[], &[]);
    assert_exact(&report, &truth, pid);
    assert_chain(
        &report,
        &truth,
        "stack_c.c",
        &[
            ("c_leak", "c_leak", false),
            ("c_inlined", "c_inlined", true),
            ("c_inner", "c_inner", false),
            ("c_middle", "c_middle", false),
            ("c_outer", "c_outer", false),
            ("main", "main", false),
        ],
    );
}

/// C++: operator new does not hide who called it (peers 5); methods, templates, a lambda.
#[test]
fn cpp_chain_to_main() {
    require_kernel!();
    let (report, truth, pid) = trace(&Program::cpp("stack_cpp").build(), &[], &[]);
    assert_exact(&report, &truth, pid);
    assert_chain(
        &report,
        &truth,
        "stack_cpp.cpp",
        &[
            ("cpp_leak", "cpp_leak", false),
            ("service::Cache::insert", "insert", false),
            ("service::fill<service::Cache>", "fill", false),
            // blazesym names a lambda by its DWARF name alone.
            ("operator()", "lambda", false),
            ("with_callback<", "with_callback", false),
            ("main", "main", false),
        ],
    );
}

/// Rust: an inlined method, a trait object.
#[test]
fn rust_chain_to_main() {
    require_kernel!();
    let (report, truth, pid) = trace(&Program::rust("rust_stack", ""), &[], &[]);
    assert_exact(&report, &truth, pid);
    let source = "rust/src/bin/rust_stack.rs";
    let site = &truth.sites[0].function;
    for stack in site_stacks(&report, &truth, site) {
        let first = stack
            .frames
            .iter()
            .position(|frame| frame.name() == site)
            .unwrap();
        for (i, (name, mark, inlined)) in [
            ("rust_leak", "rust_leak", false),
            ("inlined_insert", "inlined_insert", true),
            ("Cache::insert", "insert", false),
            ("work", "work", false),
            ("rust_stack::drive", "drive", false),
            ("rust_stack::main", "main", false),
        ]
        .into_iter()
        .enumerate()
        {
            let frame = &stack.frames[first + i];
            assert!(
                frame
                    .function
                    .as_deref()
                    .is_some_and(|function| function.contains(name))
                    && frame.is_at("rust_stack.rs", line_of(source, mark))
                    && frame.inlined == inlined,
                "frame {i} is not {name} @{mark} but {frame:?}\n{}",
                stack.describe()
            );
        }
        assert!(stack.complete, "{}", stack.describe());
    }
}

/// The allocator's own frames stay in the data and are marked; the site is not.
#[test]
fn allocator_frames_are_marked() {
    require_kernel!();
    let (report, truth, _) = trace(&Program::cpp("stack_cpp").build(), &[], &[]);
    for stack in site_stacks(&report, &truth, "cpp_leak") {
        let site = stack
            .frames
            .iter()
            .position(|frame| frame.name() == "cpp_leak")
            .unwrap();
        assert!(
            stack.frames[..site].iter().all(|frame| frame.allocator),
            "{}",
            stack.describe()
        );
        assert!(
            stack.frames[site..].iter().all(|frame| !frame.allocator),
            "{}",
            stack.describe()
        );
    }
}

macro_rules! splits {
    ($($(#[$doc:meta])+ $name:ident: $pattern:literal, $bytes:literal;)+) => { $(
        $(#[$doc])+
        #[test]
        fn $name() {
            require_kernel!();
            let (report, truth, pid) = trace(&Program::c("deep").build(), &[$pattern, $bytes], &[]);
            assert_exact(&report, &truth, pid);
            assert_stacks_reach(&report, &truth, pid, "main");
        }
    )+ };
}

splits! {
    /// Two callers of one 3 KiB deep chain, in turn: split exactly.
    two_callers_alternating: "alternating", "3072";
    /// The same at random, one caller three times as often.
    two_callers_at_random: "random", "3072";
    /// A chain within the first window.
    two_callers_shallow: "alternating", "256";
    /// A chain of 6 KiB.
    two_callers_six_kib: "alternating", "6144";
}

/// Two callers in bursts: the second may pass for the first until the next check, and beyond every
/// window for ever. Exact, or said to be approximate; the sum is right.
fn exact_or_said(bytes: &str) {
    let (report, truth, pid) = trace(&Program::c("deep").build(), &["bursts", bytes], &[]);
    let (bytes, objects) = truth.outstanding();
    let process = report.process(pid);
    assert_eq!(process.outstanding_bytes, u64::try_from(bytes).unwrap());
    assert_eq!(process.outstanding_objects, u64::try_from(objects).unwrap());
    let flagged = ["caller_a", "caller_b"]
        .iter()
        .flat_map(|site| site_stacks(&report, &truth, site))
        .any(|stack| stack.approximate);
    if !flagged {
        assert_exact(&report, &truth, pid);
    }
}

/// Bursts of 500 from two callers of a chain of 3 KiB.
#[test]
fn two_callers_in_bursts() {
    require_kernel!();
    exact_or_said("3072");
}

/// The same with a chain deeper than any window.
#[test]
fn two_callers_beyond_every_window() {
    require_kernel!();
    exact_or_said("20480");
}

/// A recursion deeper than a stack copy: the bytes are exact, and the stack says that it is cut.
#[test]
fn deep_recursion_is_marked_incomplete() {
    require_kernel!();
    let (report, truth, pid) = trace(&Program::c("deep").build(), &["recursion", "4000"], &[]);
    assert_exact(&report, &truth, pid);
    for stack in site_stacks(&report, &truth, "recursion") {
        let whole = stack.frames.iter().any(|frame| frame.name() == "main");
        assert_eq!(stack.complete, whole, "{}", stack.describe());
        assert!(stack.frames.len() > 20, "{}", stack.describe());
    }
}

/// A thousand call paths, each hit again and again: each its own stack, all exact.
#[test]
fn a_thousand_contexts() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("deep").build(), &["rounds", "1024"]);
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "500ms"]);
    target.go();
    for round in 0..6 {
        target.step("round");
        // The collector has had time to drain the ring when it has reported the last round.
        tracer.report_where("the last round's objects", |report| {
            report.process(pid).outstanding_objects == 1024 * round
        });
        target.go();
    }
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, pid);
    assert_stacks_reach(&report, &truth, pid, "main");
    assert_eq!(
        report
            .heap_stacks(pid)
            .filter(|stack| stack.outstanding_objects > 0)
            .count(),
        1024
    );
}

/// A burst of a thousand new call paths, each hit once: the sums are exact, and what found no room in
/// the ring is counted and says so in place of its stack.
#[test]
fn a_burst_of_contexts() {
    require_kernel!();
    let (report, truth, pid) = trace(&Program::c("deep").build(), &["contexts", "1024"], &[]);
    let (bytes, objects) = truth.outstanding();
    let process = report.process(pid);
    assert_eq!(process.outstanding_bytes, u64::try_from(bytes).unwrap());
    assert_eq!(process.outstanding_objects, u64::try_from(objects).unwrap());
    let unknown: u64 = report
        .heap_stacks(pid)
        .filter(|stack| !stack.complete)
        .map(|stack| stack.outstanding_objects)
        .sum();
    assert!(
        report.counter("stack_copies_lost") >= unknown,
        "{unknown} objects without a stack: {:?} {:?}",
        report.losses,
        report.notes
    );
    for stack in report.heap_stacks(pid).filter(|stack| !stack.complete) {
        assert!(
            stack.frames.iter().any(|frame| frame.reason.is_some()),
            "no stack and no reason: {}",
            stack.describe()
        );
    }
}

/// A JIT's frame is named by its perf map, also by one in a mount namespace of the program's own, and the
/// stack goes on through it to main.
#[test]
fn jit_frames_by_perf_map() {
    require_kernel!();
    for spelling in ["plain", "prefixed", "contained"] {
        let (report, truth, pid) = trace(&Program::c("jit").build(), &[spelling], &[]);
        assert_exact(&report, &truth, pid);
        for stack in site_stacks(&report, &truth, "leak_below_jit") {
            let names: Vec<&str> = stack.frames.iter().map(|frame| frame.name()).collect();
            let jit = names.iter().position(|&name| name == "jit_function");
            let main = names.iter().position(|&name| name == "main");
            assert!(
                jit.is_some() && jit < main,
                "{spelling}: {}",
                stack.describe()
            );
        }
    }
}

/// A function in an object that was loaded after the attach is named, with its line.
#[test]
fn object_loaded_after_the_attach_is_named() {
    require_kernel!();
    let plugin = Program::c("plugin").shared_object().build();
    let mut target = Target::spawn(
        &Program::c("dl").build(),
        &[&plugin.to_string_lossy(), "plugin_make"],
    );
    let mut tracer = Tracer::attach(target.pid());
    target.go();
    target.step("loaded");
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, target.pid());
    for stack in site_stacks(&report, &truth, "leak_through_plugin") {
        assert!(
            stack
                .frames
                .iter()
                .any(|frame| frame.name() == "plugin_make" && frame.line.is_some()),
            "{}",
            stack.describe()
        );
    }
    target.assert_unharmed();
}

/// An allocator that was loaded after the attach is probed (R16).
#[test]
fn allocator_loaded_after_the_attach() {
    require_kernel!();
    let library = memtrace_tests::preload("libmimalloc.so.2.0");
    let mut target = Target::spawn(
        &Program::c("dl").build(),
        &[&library.to_string_lossy(), "mi_malloc", "mi_free"],
    );
    let pid = target.pid();
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "100ms"]);
    target.go();
    target.step("loaded");
    tracer.report_where("probes on libmimalloc", |report| {
        report.coverage.iter().any(|entry| {
            entry.object.contains("mimalloc") && entry.functions.iter().any(|f| f == "mi_malloc")
        })
    });
    target.go();
    let truth = target.truth();
    let report = tracer.finish();
    assert_exact(&report, &truth, pid);
    target.assert_unharmed();
}

/// Debian's redis under load: the stacks reach main and name the command's function.
#[test]
fn redis_stacks_name_the_command() {
    require_kernel!();
    const KEYS: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let mut redis = Command::new("redis-server");
    redis.args([
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
    ]);
    redis
        .arg("--unixsocket")
        .arg(&socket)
        .current_dir(folder.path());
    let mut redis = Running::spawn(&mut redis);
    redis.stdout_line(deadline(20), "redis at its socket", |line| {
        line.contains("ready to accept connections at")
            || line.contains("Ready to accept connections")
    });
    let mut tracer = Tracer::attach(redis.pid());
    let mut client = UnixStream::connect(&socket).expect("redis accepts");
    let mut answers = BufReader::new(client.try_clone().unwrap());
    for batch in 0..KEYS / 100 {
        let commands: String = (0..100)
            .map(|i| format!("SET key:{}:{i} {}\r\n", batch, "x".repeat(100)))
            .collect();
        client.write_all(commands.as_bytes()).unwrap();
        for _ in 0..100 {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert_eq!(line, "+OK\r\n");
        }
    }
    let report = tracer.finish();
    assert!(
        report.losses.values().all(|&count| count == 0),
        "{:?}",
        report.losses
    );
    let mut in_command = 0;
    for stack in report.heap_stacks(redis.pid()) {
        let has = |name| stack.frames.iter().any(|frame| frame.name() == name);
        let end = if has("main") { "main" } else { "start_thread" };
        assert!(
            stack.complete && (has(end) || has("clone") || has("clone3")),
            "{}",
            stack.describe()
        );
        if has("setCommand") && has("main") {
            in_command += stack.outstanding_objects;
        }
    }
    assert!(
        in_command >= KEYS,
        "only {in_command} objects under setCommand"
    );
    assert!(redis.try_wait().is_none(), "redis was harmed");
}
