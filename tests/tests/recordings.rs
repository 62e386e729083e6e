//! Recordings on the real kernel: what is read back is what was shown, also after the worst.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Output;

use memtrace_tests::{Cgroup, Program, Report, Target, Tracer, memtrace, require_kernel};

/// Runs a command of memtrace to its end.
#[track_caller]
fn run(args: &[&str]) -> Output {
    memtrace(args).output().expect("memtrace starts")
}

#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

struct Recorded {
    directory: tempfile::TempDir,
    file: PathBuf,
}

impl Recorded {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("r.memtrace");
        Self { directory, file }
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("text")
    }

    /// A copy of a program, to be deleted like a container's.
    fn program(&self, name: &str) -> PathBuf {
        let copy = self.directory.path().join("service");
        std::fs::copy(Program::c(name).build(), &copy).expect("a copy");
        copy
    }
}

/// Runs a command of memtrace where a folder cannot be written to.
#[track_caller]
fn read_only(folder: &Path, args: &[&str]) -> Output {
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(folder)
        .arg(memtrace_tests::memtrace_bin())
        .args(args)
        .output()
        .expect("unshare starts")
}

#[track_caller]
fn leak(report: &Report, pid: u32, function: &str) -> (u64, String) {
    let stack = report
        .heap_stacks(pid)
        .find(|stack| stack.frames.iter().any(|frame| frame.name() == function))
        .unwrap_or_else(|| unreachable!("no stack has {function}"));
    (stack.outstanding_bytes, stack.verdict.clone())
}

/// The live JSON report and the one read back are the same bytes, with any selection, although the
/// program and its file are gone by then; every NDJSON line of the session reads back.
#[test]
fn live_is_what_is_read_back() {
    require_kernel!();
    let recorded = Recorded::new();
    let program = recorded.program("live");
    let mut target = Target::spawn(&program, &["leak"]);
    let pid = target.pid();
    let pid_text = pid.to_string();
    let mut tracer = Tracer::start(&mut memtrace(&[
        "--pid",
        &pid_text,
        "--interval",
        "300ms",
        "--count",
        "8",
        "--format",
        "ndjson",
        "--top",
        "all",
        "--record",
        recorded.path(),
    ]));
    tracer.wait_attached();
    target.go();
    let ended = tracer.wait();
    ended.assert_code(0);
    target.assert_unharmed();
    std::fs::remove_file(&program).expect("it is there");
    let all = [
        "report",
        recorded.path(),
        "--format",
        "ndjson",
        "--top",
        "all",
    ];
    let read_back = stdout(&all);
    assert_eq!(ended.stdout, read_back, "every report, byte for byte");
    let media = read_only(recorded.directory.path(), &all);
    let media = String::from_utf8_lossy(&media.stdout).into_owned();
    assert_eq!(read_back, media, "also from where nothing can be written");
    let last = Report::parse(ended.stdout.lines().last().unwrap_or_default());
    let json = Report::parse(&stdout(&["report", recorded.path(), "--format", "json"]));
    assert_eq!(leak(&json, pid, "leak"), leak(&last, pid, "leak"));
    let frames = json.heap_stacks(pid).flat_map(|stack| &stack.frames);
    let named: Vec<_> = frames.filter(|frame| frame.name() == "leak").collect();
    let placed = |frame: &&memtrace_tests::Frame| frame.file.is_some() && frame.line.is_some();
    assert!(named.iter().all(placed), "{named:?}");
}

/// A mark is told by the next report of a live session, is in its recording at that moment, and names
/// it for report and diff; without a session marking fails in one line.
#[test]
fn mark_in_a_live_session() {
    require_kernel!();
    let recorded = Recorded::new();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    let pid = target.pid();
    // An interval that never ends: every report but the last is a mark's.
    let mut tracer = Tracer::attach_stream(pid, &["--interval", "1h", "--record", recorded.path()]);
    let socket = PathBuf::from(format!("/run/memtrace/{}.sock", tracer.pid()));
    assert!(socket.exists());
    let first = stdout(&["mark", "before"]);
    assert!(first.starts_with("marked \"before\" in "), "{first}");
    let before = tracer.report_where("a mark", |report| !report.marks.is_empty());
    assert_eq!(before.marks[0].name, "before");
    target.go();
    // Marked again until the leak has begun: of one name the latest counts.
    let after = loop {
        stdout(&["mark", "cycle 5"]);
        let report = tracer.report_where("a mark", |report| {
            report.marks.iter().any(|mark| mark.name == "cycle 5")
        });
        if report.heap_stacks(pid).any(|stack| {
            let is = |frame: &memtrace_tests::Frame| frame.name() == "leak";
            stack.frames.iter().any(is)
        }) {
            break report;
        }
    };
    // It is recorded when the command has come back, while the session goes on.
    let read = |mark| {
        Report::parse(&stdout(&[
            "report",
            recorded.path(),
            "--at",
            mark,
            "--format",
            "json",
        ]))
    };
    let (old, new) = (read("before"), read("cycle 5"));
    assert_eq!(old.duration_seconds, before.duration_seconds);
    assert_eq!(new.duration_seconds, after.duration_seconds);
    assert_eq!(new.marks[0].at, after.marks[0].at);
    assert_eq!(leak(&new, pid, "leak"), leak(&after, pid, "leak"));
    let text = stdout(&["report", recorded.path(), "--at", "cycle 5"]);
    assert!(text.contains("cycle 5, set at "), "{text}");
    let diff = stdout(&[
        "diff",
        recorded.path(),
        "--from",
        "before",
        "--to",
        "cycle 5",
        "--format",
        "json",
    ]);
    let diff: serde_json::Value = serde_json::from_str(&diff).expect("JSON");
    let functions = diff["functions"].as_array().expect("a list");
    let gained = functions.iter().find(|one| one["function"] == "leak");
    let held = leak(&after, pid, "leak").0;
    assert_eq!(gained.expect("leak")["gained_bytes"], held);
    let last = tracer.finish();
    assert_eq!(last.marks.len(), 0, "each is told once");
    assert!(!socket.exists());
    target.assert_unharmed();
    let long = run(&["mark", &"x".repeat(201)]);
    assert_eq!(long.status.code(), Some(2));
    // Other tests may trace at the same time: a mount of its own has no session.
    let script = format!(
        "mount -t tmpfs none /run && exec {} mark lonely",
        memtrace_tests::memtrace_bin().display()
    );
    let lonely = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .expect("unshare starts");
    let error = String::from_utf8_lossy(&lonely.stderr).into_owned();
    assert_eq!(lonely.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains("no session of memtrace is running"),
        "{error}"
    );
}

/// A real OOM kill reads back from the recording as it was written to its file, byte for byte.
#[test]
fn oom_kill_reads_back() {
    require_kernel!();
    let recorded = Recorded::new();
    let group = Cgroup::own("recorded");
    group.limit(64 << 20);
    let mut leaky = Target::spawn(&Program::c("oom").build(), &["leak", "1048576", "20"]);
    group.add(leaky.pid());
    let directory = recorded.directory.path().join("incidents");
    let mut tracer = Tracer::attach_with(
        leaky.pid(),
        &[
            "--incidents",
            directory.to_str().expect("text"),
            "--record",
            recorded.path(),
            "--threshold",
            "50",
        ],
    );
    leaky.go();
    assert!(!leaky.wait().status.success());
    tracer.wait().assert_code(0);
    let list = stdout(&["incidents", recorded.path(), "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["schema"], "memtrace.incidents/1");
    assert_eq!(list["recording"], recorded.path());
    assert_eq!(
        watched(recorded.path()),
        [(format!("50% of {}", group.path()), 32 << 20)]
    );
    let kinds: Vec<_> = list["incidents"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(kinds, ["threshold", "oom-kill"]);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("made")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 2);
    for (number, file) in ["1", "2"].iter().zip(files) {
        let written = std::fs::read_to_string(file).expect("a file");
        let read = stdout(&["incidents", recorded.path(), number, "--format", "json"]);
        assert_eq!(without_before(&read), written);
    }
    timeline(recorded.path());
    let text = stdout(&["incidents", recorded.path()]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("OOM KILL") && text.contains("MEMORY AT 50%"),
        "{text}"
    );
    let whole = stdout(&["incidents", recorded.path(), "2"]);
    assert!(
        whole.contains("leak_page_cache") && whole.contains(group.path()),
        "{whole}"
    );
    for part in [
        "What the kernel said",
        "Before it, of the limit of 64.0 MiB",
        "the kill ",
        "Grew in these ",
    ] {
        assert!(whole.contains(part), "{part}: {whole}");
    }
    let none = run(&["incidents", recorded.path(), "3"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("has no incident 3"));
}

/// An incident without what a recording knows of the time before it, as it is printed.
#[track_caller]
fn without_before(incident: &str) -> String {
    let (head, rest) = incident
        .split_once("  \"before\": {\n")
        .expect("it is there");
    let (_, tail) = rest.split_once("\n  },\n").expect("its end");
    format!("{head}{tail}")
}

/// What was used of the limit before the kill, up to the kernel's own figure, and the function that grew.
#[track_caller]
fn timeline(recording: &str) {
    let kill = stdout(&["incidents", recording, "2", "--format", "json"]);
    let kill: serde_json::Value = serde_json::from_str(&kill).expect("JSON");
    let before = &kill["before"];
    assert_eq!(before["limit_bytes"], 64 << 20);
    let points = before["timeline"].as_array().expect("a list");
    assert_eq!(before["reports"].as_u64(), Some(points.len() as u64 - 1));
    let used = points.iter().map(|point| point["usage_bytes"].as_u64());
    let used: Vec<Option<u64>> = used.collect();
    let (end, earlier) = used.split_last().expect("points");
    // On a busy machine it is read too late, and then not told.
    assert!(end.is_none_or(|end| end > 60 << 20), "{points:?}");
    assert!(
        earlier.iter().all(|used| *used <= Some(64 << 20)),
        "{points:?}"
    );
    let grew = &before["grew"][0];
    assert_eq!(grew["function"], "leak_page_cache");
    assert!(grew["gained_bytes"].as_u64() > Some(0), "{grew}");
    // The crossing's last point is what was found to be used then.
    let crossing = stdout(&["incidents", recording, "1", "--format", "json"]);
    let crossing: serde_json::Value = serde_json::from_str(&crossing).expect("JSON");
    let points = crossing["before"]["timeline"].as_array().expect("a list");
    let last = points.last().expect("the crossing");
    assert_eq!(last["usage_bytes"], crossing["threshold"]["used_bytes"]);
    assert!(last["usage_bytes"].as_u64() >= Some(32 << 20), "{last}");
}

/// What is watched: its name, and bytes.
#[track_caller]
fn watched(recording: &str) -> Vec<(String, i64)> {
    let db = rusqlite::Connection::open(recording).expect("a database");
    let mut statement = db
        .prepare("SELECT name, bytes FROM thresholds ORDER BY id")
        .expect("the table");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.and_then(Iterator::collect).expect("rows")
}

/// A recorder that is killed leaves all but the interval it was writing, and a later reader needs
/// nothing but the files.
#[test]
fn killed_recorder() {
    require_kernel!();
    let recorded = Recorded::new();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    let pid = target.pid();
    let mut tracer =
        Tracer::attach_stream(pid, &["--interval", "300ms", "--record", recorded.path()]);
    target.go();
    let all = [
        "report",
        recorded.path(),
        "--format",
        "ndjson",
        "--top",
        "all",
    ];
    // The last one shown may still be on its way to the disk: then another is waited for.
    let mut shown = Vec::new();
    while shown.len() < 6 || stdout(&all).lines().count() < shown.len() {
        shown.push(tracer.report_where("a report", |_| true));
    }
    tracer.signal(libc::SIGKILL);
    tracer.wait();
    target.assert_unharmed();
    without_its_log(recorded.directory.path(), &recorded.file);
    let lines = stdout(&all);
    let read: Vec<Report> = lines.lines().map(Report::parse).collect();
    assert!(
        read.len() >= shown.len(),
        "{} of {}",
        read.len(),
        shown.len()
    );
    for (read, shown) in read.iter().zip(&shown) {
        assert_eq!(read.duration_seconds, shown.duration_seconds);
        assert_eq!(leak(read, pid, "leak"), leak(shown, pid, "leak"));
    }
}

/// The files of a killed recorder where nothing can be written: one line that says what to do.
fn without_its_log(folder: &Path, file: &Path) {
    let media = folder.join("media");
    std::fs::create_dir(&media).expect("a folder");
    for end in ["", "-wal"] {
        let name = format!("r.memtrace{end}");
        std::fs::copy(file.with_file_name(&name), media.join(&name)).expect("a copy");
    }
    let copy = media.join("r.memtrace");
    let output = read_only(&media, &["report", copy.to_str().expect("text")]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("needs a writable directory"), "{error}");
}

/// A stripped program is recorded; its debug file, given when program and process are gone, names
/// function, file and line. The debug file of another build is refused by name, and so is a folder without
/// any.
#[test]
fn symbols_later() {
    require_kernel!();
    let recorded = Recorded::new();
    let below = |name: &str| recorded.directory.path().join(name);
    let objcopy = |args: &[&Path]| {
        let done = std::process::Command::new("objcopy").args(args).status();
        assert!(done.expect("objcopy starts").success(), "{args:?}");
    };
    let (full, service) = (Program::c("live").build(), below("service"));
    let other = Program::c("live").flag("-O1").build();
    for (folder, program) in [("right", &full), ("wrong", &other)] {
        std::fs::create_dir(below(folder)).expect("a folder");
        let debug = below(folder).join("service.debug");
        objcopy(&[Path::new("--only-keep-debug"), program, &debug]);
    }
    std::fs::create_dir(below("none")).expect("a folder");
    objcopy(&[Path::new("--strip-all"), &full, &service]);
    let mut target = Target::spawn(&service, &["leak"]);
    let pid = target.pid();
    let mut tracer =
        Tracer::attach_stream(pid, &["--interval", "300ms", "--record", recorded.path()]);
    target.go();
    let is_known = |report: &Report| report.heap_stacks(pid).any(|s| s.outstanding_bytes > 0);
    let _ = tracer.report_where("a leak", is_known);
    let _ = tracer.finish();
    target.assert_unharmed();
    std::fs::remove_file(&service).expect("it is there");
    let plain = stdout(&["report", recorded.path(), "--format", "json"]);
    let with = |folder: &str| {
        let folder = below(folder);
        let folder = folder.to_str().expect("text");
        run(&[
            "report",
            recorded.path(),
            "--format",
            "json",
            "--debug-dir",
            folder,
        ])
    };
    let named = |report: &Report| {
        let frames = report.heap_stacks(pid).flat_map(|stack| &stack.frames);
        let mut leaks = frames.filter(|frame| frame.name() == "leak");
        leaks.next().map(|frame| (frame.file.clone(), frame.line))
    };
    let before = Report::parse(&plain);
    assert_eq!(named(&before), None);
    let renamed = with("right");
    assert!(
        renamed.status.success() && renamed.stderr.is_empty(),
        "{renamed:?}"
    );
    let after = Report::parse(&String::from_utf8_lossy(&renamed.stdout));
    let (file, line) = named(&after).expect("leak is named");
    assert!(file.is_some_and(|file| file.ends_with("live.c")));
    assert!(line.is_some());
    let held =
        |report: &Report| -> u64 { report.heap_stacks(pid).map(|s| s.outstanding_bytes).sum() };
    assert_eq!(held(&before), held(&after));
    for (folder, why) in [
        ("wrong", "is of another build than the recorded"),
        ("none", "no file in"),
    ] {
        let refused = with(folder);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.success(), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(why), "{error}");
        assert_eq!(String::from_utf8_lossy(&refused.stdout), plain);
    }
}

/// Two builds of one program, the second optimized and with its functions elsewhere: the difference
/// is the leak that was planted in it, and nothing else.
#[test]
fn diff_of_two_builds() {
    require_kernel!();
    let recorded = Recorded::new();
    let build = |flags: &[&str], name: &str| {
        let program = Program::c("builds");
        let program = flags
            .iter()
            .fold(program, |program, flag| program.flag(flag))
            .build();
        let file = recorded.directory.path().join(name);
        let path = file.to_str().expect("text").to_owned();
        let program = program.to_str().expect("text");
        stdout(&["run", "--quiet", "--record", &path, "--", program]);
        path
    };
    let before = build(&["-O0"], "before");
    let after = build(&["-O1", "-DLEAK", "-DMOVED"], "after");
    let text = stdout(&["diff", &before, &after, "--format", "json", "--top", "all"]);
    let diff: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let functions = diff["functions"].as_array().expect("a list");
    assert_eq!(functions.len(), 1, "{functions:?}");
    assert_eq!(functions[0]["function"], "planted_leak");
    assert_eq!(functions[0]["change"], "new");
    assert_eq!(functions[0]["gained_bytes"], 50 * 1000);
    assert_eq!(diff["stacks"].as_array().map(Vec::len), Some(1));
    let svg = stdout(&["diff", &before, &after, "--format", "svg"]);
    assert!(
        svg.ends_with("</svg>") || svg.ends_with("</svg>\n"),
        "{svg}"
    );
    assert!(
        svg.contains("red grew") && svg.contains("planted_leak"),
        "{svg}"
    );
    assert_eq!(
        run(&["diff", &before, &after, "--fail-on", "growth:1KiB"])
            .status
            .code(),
        Some(3)
    );
    assert_eq!(
        run(&["diff", &before, &before, "--fail-on", "growth"])
            .status
            .code(),
        Some(0)
    );
}

/// A file that is there, one that is being written, and a full disk: one line each, and the target
/// is traced on when the disk is full.
#[test]
fn refused_and_full() {
    require_kernel!();
    let recorded = Recorded::new();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    let pid = target.pid().to_string();
    let mut tracer = Tracer::attach_stream(
        target.pid(),
        &["--interval", "200ms", "--record", recorded.path()],
    );
    target.go();
    let _ = tracer.report_where("a report", |_| true);
    let second = run(&["--pid", &pid, "--record", recorded.path()]);
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains(&format!("memtrace (pid {})", tracer.pid())),
        "{error}"
    );
    let _ = tracer.finish();
    let again = run(&["--pid", &pid, "--record", recorded.path()]);
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(error.contains("it exists"), "{error}");
    full_disk(&pid, recorded.directory.path());
    target.assert_unharmed();
}

/// A file system of a few pages.
fn full_disk(pid: &str, below: &Path) {
    let small = below.join("small");
    std::fs::create_dir(&small).expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size=192k none {0} && exec {1} --pid {pid} --interval 20ms --count 150 \
         --format ndjson --top 1 --record {0}/r",
        small.display(),
        memtrace_tests::memtrace_bin().display(),
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .expect("unshare starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{error}");
    let ended: Vec<_> = error
        .lines()
        .filter(|line| line.contains("recording ended"))
        .collect();
    assert_eq!(ended.len(), 1, "{error}");
    assert!(ended[0].contains("the disk is full"), "{error}");
    let reports = String::from_utf8_lossy(&output.stdout).lines().count();
    assert!(reports >= 140, "{reports} reports: tracing went on");
}
