//! System calls that nothing else of this CPU comes in between of.
//!
//! While the kernel reads a hash table for memtrace, no program at a tracepoint of perf runs on that
//! CPU. A kernel that can be preempted lets others run in the midst of it, a time slice long, and what
//! they do goes unseen. So it is not preempted there: a walk over a million buckets takes some
//! milliseconds, in steps.

use super::preemption;

/// As long as this lives the current thread is not preempted by usual threads, where that matters.
pub(super) struct Uninterrupted {
    before: Option<libc::c_int>,
}

impl Uninterrupted {
    pub(super) fn begin() -> Self {
        let usual = preemption::is_possible().then(policy).filter(|policy| {
            matches!(
                *policy,
                libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE
            )
        });
        // Where it is not allowed some hits are missed, which the kernel counts.
        let before = usual.filter(|_| set(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1));
        Self { before }
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            set(before, 0);
        }
    }
}

/// Of the current thread.
fn policy() -> libc::c_int {
    // SAFETY: no pointer is passed.
    unsafe { libc::sched_getscheduler(0) }
}

fn set(policy: libc::c_int, priority: libc::c_int) -> bool {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: a structure that outlives the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the kernel is and allows, afterwards the thread is scheduled as before.
    #[test]
    fn leaves_no_trace() {
        let before = policy();
        drop(Uninterrupted::begin());
        assert_eq!(policy() & !libc::SCHED_RESET_ON_FORK, before);
    }
}
