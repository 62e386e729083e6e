//! uprobes, tracefs and its tracepoints.

use super::Tree;
use crate::{
    probe::{check_tracepoints, tracefs},
    report::doctor::Check,
};

/// The performance monitoring unit by which uprobes are made.
pub(super) fn uprobes(tree: &Tree) -> Check {
    let name = "uprobes";
    match tree.number("sys/bus/event_source/devices/uprobe/type") {
        Some(_) => Check::ok(name, "supported"),
        None => Check::fail(
            name,
            "the kernel has none (no event source `uprobe` in /sys)",
        )
        .remedy("boot a kernel with CONFIG_UPROBE_EVENTS=y; in a container mount /sys"),
    }
}

/// Where tracefs is.
pub(super) fn tracefs_mount(tree: &Tree) -> Check {
    let name = "tracefs";
    let mounted = tree
        .mounts()
        .into_iter()
        .find(|(_, kind)| kind == "tracefs")
        .map(|(place, _)| place);
    match (tracefs(tree.root()), mounted) {
        (Some(_), Some(place)) => Check::ok(name, format!("at {place}")),
        (Some(_), None) => Check::ok(name, "there"),
        (None, Some(place)) => Check::ok(name, format!("at {place}, readable by root only")),
        (None, None) => Check::ok(name, "not mounted; memtrace mounts it for itself alone"),
    }
}

/// The tracepoints that memtrace attaches to, and their fields.
pub(super) fn tracepoints(tree: &Tree) -> Check {
    let name = "tracepoints";
    match check_tracepoints(tree.root()) {
        Ok(()) => Check::ok(
            name,
            "fork, exec, exit and mmap, with the fields memtrace reads",
        ),
        Err(error) => Check::fail(name, error.to_string()),
    }
}

/// A limit that does not concern those who may trace.
pub(super) fn perf_paranoid(tree: &Tree) -> Check {
    let found = match tree.number("proc/sys/kernel/perf_event_paranoid") {
        Some(level) => format!("{level}: does not matter, tracing has the privilege it asks for"),
        None => "not there: does not matter".to_owned(),
    };
    Check::ok("perf paranoia", found)
}
