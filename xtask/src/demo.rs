//! `cargo xtask demo`: the main job, from nothing to a report.
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::shell::{self, create_dir, is_root, say, which};
use crate::{apt, build, workspace::Workspace};

#[derive(Args)]
pub struct Options {
    /// How long to trace
    #[arg(long, default_value = "12s")]
    duration: String,
    /// How often to report
    #[arg(long, default_value = "1s")]
    interval: String,
}

/// Builds memtrace, starts a program that leaks, traces it, shows both accounts of the leak.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !is_root() && which("sudo").is_none() {
        bail!("tracing needs root, and there is no sudo here: run `cargo xtask demo` as root");
    }
    let memtrace = build::release(workspace)?;
    let program = compile(workspace)?;
    let leaking = Leaking::start(&program)?;
    say(format!(
        "{} runs as pid {}: a cache that fills, churn, and one real leak (tests/programs/demo_leak.c)",
        workspace.short(&program),
        leaking.child.id()
    ));
    let traced = shell::run(&mut trace(&memtrace, leaking.child.id(), options));
    say(format!("the program's own account: {}", leaking.stop()?));
    traced
}

/// As a service is built: optimized, no frame pointers, with debug information for the lines.
fn compile(workspace: &Workspace) -> Result<PathBuf> {
    if which("cc").is_none() {
        apt::ensure(&["gcc", "libc6-dev"], "a C compiler for the demo's program")?;
    }
    let folder = workspace.target.join("demo");
    create_dir(&folder)?;
    let program = folder.join("demo_leak");
    let source = workspace.root.join("tests/programs/demo_leak.c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-g", "-o"]).arg(&program).arg(source);
    shell::run(&mut cc)?;
    Ok(program)
}

fn trace(memtrace: &Path, pid: u32, options: &Options) -> Command {
    let mut command = if is_root() {
        Command::new(memtrace)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(memtrace);
        sudo
    };
    command
        .args(["--pid", &pid.to_string()])
        .args(["--duration", &options.duration])
        .args(["--interval", &options.interval]);
    command
}

/// The running program; it does not outlive the demo, whatever goes wrong.
struct Leaking {
    child: Child,
}

impl Leaking {
    fn start(program: &Path) -> Result<Self> {
        let child = Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child })
    }

    /// Asks the program to end; it answers with what it leaked by its own count.
    fn stop(mut self) -> Result<String> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("the demo's program cannot be stopped")?;
        let output = self.child.stdout.take().context("its output is gone")?;
        let mut account = String::new();
        BufReader::new(output).read_line(&mut account)?;
        self.child.wait()?;
        Ok(account.trim().to_owned())
    }
}

impl Drop for Leaking {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Nothing is left to do about a program that cannot be killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
