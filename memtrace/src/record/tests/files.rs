//! Files that are not what they should be, and such as are written meanwhile.

use super::*;

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

// A session that failed before its first report leaves no file in the way of the next attempt; one that failed
// later leaves what it reported.
#[test]
fn nothing_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let create = || Writer::create(&path, Retention::default()).unwrap();
    let left = || std::fs::read_dir(directory.path()).unwrap().count();
    drop(create());
    assert_eq!(left(), 0);
    create().finish("then").unwrap();
    assert_eq!(left(), 0);
    drop(Recorder::start(create()).unwrap());
    assert_eq!(left(), 0);
    let mut writer = create();
    write(&mut writer, &one_leak(1, 1)[0]);
    drop(Recorder::start(writer).unwrap());
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.moments().unwrap().len(), 1);
    assert!(!recording.is_whole().unwrap());
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

// A file that claims more than any session has: what is shown is bounded, and what cannot be is refused in a
// line.
#[test]
fn claims() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    record(&path, &one_leak(2, 1)).finish("then").unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    // Whoever makes such a file need not care for what its tables refer to.
    db.execute_batch("PRAGMA foreign_keys = off; PRAGMA synchronous = off")
        .unwrap();
    let many = |from: i64, to: i64| {
        let sql = "INSERT INTO samples
            WITH RECURSIVE c (x) AS (SELECT ?1 UNION ALL SELECT x + 1 FROM c WHERE x < ?2)
            SELECT 1, x, 1000, 0, 1, 0, NULL, NULL, 5, 1.0, 1, 50, 1 FROM c";
        db.execute(sql, [from, to]).unwrap();
    };
    let read = |top| {
        let recording = Recording::open(&path).unwrap();
        let moment = recording.find(&When::End).unwrap();
        recording.report(&moment, top).map(|read| read.report)
    };
    many(1_000, 3_999);
    let report = read(None).unwrap();
    assert_eq!(report.stacks.len(), 2000, "no more are judged live");
    assert_eq!(report.not_shown.stacks, 1001);
    let sum: u64 = report.stacks.iter().map(|s| s.outstanding_bytes).sum();
    assert_eq!(sum + report.not_shown.outstanding_bytes, 2000 + 3_000_000);
    many(4_000, 21_000);
    let error = read(Some(10)).unwrap_err().to_string();
    assert!(error.contains("20000 stacks or more"), "{error}");
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
