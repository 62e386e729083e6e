//! Per-thread state: which address space, and the allocator calls in flight (R4, R9, R10).

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user};
use memtrace_common::{
    Counter, MAX_CALLS,
    thread::{Call, EPOCH_SHIFT, RECORD, TAKEN, Thread},
};

use crate::{
    account,
    context::nonzero,
    maps::{EMPTY_THREAD, TARGETS, THREADS, count},
    registers::RETURN_POPS,
};

/// The call at `index`; masked so that the verifier sees the bound.
#[inline(always)]
pub fn call_at(thread: &mut Thread, index: u32) -> *mut Call {
    let mut index = index as usize;
    // SAFETY: one register is masked. In assembly, because the compiler would derive one
    // call's address from another's and lose the bound that the verifier needs.
    unsafe {
        core::arch::asm!(
            "{0} &= {mask}",
            inout(reg) index,
            mask = const MAX_CALLS - 1,
            options(nostack),
        );
    }
    let base = thread.calls.as_mut_ptr();
    // SAFETY: the mask keeps the index inside the array.
    unsafe { base.add(index) }
}

/// Which calls in flight have vanished.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Vanished {
    /// Those whose stack pointer is below the present one.
    Below,
    /// Those at it too: a call that was not jumped to has a place of its own. Also those whose
    /// return address was overwritten: what seems to be nested in them is not.
    BelowAtOrOverwritten,
}

/// Drops the calls that will never return (R10). A block that waited in one of them lives: it is
/// recorded.
#[inline(always)]
pub fn drop_vanished(thread: &mut Thread, sp: u64, which: Vanished) {
    if thread.depth == 0 {
        return;
    }
    let new_call = which == Vanished::BelowAtOrOverwritten;
    let limit = if new_call { sp } else { sp.wrapping_sub(1) };
    let (mut dropped, mut taken) = (0_u64, 0_u64);
    let mut depth = thread.depth;
    let (mut address, mut size, mut context, mut flags) = (0, 0, 0, 0);
    for _ in 0..MAX_CALLS {
        if depth == 0 {
            break;
        }
        // SAFETY: `call_at` returns a pointer into this state.
        let top = unsafe { &*call_at(thread, depth - 1) };
        if top.sp > limit && !(new_call && is_overwritten(top)) {
            break;
        }
        depth -= 1;
        dropped += 1;
        taken += u64::from((top.flags & TAKEN) / TAKEN);
        if top.inner_address != 0 && top.flags & RECORD != 0 {
            // Two such at once: a second call inside the second vanished one. Not seen yet.
            taken += nonzero(address);
            (address, size) = (top.inner_address, top.inner_size);
            (context, flags) = (top.context, top.flags);
        }
    }
    if dropped == 0 {
        return;
    }
    thread.depth = depth;
    count(Counter::VanishedCalls, dropped);
    count(Counter::VanishedReallocs, taken);
    if address != 0 {
        let epoch = flags >> EPOCH_SHIFT;
        account::record(thread.space, address, size, context, epoch, 0);
    }
}

/// Whether the return address of a call is no longer the return probe's trampoline, the start of a
/// page: the call was left by longjmp or an exception, and deeper calls have written there since.
/// Where return instructions are probed it never was the trampoline; what such a call calls counts
/// by itself, but for a call that holds a block, which is not overwritten while its return address
/// is what it was at the entry. Where return addresses come in a register, nobody knows.
#[inline(always)]
fn is_overwritten(call: &Call) -> bool {
    if RETURN_POPS == 0 {
        return false;
    }
    // SAFETY: the helper checks the address.
    let slot = unsafe { bpf_probe_read_user(call.sp as *const u64) };
    slot.is_ok_and(|address| {
        let unchanged = call.old_address != 0 && address == call.return_to;
        !is_trampoline(address) && !unchanged
    })
}

/// Whether a return address is that of the return probes' trampoline. Of others that are the
/// start of a page there is one in thousands.
#[inline(always)]
pub fn is_trampoline(address: u64) -> bool {
    const IN_PAGE: u64 = 4095;
    address & IN_PAGE == 0
}

/// The current thread's state when its process is traced; made on first sight.
#[inline(always)]
pub fn current() -> Option<&'static mut Thread> {
    let id = bpf_get_current_pid_tgid();
    let tid = id as u32;
    if let Some(thread) = known(tid) {
        return Some(thread);
    }
    enroll(tid, (id >> 32) as u32)
}

/// The current thread's state when it has one.
#[inline(always)]
pub fn known(tid: u32) -> Option<&'static mut Thread> {
    // SAFETY: map values are aligned and initialised; only this thread's probes use this one.
    THREADS
        .get_ptr_mut(tid)
        .map(|thread| unsafe { &mut *thread })
}

#[inline(always)]
fn enroll(tid: u32, tgid: u32) -> Option<&'static mut Thread> {
    // SAFETY: the value is copied out before anything can change the entry.
    let target = unsafe { TARGETS.get(tgid) }?;
    let (space, image, text_slot) = (target.space, target.image, target.text_slot);
    // SAFETY: the single entry of an array map is always there and zeroed.
    let empty = unsafe { &*EMPTY_THREAD.get_ptr(0)? };
    if THREADS.insert(tid, empty, 0).is_err() {
        count(Counter::ThreadTableFull, 1);
        return None;
    }
    let thread = known(tid)?;
    thread.space = space;
    thread.image = image;
    thread.text_slot = text_slot;
    Some(thread)
}
