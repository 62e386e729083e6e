//! The tests and the programs that they trace, for another architecture: built here, because a guest
//! has no compiler.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::arch::Arch;
use super::debian::Suite;
use crate::apt;
use crate::shell::{self, cargo, create_dir, say};
use crate::test::crosscheck;
use crate::workspace::Workspace;

/// What the test runner leaves out there: Debian's redis and Python would bring half a distribution,
/// and there is no musl for the cross compiler.
pub const WITHOUT: &str = "--skip redis --skip python --skip musl \
                           --skip another_c_library --skip run_misses_nothing";

/// Debian's packages with the allocators that tests preload.
const PRELOADED: [&str; 3] = ["libjemalloc2", "libtcmalloc-minimal4", "libmimalloc2.0"];

/// Allocators that the Rust programs are linked with, and the folders their builds go to.
const RUST: [(&str, &str); 3] = [
    ("", "cargo-rust"),
    ("jemalloc", "cargo-jemalloc"),
    ("mimalloc", "cargo-mimalloc"),
];

/// A cargo that links for `arch` when it is told its target.
pub fn cargo_for(workspace: &Workspace, arch: Arch) -> Result<Command> {
    let compiler = crosscheck::ensure(workspace, arch.name())?;
    let triple = crosscheck::triple(arch.name());
    let variable = triple.to_uppercase().replace('-', "_");
    let mut command = cargo(workspace);
    command.env(format!("CARGO_TARGET_{variable}_LINKER"), compiler);
    Ok(command)
}

/// Builds what the tests built here once more for `arch`, under the same names; the folder.
pub fn programs(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    let cplusplus = format!("g++-{}-linux-gnu", arch.name());
    apt::ensure(&[&cplusplus], "C++ compiler for the tests' programs")?;
    let from = workspace.target.join("test-programs");
    let to = workspace.target.join("vm/test-programs").join(arch.name());
    create_dir(&to)?;
    let entries = fs::read_dir(&from)
        .with_context(|| format!("{}: the tests built no programs", from.display()))?;
    for entry in entries {
        let recipe = entry?.path();
        let built = recipe.with_extension("");
        let name = built.file_name().context("a program without a name")?;
        if recipe.extension().is_some_and(|ext| ext == "recipe") && !to.join(name).exists() {
            cook(workspace, arch, &recipe, &to.join(name))?;
        }
    }
    for (allocator, folder) in RUST {
        rust_programs(workspace, arch, allocator, &to.join(folder))?;
    }
    Ok(to)
}

/// Follows a recipe of the tests: the compiler, the source, and the flags, a line each.
fn cook(workspace: &Workspace, arch: Arch, recipe: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(recipe).with_context(|| recipe.display().to_string())?;
    let mut words = text.lines();
    let compiler = words.next().context("an empty recipe")?;
    let source = words.next().context("a recipe without a source")?;
    if !matches!(compiler, "gcc" | "g++") {
        say(format!(
            "{source}: not with {compiler}, which is here for this machine only"
        ));
        return Ok(());
    }
    let mut command = Command::new(format!("{}-linux-gnu-{compiler}", arch.name()));
    command
        .args(words)
        .arg("-o")
        .args([to, &workspace.root.join("tests/programs").join(source)]);
    // What is written for one processor is not for the other; the test that wants it says so.
    if let Err(error) = shell::run(&mut command) {
        say(format!("{source}: {error:#}"));
    }
    Ok(())
}

/// Builds the tests' Rust programs and puts them where a build without a target has them.
fn rust_programs(workspace: &Workspace, arch: Arch, allocator: &str, folder: &Path) -> Result<()> {
    let triple = crosscheck::triple(arch.name());
    let manifest = workspace.root.join("tests/programs/rust/Cargo.toml");
    let mut command = cargo_for(workspace, arch)?;
    command
        .args(["build", "--quiet", "--release", "--locked", "--bins"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(folder)
        .args(["--target", &triple, "--features", allocator])
        .env_remove("RUSTFLAGS");
    shell::run(&mut command)?;
    let release = folder.join("release");
    create_dir(&release)?;
    for entry in fs::read_dir(folder.join(&triple).join("release"))?.flatten() {
        let file = entry.path();
        if file.is_file() && file.extension().is_none() {
            shell::copy(&file, &release.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Gets the allocators that tests preload; the folder with the libraries.
pub fn preloaded(workspace: &Workspace, arch: Arch) -> Result<String> {
    let cache = workspace.target.join("vm");
    let folder = cache.join("preloaded").join(arch.name());
    let libraries = folder.join(format!("usr/lib/{}-linux-gnu", arch.name()));
    if !libraries.is_dir() {
        let suite = Suite::open(&cache, "bookworm", arch)?;
        for package in PRELOADED {
            suite.unpack(package, &folder)?;
        }
    }
    Ok(libraries.display().to_string())
}
