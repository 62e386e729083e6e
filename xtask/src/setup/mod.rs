//! `cargo xtask setup`: what building needs, found or installed, and said.
mod compiler;
mod linker;

use anyhow::Result;

pub use self::compiler::Compiler;
use crate::workspace::Workspace;

/// The Rust target of the kernel side.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Finds or installs the compiler and the linker for BPF. Quick when all is there.
pub fn run(workspace: &Workspace) -> Result<Compiler> {
    let compiler = compiler::ensure(workspace)?;
    linker::ensure(workspace)?;
    Ok(compiler)
}
