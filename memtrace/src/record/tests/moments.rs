//! Moments, stretches between two, clocks that jump, and marks.

use super::*;

// A window's figures are the differences, its verdict is made of its own intervals.
#[test]
fn window() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    drop(record(&path, &one_leak(60, 1)));
    let recording = Recording::open(&path).unwrap();
    let moment = |second| {
        recording
            .find(&When::After(Duration::from_secs(second)))
            .unwrap()
    };
    let read = recording.window(&moment(20), &moment(50), None).unwrap();
    let [stack] = &read.report.stacks[..] else {
        panic!("{:?}", read.report.stacks)
    };
    assert_eq!(
        (stack.outstanding_bytes, stack.outstanding_objects),
        (30_000, 30)
    );
    assert_eq!(stack.verdict, Verdict::Growing);
    assert!((stack.growth_bytes_per_second - 1000.0).abs() < 1e-6);
    assert_eq!(read.report.duration_seconds, 30.0);
    let (now, then) = (moment(50).taken_at, moment(20).taken_at);
    assert_eq!(read.report.gained_since.as_ref(), Some(&then));
    assert_eq!(read.report.taken_at, now);
    assert_eq!(read.report.started_at, then);
    // The fixture's process holds a thousand bytes more every three seconds.
    let process = &read.report.processes[0];
    assert_eq!(process.outstanding_bytes, 16_000 - 6_000);
    assert_eq!(process.outstanding_objects, 0, "as many as before");
    assert_eq!(process.verdict, Verdict::Growing);
    assert!((300.0..370.0).contains(&process.growth_bytes_per_second));
    assert_eq!(process.rss_bytes_at_attach, process.rss_bytes);
    assert_eq!(read.report.overhead.probe_hits.heap, 0);
    assert_eq!(read.report.overhead.fraction_of_target_cpu, None);
    // What shrank gained nothing.
    let back = recording.window(&moment(50), &moment(20), None).unwrap();
    assert!(back.report.stacks.is_empty());
    assert_eq!(back.report.processes[0].outstanding_bytes, 0);
}

// The clock on the wall goes back: moments stay in the order they were recorded.
#[test]
fn clock_jumps() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut series = one_leak(4, 1);
    series[2].report.taken_at = "2025-12-31T00:00:00Z".to_owned();
    series[3].report.taken_at = "2025-12-31T00:00:01Z".to_owned();
    drop(record(&path, &series));
    let recording = Recording::open(&path).unwrap();
    let at = |text: &str| recording.find(&When::parse(text).unwrap()).map(|m| m.at_ms);
    assert_eq!(at("end").unwrap(), 4000);
    assert_eq!(at("2025-12-31T00:00:00Z").unwrap(), 3000);
    assert!(at("2020-01-01T00:00:00Z").is_err());
    assert_eq!(at("-2s").unwrap(), 2000);
}

// A clock that jumps ahead: what lies between has no moments, and the time since the start stays right.
#[test]
fn clock_jumps_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut series = one_leak(10, 1);
    for made in &mut series[5..] {
        made.report.taken_at = made.report.taken_at.replace("2026", "2031");
    }
    drop(record(&path, &series));
    let recording = Recording::open(&path).unwrap();
    let at = |text: &str| recording.find(&When::parse(text).unwrap()).unwrap();
    assert_eq!(at("2028-01-01T00:00:00Z").at_ms, 5000);
    assert_eq!(at("7s").at_ms, 7000);
    let read = recording.window(&at("3s"), &at("9s"), None).unwrap();
    assert_eq!(read.report.duration_seconds, 6.0);
}

// A mark that is not there is named, with those that are, each once; control characters do not get
// through.
#[test]
fn marks_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut series = one_leak(3, 1);
    series[1].mark = Some("cycle \x1b[31m1".to_owned());
    let mark = series[1].mark.clone();
    series[2].mark = mark;
    drop(record(&path, &series));
    let recording = Recording::open(&path).unwrap();
    let error = recording
        .find(&When::Mark("cy\ncle".into()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is \"cycle "), "{error}");
    assert_eq!(error.matches("cycle ").count(), 1, "{error}");
    assert!(!error.contains(['\x1b', '\n']), "{error:?}");
}

// A mark that was set several times is reached by its number; a mark that is called so goes first, and a number that
// is none says how many there are.
#[test]
fn repeated_marks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut series = one_leak(8, 1);
    for at in [1, 3, 5] {
        series[at].mark = Some("cycle".to_owned());
    }
    series[6].mark = Some("cycle#2".to_owned());
    series[7].mark = Some("once".to_owned());
    drop(record(&path, &series));
    let recording = Recording::open(&path).unwrap();
    let find = |name: &str| recording.find(&When::Mark(name.to_owned()));
    let at = |name: &str| find(name).unwrap().at_ms;
    assert_eq!(at("cycle"), 6000, "the latest");
    assert_eq!((at("cycle#1"), at("cycle#3")), (2000, 6000));
    assert_eq!(at("cycle#2"), 7000, "the name itself goes first");
    assert_eq!(at("once#1"), 8000);
    for (name, why) in [
        (
            "cycle#4",
            "was set 3 times: \"cycle#1\" is the first, \"cycle#3\" the last",
        ),
        ("cycle#0", "was set 3 times"),
        ("once#2", "was set once"),
        ("never#1", "no mark is called \"never#1\"; there is"),
        ("cycle#-1", "no mark is called"),
        ("#1", "no mark is called"),
    ] {
        let error = find(name).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
    let moments = recording.moments().unwrap();
    let hint = |name: &str| repeated(&When::Mark(name.to_owned()), &moments);
    assert!(hint("cycle").is_some_and(|hint| hint.contains("\"cycle#2\"")));
    assert_eq!(hint("once"), None);
    assert_eq!(repeated(&When::End, &moments), None);
}
