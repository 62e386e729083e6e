//! The memory cgroup of a process: limit, usage, events and pressure, from either version's files.
//!
//! Read below a root that a test can replace by a tree of its own. A group that is removed while
//! it is read gives nothing, never an error: its processes have just ended.

mod group;
mod mounts;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

pub use group::{Effective, Group, Pressure, State, Version};

use super::process::ProcFs;
use crate::id::Tgid;

/// Longer files are none of the kernel's.
const MAX_BYTES: u64 = 256 << 10;

/// Where the memory controller's hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupFs {
    v1: Option<PathBuf>,
    v2: Option<PathBuf>,
}

impl CgroupFs {
    /// Finds them below the root of a machine's files, `/` outside of tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let text = read(&root.join("proc/mounts")).unwrap_or_default();
        let found = mounts::find(&text);
        // The files of another machine's tree stand below that tree.
        let below = |place: String| root.join(place.trim_start_matches('/'));
        let fs = Self {
            v1: found.v1.map(below),
            v2: found.v2.map(below),
        };
        if fs != Self::default() {
            return fs;
        }
        Self {
            v1: Some(root.join("sys/fs/cgroup/memory")),
            v2: Some(root.join("sys/fs/cgroup")),
        }
    }

    /// The memory cgroup that a text like `/proc/PID/cgroup` names.
    #[must_use]
    pub fn group(&self, text: &str) -> Option<Group> {
        let mut unified = None;
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            if controllers.split(',').any(|name| name == "memory") {
                return Group::at(Version::V1, self.v1.as_ref()?, path);
            }
            if number == "0" && controllers.is_empty() {
                unified = Some(path);
            }
        }
        Group::at(Version::V2, self.v2.as_ref()?, unified?)
    }

    /// The memory cgroup of a process; nothing for one on its way out that the kernel has put into
    /// the root group already, where it never was.
    #[must_use]
    pub fn group_of(&self, proc: &ProcFs, tgid: Tgid) -> Option<Group> {
        let group = self.group(&text_of(proc, tgid)?)?;
        // In this order: what begins to end after the first look was still in its group.
        (!group.is_root() || !proc.is_ending(tgid)).then_some(group)
    }

    /// The group at a path of the hierarchy that holds the memory controller, as the kernel's log
    /// names it.
    #[must_use]
    pub fn group_at(&self, like: Option<&Group>, path: &str) -> Option<Group> {
        let version = like.map(Group::version);
        let v1 = self.v1.as_ref().filter(|_| version != Some(Version::V2));
        let v2 = self.v2.as_ref().filter(|_| version != Some(Version::V1));
        v1.and_then(|mount| Group::at(Version::V1, mount, path))
            .or_else(|| v2.and_then(|mount| Group::at(Version::V2, mount, path)))
    }
}

/// The text of `/proc/PID/cgroup`.
#[must_use]
pub(super) fn text_of(proc: &ProcFs, tgid: Tgid) -> Option<String> {
    read(&proc.process(tgid).join("cgroup"))
}

/// A small file's text.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Bytes of memory the machine has, and bytes it can still give.
#[must_use]
pub fn machine(root: &Path) -> (Option<u64>, Option<u64>) {
    let text = read(&root.join("proc/meminfo")).unwrap_or_default();
    let bytes = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    };
    (bytes("MemTotal:"), bytes("MemAvailable:"))
}
