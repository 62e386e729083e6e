//! The CI gate on live programs: exit code 3 with a reason, and what may be all the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use memtrace_tests::{Ended, Program, Running, Target, Tracer, deadline, memtrace, require_kernel};
use serde_json::{Value, json};

/// A program of `live.c` at work.
#[track_caller]
fn live(mode: &str) -> Target {
    let mut target = Target::spawn(&Program::c("live").build(), &[mode]);
    target.go();
    target
}

/// One session of twelve intervals.
#[track_caller]
fn watch(target: &Target, options: &[&str]) -> Ended {
    let pid = target.pid().to_string();
    let mut all = vec!["--pid", &pid, "--interval", "300ms", "--count", "12"];
    all.extend(options);
    Tracer::start(&mut memtrace(&all)).wait()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A leak fails with its function and place on standard error, in the JUnit file and in the summary; so does
/// its recording, afterwards and with the same files.
#[test]
fn a_leak_fails_with_a_reason() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (junit, summary) = (folder.path().join("j.xml"), folder.path().join("s.md"));
    let recording = folder.path().join("r.memtrace");
    let target = live("leak");
    let ended = watch(
        &target,
        &[
            "--quiet",
            "--fail-on",
            "growing",
            "--junit",
            text(&junit),
            "--summary",
            text(&summary),
            "--record",
            text(&recording),
        ],
    );
    ended.assert_code(3);
    let told = "memtrace: failed (--fail-on growing): leak (live.c:";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    afterwards(&recording, &ended.stderr, (&junit, &summary));
    let junit = fs::read_to_string(junit).unwrap();
    assert!(junit.contains("<failure type=\"growing\"") && junit.contains("name=\"leak (live.c:"));
    let summary = fs::read_to_string(summary).unwrap();
    assert!(
        summary.starts_with("### ❌ memtrace") && summary.contains("| `leak` |"),
        "{summary}"
    );
    target.assert_unharmed();
}

/// The gate on a recording: it fails as the session did, may be told what is known, and is not worse than itself.
#[track_caller]
fn afterwards(recording: &Path, told: &str, (junit, summary): (&Path, &Path)) {
    let report = |options: &[&str]| {
        let mut command = memtrace(&["report", text(recording), "--quiet"]);
        Running::spawn(command.args(options)).wait(deadline(60))
    };
    let (again, also) = (
        junit.with_extension("again"),
        summary.with_extension("again"),
    );
    let files = ["--junit", text(&again), "--summary", text(&also)];
    let ended = report(&[&["--fail-on", "growing"], &files[..]].concat());
    ended.assert_code(3);
    assert_eq!(ended.stderr, told, "as live");
    for (live, read) in [(junit, again), (summary, also)] {
        assert_eq!(fs::read(live).unwrap(), fs::read(read).unwrap());
    }
    let known = recording.with_extension("toml");
    let entry = "[[suppression]]\nfunction = \"leak\"\nreason = \"it is a test\"\n";
    fs::write(&known, entry).unwrap();
    report(&["--fail-on", "growing", "--suppressions", text(&known)]).assert_code(0);
    report(&["--baseline", text(recording)]).assert_code(0);
    report(&["--baseline", text(recording), "--from", "start"]).assert_code(2);
}

/// A suppressed leak passes, and is counted; a suppression of nothing is named.
#[test]
fn suppressions() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known.toml");
    let entries = "[[suppression]]\nfunction = \"lea?\"\nmodule = \"live-*\"\nreason = \"it is a test\"\n\
                   [[suppression]]\nfunction = \"nobody\"\nreason = \"gone\"\n";
    fs::write(&file, entries).unwrap();
    let target = live("leak");
    let ended = watch(
        &target,
        &["--fail-on", "growing", "--suppressions", text(&file)],
    );
    ended.assert_code(0);
    assert!(
        ended.stderr.contains("suppressed 1 stack with"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("it is a test"), "{}", ended.stderr);
    let unused = "suppression in line 5 was not used: function nobody";
    assert!(ended.stderr.contains(unused), "{}", ended.stderr);

    fs::write(&file, "[[suppression]]\nfunction = \"leak\"\n").unwrap();
    let ended = watch(
        &target,
        &["--fail-on", "growing", "--suppressions", text(&file)],
    );
    ended.assert_fails_with_one_line(&["known.toml", "line 1", "reason"]);
    target.assert_unharmed();
}

/// What a baseline knows passes, what it does not know fails, and a broken one is one line.
#[test]
fn baselines() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known.json");
    let leaking = live("leak");
    let make = [
        "--format",
        "json",
        "--top",
        "all",
        "--quiet",
        "--output",
        text(&known),
    ];
    watch(&leaking, &make).assert_code(0);
    let report = fs::read_to_string(&known).unwrap();

    // As fast as it can be: a busy machine makes one run slower than the other.
    let mut faster: Value = serde_json::from_str(&report).unwrap();
    for stack in faster["stacks"].as_array_mut().unwrap() {
        let rate = stack["growth_bytes_per_second"].as_f64().unwrap();
        stack["growth_bytes_per_second"] = json!(rate * 100.0);
    }
    fs::write(&known, faster.to_string()).unwrap();
    watch(&leaking, &["--quiet", "--baseline", text(&known)]).assert_code(0);

    // Before the leak was written: nothing grew.
    let mut before = faster;
    before["stacks"] = json!([]);
    fs::write(&known, before.to_string()).unwrap();
    let ended = watch(&leaking, &["--quiet", "--baseline", text(&known)]);
    ended.assert_code(3);
    let told = "failed (--baseline): leak (live.c:";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    // On a busy machine it may hold more there before it is judged growing.
    assert!(
        ended.stderr.contains(" in the baseline"),
        "{}",
        ended.stderr
    );

    let half = report.get(..report.len() / 2).unwrap();
    fs::write(&known, half).unwrap();
    watch(&leaking, &["--baseline", text(&known)])
        .assert_fails_with_one_line(&["known.json", "nor a JSON report"]);
    leaking.assert_unharmed();
}
