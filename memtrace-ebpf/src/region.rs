//! System calls that change the mappings, as they succeed; user space cuts the intervals (R18-R20).

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
};
use memtrace_common::{
    Counter, EventKind, REGION_FINGERPRINT, RegionCall, RegionEvent,
    events::{IN_ALLOCATOR, NO_CALLS, OTHER_PROBES},
    thread::Thread,
};

use crate::{
    calls, context,
    event::header,
    maps::{EVENTS, count},
    registers::{Place, system_call_arguments},
    settings,
    thread::{self, call_at},
};

/// Results from here on are error numbers.
const FIRST_ERROR: u64 = (-4095_i64).cast_unsigned();

/// Which system call has this number.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn call_of(number: u64) -> Option<RegionCall> {
    Some(match number {
        9 => RegionCall::Mmap,
        10 => RegionCall::Mprotect,
        11 => RegionCall::Munmap,
        12 => RegionCall::Brk,
        25 => RegionCall::Mremap,
        28 => RegionCall::Madvise,
        _ => return None,
    })
}

/// See above.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn call_of(number: u64) -> Option<RegionCall> {
    Some(match number {
        214 => RegionCall::Brk,
        215 => RegionCall::Munmap,
        216 => RegionCall::Mremap,
        222 => RegionCall::Mmap,
        226 => RegionCall::Mprotect,
        233 => RegionCall::Madvise,
        _ => return None,
    })
}

/// Entry: the time, because what another thread maps while a `munmap` is on its way back is not
/// what that one unmapped.
#[inline(always)]
pub fn begin(call: RegionCall) {
    let Some(thread) = thread::current() else {
        return;
    };
    // SAFETY: a helper without arguments.
    thread.entered_ns = unsafe { bpf_ktime_get_ns() };
    thread.system_call = call as u32;
}

/// Return of any system call: of interest when one of ours was entered.
#[inline(always)]
pub fn leave(regs: *const pt_regs, result: u64) {
    let Some(thread) = thread::known(bpf_get_current_pid_tgid() as u32) else {
        return;
    };
    if thread.system_call != 0 {
        returned(thread, thread.system_call, regs, result);
    }
}

/// Return of one of ours.
#[inline(always)]
pub fn end(call: RegionCall, regs: *const pt_regs, result: u64) {
    let Some(thread) = thread::current() else {
        return;
    };
    if thread.system_call != call as u32 {
        // Entered before the attach.
        thread.entered_ns = 0;
    }
    returned(thread, call as u32, regs, result);
}

#[inline(always)]
fn returned(thread: &mut Thread, call: u32, regs: *const pt_regs, result: u64) {
    thread.system_call = 0;
    count(Counter::RegionHits, 1);
    let each = calls::wanted() != NO_CALLS;
    if result >= FIRST_ERROR && !each {
        return;
    }
    let arguments = system_call_arguments(regs);
    let place = Place::read(regs);
    let mut flags = 0;
    if thread.depth > 0 {
        // A call that was left by longjmp lies below.
        // SAFETY: a pointer into this thread's own state.
        let innermost = unsafe { &*call_at(thread, thread.depth - 1) };
        if innermost.sp >= place.sp {
            flags = IN_ALLOCATOR;
        }
    }
    let wanted = settings().regions != 0 && (each || makes_memory(call, &arguments));
    let [call, flags, wanted] = forgotten(thread, [call, flags, u32::from(wanted)]);
    let mut fingerprint = 0;
    if wanted != 0 {
        thread.reading = 1;
        fingerprint = context::of_place(
            thread,
            &place,
            place.sp,
            OTHER_PROBES + call,
            REGION_FINGERPRINT,
        );
        thread.reading = 0;
    }
    if each {
        calls::mapped(
            thread.space,
            [call, flags],
            [fingerprint, result],
            &arguments,
        );
        return;
    }
    let event = RegionEvent {
        header: header(EventKind::Region, bpf_get_current_pid_tgid(), thread.space),
        entered_ns: thread.entered_ns,
        context: fingerprint,
        result,
        arguments,
        call,
        flags,
    };
    if EVENTS.output::<RegionEvent>(&event, 0).is_err() {
        count(Counter::RegionEventLost, 1);
    }
}

/// The values as the verifier cannot know them any more: it would follow the hashing, which is most
/// of the program, once for each way that led here (Linux 5.10 gives up).
#[inline(always)]
fn forgotten(thread: &mut Thread, values: [u32; 3]) -> [u32; 3] {
    let scratch: *mut u32 = thread.window.as_mut_ptr().cast();
    // SAFETY: the window is larger, and holds nothing between two hashes.
    unsafe {
        for (index, value) in values.into_iter().enumerate() {
            core::ptr::write_volatile(scratch.add(index), value);
        }
        [
            core::ptr::read_volatile(scratch),
            core::ptr::read_volatile(scratch.add(1)),
            core::ptr::read_volatile(scratch.add(2)),
        ]
    }
}

/// Whether a call can make memory usable that was not, so that its path matters.
#[inline(always)]
fn makes_memory(call: u32, arguments: &[u64; 5]) -> bool {
    const MMAP: u32 = RegionCall::Mmap as u32;
    const MREMAP: u32 = RegionCall::Mremap as u32;
    const BRK: u32 = RegionCall::Brk as u32;
    const MPROTECT: u32 = RegionCall::Mprotect as u32;
    match call {
        MMAP | MREMAP => true,
        BRK => arguments[0] != 0,
        MPROTECT => arguments[2] != 0,
        _ => false,
    }
}
