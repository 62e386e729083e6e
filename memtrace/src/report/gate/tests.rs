use super::*;
use crate::report::{fixtures, json};

fn growing(least: f64) -> Gate {
    Gate {
        growing: Some(least),
        ..Gate::default()
    }
}

fn baseline(report: &Report) -> Gate {
    let mut bytes = Vec::new();
    json::pretty(report, &mut bytes).unwrap();
    Gate {
        baseline: Some(Baseline::parse(&bytes).unwrap()),
        ..Gate::default()
    }
}

fn suppressing(mut gate: Gate, function: &str) -> Gate {
    let text = format!("[[suppression]]\nfunction = \"{function}\"\nreason = \"known\"\n");
    gate.suppressions = Suppressions::parse(&text).unwrap();
    gate
}

fn told(gate: &Gate, report: &Report) -> Vec<(Kind, String)> {
    let findings = gate.judge(report).findings.into_iter();
    findings
        .map(|f| (f.kind, format!("{}: {}", f.title(), f.text)))
        .collect()
}

// The stack is the finding, and its process not a second one.
#[test]
fn a_growing_stack() {
    let report = fixtures::leak();
    let text = "leak_here (server.c:42): grows by 1.20 MiB/s, holds 34.1 MiB, confidence 99%";
    assert_eq!(
        told(&growing(0.0), &report),
        [(Kind::Growing, text.to_owned())]
    );
    assert_eq!(told(&growing(2e6), &report), []);
    assert_eq!(growing(2e6).judge(&report).passed, ["--fail-on growing"]);
    assert_eq!(told(&Gate::default(), &report), []);
}

// A process that grows without a stack that does is a finding of its own.
#[test]
fn a_growing_process() {
    let mut report = fixtures::leak();
    report.stacks[0].verdict = Verdict::Steady;
    let found = told(&growing(0.0), &report);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, Kind::ProcessGrowing);
    assert!(
        found[0]
            .1
            .starts_with("server (1234): the process grows by 1.20 MiB/s"),
        "{found:?}"
    );
}

// A suppressed stack does not fail, nor its process for it; the suppression is counted.
#[test]
fn suppressed() {
    let report = fixtures::leak();
    let outcome = suppressing(growing(0.0), "leak_*").judge(&report);
    assert!(!outcome.failed(), "{:?}", outcome.findings);
    let used = &outcome.suppressions[0];
    assert_eq!((used.stacks, used.bytes), (1, 35_756_442));
    assert_eq!(outcome.unused().count(), 0);
    // What the process grows by beside it still does.
    let mut faster = report.clone();
    faster.processes[0].growth_bytes_per_second *= 2.0;
    let found = told(&suppressing(growing(0.0), "leak_*"), &faster);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("by 1.20 MiB/s"), "{found:?}");
}

// A suppression of what does not fail is unused.
#[test]
fn unused_suppression() {
    let outcome = suppressing(growing(0.0), "warm_cache").judge(&fixtures::leak());
    assert!(outcome.failed());
    let unused: Vec<_> = outcome
        .unused()
        .map(|used| (used.line, used.patterns.as_str()))
        .collect();
    assert_eq!(unused, [(1, "function warm_cache")]);
}

// Against itself nothing is worse, whatever grows.
#[test]
fn same_as_the_baseline() {
    let report = fixtures::two_callers();
    let outcome = baseline(&report).judge(&report);
    assert!(!outcome.failed(), "{:?}", outcome.findings);
    assert_eq!(outcome.passed, ["--baseline"]);
}

// New growth, faster growth and more held are told apart; a little of each is tolerated.
#[test]
fn worse_than_the_baseline() {
    let mut before = fixtures::two_callers();
    before.stacks[1].verdict = Verdict::Steady;
    let gate = baseline(&before);
    let mut now = fixtures::two_callers();
    now.stacks[0].growth_bytes_per_second = 1100.0;
    now.stacks[2].outstanding_bytes += 65_000;
    let new = "leak_here (server.c:42): grows by 100 B/s, did not in the baseline".to_owned();
    assert_eq!(told(&gate, &now), [(Kind::NewGrowth, new.clone())]);
    now.stacks[0].growth_bytes_per_second = 2000.0;
    now.stacks[2].outstanding_bytes += 1000;
    let faster = "leak_here (server.c:42): grows by 1.95 KiB/s, by 100 B/s in the baseline";
    let more = "warm_cache (warm.c:77): holds 64.9 KiB, 500 B in the baseline";
    let all = [
        (Kind::FasterGrowth, faster.to_owned()),
        (Kind::NewGrowth, new),
        (Kind::HoldsMore, more.to_owned()),
    ];
    assert_eq!(told(&gate, &now), all);
    // An estimate may be off by more than that.
    now.overhead.sample_bytes = 512 << 10;
    assert_eq!(told(&gate, &now).len(), 2);
    let spared = suppressing(gate, "warm_cache").judge(&now);
    assert!(spared.findings.iter().all(|f| f.name != "warm_cache"));
}

// What weakens the answer is told beside it.
#[test]
fn notes() {
    let mut report = fixtures::hostile();
    report.intervals.completed = 3;
    let mut gate = baseline(&fixtures::leak());
    gate.growing = Some(0.0);
    let notes = gate.judge(&report).notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].contains("leaves 3 stacks out") && notes[1].contains("3 of the 5 intervals"));
    assert!(notes[2].contains("made_up\\u{1b}[1m"), "{notes:?}");
    report.coverage.clear();
    let notes = growing(0.0).judge(&report).notes;
    assert!(notes[0].starts_with("nothing was traced"), "{notes:?}");
}

// A session that was long enough, of processes that were not there for long enough, passes and says so.
#[test]
fn too_early() {
    let mut report = fixtures::leak();
    assert_eq!(unjudged(&report), None);
    report.processes[0].verdict = Verdict::TooEarly;
    assert_eq!(unjudged(&report), None, "its stacks have verdicts");
    for stack in &mut report.stacks {
        stack.verdict = Verdict::TooEarly;
    }
    let outcome = growing(0.0).judge(&report);
    assert!(!outcome.failed());
    let [note] = &outcome.notes[..] else {
        panic!("{:?}", outcome.notes)
    };
    assert!(note.contains("no process was seen the 5 times"), "{note}");
    report.losses.insert("live_full".to_owned(), 3);
    let notes = growing(0.0).judge(&report).notes;
    assert!(notes[0].contains("for what was lost"), "{notes:?}");
    report.intervals.completed = 2;
    let note = unjudged(&report).unwrap();
    assert!(note.contains("2 of the 5 intervals"), "{note}");
    report.processes.clear();
    report.intervals.completed = 5;
    assert_eq!(unjudged(&report), None);
}
