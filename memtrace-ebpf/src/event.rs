//! What every record for user space has in common.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use memtrace_common::{Counter, EventHeader, EventKind};

use crate::maps::{EVENTS, count};

/// The beginning of a record about a thread, as of now. `id` is that of `bpf_get_current_pid_tgid`.
#[inline(always)]
pub fn header(kind: EventKind, id: u64, space: u64) -> EventHeader {
    EventHeader {
        kind: kind as u32,
        tgid: (id >> 32) as u32,
        tid: id as u32,
        pad: 0,
        space,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
    }
}

/// Sends a record; counts it when the ring buffer has no room.
#[inline(always)]
pub fn send<T: 'static>(event: &T) {
    if EVENTS.output::<T>(event, 0).is_err() {
        count(Counter::EventLost, 1);
    }
}
