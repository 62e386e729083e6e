//! Limits of this process and of the memory there is.

use super::Tree;
use crate::{
    id::Tgid,
    probe::Features,
    report::{doctor::Check, human},
    session::limits as memory,
    target::process::ProcFs,
};

/// Fewer are used up by a process of many libraries.
const FEW_FILES: u64 = 1024;
/// The live table with its default size, the other tables and memtrace itself.
const NEEDED_BYTES: u64 = 256 << 20;

/// The soft limit of a row of /proc/self/limits; none when there is no limit.
fn soft_limit(tree: &Tree, row: &str) -> Option<u64> {
    let value = tree.value("proc/self/limits", row)?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// Memory of BPF tables counted as locked, up to 5.10.
pub(super) fn locked_memory(tree: &Tree, features: &Features) -> Check {
    let limit =
        soft_limit(tree, "Max locked memory").map_or_else(|| "unlimited".to_owned(), human::bytes);
    let found = if features.version >= (5, 11) {
        format!("{limit}: does not matter, BPF memory is not counted as locked since 5.11")
    } else {
        format!("{limit}: this kernel counts BPF memory as locked; memtrace raises the limit")
    };
    Check::ok("locked memory", found)
}

/// Each probe takes a file or two.
pub(super) fn open_files(tree: &Tree) -> Check {
    let name = "open files";
    match soft_limit(tree, "Max open files") {
        Some(limit) if limit < FEW_FILES => Check::warn(
            name,
            format!("at most {limit}: a process of many libraries needs more"),
        )
        .remedy("ulimit -n 4096"),
        Some(limit) => Check::ok(name, format!("at most {}", human::count(limit))),
        None => Check::ok(name, "no limit"),
    }
}

/// Which hierarchies are mounted.
pub(super) fn cgroups(tree: &Tree) -> Check {
    let mounts = tree.mounts();
    let has = |kind: &str| mounts.iter().any(|(_, one)| one == kind);
    let has_memory = mounts
        .iter()
        .any(|(place, kind)| kind == "cgroup" && place.ends_with("/memory"));
    let name = "cgroups";
    match (has("cgroup2"), has("cgroup")) {
        (true, false) => Check::ok(name, "version 2"),
        (true, true) if has_memory => Check::ok(name, "hybrid, memory is limited by version 1"),
        (true, true) => Check::ok(name, "hybrid, memory is limited by version 2"),
        (false, true) => Check::ok(name, "version 1"),
        (false, false) => Check::warn(name, "none mounted: limits of containers are not known")
            .remedy("mount /sys/fs/cgroup into memtrace's container"),
    }
}

/// What the machine and memtrace's own group can still give.
pub(super) fn memory(tree: &Tree) -> Check {
    let name = "memory";
    let free = memory::machine_available(tree.root());
    let proc = ProcFs::new(tree.path("proc"));
    let me = Tgid(std::process::id());
    let group = memory::read(&proc, tree.root(), me);
    let mut found = match free {
        Some(free) => format!("{} available", human::bytes(free)),
        None => "unknown".to_owned(),
    };
    if let Some(limit) = group.limit {
        // Caches are counted as used, but given back when memory is needed.
        let left = limit.saturating_sub(group.usage.unwrap_or(0));
        found += &format!(
            "; memtrace's own cgroup has used all but {} of {}",
            human::bytes(left),
            human::bytes(limit)
        );
    }
    let least = [free, group.limit].into_iter().flatten().min();
    if least.is_some_and(|least| least < NEEDED_BYTES) {
        return Check::warn(name, format!("{found}: little for a million live blocks"))
            .remedy("--live-entries 100000 makes do with a tenth");
    }
    Check::ok(name, found)
}
