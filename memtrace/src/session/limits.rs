//! The memory limit that applies to a process, and what is used of it.

use std::{fs, path::Path};

use crate::{id::Tgid, target::process::ProcFs};

/// Limit and usage of the memory cgroup; nothing where there is none or it has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub limit: Option<u64>,
    pub usage: Option<u64>,
}

/// No limit, as cgroup v1 writes it: the largest number of bytes in whole pages.
const UNLIMITED: u64 = 1 << 62;

/// Reads the innermost limit; the files of either cgroup version. `root` is that of the machine's
/// files, `/` outside of tests.
pub(crate) fn read(proc: &ProcFs, root: &Path, tgid: Tgid) -> Memory {
    let text = fs::read_to_string(proc.process(tgid).join("cgroup")).unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let relative = path.trim_start_matches('/');
        let memory = if controllers.split(',').any(|name| name == "memory") {
            files(
                &root.join("sys/fs/cgroup/memory").join(relative),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        } else if controllers.is_empty() {
            files(
                &root.join("sys/fs/cgroup").join(relative),
                "memory.max",
                "memory.current",
            )
        } else {
            continue;
        };
        if memory.limit.is_some() {
            return memory;
        }
    }
    Memory::default()
}

fn files(directory: &Path, limit: &str, usage: &str) -> Memory {
    let number = |name: &str| {
        fs::read_to_string(directory.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let limit = number(limit).filter(|limit| *limit < UNLIMITED);
    Memory {
        limit,
        usage: limit.and_then(|_| number(usage)),
    }
}

/// Bytes the machine can still give.
pub(crate) fn machine_available(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_ascii_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
