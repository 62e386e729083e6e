//! The thread that a process's probes hang on, and what to do when it ends before the others.
//!
//! The kernel ties a process's probes to one thread, at first the first one. A program whose `main`
//! ends with `pthread_exit` goes on without it, and every probe is taken out of its memory: they
//! are put on again, on a thread that lives. So is it when another thread than the first one execs.

use std::{fs, time::Duration};

use memtrace_common::{THREADS_UNKNOWN, Target};

use super::{Session, SessionError, process::ends_within};
use crate::{id::Tgid, target::process::ProcFs};

/// A process that ends as a whole is given this long to do so.
const END: Duration = Duration::from_millis(5);

impl Session {
    /// Puts the probes of a process on another thread of it.
    pub(super) fn anchor_ended(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        let Some(index) = self.traced.iter().position(|t| t.tgid == tgid) else {
            return Ok(());
        };
        let Some(traced) = self.traced.get_mut(index) else {
            return Ok(());
        };
        let ends = |pidfd| ends_within(pidfd, END);
        if traced.pidfd.as_ref().is_some_and(ends) {
            return Ok(());
        }
        let Some(anchor) = living_thread(&self.proc, tgid) else {
            // All of them end, which the session will see.
            return Ok(());
        };
        traced.anchor = anchor;
        traced.mappings_seen = 0;
        let (space, text_slot) = (traced.image.space, traced.text_slot);
        self.attached.retain(|place| place.tgid != Some(tgid));
        // Some may go on for a while without their thread: what is called twice counts twice.
        self.attachments.detach_process(tgid);
        self.probes_moved += 1;
        // An exec meanwhile has given it a space of its own.
        let space = self
            .kernel
            .target(tgid)
            .map_or(space.0, |target| target.space);
        let target = Target {
            space,
            image: space,
            threads: THREADS_UNKNOWN,
            text_slot,
            borrowed: 0,
            anchor: anchor.0,
            pad: 0,
        };
        self.kernel.add_target(tgid, target)?;
        self.refresh(tgid)
    }
}

/// A thread that will go on: the first one if that does.
fn living_thread(proc: &ProcFs, tgid: Tgid) -> Option<Tgid> {
    let tasks = fs::read_dir(proc.process(tgid).join("task")).ok()?;
    let mut tids: Vec<_> = tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .map(Tgid)
        .collect();
    tids.sort_unstable_by_key(|tid| (*tid != tgid, tid.0));
    tids.into_iter().find(|tid| {
        let status = fs::read_to_string(proc.process(*tid).join("status"));
        status.is_ok_and(|status| goes_on(&status))
    })
}

/// Whether a thread with this `status` has its memory still and no SIGKILL waiting, which is how
/// the threads of a process that ends are told.
fn goes_on(status: &str) -> bool {
    const KILLED: u64 = 1 << (libc::SIGKILL - 1);
    let pending = field(status, "SigPnd:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    field(status, "VmSize:").is_some() && pending.is_none_or(|mask| mask & KILLED == 0)
}

/// Resident bytes of the process that a thread belongs to.
pub(super) fn rss_bytes(proc: &ProcFs, tid: Tgid) -> Option<u64> {
    let status = fs::read_to_string(proc.process(tid).join("status")).ok()?;
    let kib: u64 = field(&status, "VmRSS:")?.parse().ok()?;
    Some(kib * 1024)
}

/// First word behind a name.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread without memory or with a SIGKILL waiting is no place for probes.
    #[test]
    fn dying_threads() {
        let with = |pending: &str| format!("Name:\tx\nVmSize:\t  10 kB\nSigPnd:\t{pending}\n");
        assert!(goes_on(&with("0000000000000000")));
        assert!(goes_on(&with("0000000000004000")));
        assert!(!goes_on(&with("0000000000000100")));
        assert!(!goes_on("Name:\tx\nSigPnd:\t0000000000000000\n"));
    }
}
