//! The programs that are measured and those that measure, as children that do not outlive the
//! bench.
use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a child may take to say anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// tests/programs/bench_loop.c, built.
pub struct Program(pub PathBuf);

impl Program {
    /// Starts it, under another program if that is what `wrap` makes of it.
    pub fn start(&self, wrap: impl FnOnce(&Path) -> Command) -> Result<Talking> {
        Talking::start(wrap(&self.0).stderr(Stdio::null()))
    }

    /// Starts it as it is.
    pub fn start_bare(&self) -> Result<Talking> {
        self.start(|path| Command::new(path))
    }
}

/// A child that answers lines with lines.
pub struct Talking {
    child: Child,
    // An Option, so that it can be closed.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = crate::shell::shown(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` cannot be started"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output.
    pub fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the program ended early")??)
    }

    /// Its answer to a command.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{command}").context("the program ended early")?;
        self.line()
    }

    /// Nanoseconds a pair in each of some windows.
    pub fn pairs(&mut self, windows: usize) -> Result<Vec<f64>> {
        self.times("pairs", windows)
    }

    /// Nanoseconds a page fault in each of some windows.
    pub fn touches(&mut self, windows: usize) -> Result<Vec<f64>> {
        self.times("touch", windows)
    }

    fn times(&mut self, what: &str, windows: usize) -> Result<Vec<f64>> {
        let answer = self.ask(&format!("{what} {windows}"))?;
        let words = answer.split_whitespace();
        words
            .map(|word| word.parse().with_context(|| format!("not a time: {word}")))
            .collect()
    }

    /// Lets it end by closing its input; the rest of what it says.
    pub fn finish(mut self) -> Result<Vec<String>> {
        self.stdin = None;
        let rest: Result<Vec<String>, _> = self.lines.by_ref().collect();
        self.child.wait()?;
        Ok(rest?)
    }
}

impl Drop for Talking {
    /// It ends with its input; one that does not is killed.
    fn drop(&mut self) {
        self.stdin = None;
        end(&mut self.child, None);
    }
}

/// A child that runs until it is told to end.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts it and waits until a line of its standard error says it is ready.
    pub fn until_stderr(command: &mut Command, ready: &str) -> Result<Self> {
        let line = crate::shell::shown(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` cannot be started"))?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut running = Self { child };
        let mut lines = BufReader::new(stderr).lines();
        let mut last = String::new();
        for said in lines.by_ref() {
            last = said?;
            if last.contains(ready) {
                // Read on, or the pipe fills.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(running);
            }
        }
        let status = running.child.wait()?;
        bail!("`{line}` ended ({status}): {last}")
    }

    /// Starts it without waiting for anything.
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = crate::shell::shown(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("`{line}` cannot be started"))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child, Some(Signal::INT));
    }
}

/// Tells a child to end, and kills it when it does not.
fn end(child: &mut Child, signal: Option<Signal>) {
    if let Ok(Some(_)) = child.try_wait() {
        return;
    }
    if let Some(signal) = signal {
        // Nothing is left to do about a child that cannot be signalled.
        let _ = kill_process(Pid::from_child(child), signal);
    }
    let deadline = Instant::now() + DEADLINE;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
