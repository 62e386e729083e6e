//! Page faults: which call path touches memory first. User space finds out which of the pages are
//! anonymous memory, and which are still there.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, pt_regs},
    helpers::bpf_get_current_pid_tgid,
};
use memtrace_common::{
    Counter, EventKind, FAULT_FINGERPRINT, FaultEvent,
    events::{FAULT, FAULT_PRESENT, FAULT_WRITE, OTHER_PROBES},
    thread::Thread,
};

use crate::{
    context,
    event::header,
    maps::{EVENTS, count},
    registers::{Place, of_task, system_call_number},
    thread,
};

const PAGE: u64 = 4096;
/// An instruction was fetched: a file's page.
const FETCH: u64 = 16;
/// Of `enum fault_flag`, in 5.10 to 6.18.
const WRITE: u64 = 0x1;
const TRIED: u64 = 0x20;
const USER: u64 = 0x40;
const REMOTE: u64 = 0x80;
const INSTRUCTION: u64 = 0x100;
/// Addresses from here on are not the program's.
const USER_END: u64 = 1 << 56;
/// Faults wake the reader only when this much waits for it: a wake-up costs more than the fault.
const WAKE_BYTES: u64 = 1 << 20;
/// `BPF_RB_AVAIL_DATA`
const AVAILABLE: u64 = 0;
/// The system calls that uprobes come in by on newer kernels (335 and 336 on x86).
const PROBE_CALLS: core::ops::RangeInclusive<i64> = 335..=336;

/// Whether a fault can bring a new page of the program's memory.
#[inline(always)]
fn is_of_interest(address: u64, error: u64) -> bool {
    let changes = error & FAULT_PRESENT == 0 || error & FAULT_WRITE != 0;
    changes && error & FETCH == 0 && address < USER_END
}

/// A page that the program touches.
#[inline(always)]
pub fn user(address: u64, regs: *const pt_regs, error: u64) {
    if !is_of_interest(address, error) {
        return;
    }
    let Some(thread) = thread::current() else {
        return;
    };
    record(thread, &Place::read(regs), address, error);
}

/// A fault of either kind, as `handle_mm_fault` gets it: without the registers, and without whether the
/// page was there. A write is taken for one to a page that was, which is right of each page that is
/// known.
#[inline(always)]
pub fn by_function(address: u64, flags: u64) {
    // Another process's page, or the second try of one fault.
    if flags & (REMOTE | TRIED) != 0 {
        return;
    }
    let mut error = 0;
    if flags & WRITE != 0 {
        error |= FAULT_WRITE | FAULT_PRESENT;
    }
    if flags & INSTRUCTION != 0 {
        error |= FETCH;
    }
    if flags & USER != 0 {
        user(address, of_task(), error);
    } else {
        kernel(address, error);
    }
}

/// A page that the kernel touches in a system call of the program's.
#[inline(always)]
pub fn kernel(address: u64, error: u64) {
    if !is_of_interest(address, error) {
        return;
    }
    let Some(thread) = thread::current() else {
        return;
    };
    if thread.reading != 0 {
        return;
    }
    let regs = of_task();
    let number = system_call_number(regs);
    // Outside of one it is a probe that reads, and whose read fails.
    if number < 0 || PROBE_CALLS.contains(&number) {
        return;
    }
    record(thread, &Place::read(regs), address, error);
}

#[inline(always)]
fn record(thread: &mut Thread, place: &Place, address: u64, error: u64) {
    count(Counter::FaultHits, 1);
    thread.reading = 1;
    // The stack's own next page: what a caller left is above it.
    let on_stack = address & !(PAGE - 1) == place.sp & !(PAGE - 1);
    let from = if on_stack {
        (place.sp | (PAGE - 1)) + 1
    } else {
        place.sp
    };
    let what = OTHER_PROBES + FAULT;
    let fingerprint = context::of_place(thread, place, from, what, FAULT_FINGERPRINT);
    thread.reading = 0;
    let event = FaultEvent {
        header: header(EventKind::Fault, bpf_get_current_pid_tgid(), thread.space),
        address,
        context: fingerprint,
        flags: error & (FAULT_PRESENT | FAULT_WRITE),
    };
    let wake = if EVENTS.query(AVAILABLE) > WAKE_BYTES {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    if EVENTS
        .output::<FaultEvent>(&event, u64::from(wake))
        .is_err()
    {
        count(Counter::FaultEventLost, 1);
    }
}
