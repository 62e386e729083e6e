//! The memory limit that applies to a process, and what is used of it.

use std::path::Path;

use crate::{
    id::Tgid,
    target::{
        cgroup::{self, CgroupFs, Effective, Group},
        process::ProcFs,
    },
};

/// Limit and usage of the memory cgroup; nothing where there is none or it has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The smallest limit of the group and those above.
    pub limit: Option<u64>,
    /// Bytes counted against that limit.
    pub usage: Option<u64>,
    /// Bytes of `usage` that the kernel gives back before it kills.
    pub reclaimable: u64,
    /// The group that has the limit.
    pub limited: Option<Group>,
    /// The process's own group.
    pub group: Option<Group>,
}

impl Memory {
    /// Bytes that can still be used before the limit is met.
    pub fn remaining(&self) -> Option<u64> {
        let used = self.usage?.saturating_sub(self.reclaimable);
        Some(self.limit?.saturating_sub(used))
    }
}

/// Reads the limit that a process meets first; the files of either cgroup version. `root` is that
/// of the machine's files, `/` outside of tests.
pub(crate) fn read(proc: &ProcFs, root: &Path, tgid: Tgid) -> Memory {
    let Some(group) = CgroupFs::new(root).group_of(proc, tgid) else {
        return Memory::default();
    };
    of_group(group)
}

fn of_group(group: Group) -> Memory {
    let effective = group.effective();
    let reclaimable = effective.as_ref().and_then(|e| e.group.inactive_file());
    Memory {
        limit: effective.as_ref().map(|e| e.limit),
        usage: effective.as_ref().map(|e| e.usage),
        reclaimable: reclaimable.unwrap_or(0),
        limited: effective.map(|Effective { group, .. }| group),
        group: Some(group),
    }
}

/// Bytes the machine can still give.
pub(crate) fn machine_available(root: &Path) -> Option<u64> {
    cgroup::machine(root).1
}
