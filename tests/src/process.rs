//! A child process: its lines as they come, its signals, its end, each wait with a deadline.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// So many seconds from now, times `MEMTRACE_TEST_SLOW`.
pub fn deadline(seconds: u64) -> Instant {
    let slow = std::env::var("MEMTRACE_TEST_SLOW")
        .ok()
        .and_then(|factor| factor.parse().ok())
        .unwrap_or(1);
    Instant::now() + Duration::from_secs(seconds * slow)
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// A running child. Dropping it kills it.
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Stream, Vec<u8>)>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Bytes of each stream that a wait has already looked at.
    seen: [usize; 2],
}

/// A child that has ended, and all it said.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code; panics for a child that a signal ended.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| {
            panic!(
                "ended by signal {:?}\n{}",
                self.status.signal(),
                self.stderr
            )
        })
    }

    /// Panics unless it ended with this code, and without a Rust panic.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert!(
            !self.stderr.contains("panicked at"),
            "it panicked:\n{}",
            self.stderr
        );
        assert_eq!(
            self.status.code(),
            Some(code),
            "wrong exit ({})\n{}",
            self.status,
            self.stderr
        );
        self
    }

    /// Panics unless it failed with exit code 1 and one clear line on stderr that has these words.
    #[track_caller]
    pub fn assert_fails_with_one_line(&self, words: &[&str]) {
        self.assert_code(1);
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        assert_eq!(lines.len(), 1, "not one line:\n{}", self.stderr);
        for word in words {
            assert!(lines[0].contains(word), "`{word}` is not in: {}", lines[0]);
        }
    }
}

impl Running {
    /// Starts it with all three streams piped; it dies with the test that started it.
    pub fn spawn(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl and signal are async-signal-safe and touch no memory of ours.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = channel();
        read_lines(Stream::Out, child.stdout.take().unwrap(), sender.clone());
        read_lines(Stream::Err, child.stderr.take().unwrap(), sender);
        let stdin = child.stdin.take();
        Self {
            name,
            child,
            stdin,
            lines,
            stdout: Vec::new(),
            stderr: Vec::new(),
            seen: [0; 2],
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout for which `wanted` is true; panics at the deadline or at its end.
    #[track_caller]
    pub fn stdout_line(
        &mut self,
        until: Instant,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.line(Stream::Out, until, what, wanted)
    }

    /// The same for stderr.
    #[track_caller]
    pub fn stderr_line(
        &mut self,
        until: Instant,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.line(Stream::Err, until, what, wanted)
    }

    #[track_caller]
    fn line(
        &mut self,
        stream: Stream,
        until: Instant,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        loop {
            while let Some(line) = self.unseen(stream) {
                if wanted(&line) {
                    return line;
                }
            }
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.keep(line),
                Err(RecvTimeoutError::Timeout) => self.fail(what, "not before the deadline"),
                Err(RecvTimeoutError::Disconnected) => self.fail(what, "it ended first"),
            }
        }
    }

    #[track_caller]
    fn fail(&mut self, what: &str, why: &str) -> ! {
        panic!(
            "{}\nwaiting for {what}: {why} (status {:?})\n--- stdout\n{}\n--- stderr\n{}",
            self.name,
            self.child.try_wait(),
            shorten(&self.stdout),
            shorten(&self.stderr),
        )
    }

    fn keep(&mut self, (stream, line): (Stream, Vec<u8>)) {
        match stream {
            Stream::Out => self.stdout.extend(line),
            Stream::Err => self.stderr.extend(line),
        }
    }

    /// The next line already here that no wait has looked at.
    fn unseen(&mut self, stream: Stream) -> Option<String> {
        let (text, seen) = match stream {
            Stream::Out => (&self.stdout, &mut self.seen[0]),
            Stream::Err => (&self.stderr, &mut self.seen[1]),
        };
        let rest = &text[*seen..];
        let length = rest.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        *seen += length + 1;
        Some(line)
    }

    /// True when a line of stderr that is here begins so; waits for a moment for new lines.
    pub fn stderr_has(&mut self, beginning: &str) -> bool {
        if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(10)) {
            self.keep(line);
        }
        String::from_utf8_lossy(&self.stderr)
            .lines()
            .any(|line| line.starts_with(beginning))
    }

    /// Writes one line to its stdin.
    #[track_caller]
    pub fn send_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is closed");
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .unwrap_or_else(|error| {
                panic!("{} does not read its stdin: {error}", self.name);
            });
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to this one process.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: a plain system call; the child is not reaped yet, so the pid is still its.
        unsafe { libc::kill(pid, signal) };
    }

    /// Its status when it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end of both streams and of the process.
    #[track_caller]
    pub fn wait(&mut self, until: Instant) -> Ended {
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.keep(line),
                Err(RecvTimeoutError::Timeout) => self.fail("its end", "not before the deadline"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Both streams are closed: it is ending.
        let status = loop {
            if let Some(status) = self.try_wait() {
                break status;
            }
            if Instant::now() > until {
                self.fail("its end", "streams closed, still running at the deadline");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ended {
            status,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(
    stream: Stream,
    from: impl std::io::Read + Send + 'static,
    to: Sender<(Stream, Vec<u8>)>,
) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            match from.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if to.send((stream, line)).is_err() {
                return;
            }
        }
    });
}

fn shorten(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(6000) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}
