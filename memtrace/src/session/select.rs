//! Finding the processes that a selector means: those there are, and those that come.

use std::collections::{HashMap, HashSet};

use super::{Session, SessionError};
use crate::{
    id::Tgid,
    target::{maps::Maps, process::ProcessError, select::Selector},
};

/// The C library's file on most systems.
const LIBC: &str = "libc.so.6";
/// Processes that are selected and cannot be traced, each told of once; beyond that only counted.
const MAX_TOLD: u64 = 5;

/// What selecting has found.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// Processes that could not be traced, with their start, so that they are not tried again.
    refused: HashMap<Tgid, u64>,
    /// How many that were in all.
    pub skipped: u64,
    /// The first process is traced: the session has begun.
    pub begun: bool,
    /// The program that `run` started: the session ends with it.
    pub root: Option<Tgid>,
}

impl Session {
    /// Begins to trace what the session's selector means; how many processes that are now.
    pub fn add_selected(&mut self) -> Result<usize, SessionError> {
        if matches!(
            self.options.selector,
            Some(Selector::Cgroup(_) | Selector::Container(_))
        ) {
            // Without it they are found when they exec, or at the next report.
            let _ = self.kernel.watch_cgroups();
        }
        self.attach_own_libraries()?;
        self.rescan()?;
        self.selected.begun = true;
        Ok(self.traced.len())
    }

    /// Puts probes on the allocators that memtrace itself uses, the system's C library: most
    /// programs that begin later use that one too, and are traced from their first allocation on.
    fn attach_own_libraries(&mut self) -> Result<(), SessionError> {
        let own = Tgid(std::process::id());
        let Ok(maps) = Maps::read(&self.proc, own) else {
            return Ok(());
        };
        let libraries = maps
            .mappings
            .iter()
            .filter(|m| m.permissions.execute && m.is_file())
            .filter(|m| m.path.file_name().is_some_and(|name| name == LIBC));
        for mapping in libraries {
            self.attach_file(own, &mapping.path)?;
        }
        Ok(())
    }

    /// Begins to trace a process and all that descend from it.
    pub fn add_tree(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        // One of several that are named can descend from another.
        if self.kernel.target(tgid).is_none() {
            self.add_process(tgid)?;
        }
        // From here on its children are targets from their fork on; those before are looked for
        // until a search finds none that is new.
        let mut tree = HashSet::from([tgid]);
        loop {
            let mut parents = HashMap::new();
            for other in self.proc.list()? {
                if let Ok(process) = self.proc.read(other) {
                    parents.insert(other, process.parent);
                }
            }
            let found: Vec<_> = parents
                .iter()
                .filter(|(child, parent)| tree.contains(parent) && !tree.contains(child))
                .map(|(child, _)| *child)
                .collect();
            if found.is_empty() {
                return Ok(());
            }
            for child in found {
                tree.insert(child);
                self.try_process(child)?;
            }
        }
    }

    /// Whether processes that are not traced meet the probes, too.
    #[must_use]
    pub fn shares_probes(&self) -> bool {
        self.follow.shared
    }

    /// Whether nothing is left to trace, and nothing will come.
    pub(super) fn is_over(&self) -> bool {
        let root_ended = self
            .selected
            .root
            .is_some_and(|root| self.traced.iter().all(|t| t.tgid != root));
        root_ended || (self.traced.is_empty() && self.options.selector.is_none())
    }

    /// A process began a program or was put into a cgroup.
    pub(super) fn consider(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        self.selected.refused.remove(&tgid);
        if self.is_selected(tgid) {
            self.try_process(tgid)?;
        }
        Ok(())
    }

    fn is_selected(&self, tgid: Tgid) -> bool {
        let selector = self.options.selector.as_ref();
        selector.is_some_and(|selector| selector.matches(&self.proc, tgid))
    }

    /// Looks at every process of the machine for those that are selected and not traced.
    pub(super) fn rescan(&mut self) -> Result<(), SessionError> {
        if self.options.selector.is_none() || self.detached {
            return Ok(());
        }
        let all = self.proc.list()?;
        let present: HashSet<_> = all.iter().copied().collect();
        self.selected
            .refused
            .retain(|tgid, _| present.contains(tgid));
        let traced: HashSet<_> = self.traced.iter().map(|t| t.tgid).collect();
        for tgid in all {
            if !traced.contains(&tgid) && self.is_selected(tgid) {
                self.try_process(tgid)?;
            }
        }
        Ok(())
    }

    /// Traces one process of many: one that cannot be traced ends nothing.
    fn try_process(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        if tgid.0 == std::process::id()
            || self.kernel.target(tgid).is_some()
            || self.traced.iter().any(|t| t.tgid == tgid)
        {
            return Ok(());
        }
        let Ok(process) = self.proc.read(tgid) else {
            return Ok(());
        };
        let start = process.start_ticks;
        if process.kernel_thread || self.selected.refused.get(&tgid) == Some(&start) {
            return Ok(());
        }
        match self.add_process(tgid) {
            Ok(()) => Ok(()),
            // It ended meanwhile.
            Err(SessionError::Process(
                ProcessError::NotFound { .. }
                | ProcessError::EndedMeanwhile { .. }
                | ProcessError::Ended { .. }
                | ProcessError::NoMemory { .. },
            )) => Ok(()),
            Err(
                error @ (SessionError::Process(_)
                | SessionError::NoAllocator(_)
                | SessionError::Seccomp(_)),
            ) => {
                self.selected.refused.insert(tgid, start);
                self.selected.skipped += 1;
                if self.selected.skipped <= MAX_TOLD {
                    self.notices.push(format!("not traced: {error}"));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back what was begun for a process that cannot be traced.
    pub(super) fn withdraw(&mut self, tgid: Tgid) {
        let Some(index) = self.traced.iter().position(|t| t.tgid == tgid) else {
            return;
        };
        let traced = self.traced.swap_remove(index);
        let _ = self.kernel.remove_target_of(tgid, traced.image.space);
        self.follow.leave(traced.image.space);
        self.unwinder.remove_space(traced.image.space);
    }
}
