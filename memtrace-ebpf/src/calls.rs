//! Each call on its own, for those who ask: one record when it has returned.
//!
//! Whether and how is constant from before the programs are verified on, so that where calls are
//! only folded the verifier removes all of this but two instructions.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_comm},
};
use memtrace_common::{
    CallEvent, Counter, EventKind, LiveValue,
    events::{OLD_KNOWN, OTHER_PROBES},
    thread::{Call, TAKEN},
};

use crate::{
    CALLS,
    event::header,
    maps::{CALLS_LOST, EVENTS, add, count},
};

/// `BPF_RB_AVAIL_DATA`
const AVAILABLE: u64 = 0;
/// `BPF_RB_RING_SIZE`
const SIZE: u64 = 1;

/// Which of the `*_CALL*` constants holds.
#[inline(always)]
pub fn wanted() -> u64 {
    // SAFETY: a plain static. Volatile: the compiler must not know the value, the verifier does.
    unsafe { core::ptr::read_volatile(&raw const CALLS) }
}

/// An allocator call that has returned; `address` is 0 when it failed.
#[inline(always)]
pub fn returned(space: u64, call: &Call, address: u64) {
    let taken = (call.flags & TAKEN) / TAKEN;
    send(
        space,
        [call.function, taken * OLD_KNOWN],
        [call.context, call.ip, address],
        [
            call.size,
            call.old_address,
            call.old.size(),
            call.old.born_ns,
            0,
        ],
    );
}

/// A free that begins: what it is and its flags, its path, place and block.
#[inline(always)]
pub fn freed(space: u64, what: [u32; 2], [path, ip, block]: [u64; 3], old: &LiveValue) {
    send(
        space,
        what,
        [path, ip, 0],
        [0, block, old.size(), old.born_ns, 0],
    );
}

/// A system call that changes mappings, whatever it returned.
#[inline(always)]
pub fn mapped(space: u64, [call, flags]: [u32; 2], [path, result]: [u64; 2], arguments: &[u64; 5]) {
    send(
        space,
        [OTHER_PROBES + call, flags],
        [path, 0, result],
        *arguments,
    );
}

/// What became of a process.
#[inline(always)]
pub fn life(what: u32, space: u64, [first, second]: [u64; 2]) {
    send(space, [what, 0], [0; 3], [first, second, 0, 0, 0]);
}

/// Written in the ring buffer itself: a program's stack has no room for it beside the rest.
#[inline(always)]
fn send(space: u64, [what, flags]: [u32; 2], [context, ip, result]: [u64; 3], values: [u64; 5]) {
    let Some(mut record) = EVENTS.reserve::<CallEvent>(0) else {
        count(Counter::CallEventLost, 1);
        if let Some(lost) = CALLS_LOST.get_ptr_mut(0) {
            add(lost, 1);
        }
        return;
    };
    let lost = CALLS_LOST.get(0).copied().unwrap_or(0);
    let header = header(EventKind::Call, bpf_get_current_pid_tgid(), space);
    let event = record.as_mut_ptr();
    // SAFETY: the record is as large as the event, and aligned; every field is written. The helper
    // writes sixteen bytes.
    unsafe {
        (*event).header = header;
        (*event).what = what;
        (*event).flags = flags;
        (*event).lost = lost;
        bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
        (*event).context = context;
        (*event).ip = ip;
        (*event).result = result;
        (*event).values = values;
    }
    record.submit(u64::from(wake()));
}

/// The reader looks by itself many times a second: it is woken when the ring fills, because a
/// wake-up costs more than the call.
#[inline(always)]
fn wake() -> u32 {
    if EVENTS.query(AVAILABLE) > EVENTS.query(SIZE) / 4 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }
}
