//! A compiler that can build for BPF. memtrace's build script makes the same choice by itself;
//! here what is missing gets installed and the choice is said.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::BPF_TARGET;
use crate::apt;
use crate::shell::{self, capture, say, which};
use crate::workspace::Workspace;

/// Debian's Rust with `core` prebuilt for BPF.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Which way of building for BPF was found.
pub enum Compiler {
    /// The active toolchain with the source of `core`: `-Z build-std=core`.
    ActiveWithSource,
    /// A distribution's compiler with `core` prebuilt.
    Distribution,
}

/// Finds a compiler, else installs what one lacks: rust-src by rustup, or Debian's packages.
pub fn ensure(workspace: &Workspace) -> Result<Compiler> {
    if let Some(found) = find(workspace) {
        return Ok(found);
    }
    if which("rustup").is_some() {
        say("compiler for BPF: adding the standard library's source to the active toolchain");
        let mut rustup = Command::new("rustup");
        rustup
            .args(["component", "add", "rust-src"])
            .current_dir(&workspace.root);
        match shell::run(&mut rustup) {
            Ok(()) => {
                if let Some(found) = find(workspace) {
                    return Ok(found);
                }
            }
            Err(error) => say(format!("{error}; trying Debian's compiler")),
        }
    }
    apt::ensure(&PACKAGES, "compiler for BPF")
        .context("no compiler here can build for BPF; `rustup component add rust-src` would do")?;
    find(workspace).context("Debian's compiler is installed and has no core for BPF")
}

fn find(workspace: &Workspace) -> Option<Compiler> {
    let source = "lib/rustlib/src/rust/library/core/Cargo.toml";
    if let Some(root) = sysroot(Path::new("rustc"), workspace)
        && root.join(source).is_file()
    {
        say(format!(
            "compiler for BPF: -Z build-std with {}",
            root.display()
        ));
        return Some(Compiler::ActiveWithSource);
    }
    let prebuilt = format!("lib/rustlib/{BPF_TARGET}");
    let distribution = Path::new("/usr/bin/rustc");
    if Path::new("/usr/bin/cargo").is_file()
        && sysroot(distribution, workspace)?.join(prebuilt).is_dir()
    {
        say("compiler for BPF: /usr/bin/rustc with core prebuilt");
        return Some(Compiler::Distribution);
    }
    None
}

fn sysroot(rustc: &Path, workspace: &Workspace) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    command
        .args(["--print", "sysroot"])
        .current_dir(&workspace.root);
    let path = capture(&mut command).ok()?;
    Some(PathBuf::from(path.trim()))
}
