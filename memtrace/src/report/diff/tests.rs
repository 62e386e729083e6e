use super::*;
use crate::report::fixtures;
use crate::report::text::TextOptions;

fn grown(report: &mut Report, at: usize, bytes: u64, objects: u64) {
    report.stacks[at].outstanding_bytes += bytes;
    report.stacks[at].outstanding_objects += objects;
}

/// The same program built anew: other addresses, offsets, build ids, lines, file name.
fn rebuilt(report: &Report) -> Report {
    let mut report = report.clone();
    for process in &mut report.processes {
        process.pid = 77;
        process.exe = "/opt/server-2".to_owned();
    }
    for stack in &mut report.stacks {
        stack.pid = 77;
        for frame in &mut stack.frames {
            frame.address = "0x7f00".to_owned();
            frame.offset = Some("0x99".to_owned());
            frame.build_id = Some("0123".to_owned());
            frame.line = frame.line.map(|line| line + 7);
            if frame.module.as_deref() == Some("/srv/server") {
                frame.module = Some("/opt/server-2".to_owned());
            }
            if frame.function.as_deref() == Some("leak_here") {
                frame.function = Some("leak_here.constprop.0".to_owned());
            }
        }
    }
    report
}

// Another build of the same program: only what grew is shown.
#[test]
fn only_the_leak() {
    let before = fixtures::two_callers();
    let mut after = rebuilt(&before);
    grown(&mut after, 1, 500, 5);
    let diff = diff(("a", &before), ("b", &after));
    let [stack] = &diff.stacks[..] else {
        panic!("{:?}", diff.stacks)
    };
    assert_eq!(
        (stack.change, stack.amounts.gained_bytes),
        (Change::Grew, 500)
    );
    assert_eq!(diff.unchanged_stacks, 2);
    let [function] = &diff.functions[..] else {
        panic!("{:?}", diff.functions)
    };
    assert_eq!(function.function.as_deref(), Some("leak_here"));
    assert_eq!(function.amounts.gained_objects, 5);
    assert_eq!(diff.largest_gain(), 500);
}

// What is new and what went are told apart from what changed; a cut is counted.
#[test]
fn new_and_gone() {
    let before = fixtures::two_callers();
    let mut after = before.clone();
    after.stacks.remove(0);
    grown(&mut after, 0, 0, 1);
    let mut new = fixtures::leak().stacks.remove(0);
    new.outstanding_bytes = 10;
    after.stacks.push(new);
    let mut diff = diff(("a", &before), ("b", &after));
    let changes: Vec<_> = diff.stacks.iter().map(|s| s.change).collect();
    assert_eq!(changes, [Change::New, Change::Grew, Change::Gone]);
    diff.cut(Some(1));
    assert_eq!(
        diff.not_shown,
        Left {
            stacks: 2,
            gained_bytes: -2000
        }
    );
}

// A report differs in nothing from itself.
#[test]
fn nothing() {
    let report = fixtures::leak();
    let same = diff(("a", &report), ("a", &report));
    assert!(same.stacks.is_empty() && same.functions.is_empty());
    assert!(render(&same, TextOptions::default()).contains("Nothing changed"));
}

// As text and as JSON; names that would break a terminal do not.
#[test]
fn golden() {
    let before = fixtures::two_callers();
    let mut after = rebuilt(&before);
    grown(&mut after, 0, 123_456, 12);
    after.stacks.push(fixtures::hostile().stacks.remove(0));
    let mut diff = diff(("before.memtrace", &before), ("after\x1b.memtrace", &after));
    let text = render(&diff, TextOptions::default());
    assert!(!text.contains('\x1b'));
    insta::assert_snapshot!(text);
    diff.cut(Some(1));
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&diff).unwrap());
}
