//! `memtrace top` in a real terminal: what a person sees and presses, and what is left afterwards.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use memtrace_tests::{
    Program, Report, Running, Target, Tmux, deadline, memtrace, memtrace_bin, require_kernel,
};
use tempfile::TempDir;

/// memtrace top in a window, with the terminal's settings before and after.
struct Top {
    tmux: Tmux,
    folder: TempDir,
}

impl Top {
    fn start(pid: u32, options: &str) -> Self {
        Self::run(&format!("--pid {pid} --interval 300ms {options}"))
    }

    fn run(words: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (at, memtrace) = (folder.path().display(), memtrace_bin());
        let script = folder.path().join("run.sh");
        let text = format!(
            "cd '{at}'\nexport NO_COLOR=1\nstty -g > before\n\
             sh -c 'echo $$ > pid; exec \"{}\" top {words}'\n\
             code=$?\nstty -g > after\necho \"exit=$code\"\n",
            memtrace.display()
        );
        fs::write(&script, text).unwrap();
        Self {
            tmux: Tmux::start(&script, 80, 24),
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn wait(&self, text: &str) -> String {
        let until = deadline(90);
        self.tmux.wait(until, text, |screen| screen.contains(text))
    }

    /// Sends a signal to memtrace.
    fn signal(&self, signal: i32) {
        let pid = fs::read_to_string(self.file("pid")).unwrap();
        // SAFETY: a plain system call; memtrace is still the shell's child, so the pid is its.
        unsafe { libc::kill(pid.trim().parse().unwrap(), signal) };
    }

    /// Waits for the end: with this code, and the terminal is as it was.
    #[track_caller]
    fn assert_ended(&self, code: i32) {
        let screen = self.wait("exit=");
        assert!(screen.contains(&format!("exit={code}")), "{screen}");
        assert!(
            !self.tmux.is_taken_over(),
            "the terminal is left taken over"
        );
        let settings = |name| fs::read_to_string(self.file(name)).unwrap();
        assert_eq!(settings("before"), settings("after"), "stty");
        assert!(!screen.contains("panicked"), "{screen}");
    }
}

fn leaking() -> Target {
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    target.go();
    target
}

/// The report in a file.
fn snapshot(path: &Path) -> Report {
    Report::parse(&fs::read_to_string(path).unwrap())
}

/// From the start to the leaking function, sorted, filtered, opened, resized, written, and out.
#[test]
fn a_leak_is_found_by_keys() {
    require_kernel!();
    let mut target = leaking();
    let top = Top::start(target.pid(), "--output found.json");
    let screen = top.wait("GROWING leak (live.c:");
    assert!(screen.contains("outstanding▼"), "{screen}");
    top.tmux.keys(&["g"]);
    top.wait("growth▼");
    top.tmux.keys(&["/"]);
    top.tmux.type_text("no such function");
    top.wait("nothing matches the filter");
    top.tmux.keys(&["Escape"]);
    top.wait("/ filter");
    top.tmux.keys(&["/"]);
    top.tmux.type_text("leak");
    let screen = top.wait("/leak ");
    assert!(screen.contains("Stacks 1"), "{screen}");
    top.tmux.keys(&["Enter"]);
    top.wait("? help");
    top.tmux.keys(&["Enter"]);
    top.wait("→ leak ");
    top.wait("Frames, innermost first");
    top.tmux.resize(110, 34);
    let last_line = |screen: &str| screen.lines().nth(33).unwrap_or("").starts_with("Esc back");
    top.tmux.wait(deadline(30), "the new size", last_line);
    top.tmux.keys(&["f"]);
    top.wait("FROZEN");
    top.tmux.keys(&["w"]);
    top.wait("written to found.json");
    let report = snapshot(&top.file("found.json"));
    let stack = report.heap_stacks(target.pid()).find(|stack| {
        let mut frames = stack.frames.iter();
        frames.any(|frame| frame.name() == "leak")
    });
    assert_eq!(stack.unwrap().verdict, "growing");
    top.tmux.keys(&["q"]);
    top.assert_ended(0);
    assert!(target.is_running());
    target.assert_unharmed();
}

/// What was recorded and marked in top is replayed: by its time cursor, its marks, and played.
#[test]
fn a_recording_is_replayed() {
    require_kernel!();
    let target = leaking();
    let live = Top::start(target.pid(), "--record leak.memtrace");
    let screen = live.wait("GROWING leak (live.c:");
    assert!(screen.contains("recording live"), "{screen}");
    live.tmux.keys(&["m"]);
    live.tmux.type_text("cycle 1");
    live.tmux.keys(&["Enter"]);
    live.wait("mark \"cycle 1\"");
    live.wait("SINCE MARK");
    live.tmux.keys(&["q"]);
    live.assert_ended(0);
    target.assert_unharmed();
    let recording = live.file("leak.memtrace");
    let at = ["--at", "cycle 1", "--format", "json"];
    let mut report = memtrace(&["report"]);
    let report = Running::spawn(report.arg(&recording).args(at)).wait(deadline(60));
    report.assert_code(0);
    assert!(report.stdout.contains("\"cycle 1\""), "{}", report.stdout);
    let replay = Top::run(&recording.display().to_string());
    let screen = replay.wait("GROWING leak (live.c:");
    assert!(screen.contains("replay"), "{screen}");
    replay.tmux.keys(&["Home"]);
    replay.wait("Too early to say");
    replay.tmux.keys(&["]"]);
    replay.wait("SINCE MARK");
    replay.tmux.keys(&["End", "Enter"]);
    replay.wait("→ leak ");
    replay.tmux.keys(&["Escape"]);
    replay.wait("ALLOCATED BY");
    // At ten times its speed it is at its end after a moment, and stands still there.
    replay.tmux.keys(&["Home"]);
    replay.wait("Too early to say");
    replay.tmux.keys(&["Space"]);
    let at_the_end = |screen: &str| screen.contains("paused") && screen.contains("GROWING leak");
    replay.tmux.wait(deadline(90), "the end", at_the_end);
    replay.signal(libc::SIGTERM);
    replay.assert_ended(0);
}

/// Whatever signal ends it, the terminal is given back.
#[test]
fn signals_give_the_terminal_back() {
    require_kernel!();
    let target = leaking();
    for (signal, code) in [
        (libc::SIGTERM, 0),
        (libc::SIGHUP, 0),
        (libc::SIGABRT, 128 + libc::SIGABRT),
        (libc::SIGSEGV, 128 + libc::SIGSEGV),
        (libc::SIGALRM, 128 + libc::SIGALRM),
    ] {
        let top = Top::start(target.pid(), "");
        top.wait(" live");
        assert!(top.tmux.is_taken_over());
        top.signal(signal);
        top.assert_ended(code);
    }
    target.assert_unharmed();
}

/// Stopped, the terminal is given back; continued, it is taken over and drawn again.
#[test]
fn stopped_and_continued() {
    require_kernel!();
    let target = leaking();
    let top = Top::start(target.pid(), "");
    top.wait(" live");
    top.signal(libc::SIGTSTP);
    top.tmux.wait_taken_over(deadline(30), false);
    top.signal(libc::SIGCONT);
    top.tmux.wait_taken_over(deadline(30), true);
    top.wait(" live");
    top.tmux.keys(&["g"]);
    top.wait("growth▼");
    top.tmux.keys(&["q"]);
    top.assert_ended(0);
    target.assert_unharmed();
}

/// The time is up: tracing ends, what was seen stays until q.
#[test]
fn a_limited_time() {
    require_kernel!();
    let target = leaking();
    let top = Top::start(target.pid(), "--count 2");
    let screen = top.wait("the time is up");
    assert!(screen.contains("leak"), "{screen}");
    top.tmux.keys(&["q"]);
    top.assert_ended(0);
    target.assert_unharmed();
}

/// The target ends: that is said, and what was seen stays until q.
#[test]
fn the_end_of_the_target_is_not_the_end() {
    require_kernel!();
    let target = leaking();
    let top = Top::start(target.pid(), "");
    top.wait("leak");
    target.assert_unharmed();
    let screen = top.wait("all traced processes have ended");
    assert!(screen.contains("live.c:"), "{screen}");
    top.tmux.keys(&["Tab"]);
    top.wait("exited");
    top.tmux.keys(&["q"]);
    top.assert_ended(0);
}

/// Without a terminal there is one line that says so, before anything is touched.
#[test]
fn no_terminal() {
    let pid = std::process::id().to_string();
    let ended = Running::spawn(&mut memtrace(&["top", "--pid", &pid])).wait(deadline(60));
    ended.assert_fails_with_one_line(&["terminal", "memtrace --pid"]);
}

/// A recording that is none is told in one line, before the terminal is touched.
#[test]
fn no_recording() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad"), b"no recording").unwrap();
    let bad = folder.path().join("bad");
    let top = Top::run(&bad.display().to_string());
    let screen = top.wait("exit=");
    assert!(screen.contains("is not a memtrace recording"), "{screen}");
    top.assert_ended(1);
}

/// Options of printed reports are usage errors, with the reason.
#[test]
fn options_of_reports() {
    for options in [
        &["--format", "json"][..],
        &["--fail-on", "growing"],
        &["--quiet"],
    ] {
        let mut words = vec!["top", "--pid", "1"];
        words.extend(options);
        let ended = Running::spawn(&mut memtrace(&words)).wait(deadline(60));
        ended.assert_code(2);
        assert!(ended.stderr.contains(options[0]), "{}", ended.stderr);
    }
}
