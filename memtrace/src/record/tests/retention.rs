//! What is dropped and thinned, also while it is read.

use super::*;

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
