//! Profile formats of real sessions, read by the programs they are made for: the sums are the JSON report's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::{Program, Report, Target, Tracer, memtrace, require_kernel};
use serde_json::Value;

/// Allocated objects and bytes, outstanding objects and bytes: pprof's order.
type Sums = [u64; 4];

/// One run of a program that always does the same, in one format.
#[track_caller]
fn trace(format: &str, file: &Path) {
    let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let pid = target.pid().to_string();
    let output = file.to_str().unwrap();
    // The last report only: every figure is that of the end.
    let options = ["--pid", &pid, "--interval", "1h", "--top", "all"];
    let mut tracer =
        Tracer::start(memtrace(&options).args(["--format", format, "--output", output]));
    tracer.wait_attached();
    target.go();
    target.truth();
    tracer.signal(libc::SIGINT);
    tracer.wait().assert_code(0);
    target.assert_unharmed();
}

fn of_json(file: &Path) -> Sums {
    let report = Report::parse(std::fs::read_to_string(file).unwrap().trim_end());
    let sum = |of: fn(&memtrace_tests::Stack) -> u64| report.stacks.iter().map(of).sum::<u64>();
    assert_eq!(report.not_shown.stacks, 0);
    [
        sum(|s| s.allocated_objects),
        sum(|s| s.allocated_bytes),
        sum(|s| s.outstanding_objects),
        sum(|s| s.outstanding_bytes),
    ]
}

/// The JSON report's sums, and the same session in another format.
#[track_caller]
fn json_and(format: &str, folder: &Path) -> (Sums, PathBuf) {
    let json = folder.join("report.json");
    trace("json", &json);
    let file = folder.join(format);
    trace(format, &file);
    let sums = of_json(&json);
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}");
    (sums, file)
}

/// folded, speedscope and CSV of the same program have the JSON report's sums.
#[test]
fn text_formats_have_the_same_sums() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (sums, folded) = json_and("folded", folder.path());
    let text = std::fs::read_to_string(folded).unwrap();
    let bytes = text.lines().map(|line| line.rsplit_once(' ').unwrap().1);
    let bytes: u64 = bytes.map(|bytes| bytes.parse::<u64>().unwrap()).sum();
    assert_eq!(bytes, sums[3], "{text}");

    let file = folder.path().join("speedscope");
    trace("speedscope", &file);
    let scope: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let ends: Vec<_> = (0..4)
        .map(|at| scope["profiles"][at]["endValue"].as_u64())
        .collect();
    assert_eq!(ends, [3, 2, 1, 0].map(|at| Some(sums[at])));

    let file = folder.path().join("csv");
    trace("csv", &file);
    let text = std::fs::read_to_string(file).unwrap();
    let mut rows = text.lines();
    let columns: Vec<_> = rows.next().unwrap().split(',').collect();
    let at = columns
        .iter()
        .position(|name| *name == "outstanding_bytes")
        .unwrap();
    // The quoted column is the last one, and no name here has a comma.
    let stacks = rows.filter(|row| row.contains(",stack,"));
    let bytes = stacks.map(|row| row.split(',').nth(at).unwrap().parse::<u64>().unwrap());
    assert_eq!(bytes.sum::<u64>(), sums[3], "{text}");
}

/// The `pprof` of google-perftools reads its own heap profile: all four sums are the JSON report's, to the object
/// and, where it prints megabytes with one digit, to that.
#[test]
fn google_perftools_reads_it() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (sums, file) = json_and("gperftools", folder.path());
    let pprof = |options: &[&str]| {
        let mut command = Command::new("google-pprof");
        command.args(options).arg(&file).env("HOME", folder.path());
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("google-perftools is needed: {error}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (option, sum) in [("--alloc_objects", sums[0]), ("--inuse_objects", sums[2])] {
        let text = pprof(&["--text", option]);
        assert!(text.contains(&format!("Total: {sum} objects")), "{text}");
    }
    for (option, sum) in [("--alloc_space", sums[1]), ("--inuse_space", sums[3])] {
        let text = pprof(&["--text", option]);
        let total = format!("Total: {:.1} MB", sum as f64 / f64::from(1 << 20));
        assert!(text.contains(&total), "{total}: {text}");
        // In bytes, a stack a line.
        let lines = pprof(&["--collapsed", option]);
        let bytes = lines.lines().filter_map(|line| line.rsplit_once(' '));
        let bytes: u64 = bytes.map(|(_, bytes)| bytes.parse::<u64>().unwrap()).sum();
        assert_eq!(bytes, sum, "{lines}");
        assert!(lines.contains(";leak_malloc;"), "{lines}");
    }
}

/// The real `go tool pprof` reads the profile: four types with the JSON report's sums, names and lines.
#[test]
fn go_tool_pprof_reads_it() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (sums, file) = json_and("pprof", folder.path());
    let pprof = |options: &[&str]| {
        let mut command = Command::new("go");
        command.args(["tool", "pprof"]).args(options).arg(&file);
        command
            .env("HOME", folder.path())
            .env("PPROF_TMPDIR", folder.path());
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("golang-go is needed: {error}"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let raw = pprof(&["-raw"]);
    let (_, samples) = raw.split_once("\nSamples:\n").unwrap();
    let (samples, _) = samples.split_once("\nLocations").unwrap();
    let (types, samples) = samples.split_once('\n').unwrap();
    assert_eq!(
        types,
        "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]"
    );
    let mut read: Sums = [0; 4];
    for line in samples.lines() {
        let Some((values, _)) = line.split_once(": ") else {
            continue;
        };
        let values: Vec<u64> = values.split_whitespace().flat_map(str::parse).collect();
        if values.len() == 4 {
            read.iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += value);
        }
    }
    assert_eq!(read, sums, "{raw}");
    // The allocator's own frames are hidden: who called it is first.
    let top = pprof(&["-top", "-unit=B"]);
    assert!(top.contains(&format!("of {}B total", sums[3])), "{top}");
    assert!(
        top.contains("leak_malloc") && !top.contains("libc_malloc"),
        "{top}"
    );
    let lines = pprof(&["-top", "-lines", "-sample_index=alloc_space"]);
    assert!(lines.contains("alloc.c:"), "{lines}");
}
