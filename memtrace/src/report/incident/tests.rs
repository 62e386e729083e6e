use std::fs;

use super::*;
use crate::report::fixtures;

fn container() -> Container {
    Container {
        runtime: "containerd".to_owned(),
        id: "3f2504e04f8911d39a0c0305e82c33013f2504e04f8911d39a0c0305e82c3301".to_owned(),
        name: Some("app".to_owned()),
        pod: Some("cart-1".to_owned()),
        namespace: Some("shop".to_owned()),
        ..Container::default()
    }
}

/// A kill whose trigger was another process.
pub(crate) fn kill() -> Incident {
    let report = fixtures::leak();
    let victim = Victim {
        pid: 1234,
        tid: 1240,
        comm: "server".to_owned(),
        traced: true,
        container: Some(container()),
        cgroup_path: Some("/pod/app".to_owned()),
        figures: Figures {
            anon_rss_bytes: Some(36 << 20),
            ..Figures::default()
        },
        outstanding_bytes: Some(36_861_018),
        outstanding_objects: Some(1_410),
    };
    Incident {
        schema: SCHEMA,
        tool_version: report.tool_version,
        host: report.host.clone(),
        at: "2026-11-21T14:05:00.123456Z".to_owned(),
        seconds_since_start: 5.5,
        kind: Kind::OomKill,
        container: Some(container()),
        cgroup: Some(Cgroup {
            path: "/pod".to_owned(),
            version: 2,
            limit_bytes: Some(64 << 20),
            ..Cgroup::default()
        }),
        threshold: None,
        trigger: Some(Trigger {
            pid: 99,
            tid: 99,
            comm: "backup".to_owned(),
            ..Trigger::default()
        }),
        victims: vec![victim],
        processes: Vec::new(),
        suspects: suspects(&report, &[1234]),
        notes: vec!["which limit was met is inferred".to_owned()],
        before: None,
        report: Some(report),
    }
}

/// Twenty reports before it, every second one without usage.
pub(crate) fn before() -> Before {
    let point = |second: u32| Point {
        taken_at: format!("2026-11-21T14:04:{second:02}Z"),
        seconds_since_start: f64::from(second),
        usage_bytes: second
            .is_multiple_of(2)
            .then(|| (u64::from(second) + 2) * (3 << 20)),
        rss_bytes: Some((u64::from(second) + 1) * (3 << 20)),
        outstanding_bytes: u64::from(second) * (3 << 20),
    };
    let mut before = Before {
        reports: 20,
        limit_bytes: Some(64 << 20),
        timeline: (0..=20).map(point).collect(),
        grew: Vec::new(),
    };
    let mut stretch = fixtures::leak();
    for stack in &mut stretch.stacks {
        stack.outstanding_bytes /= 2;
    }
    before.grown(&stretch, &[1234]);
    before
}

/// A kill and a crossing, as they are printed.
#[test]
fn printed() {
    let mut crossing = kill();
    crossing.kind = Kind::Threshold;
    crossing.threshold = Some(Threshold {
        percent: 75,
        used_bytes: 48 << 20,
        limit_bytes: 64 << 20,
    });
    crossing.victims.clear();
    crossing.notes.clear();
    let text = [lines(&kill()), lines(&crossing)].concat().join("\n");
    insta::assert_snapshot!(text);
}

/// A kill of a process that was not traced has no suspects, and says why.
#[test]
fn untraced() {
    let mut incident = kill();
    incident.suspects.clear();
    incident.victims[0].traced = false;
    incident.cgroup = None;
    insta::assert_snapshot!(lines(&incident).join("\n"));
}

/// Only stacks of these processes that hold a good share are named, most first.
#[test]
fn suspects_hold_much() {
    let report = fixtures::leak();
    let found = suspects(&report, &[1234]);
    assert!(!found.is_empty());
    assert!(found.iter().all(|one| one.share >= SUSPECT_SHARE));
    assert!(found.is_sorted_by(|a, b| a.outstanding_bytes >= b.outstanding_bytes));
    assert_eq!(suspects(&report, &[77]), []);
}

/// Files are whole, named by time, kind and pid, never overwritten, and nothing else stays.
#[test]
fn written() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("made/here");
    let mut directory = Directory::open(&path).unwrap();
    let first = directory.write(&kill()).unwrap();
    let second = directory.write(&kill()).unwrap();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(name(&first), "2026-11-21T14-05-00.123Z-oom-kill-1234.json");
    assert_eq!(
        name(&second),
        "2026-11-21T14-05-00.123Z-oom-kill-1234-1.json"
    );
    assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    let text = fs::read_to_string(&first).unwrap();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["schema"], "memtrace.incident/1");
    assert_eq!(read["victims"][0]["anon_rss_bytes"], 36 << 20);
    assert_eq!(read["report"]["schema"], "memtrace.report/1");
}

/// A session that sees kills without end keeps the newest.
#[test]
fn bounded() {
    let root = tempfile::tempdir().unwrap();
    let mut directory = Directory::open(root.path()).unwrap();
    directory.limit = 3;
    let paths: Vec<_> = (0..5).map(|_| directory.write(&kill()).unwrap()).collect();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    assert!(!paths[1].exists() && paths[4].exists());
}

/// A place that cannot be written to is found before tracing.
#[test]
fn unusable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Directory::open(file.path()).unwrap_err().to_string();
    assert!(error.contains("name another --incidents"), "{error}");
}
