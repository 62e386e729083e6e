//! Recordings against a naive model, and files that are not what they should be.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::report::fixtures;
use crate::report::model::{NotShown, Report, Stack};
use crate::trend::Verdict;

/// One report as it was made, with all its stacks.
#[derive(Clone, Debug)]
struct Made {
    at: Duration,
    observed: Vec<Observed>,
    report: Report,
    mark: Option<String>,
}

/// The report that live reporting would make of `observed`.
fn live(observed: &[Observed], top: usize, second: u32) -> Report {
    let mut report = fixtures::leak();
    report.duration_seconds = f64::from(second) + 0.1;
    report.taken_at = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60);
    report.processes[0].outstanding_bytes = u64::from(second / 3) * 1000;
    report.processes[0].growth_bytes_per_second = 1.0 / f64::from(second + 3);
    let mut judged: Vec<_> = observed.iter().filter(|o| o.judged).collect();
    judged.sort_by_key(|o| {
        let held = o
            .account
            .allocated_bytes
            .saturating_sub(o.account.freed_bytes);
        (
            o.account.verdict != Verdict::Growing,
            std::cmp::Reverse(held),
            o.key.space,
            o.key.stack,
        )
    });
    let shown: Vec<Stack> = (1..)
        .zip(judged.iter().take(top))
        .map(|(rank, o)| Stack {
            rank,
            frames: frames(o.key.stack),
            ..o.account.clone()
        })
        .collect();
    let below = || {
        let rest = observed.iter().filter(|o| !o.judged);
        judged.iter().skip(top).copied().chain(rest)
    };
    report.not_shown = NotShown {
        stacks: below().count(),
        outstanding_bytes: below().map(|o| o.account.outstanding_bytes).sum(),
        outstanding_objects: below().map(|o| o.account.outstanding_objects).sum(),
    };
    report.stacks = shown;
    report
}

fn frames(stack: u32) -> Vec<crate::report::model::Frame> {
    let mut inner = fixtures::frame(
        &format!("function_{stack}"),
        "/srv/server",
        Some(("/srv/a.c", stack)),
    );
    inner.address = format!("{:#x}", u64::MAX - u64::from(stack));
    let mut unknown = fixtures::frame("", "/srv/lib.so", None);
    unknown.function = None;
    unknown.reason = Some("no symbols".to_owned());
    vec![fixtures::malloc(), inner, unknown]
}

fn account() -> impl Strategy<Value = (Stack, bool)> {
    let verdicts = prop_oneof![
        Just(Verdict::Growing),
        Just(Verdict::Steady),
        Just(Verdict::TooEarly),
    ];
    let age = proptest::option::of(0..100_000_u32);
    (
        0..3_u64,
        0..2_u64,
        any::<bool>(),
        verdicts,
        age,
        0..=100_u32,
        any::<bool>(),
    )
        .prop_map(|(kept, freed, older, verdict, age, confidence, judged)| {
            let mut stack = fixtures::stack(0, kept * 100, kept, verdict);
            stack.allocated_bytes = (kept + freed) * 100;
            stack.allocated_objects = kept + freed;
            stack.freed_bytes = freed * 100;
            stack.freed_objects = freed;
            if older {
                stack.outstanding_bytes /= 2;
            }
            stack.oldest_seconds = age.map(|ms| f64::from(ms) / 1000.0);
            stack.growth_bytes_per_second = f64::from(confidence) / 7.0;
            stack.confidence = (f64::from(confidence)).round() / 100.0;
            stack.complete = judged;
            stack.approximate = older;
            stack.frames.clear();
            (stack, judged)
        })
}

fn observed((stack, (mut account, judged)): (u32, (Stack, bool))) -> Observed {
    if !judged {
        // Only judged stacks are shown; of the others a recording keeps the sums.
        account.verdict = Verdict::TooEarly;
    }
    Observed {
        key: StackKey {
            space: 7,
            stack,
            probe: "heap",
            kind: None,
        },
        account,
        judged,
    }
}

fn series() -> impl Strategy<Value = Vec<Made>> {
    let interval = (
        proptest::collection::btree_map(0..6_u32, account(), 0..6),
        any::<bool>(),
        proptest::option::weighted(0.2, "[a-c]"),
    );
    proptest::collection::vec(interval, 1..20).prop_map(|intervals| {
        let mut made: Vec<Made> = Vec::new();
        for (second, (stacks, same, mark)) in (1..).zip(intervals) {
            let observed = match made.last().filter(|_| same) {
                Some(before) => before.observed.clone(),
                None => stacks.into_iter().map(observed).collect(),
            };
            made.push(Made {
                at: Duration::from_secs(u64::from(second)),
                report: live(&observed, 3, second),
                observed,
                mark,
            });
        }
        made
    })
}

fn write(recorder: &mut Writer, made: &Made) {
    let wanted = recorder.wants_names(&made.observed);
    let frames = wanted
        .into_iter()
        .map(|at| (at, frames(made.observed[at].key.stack)))
        .collect();
    let marks: Vec<String> = made.mark.iter().cloned().collect();
    let mut report = made.report.clone();
    recorder
        .interval(
            &mut report,
            Interval {
                at: made.at,
                spaces: &[7],
                observed: &made.observed,
                frames,
                marks: &marks,
            },
        )
        .unwrap();
    assert_eq!(
        json(&report),
        json(&made.report),
        "the report is given back"
    );
}

fn record(path: &Path, series: &[Made]) -> Writer {
    let mut recorder = Writer::create(path, Retention::default()).unwrap();
    for made in series {
        write(&mut recorder, made);
    }
    recorder
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whatever happens to stacks, every moment reads back as it was reported, byte for byte; also
    // while the recording is written.
    #[test]
    fn every_moment_reads_back(series in series()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let recorder = record(&path, &series);
        for ended in [false, true] {
            let recording = Recording::open(&path).unwrap();
            prop_assert_eq!(recording.is_whole().unwrap(), false);
            for made in &series {
                let moment = recording.find(&When::After(made.at)).unwrap();
                let read = recording.report(&moment, Some(3)).unwrap();
                prop_assert_eq!(json(&read.report), json(&made.report));
                prop_assert_eq!(moment.marks.first(), made.mark.as_ref());
            }
            if ended { break }
        }
        recorder.finish("2026-01-02T04:00:00Z").unwrap();
        prop_assert!(Recording::open(&path).unwrap().is_whole().unwrap());
        prop_assert!(!directory.path().join("r-wal").exists());
    }
}

fn one_leak(seconds: u64, from: u64) -> Vec<Made> {
    let interval = |second: u64| {
        let mut stack = fixtures::stack(0, second * 1000, second, Verdict::Growing);
        stack.allocated_bytes = second * 1000;
        stack.allocated_objects = second;
        stack.freed_bytes = 0;
        stack.freed_objects = 0;
        stack.frames.clear();
        let observed = vec![observed((1, (stack, true)))];
        Made {
            at: Duration::from_secs(second),
            report: live(&observed, 3, u32::try_from(second).unwrap()),
            observed,
            mark: second
                .is_multiple_of(600)
                .then(|| format!("minute {}", second / 60)),
        }
    };
    (from..from + seconds).map(interval).collect()
}

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
    assert_eq!(read.fastest_growing, Some(stack.growth_bytes_per_second));
}

// What is older than an hour is thinned to a minute's resolution and still exact where it is kept;
// marks stay; the latest hour is whole.
#[test]
fn old_intervals_are_thinned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let series = one_leak(4600, 1);
    drop(record(&path, &series));
    let recording = Recording::open(&path).unwrap();
    let moments = recording.moments().unwrap();
    let old = moments.iter().filter(|m| m.at_ms < 900_000).count();
    assert!((14..=20).contains(&old), "{old}");
    assert!(moments.len() - old >= 3600, "{}", moments.len());
    for moment in moments.iter().step_by(7) {
        let made = &series[usize::try_from(moment.at_ms / 1000 - 1).unwrap()];
        let read = recording.report(moment, Some(3)).unwrap();
        assert_eq!(json(&read.report), json(&made.report));
    }
    let marked = recording.find(&When::Mark("minute 10".into())).unwrap();
    assert_eq!(marked.at_ms, 600_000);
}

// Age and size bound a recording; its last moment stays right.
#[test]
fn retention() {
    let directory = tempfile::tempdir().unwrap();
    for (name, retention) in [
        (
            "age",
            Retention {
                max_age: Duration::from_secs(300),
                ..Retention::default()
            },
        ),
        (
            "size",
            Retention {
                max_bytes: 300 << 10,
                ..Retention::default()
            },
        ),
    ] {
        let path = directory.path().join(name);
        let series = one_leak(1000, 1);
        let mut recorder = Writer::create(&path, retention).unwrap();
        series.iter().for_each(|made| write(&mut recorder, made));
        recorder.finish("then").unwrap();
        let recording = Recording::open(&path).unwrap();
        let moments = recording.moments().unwrap();
        if name == "age" {
            assert!(
                moments[0].at_ms >= 600_000 && moments.len() < 400,
                "{}",
                moments[0].at_ms
            );
        } else {
            assert!(std::fs::metadata(&path).unwrap().len() < 400 << 10);
        }
        let last = recording.report(moments.last().unwrap(), Some(3)).unwrap();
        assert_eq!(json(&last.report), json(&series.last().unwrap().report));
    }
}

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
        let read = recording.incident(one.number).unwrap().unwrap();
        assert_eq!(incident_json(&read), incident_json(told));
    }
    assert!(recording.incident(1).unwrap().is_none());
}

// A second writer, and a file that is there, are refused by name and stay as they are.
#[test]
fn refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let recorder = record(&path, &one_leak(3, 1));
    let error = Writer::create(&path, Retention::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is being written by memtrace (pid"),
        "{error}"
    );
    drop(recorder);
    let before = std::fs::read(&path).unwrap();
    let error = Writer::create(&path, Retention::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("it exists"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

fn complaint(path: &Path) -> String {
    let failed = Recording::open(path).and_then(|recording| {
        let moment = recording.find(&When::End)?;
        recording.report(&moment, None).map(drop)
    });
    let text = failed.unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

// Every cut and every kind of wrong file is one line, never a panic or a number.
#[test]
fn wrong_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    record(&path, &one_leak(30, 1)).finish("then").unwrap();
    let whole = std::fs::read(&path).unwrap();
    let other = directory.path().join("other");
    for length in [0, 1, 15, 16, 99, 4096, whole.len() / 2] {
        std::fs::write(&other, &whole[..length]).unwrap();
        let text = complaint(&other);
        assert!(text.contains("other"), "{length}: {text}");
    }
    std::fs::write(&other, b"PK\x03\x04 something else entirely").unwrap();
    assert!(complaint(&other).contains("no SQLite file"));
    assert!(complaint(directory.path()).contains("not a regular file"));
    assert!(complaint(&directory.path().join("none")).contains("cannot open"));
    let pragma = |name: &str, value: i64| {
        std::fs::write(&other, &whole).unwrap();
        let db = rusqlite::Connection::open(&other).unwrap();
        db.pragma_update(None, name, value).unwrap();
        db.pragma_update(None, "journal_mode", "delete").unwrap();
    };
    pragma("user_version", 99);
    assert!(
        complaint(&other).contains("version 99"),
        "{}",
        complaint(&other)
    );
    pragma("application_id", 1);
    assert!(complaint(&other).contains("something else"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Bytes changed anywhere give a report or one line.
    #[test]
    fn damaged_files(at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        record(&path, &one_leak(30, 1)).finish("then").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in at {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        let read = Recording::open(&path).and_then(|recording| {
            let moment = recording.find(&When::End)?;
            recording.report(&moment, None)
        });
        if let Err(error) = read {
            prop_assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

// A recorder that is killed leaves what it wrote until then.
#[test]
fn killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let series = one_leak(5, 1);
    // As if killed: no destructor runs, the log is not brought home.
    let copies = directory.path().join("copy");
    let recorder = record(&path, &series);
    std::fs::create_dir(&copies).unwrap();
    for name in ["r", "r-wal"] {
        std::fs::copy(directory.path().join(name), copies.join(name)).unwrap();
    }
    drop(recorder);
    let recording = Recording::open(&copies.join("r")).unwrap();
    let last = recording.find(&When::End).unwrap();
    let read = recording.report(&last, Some(3)).unwrap();
    assert_eq!(json(&read.report), json(&series[4].report));
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

// Who reads sees one moment of the file: what is dropped from it meanwhile is read all the same.
#[test]
fn thinned_while_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let retention = Retention {
        max_age: Duration::from_secs(60),
        ..Retention::default()
    };
    let mut recorder = Writer::create(&path, retention).unwrap();
    let series = one_leak(400, 1);
    let (early, late) = series.split_at(50);
    early.iter().for_each(|made| write(&mut recorder, made));
    let reader = Recording::open(&path).unwrap();
    let first = reader.find(&When::Start).unwrap();
    late.iter().for_each(|made| write(&mut recorder, made));
    let read = reader.report(&first, Some(3)).unwrap();
    assert_eq!(json(&read.report), json(&series[0].report));
    let later = Recording::open(&path).unwrap();
    assert!(later.find(&When::Start).unwrap().at_ms > 200_000);
}

// A file that is written by another thread meanwhile: each look at it gives a whole report.
#[test]
fn read_while_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let series = one_leak(300, 1);
    let mut recorder = Writer::create(&path, Retention::default()).unwrap();
    write(&mut recorder, &series[0]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            series[1..]
                .iter()
                .for_each(|made| write(&mut recorder, made));
        });
        let mut looks = 0;
        while looks < 3 || !writer.is_finished() {
            let recording = Recording::open(&path).unwrap();
            let last = recording.find(&When::End).unwrap();
            let read = recording.report(&last, Some(3)).unwrap();
            let made = &series[usize::try_from(last.at_ms / 1000 - 1).unwrap()];
            assert_eq!(json(&read.report), json(&made.report));
            looks += 1;
        }
    });
}

// Five gigabytes: those that hold nothing are not read, and those that are no recording are refused at
// once. (Sparse: a file system that cannot is left out.)
#[test]
fn five_gigabytes() {
    const SIZE: u64 = 5 << 30;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let series = one_leak(30, 1);
    record(&path, &series).finish("then").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    if file.set_len(SIZE).is_err() {
        return;
    }
    // Its head says how many pages it has.
    let pages = u32::try_from(SIZE / 4096).unwrap().to_be_bytes();
    std::os::unix::fs::FileExt::write_all_at(&file, &pages, 28).unwrap();
    let begun = std::time::Instant::now();
    let recording = Recording::open(&path).unwrap();
    let last = recording.find(&When::End).unwrap();
    let read = recording.report(&last, Some(3)).unwrap();
    assert_eq!(json(&read.report), json(&series[29].report));
    let zeros = directory.path().join("zeros");
    let file = std::fs::File::create(&zeros).unwrap();
    file.set_len(SIZE).unwrap();
    assert!(complaint(&zeros).contains("no SQLite file"));
    std::os::unix::fs::FileExt::write_all_at(&file, b"SQLite format 3\0", 0).unwrap();
    let text = complaint(&zeros);
    assert!(text.contains("zeros"), "{text}");
    // Reading it all would take longer, on any machine.
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

// Names of any kind are kept as they are: every format gets of a recording what it gets live.
#[test]
fn hostile_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut report = fixtures::hostile();
    let nul = "a\0b;c\n<script>'\"\u{202e}\u{1b}[2J".to_owned();
    report.stacks[0].frames[0].function = Some(nul.clone());
    let observed: Vec<Observed> = (1..)
        .zip(&report.stacks)
        .map(|(stack, account)| {
            let mut account = account.clone();
            account.frames.clear();
            account.freed_bytes = account.allocated_bytes - account.outstanding_bytes;
            let (pid, probe, kind) = (account.pid, account.probe, account.kind);
            let key = StackKey {
                space: u64::from(pid),
                stack,
                probe,
                kind,
            };
            Observed {
                key,
                account,
                judged: true,
            }
        })
        .collect();
    let frames = report.stacks.iter().map(|stack| stack.frames.clone());
    let interval = Interval {
        at: Duration::from_secs(1),
        spaces: &[u64::from(report.processes[0].pid)],
        observed: &observed,
        frames: frames.enumerate().collect(),
        marks: std::slice::from_ref(&nul),
    };
    let mut recorder = Writer::create(&path, Retention::default()).unwrap();
    recorder.interval(&mut report.clone(), interval).unwrap();
    recorder.finish("then").unwrap();
    let recording = Recording::open(&path).unwrap();
    let last = recording.find(&When::End).unwrap();
    assert_eq!(last.marks, [nul]);
    let read = recording.report(&last, None).unwrap().report;
    let frames = |report: &Report| -> Vec<_> {
        let all = report.stacks.iter().flat_map(|stack| stack.frames.clone());
        all.collect()
    };
    assert_eq!(frames(&read), frames(&report));
    assert_eq!(read.host, report.host);
    assert_eq!(read.processes[0].comm, report.processes[0].comm);
    assert_eq!(read.losses, report.losses);
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

// The views of the schema answer.
#[test]
fn views() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    record(&path, &one_leak(30, 1)).finish("then").unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    let grower: (i64, i64, String, String) = db
        .query_row(
            "SELECT pid, outstanding_bytes, verdict, frames FROM top_growers",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .unwrap_or((0, 0, String::new(), String::new()));
    // The fixture's stack does not say how fast it grows.
    assert_eq!(grower.0, 0);
    let last: (i64, i64, String) = db
        .query_row(
            "SELECT pid, outstanding_bytes, verdict FROM last_stacks",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(last, (1234, 30_000, "growing".to_owned()));
    let names: String = db
        .query_row("SELECT frames FROM stack_names", [], |row| row.get(0))
        .unwrap();
    assert_eq!(names, "function_1 (/srv/a.c:1) < /srv/lib.so+0x11a9");
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM stack_history"), 30);
    assert_eq!(count("SELECT count(*) FROM moments"), 30);
    assert!(count("SELECT max(outstanding_bytes) FROM usage") > 0);
}
