//! What this process may do.

use super::Tree;
use crate::report::doctor::Check;

/// Capabilities that tracing needs, by bit; all but the last are part of `CAP_SYS_ADMIN`.
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (19, "CAP_SYS_PTRACE")];
const SYS_ADMIN: u32 = 21;

/// Names of the capabilities that tracing needs and this process does not have.
#[must_use]
pub(super) fn missing(tree: &Tree) -> Vec<&'static str> {
    let effective = effective(tree);
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED
        .iter()
        .filter(|(bit, _)| !has(*bit))
        .map(|(_, name)| *name)
        .collect()
}

/// Whether this process is root, with or without capabilities.
#[must_use]
pub fn is_root(tree: &Tree) -> bool {
    let ids = tree.value("proc/self/status", "Uid").unwrap_or_default();
    ids.split_ascii_whitespace().nth(1) == Some("0")
}

fn effective(tree: &Tree) -> u64 {
    tree.value("proc/self/status", "CapEff")
        .and_then(|text| u64::from_str_radix(&text, 16).ok())
        .unwrap_or(0)
}

/// Capabilities, and whether they count outside of a user namespace.
#[must_use]
pub fn check(tree: &Tree) -> Check {
    let name = "privileges";
    let missing = missing(tree);
    let root = is_root(tree);
    match (missing.is_empty(), root) {
        (false, true) => Check::fail(name, format!("root without {}", missing.join(", ")))
            .remedy("give the container these capabilities (--cap-add), or use --privileged"),
        (false, false) => Check::fail(name, format!("not root; missing {}", missing.join(", ")))
            .remedy("run memtrace with sudo"),
        (true, _) if !in_first_user_namespace(tree) => Check::fail(
            name,
            "root of a user namespace only: BPF asks the machine's root",
        )
        .remedy("run memtrace outside of rootless containers"),
        (true, true) => Check::ok(name, "root"),
        (true, false) => Check::ok(name, "not root, with the capabilities that tracing needs"),
    }
}

/// The first user namespace maps every id to itself.
fn in_first_user_namespace(tree: &Tree) -> bool {
    let Some(map) = tree.read("proc/self/uid_map") else {
        return true;
    };
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    fields == ["0", "0", "4294967295"]
}
