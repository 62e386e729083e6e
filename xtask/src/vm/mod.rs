//! `cargo xtask vm`: the kernel matrix. Boots Debian's kernels in QEMU, each with a file system
//! made for the purpose, runs one command in it and tells what became of it.
mod arch;
mod cpio;
mod cross;
mod debian;
mod guest;
mod kernel;
mod libraries;
mod qemu;
mod suite;
mod tally;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::arch::Arch;
use self::guest::Placed;
use self::qemu::{Boot, Ending, Guest};
use self::suite::{Choice, Suite};
use crate::shell::{self, create_dir, say};
use crate::test::crosscheck;
use crate::{apt, build, setup, workspace::Workspace};

#[derive(Args)]
pub struct Options {
    /// The kernels: 5.10, 6.1, 6.12, newest, or the path of a kernel's file; all four when none
    kernels: Vec<String>,
    /// The architecture
    #[arg(long, value_enum, default_value_t = Arch::host())]
    arch: Arch,
    /// The shell command to run, in /t, where memtrace is, instead of the tests
    #[arg(long)]
    command: Option<String>,
    /// A file or folder to put into /t, or where it says; shared libraries come along
    #[arg(long = "file", value_name = "FILE[:/PATH]", value_parser = Placed::parse)]
    files: Vec<Placed>,
    /// The memtrace to put there, a release's for instance, instead of one that is built
    #[arg(long, value_name = "FILE")]
    memtrace: Option<PathBuf>,
    #[command(flatten)]
    tests: Choice,
    /// How long a guest may say nothing, in seconds, before it is given up
    #[arg(long, default_value_t = 900)]
    timeout: u64,
    /// The guest's memory in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// QEMU's accelerator: tcg emulates and works everywhere, kvm is quicker
    #[arg(long, default_value = "tcg")]
    accelerator: String,
}

/// Boots each kernel; an error when a command did not end with 0.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let machine = options.arch.machine();
    apt::ensure(&[machine.package, "binutils"], "the emulator")?;
    let cache = workspace.target.join("vm");
    create_dir(&cache)?;
    let initramfs = cache.join(format!("initramfs-{}", options.arch.name()));
    let what = make_initramfs(workspace, &cache, options, &initramfs)?;
    let names = if options.kernels.is_empty() {
        kernel::all()
    } else {
        options.kernels.clone()
    };
    let boots = names
        .iter()
        .map(|name| (name.as_str(), boot(&cache, name, &initramfs, options)));
    summarize(&what, &boots.collect::<Vec<_>>(), options)
}

/// Writes the file system that every kernel boots into; what to call what runs in it.
fn make_initramfs(
    workspace: &Workspace,
    cache: &Path,
    options: &Options,
    to: &Path,
) -> Result<String> {
    let built = || memtrace_for(workspace, options.arch);
    let memtrace = Placed {
        file: options.memtrace.clone().map_or_else(built, Ok)?,
        path: "/t/memtrace".to_owned(),
    };
    let Suite { command, files } = match &options.command {
        Some(command) => Suite {
            command: command.clone(),
            files: Vec::new(),
        },
        None => suite::prepare(workspace, options.arch, &options.tests)?,
    };
    let files = [&[memtrace], &files[..], &options.files[..]].concat();
    let busybox = guest::busybox(cache, options.arch)?;
    let archive = guest::archive(&busybox, &command, &files, options.arch)?;
    fs::write(to, archive).with_context(|| format!("{} cannot be written", to.display()))?;
    let name = options.command.clone();
    Ok(name.unwrap_or_else(|| "the tests".to_owned()))
}

/// memtrace as it is shipped, for the guest.
fn memtrace_for(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    if arch.is_host() {
        return build::release(workspace);
    }
    setup::run(workspace)?;
    let triple = crosscheck::triple(arch.name());
    let mut command = cross::cargo_for(workspace, arch)?;
    command
        .args(["build", "--release", "--package", "memtrace"])
        .args(["--target", &triple]);
    shell::run(&mut command)?;
    Ok(workspace.target.join(triple).join("release/memtrace"))
}

fn boot(cache: &Path, name: &str, initramfs: &Path, options: &Options) -> Result<Boot> {
    let arch = options.arch;
    eprintln!("\n== {} {name}", arch.name());
    let kernel = kernel::get(cache, name, arch)?;
    let log = format!("log-{}-{}", arch.name(), name.replace('/', "-"));
    let guest = Guest {
        arch,
        kernel: &kernel,
        initramfs,
        log: cache.join(log),
        memory_mib: options.memory,
        cpus: 2,
        accelerator: &options.accelerator,
        silence: Duration::from_secs(options.timeout),
    };
    guest.boot()
}

/// The table, one line a kernel; an error that names those on which the command did not succeed.
fn summarize(what: &str, boots: &[(&str, Result<Boot>)], options: &Options) -> Result<()> {
    let arch = options.arch.name();
    say(format!("{what}, on {arch}, in each kernel:"));
    let mut failed = Vec::new();
    for (name, boot) in boots {
        match boot {
            Ok(boot) => tell(name, boot, options),
            Err(error) => println!("{name:<10} NOT BOOTED: {error:#}"),
        }
        if !boot.as_ref().is_ok_and(Boot::succeeded) {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed on: {}", failed.join(", "))
}

/// A kernel's line in the table, with the suites and the tests that failed below it.
fn tell(name: &str, boot: &Boot, options: &Options) {
    println!("{name:<10} {}", row(boot, options));
    for tally in tally::tallies(&boot.lines) {
        println!("{:<10} {tally}", "");
        for test in &tally.failed {
            println!("{:<10}   FAILED: {test}", "");
        }
    }
}

fn row(boot: &Boot, options: &Options) -> String {
    let release = boot.release.as_deref().unwrap_or("did not boot");
    let ending = match boot.ending {
        Ending::Status(0) => "ok".to_owned(),
        Ending::Status(status) => format!("FAILED ({status})"),
        Ending::FellSilent => format!("SAID NOTHING for {} s", options.timeout),
        Ending::Died => "DIED".to_owned(),
    };
    let seconds = boot.took.as_secs_f64();
    format!("{release:<32} {seconds:>6.1} s  {ending}")
}
