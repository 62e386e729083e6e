//! The single steps of `cargo xtask test` that are one command each.
use anyhow::Result;

use super::{crosscheck, packages};
use crate::setup::{self, BPF_TARGET, Compiler};
use crate::shell::{self, cargo, say, succeeds};
use crate::{apt, workspace::Workspace};

/// The whole workspace for the host: the kernel side builds for BPF only.
const HOST: [&str; 3] = ["--workspace", "--exclude", "memtrace-ebpf"];

pub fn format(workspace: &Workspace) -> Result<()> {
    shell::run(cargo(workspace).args(["fmt", "--all", "--check"]))
}

pub fn lints(workspace: &Workspace) -> Result<()> {
    let mut command = cargo(workspace);
    command.arg("clippy").args(HOST);
    command.args(["--all-targets", "--", "-D", "warnings"]);
    shell::run(&mut command)
}

/// Lints the kernel side for its own target, into a target folder of its own: what this sets in
/// the environment would make cargo rebuild what the other steps share.
pub fn kernel_side_lints(workspace: &Workspace) -> Result<()> {
    if matches!(setup::run(workspace)?, Compiler::Distribution) {
        say("not linted: the compiler with core for BPF has no clippy of its version");
        return Ok(());
    }
    let mut command = cargo(workspace);
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "RUSTFLAGS",
            "-Ctarget-cpu=v2 --cfg=bpf_target_arch=\"x86_64\"",
        )
        .args(["clippy", "--release", "--package", "memtrace-ebpf"])
        .args(["--target", BPF_TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(workspace.target.join("kernel-side-lints"))
        .args(["--", "-D", "warnings"]);
    shell::run(&mut command)
}

/// Licences, duplicates and sources of the dependencies; its advisories need the network.
pub fn dependencies(workspace: &Workspace) -> Result<()> {
    if !succeeds(cargo(workspace).args(["deny", "--version"])) {
        say("deny.toml is not checked: cargo-deny is not installed (`cargo install cargo-deny`)");
        return Ok(());
    }
    shell::run(cargo(workspace).args(["deny", "check", "licenses", "bans", "sources"]))
}

pub fn packages(_: &Workspace) -> Result<()> {
    apt::ensure(packages::TESTS, "what the tests need")
}

/// The binary under test, as it is shipped.
pub fn release_build(workspace: &Workspace) -> Result<()> {
    shell::run(cargo(workspace).args(["build", "--release", "--package", "memtrace"]))
}

/// Unit and property tests: no root, no kernel.
pub fn unit_tests(workspace: &Workspace) -> Result<()> {
    let mut command = test_runner(workspace);
    command.args(HOST).args(["--exclude", "memtrace-tests"]);
    shell::run(&mut command)?;
    let mut doc_tests = cargo(workspace);
    doc_tests.args(["test", "--quiet", "--doc"]);
    shell::run(doc_tests.args(["--package", "memtrace", "--package", "memtrace-common"]))
}

/// The tests on the real kernel, with the release binary.
pub fn kernel_tests(workspace: &Workspace) -> Result<()> {
    kernel_suites(workspace, &[])
}

/// Some of the tests on the real kernel, by the names of their files; all when none is named.
pub fn kernel_suites(workspace: &Workspace, suites: &[&str]) -> Result<()> {
    if super::kernel_tests_skipped() {
        say("SKIPPED: the tests on the real kernel (MEMTRACE_SKIP_KERNEL_TESTS=1)");
        return Ok(());
    }
    let mut command = test_runner(workspace);
    command
        .env("MEMTRACE_BIN", workspace.binary("release", "memtrace"))
        .args(["--package", "memtrace-tests"]);
    for suite in suites {
        command.args(["--test", suite]);
    }
    shell::run(&mut command)
}

/// nextest gives each test a process and a time limit; without it cargo's own runner does.
fn test_runner(workspace: &Workspace) -> std::process::Command {
    let mut command = cargo(workspace);
    if succeeds(cargo(workspace).args(["nextest", "--version"])) {
        command.args(["nextest", "run", "--no-tests", "pass"]);
    } else {
        command.arg("test");
    }
    command
}

pub fn docs(workspace: &Workspace) -> Result<()> {
    let mut command = cargo(workspace);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command.args(["doc", "--no-deps"]).args(HOST);
    shell::run(&mut command)
}

/// memtrace for aarch64, compiled and not linked.
pub fn other_architecture(workspace: &Workspace) -> Result<()> {
    crosscheck::run(workspace)
}
