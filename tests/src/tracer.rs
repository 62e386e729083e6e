//! Running the real memtrace.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::process::{Ended, Running, deadline};
use crate::program::profile_dir;
use crate::report::Report;

/// The binary under test.
#[track_caller]
pub fn memtrace_bin() -> PathBuf {
    let path = std::env::var_os("MEMTRACE_BIN")
        .map_or_else(|| profile_dir().join("memtrace"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is not built: cargo build (or set MEMTRACE_BIN)",
        path.display()
    );
    path
}

/// A command line of memtrace.
#[track_caller]
pub fn memtrace<A: AsRef<OsStr>>(args: &[A]) -> Command {
    let mut command = Command::new(memtrace_bin());
    command
        .args(args)
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "1");
    command
}

/// memtrace at work on a process.
pub struct Tracer {
    running: Running,
}

impl Tracer {
    /// Attaches to a pid for one exact JSON report, and waits until the probes are on.
    #[track_caller]
    pub fn attach(pid: u32) -> Self {
        Self::attach_with(pid, &[])
    }

    /// The same with more options.
    #[track_caller]
    pub fn attach_with(pid: u32, options: &[&str]) -> Self {
        let mut all = vec!["--format", "json", "--interval", "500ms"];
        all.extend(options);
        Self::attach_as(pid, &all)
    }

    /// Attaches as on a kernel that can be preempted, whatever this one is.
    #[track_caller]
    pub fn attach_preemptible(pid: u32, probes: &str) -> Self {
        let pid = pid.to_string();
        let args = [
            "--pid", &pid, "--probe", probes, "--format", "json", "--top", "1000000",
        ];
        let mut tracer = Self::start(memtrace(&args).env("MEMTRACE_PREEMPTIBLE", "1"));
        tracer.wait_attached();
        tracer
    }

    /// Attaches with a report on every interval, one JSON object a line.
    #[track_caller]
    pub fn attach_stream(pid: u32, options: &[&str]) -> Self {
        let mut all = vec!["--format", "ndjson"];
        all.extend(options);
        Self::attach_as(pid, &all)
    }

    #[track_caller]
    fn attach_as(pid: u32, options: &[&str]) -> Self {
        let pid = pid.to_string();
        let mut args = vec!["--pid", &pid, "--top", "1000000"];
        args.extend(options);
        let mut tracer = Self::start(&mut memtrace(&args));
        tracer.wait_attached();
        tracer
    }

    /// Starts any command of memtrace without waiting for anything.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self {
            running: Running::spawn(command),
        }
    }

    /// Waits for the line that says that the probes are on.
    #[track_caller]
    pub fn wait_attached(&mut self) {
        self.running
            .stderr_line(deadline(90), "memtrace: tracing", |line| {
                line.starts_with("memtrace: tracing")
            });
    }

    /// True when it has said that the probes are on.
    pub fn has_attached(&mut self) -> bool {
        self.running.stderr_has("memtrace: tracing")
    }

    /// The first file in a folder whose name has this word in it.
    #[track_caller]
    pub fn wait_for_file(&mut self, folder: &std::path::Path, word: &str) -> PathBuf {
        let until = deadline(60);
        loop {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            let mut paths = entries.map(|entry| entry.unwrap().path());
            let is = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.contains(word) && !name.starts_with('.')
            };
            if let Some(found) = paths.find(is) {
                return found;
            }
            assert!(
                std::time::Instant::now() < until && self.is_running(),
                "no file with {word} in {}",
                folder.display()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// memtrace's own pid.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.running.signal(signal);
    }

    /// The next report of a stream for which `wanted` is true.
    #[track_caller]
    pub fn report_where(&mut self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let line = self.running.stdout_line(deadline(60), what, |line| {
            line.starts_with('{') && wanted(&Report::parse(line))
        });
        Report::parse(&line)
    }

    /// Ctrl-C: the last report, exit code 0.
    #[track_caller]
    pub fn finish(&mut self) -> Report {
        self.signal(libc::SIGINT);
        self.last_report()
    }

    /// Waits for its own end; the last report, exit code 0.
    #[track_caller]
    pub fn last_report(&mut self) -> Report {
        let ended = self.wait();
        ended.assert_code(0);
        let text = ended.stdout.trim_end();
        // ndjson: the last line; json: the whole, which may be several lines.
        let last = text.lines().last().unwrap_or_default();
        Report::parse(if last.starts_with("{\"") { last } else { text })
    }

    /// Waits for its end, whatever that is.
    #[track_caller]
    pub fn wait(&mut self) -> Ended {
        self.running.wait(deadline(90))
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.running.try_wait().is_none()
    }
}
