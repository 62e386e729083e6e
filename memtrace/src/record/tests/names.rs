//! Names of any kind, and the views.

use super::*;

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
