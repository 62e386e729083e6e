//! Where things are: the workspace's root and its target folder.
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folders that every routine works in.
pub struct Workspace {
    /// The folder of the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target folder; what is downloaded and installed goes there too.
    pub target: PathBuf,
}

impl Workspace {
    /// The workspace that this xtask belongs to, wherever it is called from.
    pub fn find() -> Result<Self> {
        let own = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own.parent().context("xtask's folder has no parent")?;
        ensure!(
            root.join("memtrace-ebpf").is_dir(),
            "{} is not memtrace's workspace: call this as `cargo xtask`",
            root.display()
        );
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
            || root.join("target"),
            |dir| env::current_dir().unwrap_or_default().join(dir),
        );
        Ok(Self {
            root: root.to_path_buf(),
            target,
        })
    }

    /// A built binary of the workspace.
    pub fn binary(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name)
    }

    /// A path as people want to read it: below the root where it can be.
    pub fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
