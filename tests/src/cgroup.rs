//! A memory cgroup of the test's own, of either version; gone when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::deadline;

/// Where the memory controller is, and whether that is version 1.
fn hierarchy() -> (PathBuf, bool) {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    if v1.join("memory.usage_in_bytes").exists() {
        return (v1.to_owned(), true);
    }
    let unified = Path::new("/sys/fs/cgroup");
    let nested = unified.join("unified");
    let root = if nested.join("cgroup.procs").exists() {
        nested
    } else {
        unified.to_owned()
    };
    // Allowed already, or not allowed at all: then the group has no limit file, which is said.
    let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
    (root, false)
}

/// A memory cgroup.
pub struct Cgroup {
    root: PathBuf,
    path: String,
    /// Directories made, outermost first.
    made: Vec<PathBuf>,
    v1: bool,
}

impl Cgroup {
    /// Makes the group, such as `/kubepods/burstable/podUID/ID`, and those above it, below a
    /// directory of this test's own unless the path is to be exactly so.
    #[track_caller]
    pub fn new(path: &str) -> Self {
        let (root, v1) = hierarchy();
        let mut group = Self {
            root,
            path: String::new(),
            made: Vec::new(),
            v1,
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !v1 && !group.path.is_empty() {
                group.write("cgroup.subtree_control", "+memory");
            }
            group.path = format!("{}/{part}", group.path);
            let directory = group.directory();
            if !directory.exists() {
                fs::create_dir(&directory)
                    .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
                group.made.push(directory);
            }
        }
        group
    }

    /// One that no other test uses.
    #[track_caller]
    pub fn own(name: &str) -> Self {
        Self::new(&format!("/memtrace-test-{}/{name}", std::process::id()))
    }

    /// As /proc/PID/cgroup has it.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn directory(&self) -> PathBuf {
        self.root.join(self.path.trim_start_matches('/'))
    }

    #[track_caller]
    fn write(&self, file: &str, text: &str) {
        let path = self.directory().join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Limits it.
    #[track_caller]
    pub fn limit(&self, bytes: u64) -> &Self {
        let file = if self.v1 {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        self.write(file, &bytes.to_string());
        self
    }

    /// All of its processes are killed together; false where that cannot be asked for.
    pub fn kill_together(&self) -> bool {
        fs::write(self.directory().join("memory.oom.group"), "1").is_ok()
    }

    /// Moves a process into it.
    #[track_caller]
    pub fn add(&self, pid: u32) -> &Self {
        self.write("cgroup.procs", &pid.to_string());
        self
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes are dying: the directory can go when they are gone.
        let until = deadline(10);
        for directory in self.made.iter().rev() {
            while fs::remove_dir(directory).is_err()
                && directory.exists()
                && std::time::Instant::now() < until
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}
