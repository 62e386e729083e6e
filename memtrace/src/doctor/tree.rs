//! The files that checks read.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Longer files are not read by checks.
const CAP: u64 = 1 << 20;

/// The root of a machine's files: `/`, or a tree that a test made.
#[derive(Clone, Debug)]
pub struct Tree(PathBuf);

impl Default for Tree {
    fn default() -> Self {
        Self("/".into())
    }
}

impl Tree {
    /// A tree that holds `proc` and `sys`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A file's text without the white space around it; none when it cannot be read.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(path)).ok()?;
        file.take(CAP).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file's number.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// Whether there is such a file or directory.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The rest of a line of a file of `Key: value` lines.
    #[must_use]
    pub fn value(&self, path: &str, key: &str) -> Option<String> {
        let text = self.read(path)?;
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(rest.trim_start_matches(':').trim().to_owned())
    }

    /// Mount points with the types of their file systems.
    #[must_use]
    pub fn mounts(&self) -> Vec<(String, String)> {
        let text = self.read("proc/mounts").unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
            })
            .collect()
    }
}
