//! What tracing needs of the system before anything else is tried.

use anyhow::bail;

use crate::{
    doctor::{Tree, namespaces, privileges},
    probe::provide_tracefs,
    report::doctor::Status,
};

/// Fails with the reason when this process may not load programs into the kernel.
pub(super) fn require_privileges() -> anyhow::Result<()> {
    let tree = Tree::default();
    let check = privileges::check(&tree);
    match check.status {
        Status::Ok | Status::Warn => Ok(()),
        Status::Fail if privileges::is_root(&tree) => bail!(
            "tracing is not allowed: {}; {}",
            check.found,
            check.remedy.unwrap_or_default()
        ),
        Status::Fail => bail!(
            "tracing needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE): run it with sudo"
        ),
    }
}

/// Fails in a pid namespace whose pids the kernel side does not know: no hit would ever match.
pub(super) fn require_host_pids() -> anyhow::Result<()> {
    if namespaces::is_in_first(&Tree::default()) {
        return Ok(());
    }
    bail!(
        "memtrace runs in a container's own pid namespace, where pids are not those of the kernel \
         side: run it on the host, or start its container with --pid=host"
    )
}

/// Makes tracefs visible to this process.
pub(super) fn require_tracefs() -> anyhow::Result<()> {
    Ok(provide_tracefs()?)
}
