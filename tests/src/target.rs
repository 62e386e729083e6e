//! A target program under the protocol of `programs/truth.h`.

use std::path::Path;
use std::process::Command;

use crate::process::{Ended, Running, deadline};
use crate::truth::Truth;

/// A target that has said `ready`.
pub struct Target {
    running: Running,
}

impl Target {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn spawn(program: &Path, args: &[&str]) -> Self {
        Self::spawn_with(program, args, &[])
    }

    /// The same of one that takes its time: a runtime that compiles it first.
    #[track_caller]
    pub fn spawn_slow(program: &Path, args: &[&str]) -> Self {
        Self::spawn_until(program, args, &[], 120)
    }

    /// The same with environment variables.
    #[track_caller]
    pub fn spawn_with(program: &Path, args: &[&str], env: &[(&str, &Path)]) -> Self {
        Self::spawn_until(program, args, env, 20)
    }

    #[track_caller]
    fn spawn_until(program: &Path, args: &[&str], env: &[(&str, &Path)], seconds: u64) -> Self {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_remove("TRUTH_NOWAIT")
            .env_remove("LD_PRELOAD");
        for (name, value) in env {
            command.env(name, value);
        }
        let mut running = Running::spawn(&mut command);
        running.stdout_line(deadline(seconds), "ready", |line| {
            line.starts_with("ready ")
        });
        Self { running }
    }

    /// The range that `maps` works in.
    #[track_caller]
    pub fn arena(&mut self) -> (u64, u64) {
        let line = self
            .running
            .stdout_line(deadline(20), "arena", |line| line.starts_with("arena "));
        let (from, to) = line.trim_start_matches("arena ").split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        (address(from), address(to))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Lets it run on.
    #[track_caller]
    pub fn go(&mut self) {
        self.running.send_line("go");
    }

    /// Waits until it says `ready` once more (after an exec).
    #[track_caller]
    pub fn ready_again(&mut self) {
        self.running
            .stdout_line(deadline(20), "ready", |line| line.starts_with("ready "));
    }

    /// Waits until it has come to a step; [`Target::go`] lets it go on.
    #[track_caller]
    pub fn step(&mut self, name: &str) {
        let wanted = format!("step {name}");
        self.running
            .stdout_line(deadline(60), &wanted, |line| line == wanted);
    }

    /// The next truth it prints of itself.
    #[track_caller]
    pub fn truth(&mut self) -> Truth {
        let pid = self.pid();
        self.truth_where(|truth| truth.pid == pid || truth.pid == 0)
    }

    /// The next truth that it or a child of it prints.
    #[track_caller]
    pub fn truth_of_child_or_self(&mut self) -> Truth {
        self.truth_where(|_| true)
    }

    /// The next truth that a child of it prints.
    #[track_caller]
    pub fn truth_of_child(&mut self) -> Truth {
        let pid = self.pid();
        self.truth_where(|truth| truth.pid != pid)
    }

    #[track_caller]
    fn truth_where(&mut self, wanted: impl Fn(&Truth) -> bool) -> Truth {
        let line = self
            .running
            .stdout_line(deadline(180), "the truth", |line| {
                line.starts_with('{') && wanted(&Truth::parse(line))
            });
        Truth::parse(&line)
    }

    /// Lets it end and checks that it ends well: nothing was done to it.
    #[track_caller]
    pub fn assert_unharmed(mut self) {
        self.running.close_stdin();
        let ended = self.running.wait(deadline(90));
        assert!(
            ended.status.success(),
            "the target was harmed: {}\n{}",
            ended.status,
            ended.stderr
        );
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.running.signal(signal);
    }

    /// Waits for its end, whatever that is.
    #[track_caller]
    pub fn wait(&mut self) -> Ended {
        self.running.wait(deadline(60))
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.running.try_wait().is_none()
    }
}
