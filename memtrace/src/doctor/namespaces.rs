//! Whether memtrace sees the same process ids as the kernel side.

use super::Tree;
use crate::report::doctor::Check;

/// Inode of the machine's own pid namespace, the same on every kernel (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether process ids mean the same here and in the kernel; so on kernels without namespaces.
#[must_use]
pub fn is_in_first(tree: &Tree) -> bool {
    std::fs::read_link(tree.path("proc/self/ns/pid"))
        .map_or(true, |link| link.as_os_str() == FIRST_PID_NAMESPACE)
}

/// In a pid namespace of its own memtrace would never see a hit of the pids it asks for.
pub(super) fn check(tree: &Tree) -> Check {
    let name = "pid namespace";
    if is_in_first(tree) {
        return Check::ok(name, "the machine's");
    }
    Check::fail(
        name,
        "memtrace runs in a container's own pid namespace: the kernel side knows other pids",
    )
    .remedy("run it on the host, or start its container with --pid=host")
}
