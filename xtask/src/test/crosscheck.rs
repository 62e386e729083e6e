//! The other architecture: memtrace must compile for it, its kernel side too.
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::packages;
use crate::apt;
use crate::shell::{self, capture, cargo};
use crate::workspace::Workspace;

/// The Rust target of an architecture.
pub fn triple(arch: &str) -> String {
    format!("{arch}-unknown-linux-gnu")
}

/// Gets the standard library for `arch`.
pub fn ensure_target(workspace: &Workspace, arch: &str) -> Result<()> {
    let triple = triple(arch);
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "target-libdir", "--target", &triple])
        .current_dir(&workspace.root);
    if PathBuf::from(capture(&mut rustc)?.trim()).is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", &triple])
        .current_dir(&workspace.root);
    shell::run(&mut rustup)
        .with_context(|| format!("Rust's standard library for {triple} is missing"))
}

/// Gets all that compiling and linking for the other architecture takes; its C compiler.
pub fn ensure(workspace: &Workspace, arch: &str) -> Result<String> {
    let compiler = format!("{arch}-linux-gnu-gcc");
    apt::ensure(packages::CROSS, &format!("C compiler for {arch}"))?;
    ensure_target(workspace, arch)?;
    Ok(compiler)
}

/// `cargo check` for aarch64. Its build script builds the kernel side for that architecture.
pub fn run(workspace: &Workspace) -> Result<()> {
    let arch = "aarch64";
    ensure(workspace, arch)?;
    shell::run(cargo(workspace).args(["check", "--target", &triple(arch)]))
}
