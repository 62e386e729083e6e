//! The one copy of registers and stack that a new context gets.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_user};
use memtrace_common::{
    ContextHeader, Counter, EventKind, MAX_CALLS, STACK_COPY_BYTES, events::MAX_EVENT_BYTES,
    thread::Thread,
};

use crate::{
    event,
    maps::{EVENTS, count},
    registers::Place,
};

const PAGE: u64 = 4096;

/// Sends registers and stack to user space; false when the ring buffer has no room.
#[inline(always)]
pub fn send(
    thread: &mut Thread,
    place: &Place,
    fingerprint: u64,
    narrow: u64,
    function: u32,
) -> bool {
    let Some(mut record) = EVENTS.reserve_bytes(MAX_EVENT_BYTES, 0) else {
        return false;
    };
    let base = record.as_mut_ptr();
    // SAFETY: the record is MAX_EVENT_BYTES long: the header's size plus STACK_COPY_BYTES.
    let stack_len = copy_stack(unsafe { base.add(size_of::<ContextHeader>()) }, place.sp);
    let header: *mut ContextHeader = base.cast();
    let common = event::header(EventKind::Context, bpf_get_current_pid_tgid(), thread.space);
    // SAFETY: the record begins with room for the header, 8-byte aligned. Field by field: the whole
    // has no room on the program's stack.
    unsafe {
        (*header).header = common;
        (*header).image = thread.image;
        (*header).fingerprint = fingerprint;
        (*header).narrow = narrow;
        (*header).ip = place.ip;
        (*header).sp = place.sp;
        (*header).fp = place.fp;
        (*header).lr = place.lr;
        (*header).stack_len = stack_len;
        (*header).function = function;
    }
    for index in 0..MAX_CALLS {
        let call = &thread.calls[index];
        let known = u64::from((index as u32) < thread.depth);
        // SAFETY: as above; volatile, or it becomes a loop of bytes.
        unsafe {
            let slot: *mut u64 = (&raw mut (*header).pending[index]).cast();
            core::ptr::write_volatile(slot, call.sp * known);
            core::ptr::write_volatile(slot.add(1), call.return_to * known);
        }
    }
    record.submit(0);
    count(Counter::StackCopies, 1);
    true
}

/// Reads memory of the target; false when it is not all there, then zeros are written.
#[inline(always)]
fn read_user(target: *mut u8, length: u32, source: u64) -> bool {
    let source = source as *const core::ffi::c_void;
    // SAFETY: the callers have room for `length`; the helper checks the source.
    unsafe { bpf_probe_read_user(target.cast(), length, source.cast()) == 0 }
}

/// Copies the stack block by block; the number of bytes up to the last that could be read. Pages
/// that no function has touched yet (of a large array) cannot be read and are zeros: the helper
/// fills what it fails to read with them.
#[inline(always)]
fn copy_stack(target: *mut u8, sp: u64) -> u32 {
    const BLOCKS: u64 = STACK_COPY_BYTES as u64 / PAGE;
    // Of every block that much lies on its first page.
    let rest = PAGE - (sp & (PAGE - 1));
    let mut copied = 0;
    for block in 0..BLOCKS {
        let offset = block * PAGE;
        let source = sp + offset;
        // SAFETY: offset + PAGE stays within STACK_COPY_BYTES.
        let place = unsafe { target.add(offset as usize) };
        if read_user(place, PAGE as u32, source) {
            copied = offset + PAGE;
            continue;
        }
        if rest == PAGE {
            continue;
        }
        let rest = rest & (PAGE - 1);
        if read_user(place, rest as u32, source) {
            copied = offset + rest;
        }
        // The last block's would have no room as far as the verifier can tell.
        if block + 1 < BLOCKS {
            // SAFETY: `rest` is below PAGE, and another block follows.
            let behind = unsafe { place.add(rest as usize) };
            if read_user(behind, (PAGE - rest) as u32, source + rest) {
                copied = offset + PAGE;
            }
        }
    }
    copied as u32
}
