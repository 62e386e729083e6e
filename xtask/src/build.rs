//! `cargo xtask build`.
use anyhow::Result;
use clap::Args;

use crate::shell::{self, cargo};
use crate::{setup, workspace::Workspace};

#[derive(Args)]
pub struct Options {
    /// Optimized, as it is shipped
    #[arg(long)]
    release: bool,
}

/// Sets up, then does what a plain `cargo build` does.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::run(workspace)?;
    let mut command = cargo(workspace);
    command.arg("build");
    if options.release {
        command.arg("--release");
    }
    shell::run(&mut command)
}

/// The memtrace that is shipped, built, and where it is.
pub fn release(workspace: &Workspace) -> Result<std::path::PathBuf> {
    setup::run(workspace)?;
    shell::run(cargo(workspace).args(["build", "--release", "--package", "memtrace"]))?;
    Ok(workspace.binary("release", "memtrace"))
}
