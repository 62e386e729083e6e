//! Incidents, and what was before them.

use super::*;
use crate::report::incident::{Before, Incident, Point};

fn incident_json(incident: &crate::report::incident::Incident) -> String {
    serde_json::to_string(incident).unwrap()
}

// Incidents are listed in their order and read back with the report of their moment, byte for byte; they
// go when they are too old.
#[test]
fn incidents() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let retention = Retention {
        max_age: Duration::from_secs(300),
        ..Retention::default()
    };
    let mut recorder = Writer::create(&path, retention).unwrap();
    let mut told = Vec::new();
    for (n, made) in one_leak(700, 1).iter().enumerate() {
        write(&mut recorder, made);
        if matches!(n, 10 | 600 | 690) {
            let mut incident = crate::report::incident::tests::kill();
            incident.at = format!("2026-11-21T14:05:{n:03}Z");
            incident.report = Some(made.report.clone());
            recorder.keep_incident(&incident).unwrap();
            told.push(incident);
        }
    }
    recorder.finish("then").unwrap();
    let recording = Recording::open(&path).unwrap();
    let listed = recording.incidents().unwrap();
    let numbers: Vec<_> = listed.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [2, 3]);
    for one in listed {
        let told = &told[usize::try_from(one.number).unwrap() - 1];
        assert_eq!(
            incident_json(&one.incident),
            incident_json(&told.without_report())
        );
        let mut read = recording.incident(one.number).unwrap().unwrap();
        assert!(read.before.take().is_some());
        assert_eq!(incident_json(&read), incident_json(told));
    }
    assert!(recording.incident(1).unwrap().is_none());
}

/// A recording of so many seconds that ends in a kill, and what is read of the time before it.
fn before(seconds: u64, change: impl Fn(&mut Incident)) -> Before {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let series = one_leak(seconds, 1);
    let mut recorder = record(&path, &series);
    let mut incident = crate::report::incident::tests::kill();
    incident.report = Some(series.last().unwrap().report.clone());
    change(&mut incident);
    recorder.keep_incident(&incident).unwrap();
    recorder.finish("then").unwrap();
    let recording = Recording::open(&path).unwrap();
    let read = recording.incident(1).unwrap().unwrap();
    read.before.unwrap()
}

/// The limit that the fixture's process has, and what was used of it when the kernel chose.
fn of_its_own_limit(incident: &mut Incident) {
    let cgroup = incident.cgroup.as_mut().unwrap();
    cgroup.limit_bytes = Some(512 << 20);
    cgroup.usage_bytes = Some(500 << 20);
    cgroup.inactive_file_bytes = Some(10 << 20);
}

// Every recorded moment with what was used of the limit then, the kernel's own figure last, and the stack that grew.
#[test]
fn what_was_before() {
    let before = before(60, of_its_own_limit);
    assert_eq!((before.reports, before.limit_bytes), (59, Some(512 << 20)));
    assert_eq!(before.timeline.len(), 60);
    let process = &fixtures::leak().processes[0];
    for (second, point) in (1..60_u32).zip(&before.timeline) {
        let expected = Point {
            taken_at: format!("2026-01-02T03:00:{second:02}Z"),
            seconds_since_start: f64::from(second),
            usage_bytes: process.memory_usage_bytes,
            rss_bytes: process.rss_bytes,
            outstanding_bytes: u64::from(second / 3) * 1000,
        };
        assert_eq!(*point, expected);
    }
    let end = before.timeline.last().unwrap();
    assert_eq!(end.usage_bytes, Some(490 << 20));
    assert_eq!(end.taken_at, crate::report::incident::tests::kill().at);
    let [grew] = before.grew.as_slice() else {
        panic!("{:?}", before.grew);
    };
    assert_eq!((grew.gained_bytes, grew.gained_objects), (59_000, 59));
    assert_eq!(grew.function.as_deref(), Some("function_1"));
    assert_eq!(grew.verdict, Verdict::Growing);
}

// Usage of another limit than the one that was met is not told, nor is anything before the first report.
#[test]
fn what_is_not_known() {
    let other = before(30, |_| {});
    assert!(
        other
            .timeline
            .iter()
            .all(|point| point.usage_bytes.is_none())
    );
    assert_eq!(other.limit_bytes, Some(64 << 20));
    assert_eq!(other.grew.len(), 1);
    let at_once = before(1, of_its_own_limit);
    assert_eq!((at_once.reports, at_once.grew.len()), (0, 0));
    let used: Vec<_> = at_once.timeline.iter().map(|p| p.usage_bytes).collect();
    assert_eq!(used, [Some(490 << 20)]);
    let untraced = before(30, |incident| incident.victims[0].traced = false);
    assert_eq!((untraced.reports, untraced.timeline.len()), (0, 1));
    assert_eq!(untraced.timeline[0].outstanding_bytes, 0);
}

// What was read when the victim had given its memory back is not what was used at the kill.
#[test]
fn read_too_late() {
    let used = |usage, held| {
        let before = before(5, |incident| {
            of_its_own_limit(incident);
            incident.cgroup.as_mut().unwrap().usage_bytes = Some(usage);
            incident.victims[0].figures.anon_rss_bytes = held;
        });
        before.timeline.last().unwrap().usage_bytes
    };
    assert_eq!(used(400 << 20, Some(399 << 20)), Some(390 << 20));
    assert_eq!(used(300 << 10, Some(399 << 20)), None);
    assert_eq!(used(500 << 20, None), Some(490 << 20));
    assert_eq!(used(400 << 20, None), None, "less than most of the limit");
}

// A long recording is told in few points, the more the nearer they are.
#[test]
fn a_long_time_before() {
    let before = before(3500, of_its_own_limit);
    assert_eq!(before.reports, 3499);
    let times: Vec<_> = before
        .timeline
        .iter()
        .map(|point| point.seconds_since_start)
        .collect();
    assert!(times.len() <= crate::report::incident::MAX_POINTS);
    assert_eq!((times[0], times[times.len() - 1]), (1.0, 3500.0));
    assert!(
        times.contains(&3499.0) && times.contains(&3498.0),
        "{times:?}"
    );
}
