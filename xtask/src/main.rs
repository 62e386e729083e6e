//! memtrace's routines, each a command: `cargo xtask demo` and `cargo xtask test` are the two that
//! the README names. Every command installs what it needs, says what it chose, and can be
//! repeated.
mod apt;
mod bench;
mod build;
mod demo;
mod package_object;
mod setup;
mod shell;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// memtrace's routines.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what building needs: a compiler for BPF, LLVM, bpf-linker
    Setup,
    /// Set up, then build memtrace and everything around it
    Build(build::Options),
    /// Set up, build, and trace a small program that leaks
    Demo(demo::Options),
    /// Everything that CI runs: format, lints, layers, tests on the real kernel, docs
    Test(test::Options),
    /// Put the built kernel object where a published crate carries it
    PackageObject(package_object::Options),
    /// Measure what tracing costs, against the budgets
    Bench(bench::Options),
    /// Run a command under several kernels, each booted in QEMU
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Not by returning it from main: that would print a backtrace where one is asked for.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::run(&workspace).map(drop),
        Task::Build(options) => build::run(&workspace, &options),
        Task::Demo(options) => demo::run(&workspace, &options),
        Task::Test(options) => test::run(&workspace, &options),
        Task::PackageObject(options) => package_object::run(&workspace, &options),
        Task::Bench(options) => bench::run(&workspace, &options),
        Task::Vm(options) => vm::run(&workspace, &options),
    }
}
