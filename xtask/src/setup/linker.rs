//! bpf-linker, which turns the kernel side's LLVM bitcode into a BPF object.
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt;
use crate::shell::{self, capture, cargo, say, which};
use crate::workspace::Workspace;

const VERSION: &str = "0.13.0";
/// LLVM of the compiler's generation: an older one cannot read its bitcode.
const LLVM: &str = "/usr/lib/llvm-22";
const LLVM_FEATURE: &str = "llvm-22";
/// LLVM with its headers and static libraries, and what those link against.
const LLVM_PACKAGES: [&str; 5] = [
    "llvm-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
    "libpolly-22-dev",
];

/// Finds a bpf-linker that runs, else builds one into the target folder.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    if candidates(workspace).iter().any(|path| tell(path)) {
        return Ok(());
    }
    apt::ensure(&LLVM_PACKAGES, "LLVM for bpf-linker")
        .context("bpf-linker is missing, and LLVM 22 to build it is not to be had")?;
    install(workspace)?;
    let built = installed(workspace);
    ensure!(
        tell(&built),
        "{} was built and does not run",
        built.display()
    );
    Ok(())
}

fn installed(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf-linker/bin/bpf-linker")
}

/// In the order in which memtrace's build script looks.
fn candidates(workspace: &Workspace) -> Vec<PathBuf> {
    let mut all = vec![installed(workspace)];
    all.extend(which("bpf-linker"));
    all.extend(env::home_dir().map(|home| home.join(".cargo/bin/bpf-linker")));
    all
}

/// Says the linker's version; false when there is none that runs.
fn tell(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    match capture(Command::new(path).arg("--version")) {
        Ok(version) => {
            say(format!("linker: {} ({})", path.display(), version.trim()));
            true
        }
        Err(error) => {
            say(format!("linker: {error}"));
            false
        }
    }
}

fn install(workspace: &Workspace) -> Result<()> {
    say(format!("linker: building bpf-linker {VERSION} (a minute)"));
    let mut command = cargo(workspace);
    command
        .env("LLVM_PREFIX", LLVM)
        .args(["install", "bpf-linker", "--locked", "--force"])
        .args(["--version", VERSION])
        .args(["--no-default-features", "--features", LLVM_FEATURE])
        .arg("--root")
        .arg(workspace.target.join("bpf-linker"));
    shell::run(&mut command)
}
