//! `memtrace events`: every call of a program that knows its calls, and every one that is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use memtrace_tests::{Program, Running, deadline, memtrace, memtrace_bin, require_kernel};
use serde_json::Value;

/// The program, waiting for `go`.
fn start(args: &[&str]) -> Running {
    let mut command = Command::new(Program::c("events").build());
    command.args(args).env_remove("TRUTH_NOWAIT");
    let mut running = Running::spawn(&mut command);
    running.stdout_line(deadline(20), "ready", |line| line.starts_with("ready "));
    running
}

/// `memtrace events` on it, with its probes on.
fn trace(pid: u32, options: &[&str]) -> Running {
    let pid = pid.to_string();
    let mut args = vec!["events", "--pid", &pid];
    args.extend(options);
    let mut tracer = Running::spawn(&mut memtrace(&args));
    tracer.stderr_line(deadline(90), "memtrace: tracing", |line| {
        line.starts_with("memtrace: tracing")
    });
    tracer
}

/// Lets the program do its work and end.
fn finish(program: &mut Running) -> String {
    program.send_line("go");
    program.stdout_line(deadline(60), "done", |line| line.starts_with("done "));
    program.close_stdin();
    let ended = program.wait(deadline(60));
    ended.assert_code(0);
    ended.stdout
}

/// What it says it did.
fn said(stdout: &str, pid: u32) -> Vec<String> {
    let mine = format!("call {pid} ");
    let calls = stdout.lines().filter_map(|line| line.strip_prefix(&mine));
    calls.map(str::to_owned).collect()
}

fn objects(stdout: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap();
    stdout.lines().map(parse).collect()
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or("NULL")
}

/// An object in the words of the program.
fn in_words(event: &Value) -> String {
    let (size, address) = (event["size"].as_u64(), text(event, "address"));
    let bytes = size.unwrap_or_default();
    let old = text(event, "old_address");
    let name = event["function"].as_str();
    let name = name.unwrap_or(text(event, "kind"));
    let result = match text(event, "result") {
        "ok" => "0",
        error => error,
    };
    let made = if event["address"].is_null() && result.starts_with('E') {
        result
    } else {
        address
    };
    match text(event, "kind") {
        "alloc" => format!("{name}({bytes}) = {address}"),
        "realloc" if result == "freed" => format!("{name}({old}, {bytes}) = {address} (freed)"),
        "realloc" => format!("{name}({old}, {bytes}) = {address}"),
        "free" if size.is_some() => format!("{name}({address})  {bytes} bytes"),
        "free" => format!("{name}({address})"),
        "mmap" => {
            let flags = u64::from_str_radix(&text(event, "flags")[2..], 16).unwrap();
            let sharing = if flags & 1 == 1 { " shared" } else { "" };
            let fd = event["fd"].as_i64().map(|fd| format!(", fd {fd}"));
            let fd = fd.unwrap_or_default();
            let protection = text(event, "protection");
            format!("mmap({bytes}, {protection}{sharing}{fd}) = {made}")
        }
        "mremap" => format!("mremap({old}, {}, {bytes}) = {made}", event["old_size"]),
        "munmap" => format!("munmap({address}, {bytes}) = {result}"),
        "madvise" if event["advice"] == 4 => {
            format!("madvise({address}, {bytes}, DONTNEED) = {result}")
        }
        "mprotect" => {
            let protection = text(event, "protection");
            format!("mprotect({address}, {bytes}, {protection}) = {result}")
        }
        "brk" if result == "ENOMEM" => format!("brk({old}) = {address} refused"),
        "brk" => format!("brk({old}) = {address}"),
        other => other.to_owned(),
    }
}

/// glibc before 2.38 has one function under both names.
fn usual_name(call: &str) -> String {
    call.replace("aligned_alloc(", "memalign(")
}

/// Every call of the program, one by one, in its order: allocators, mappings and brk, also those that
/// fail; as text and as JSON, which say the same.
#[test]
fn every_call_in_its_order() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.txt");
    let mut program = start(&["all"]);
    let pid = program.pid();
    let mut as_json = trace(pid, &["--format", "json"]);
    let mut as_text = trace(pid, &["--output", file.to_str().unwrap()]);
    let expected = said(&finish(&mut program), pid);
    assert!(expected.len() > 25, "{expected:?}");
    let ended = as_json.wait(deadline(60));
    ended.assert_code(0);
    let events = objects(&ended.stdout);
    let calls = events.iter().filter(|event| {
        let kind = text(event, "kind");
        !matches!(kind, "exit" | "end") && event["by_allocator"] != true
    });
    let got: Vec<_> = calls.map(|event| usual_name(&in_words(event))).collect();
    assert_eq!(got, expected);
    for event in &events {
        assert_eq!(event["schema"], "memtrace.event/1");
        // The name is the file's, of at most 15 bytes.
        let is_of = event["pid"] == pid && event["tid"] == pid;
        let is_of = is_of && text(event, "comm").starts_with("events");
        assert!(is_of || event["kind"] == "end", "{event}");
    }
    let [.., exit, end] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(exit["kind"], "exit");
    assert_eq!(end["kind"], "end");
    assert_eq!(end["losses"], serde_json::json!({}));
    assert_eq!(end["events"].as_u64(), Some(events.len() as u64 - 1));
    as_text.wait(deadline(60)).assert_code(0);
    let lines = std::fs::read_to_string(&file).unwrap();
    assert!(!lines.contains('\u{1b}'));
    let got: Vec<_> = lines.lines().filter_map(call_of).collect();
    assert_eq!(got, expected);
}

/// The call of a line of text; of a free without its age. Nothing of what is not the program's own.
fn call_of(line: &str) -> Option<String> {
    // TIME PID COMM CALL
    let mut rest = line;
    for _ in 0..3 {
        rest = rest.trim_start().split_once(' ')?.1;
    }
    let call = rest.trim_start();
    let call = call.split_once(" after ").map_or(call, |(call, _)| call);
    (call != "exit" && !call.ends_with("[allocator]")).then(|| usual_name(call))
}

/// Forks, a vfork and an exec with --follow: who made whom, and what each did until its end.
#[test]
fn a_tree() {
    require_kernel!();
    let mut program = start(&["tree"]);
    let pid = program.pid();
    let options = ["--follow", "--format", "json", "--kind", "heap,life"];
    let mut tracer = trace(pid, &options);
    let said = said(&finish(&mut program), pid);
    let children: Vec<u32> = said
        .iter()
        .map(|call| call.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    let ended = tracer.wait(deadline(60));
    ended.assert_code(0);
    let events = objects(&ended.stdout);
    let of = |pid: u32| -> Vec<String> {
        let mine = events.iter().filter(|event| event["pid"] == pid);
        mine.map(|event| match text(event, "kind") {
            "fork" => format!("fork {} {}", event["child_pid"], event["shares_memory"]),
            "alloc" | "free" => format!("{} {}", text(event, "kind"), event["size"]),
            kind => kind.to_owned(),
        })
        .collect()
    };
    let [first, second, third] = children.as_slice() else {
        panic!("{said:?}")
    };
    let forks = [
        format!("fork {first} null"),
        format!("fork {second} true"),
        format!("fork {third} null"),
        "exit".to_owned(),
    ];
    assert_eq!(of(pid), forks);
    assert_eq!(of(*first), ["alloc 31", "exit"]);
    assert_eq!(of(*second), ["exit"]);
    assert_eq!(of(*third), ["exec", "alloc 77", "free 77", "exit"]);
}

/// A reader that stands still: what the ring could not take is missing where a line says so, and shown
/// and lost are all calls.
#[test]
fn what_is_lost_is_counted() {
    require_kernel!();
    const CALLS: u64 = 2 * 20_000;
    let mut program = start(&["flood", "20000"]);
    let options = [
        "--ring-bytes",
        "64KiB",
        "--format",
        "json",
        "--kind",
        "heap",
    ];
    let mut tracer = trace(program.pid(), &options);
    tracer.signal(libc::SIGSTOP);
    program.send_line("go");
    program.stdout_line(deadline(60), "done", |line| line.starts_with("done "));
    tracer.signal(libc::SIGCONT);
    program.close_stdin();
    program.wait(deadline(60)).assert_code(0);
    let ended = tracer.wait(deadline(60));
    ended.assert_code(0);
    let events = objects(&ended.stdout);
    let lost = events.iter().filter(|event| event["kind"] == "lost");
    let lost: u64 = lost.map(|event| event["events"].as_u64().unwrap()).sum();
    let shown = events.iter().filter(|event| {
        let kind = text(event, "kind");
        kind == "alloc" || kind == "free"
    });
    assert!(lost > 0);
    assert_eq!(shown.count() as u64 + lost, CALLS);
    let end = events.last().unwrap();
    assert_eq!(end["losses"]["call_events_lost"], lost);
    let told = format!("{} call_events_lost", with_commas(lost));
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// With --stacks each call of a program that memtrace starts has its own stack down to main, a free
/// too.
#[test]
fn stacks_of_a_started_program() {
    require_kernel!();
    let program = Program::c("events").build();
    let mut command = memtrace(&[
        "events", "--stacks", "--format", "json", "--kind", "heap", "--",
    ]);
    command
        .arg(Path::new(&program))
        .arg("all")
        .env("TRUTH_NOWAIT", "1");
    let ended = Running::spawn(&mut command).wait(deadline(90));
    ended.assert_code(0);
    // The program shares standard output.
    let lines = ended.stdout.lines().filter(|line| line.starts_with('{'));
    let events: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let functions = |event: &Value| -> Vec<String> {
        let frames = event["frames"].as_array().unwrap().iter();
        frames
            .map(|frame| text(frame, "function").to_owned())
            .collect()
    };
    let own = events.iter().filter(|event| {
        event["frames"]
            .as_array()
            .is_some_and(|_| functions(event).iter().any(|f| f == "allocators"))
    });
    let own: Vec<_> = own.collect();
    assert_eq!(own.len(), 16);
    assert_eq!(
        own.iter().filter(|event| event["kind"] == "free").count(),
        6
    );
    for event in own {
        assert_eq!(event["complete"], true, "{event}");
        let functions = functions(event);
        let at = functions.iter().position(|f| f == "allocators").unwrap();
        assert!(at <= 2 && functions[at + 1] == "main", "{functions:?}");
    }
}

/// -n is exact, the program goes on without probes and its status is passed on; a closed pipe is
/// success.
#[test]
fn ends_early() {
    require_kernel!();
    let program = Program::c("quick").build();
    let mut command = memtrace(&[
        "events", "--format", "json", "--kind", "alloc", "-n", "5", "--",
    ]);
    command.arg(&program).arg("7").env("TRUTH_NOWAIT", "1");
    let ended = Running::spawn(&mut command).wait(deadline(90));
    ended.assert_code(7);
    let events: Vec<_> = ended
        .stdout
        .lines()
        .filter(|line| line.contains("event/1"))
        .collect();
    assert_eq!(events.len(), 6, "{events:?}");
    assert!(
        events[5].contains("\"kind\":\"end\",\"events\":5"),
        "{}",
        events[5]
    );
    let mut target = start(&["flood", "100000"]);
    let pid = target.pid().to_string();
    let line = format!(
        "'{}' events --pid {pid} | head -n 3",
        memtrace_bin().display()
    );
    let mut shell = Running::spawn(Command::new("sh").args(["-c", &line]));
    shell.stderr_line(deadline(90), "memtrace: tracing", |line| {
        line.starts_with("memtrace: tracing")
    });
    target.send_line("go");
    let ended = shell.wait(deadline(90));
    ended.assert_code(0);
    assert_eq!(ended.stdout.lines().count(), 3);
    assert!(!ended.stderr.contains("rror"), "{}", ended.stderr);
}
