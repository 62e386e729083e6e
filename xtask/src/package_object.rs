//! `cargo xtask package-object`: the built kernel object, where a published crate carries it.
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::shell::{self, cargo, say};
use crate::test::crosscheck;
use crate::{setup, workspace::Workspace};

#[derive(Args)]
pub struct Options {
    /// The architectures to carry
    #[arg(long, value_delimiter = ',', default_value = "x86_64,aarch64")]
    arch: Vec<String>,
}

/// Builds the object for each architecture and copies it to `memtrace/bpf/`.
///
/// Objects already there go first: with them in place the build script would not build.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::run(workspace)?;
    let folder = workspace.root.join("memtrace/bpf");
    for arch in &options.arch {
        remove(&packaged(&folder, arch))?;
    }
    let built = options
        .arch
        .iter()
        .map(|arch| build(workspace, arch))
        .collect::<Result<Vec<_>>>()?;
    for (arch, object) in options.arch.iter().zip(&built) {
        let to = packaged(&folder, arch);
        shell::copy(object, &to)?;
        say(format!("packaged {}", workspace.short(&to)));
    }
    Ok(())
}

fn packaged(folder: &Path, arch: &str) -> PathBuf {
    folder.join(format!("memtrace.{arch}.bpf.o"))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs the build script for `arch`: `cargo check` is enough, nothing is linked for it.
fn build(workspace: &Workspace, arch: &str) -> Result<PathBuf> {
    let mut command = cargo(workspace);
    command.args(["check", "--release", "--package", "memtrace", "--lib"]);
    command.arg("--message-format=json");
    if arch != ARCH {
        crosscheck::ensure_target(workspace, arch)?;
        command.args(["--target", &crosscheck::triple(arch)]);
    }
    say(format!("building the kernel object for {arch}"));
    let messages = shell::capture(&mut command)?;
    let out_dir = messages.lines().find_map(out_dir_of_memtrace);
    let out_dir = out_dir.context("cargo did not say where the build script's output is")?;
    Ok(out_dir.join("memtrace.bpf.o"))
}

/// The output folder, when the line is cargo's word on memtrace's build script.
fn out_dir_of_memtrace(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let package = message["package_id"].as_str()?;
    let ours = message["reason"] == "build-script-executed" && package.contains("/memtrace#");
    ours.then(|| message["out_dir"].as_str().map(PathBuf::from))?
}
