//! Marks on a live program: what a load test wants to know of its cycles, live, recorded and in a page.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use memtrace_tests::{
    Browser, Cgroup, Program, Report, Target, Tracer, memtrace, memtrace_bin, require_browser,
    require_kernel,
};
use serde_json::{Value, json};

const CYCLES: usize = 4;

/// memtrace with a `/run` of its own: the marks of other tests do not come here, nor these there.
fn alone(args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]);
    command.arg(memtrace_bin()).args(args);
    command
}

#[track_caller]
fn mark(tracer: &Tracer, name: &str) {
    let namespace = format!("--mount=/proc/{}/ns/mnt", tracer.pid());
    let mut command = Command::new("nsenter");
    command.arg(namespace).arg(memtrace_bin());
    let output = command.args(["mark", name]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
}

/// A session of four cycles, each between two marks of one name; other options as given.
#[track_caller]
fn session(folder: &Path, name: &str, program: &Path, options: &[&str]) {
    let group = Cgroup::own(name);
    // One percent of it is used by the first cycle already.
    group.limit(16 << 20);
    let incidents = folder.join("incidents");
    let count = (CYCLES + 1).to_string();
    let mut target = Target::spawn(program, &[&count]);
    group.add(target.pid());
    let pid = target.pid().to_string();
    // Reports come with the marks only.
    let mut all = vec!["--pid", &pid, "--interval", "1h", "--top", "all"];
    all.extend(["--threshold", "1,99", "--incidents"]);
    all.push(incidents.to_str().unwrap());
    all.extend(options);
    let mut tracer = Tracer::start(&mut alone(&all));
    tracer.wait_attached();
    mark(&tracer, "cycle");
    for _ in 0..CYCLES {
        target.go();
        target.step("cycle");
        tracer.wait_for_file(&incidents, "threshold");
        mark(&tracer, "cycle");
    }
    tracer.signal(libc::SIGINT);
    tracer.wait().assert_code(0);
    target.assert_unharmed();
}

#[track_caller]
fn read(recording: &Path, format: &str, options: &[&str]) -> String {
    let path = recording.to_str().unwrap();
    let args = ["report", path, "--format", format, "--top", "all"];
    let output = memtrace(&args).args(options).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program without symbols, and its debug file beside it.
#[track_caller]
fn strip(full: &Path, stripped: &Path, folder: &Path) {
    let debug = folder.join("service.debug");
    for (how, file) in [
        ("--only-keep-debug", debug.as_path()),
        ("--strip-all", stripped),
    ] {
        let done = Command::new("objcopy").arg(how).args([full, file]).status();
        assert!(done.unwrap().success(), "objcopy {how}");
    }
}

/// Four cycles of a stripped program: the leak is named with what it gained in each, the cache that fills once
/// is not, and the recording tells the same; names come from the debug file.
#[test]
fn names_what_grows_in_every_cycle() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("r");
    let live = folder.path().join("live.json");
    let record = ["--format", "json", "--record", recording.to_str().unwrap()];
    let output = ["--output", live.to_str().unwrap()];
    let (full, stripped) = (Program::c("cycles").build(), folder.path().join("service"));
    strip(&full, &stripped, folder.path());
    session(
        folder.path(),
        "cycles",
        &stripped,
        &[&record[..], &output[..]].concat(),
    );
    let live = std::fs::read_to_string(live).unwrap();
    assert_eq!(live, read(&recording, "json", &[]), "live and recorded");
    let unnamed: Value = serde_json::from_str(&live).unwrap();
    let functions = &unnamed["cycles"]["growing_functions"];
    assert_eq!(functions[0]["function"], Value::Null, "{functions}");
    // Symbols that come later name the functions of cycles, too.
    let symbols = ["--debug-dir", folder.path().to_str().unwrap()];
    let named = read(&recording, "json", &symbols);
    let report: Value = serde_json::from_str(&named).unwrap();
    let cycles = &report["cycles"];
    assert_eq!(cycles["name"], "cycle");
    assert_eq!(cycles["completed"], CYCLES);
    let functions = cycles["growing_functions"].as_array().expect("a list");
    assert_eq!(functions.len(), 1, "{functions:?}");
    assert_eq!(functions[0]["function"], "leak_in_cycle");
    assert_eq!(functions[0]["gained_bytes"], CYCLES * 16 * 4096);
    // The last report came after the last mark: it opens a cycle in which nothing happened.
    let gained = [16 * 4096, 16 * 4096, 16 * 4096, 16 * 4096, 0];
    assert_eq!(functions[0]["gained_per_cycle"], json!(gained));
    let list = cycles["list"].as_array().expect("a list");
    let grew = |at: usize| &list[at]["outstanding"]["growth_bytes"];
    assert_eq!(*grew(0), (16 + 64) * 4096);
    assert_eq!(*grew(1), 16 * 4096);
    assert_eq!(list[CYCLES]["to"], Value::Null);
    assert!(list[0]["rss"]["maximum_bytes"].as_u64() > Some(0));
    assert_eq!(
        cycles["total"]["outstanding"]["growth_bytes"],
        (4 * 16 + 64) * 4096
    );
    // One percent of the limit is used from the first cycle on, 99 never.
    let reached = json!([{"percent": 1, "cycles": CYCLES}, {"percent": 99, "cycles": 0}]);
    assert_eq!(cycles["thresholds"], reached);
    let report = Report::parse(&named);
    let cache = report.stacks.iter().find(|stack| {
        let mut frames = stack.frames.iter();
        frames.any(|frame| frame.name() == "fill_once")
    });
    let cache = cache.expect("the cache's stack");
    assert_eq!(cache.gained_per_cycle, [64 * 4096, 0, 0, 0, 0]);
}

/// What a page has of marks, thresholds, incidents and cycles.
fn events(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let of = |key: &str| data[key].clone();
    json!({
        "marks": of("marks"), "thresholds": of("thresholds"),
        "incidents": of("incidents"), "cycles": of("cycles"),
    })
}

/// The page of a live session has the same marks, thresholds, incidents and cycles as that of its
/// recording, and a browser shows them.
#[test]
fn live_page_is_the_recorded_one() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (page, recording) = (folder.path().join("page.html"), folder.path().join("r"));
    let output = ["--format", "html", "--output", page.to_str().unwrap()];
    let record = ["--record", recording.to_str().unwrap()];
    let program = Program::c("cycles").build();
    session(
        folder.path(),
        "pages",
        &program,
        &[&output[..], &record[..]].concat(),
    );
    let live = events(&std::fs::read_to_string(&page).unwrap());
    assert_eq!(live, events(&read(&recording, "html", &[])));
    assert_eq!(live["marks"].as_array().map(Vec::len), Some(CYCLES + 1));
    assert_eq!(live["thresholds"].as_array().map(Vec::len), Some(2));
    assert_eq!(live["incidents"][0]["kind"], "1% of the limit");
    // Its kind is not said twice.
    let said = live["incidents"][0]["text"].as_str().unwrap_or_default();
    assert!(
        said.contains(" used by cgroup ") && !said.contains("MEMORY"),
        "{said}"
    );
    assert_eq!(live["cycles"]["completed"], CYCLES);

    require_browser!();
    let browser = Browser::start(&folder.path().join("profile"));
    browser.open(&page);
    let told = browser.text("#cycles");
    let leak = |text: &str| {
        text.contains("leak_in_cycle (cycles.c:") && text.contains("grows in each of 4 cycles")
    };
    assert!(told.lines().any(leak), "{told}");
    // Reports came with the marks only: there is no verdict, but the cycles tell.
    let headline = browser.text("#headline");
    assert!(
        headline.contains("leak_in_cycle") && headline.ends_with("grows in each of 4 cycles"),
        "{headline}"
    );
    let rows = "return document.querySelectorAll('#cycle-list tbody tr').length";
    assert_eq!(browser.script(rows), json!(CYCLES + 1));
    // A click on a cycle shows its time.
    browser.click("#cycle-list tbody tr:nth-child(2) td");
    browser.wait_for("return document.querySelector('#chart .select') !== null");
    let drawn =
        "return ['mark', 'incident'].every((c) => document.querySelector('#chart line.' + c))";
    assert_eq!(browser.script(drawn), json!(true));
    assert_eq!(browser.console(), Vec::<String>::new());
}
