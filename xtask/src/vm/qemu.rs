//! Booting one kernel and running one command in it.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::arch::Arch;

const BEGIN: &str = "=== memtrace-vm begin ";
const END: &str = "=== memtrace-vm end ";

/// A machine to boot.
pub struct Guest<'a> {
    pub arch: Arch,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// The kernel's log goes to this file.
    pub log: PathBuf,
    pub memory_mib: u32,
    pub cpus: u32,
    pub accelerator: &'a str,
    /// How long it may say nothing. Not how long it may take: an emulated machine is as slow as the
    /// real one is busy, and one that hangs is known by its silence.
    pub silence: Duration,
}

/// What became of a boot.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The command ended with this status.
    Status(i32),
    /// It said nothing for too long, and the machine was switched off.
    FellSilent,
    /// The machine ended without a word of the command: a panic, or it never booted.
    Died,
}

/// What a boot told.
pub struct Boot {
    /// The guest's `uname -r`, when it got so far.
    pub release: Option<String>,
    pub ending: Ending,
    /// What the command printed.
    pub lines: Vec<String>,
    pub took: Duration,
}

impl Boot {
    /// Whether the command ended with 0.
    pub fn succeeded(&self) -> bool {
        self.ending == Ending::Status(0)
    }
}

/// The emulator; it does not outlive us.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself, and that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest<'_> {
    /// Boots, shows the command's output line by line, and waits for the end.
    pub fn boot(&self) -> Result<Boot> {
        let start = Instant::now();
        let mut command = self.command();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", self.arch.machine().program))?;
        let mut emulator = Emulator(child);
        let output = emulator.0.stdout.take().context("QEMU has no output")?;
        let lines = lines_of(output);
        let mut boot = follow(&lines, self.silence);
        drop(emulator);
        if !matches!(boot.ending, Ending::Status(_)) {
            self.show_log();
        }
        boot.took = start.elapsed();
        Ok(boot)
    }

    fn command(&self) -> Command {
        let machine = self.arch.machine();
        let mut command = Command::new(machine.program);
        command.args(machine.options);
        if self.accelerator == "tcg" {
            // Processors emulated in parallel can run code that the kernel has just patched.
            command.args(["-accel", "tcg,thread=single"]);
        } else {
            command.args(["-accel", self.accelerator]);
        }
        command.args([
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]);
        command.args([
            "-m",
            &self.memory_mib.to_string(),
            "-smp",
            &self.cpus.to_string(),
        ]);
        command.arg("-kernel").arg(self.kernel);
        command.arg("-initrd").arg(self.initramfs);
        if machine.log != machine.output {
            command
                .arg("-serial")
                .arg(format!("file:{}", self.log.display()));
        }
        command.args(["-serial", "stdio"]);
        // A machine that panics ends at once; what makes emulation slower or less even is off.
        command.arg("-append").arg(format!(
            "console={} memtrace.output={} quiet panic=-1 oops=panic mitigations=off nokaslr \
             no_timer_check tsc=reliable",
            machine.log, machine.output
        ));
        command
    }

    fn show_log(&self) {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("  the kernel's last words ({}):", self.log.display());
        for line in &lines[lines.len().saturating_sub(20)..] {
            eprintln!("  | {line}");
        }
    }
}

/// Reads in a thread of its own, so that waiting for a line can have a deadline.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Shows what comes between the two marks, and how it ended.
fn follow(lines: &Receiver<String>, silence: Duration) -> Boot {
    let mut boot = Boot {
        release: None,
        ending: Ending::Died,
        lines: Vec::new(),
        took: Duration::ZERO,
    };
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => {
                if let Some((_, word)) = line.split_once(BEGIN) {
                    boot.release = Some(word.to_owned());
                } else if let Some((_, status)) = line.split_once(END) {
                    boot.ending = status.parse().map_or(Ending::Died, Ending::Status);
                    return boot;
                } else if boot.release.is_some() {
                    println!("  | {line}");
                    boot.lines.push(line);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                boot.ending = Ending::FellSilent;
                return boot;
            }
            Err(RecvTimeoutError::Disconnected) => return boot,
        }
    }
}
