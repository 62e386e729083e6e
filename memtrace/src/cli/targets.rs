//! What to trace, as typed, and what that means.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::check::Checked;
use super::plan::{Pids, TargetPlan};
use super::usage::UsageError;
use super::values;
use crate::id::Tgid;
use crate::target::select::Selector;

/// Options of every command that traces what runs already.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Process to trace; give it again or separate with commas for more
    ///
    /// Its threads are traced with it. The process is not stopped, signalled or written to.
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = values::pid)]
    #[arg(help_heading = "Target", allow_negative_numbers = true)]
    pub pid: Vec<u32>,
    /// Every process with this name, those that start later too
    ///
    /// The name is that of /proc/PID/comm, at most 15 characters. Their children are traced until
    /// they become another program; with --follow beyond that.
    #[arg(long, value_name = "NAME", group = "selector", help_heading = "Target")]
    #[arg(conflicts_with = "pid")]
    pub comm: Option<String>,
    /// Every process in a cgroup or below it, those that come later too
    ///
    /// A directory below /sys/fs/cgroup, or the path as /proc/PID/cgroup has it.
    #[arg(long, value_name = "PATH", group = "selector", help_heading = "Target")]
    #[arg(conflicts_with = "pid", value_hint = ValueHint::DirPath)]
    pub cgroup: Option<PathBuf>,
    /// Every process of a running container, by id, name or POD/NAME
    ///
    /// The beginning of the id is enough (4 characters or more). Names are known where the runtime's
    /// socket can be reached; see --runtime-socket.
    #[arg(long, value_name = "NAME", group = "selector", help_heading = "Target")]
    #[arg(conflicts_with = "pid")]
    pub container: Option<String>,
    /// Every process of the machine but memtrace itself
    #[arg(
        long,
        group = "selector",
        conflicts_with = "pid",
        help_heading = "Target"
    )]
    pub all: bool,
}

impl TargetArgs {
    /// True when none of them is given.
    pub(super) fn is_empty(&self) -> bool {
        let selects = self.comm.is_some() || self.cgroup.is_some() || self.container.is_some();
        self.pid.is_empty() && !selects && !self.all
    }

    pub(super) fn plan(self) -> Checked<TargetPlan> {
        if self.is_empty() {
            return Err(UsageError::NoTarget);
        }
        let pids = once(self.pid);
        let selector = selector(self.comm, self.cgroup, self.container, self.all)?;
        Ok(match selector {
            Some(selector) => TargetPlan::Select(selector),
            None => TargetPlan::Pids(Pids(pids)),
        })
    }
}

fn selector(
    comm: Option<String>,
    cgroup: Option<PathBuf>,
    container: Option<String>,
    all: bool,
) -> Checked<Option<Selector>> {
    let selector = match (comm, cgroup, container) {
        (Some(name), _, _) if name.is_empty() => return Err(UsageError::Empty("comm")),
        (_, Some(path), _) if path.as_os_str().is_empty() => {
            return Err(UsageError::Empty("cgroup"));
        }
        (_, _, Some(name)) if name.is_empty() => return Err(UsageError::Empty("container")),
        (Some(name), _, _) => Selector::Comm(name),
        (_, Some(path), _) => Selector::Cgroup(path),
        (_, _, Some(name)) => Selector::Container(name),
        _ if all => Selector::All,
        _ => return Ok(None),
    };
    Ok(Some(selector))
}

pub(super) fn once(pids: Vec<u32>) -> Vec<Tgid> {
    let mut seen = Vec::with_capacity(pids.len());
    for pid in pids.into_iter().map(Tgid) {
        if !seen.contains(&pid) {
            seen.push(pid);
        }
    }
    seen
}
