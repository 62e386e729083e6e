//! The kernel chooses a victim when memory runs out (R27).

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_probe_read_kernel_buf},
    programs::TracePointContext,
};
use memtrace_common::{
    Counter, EventKind, OomEvent,
    events::{OOM_PID_OFFSET, OOM_RECORD_BYTES},
};

use crate::{
    event::{header, send},
    maps::{TARGETS, THREADS, count},
};

/// `oom:mark_victim`, in the context of the task whose allocation failed.
///
/// What fields it has depends on the kernel (only `pid` up to 6.7, a dozen since): the record is
/// passed on as it is, and user space reads it by the event's format file. The buffer that it
/// stands in is a page or more on every kernel, so that reading more than the record is harmless.
#[inline(always)]
pub fn mark_victim(ctx: &TracePointContext) {
    let id = bpf_get_current_pid_tgid();
    let mut event = OomEvent {
        header: header(EventKind::Oom, id, 0),
        comm: bpf_get_current_comm().unwrap_or_default(),
        record: [0; OOM_RECORD_BYTES],
    };
    let record = ctx.as_ptr().cast::<u8>();
    // SAFETY: the helper checks what it reads, and writes into the buffer only.
    if unsafe { bpf_probe_read_kernel_buf(record, &mut event.record) }.is_err() {
        count(Counter::EventLost, 1);
        return;
    }
    let pid = u32::from_ne_bytes([
        event.record[OOM_PID_OFFSET],
        event.record[OOM_PID_OFFSET + 1],
        event.record[OOM_PID_OFFSET + 2],
        event.record[OOM_PID_OFFSET + 3],
    ]);
    event.header.space = space_of(pid);
    send(&event);
}

/// The traced address space of a thread: the victim's pid may be any thread's of it.
#[inline(always)]
fn space_of(tid: u32) -> u64 {
    // SAFETY: copied at once.
    if let Some(target) = unsafe { TARGETS.get(tid) } {
        return target.space;
    }
    match THREADS.get_ptr(tid) {
        // SAFETY: a map value; one aligned word.
        Some(thread) => unsafe { (*thread).space },
        None => 0,
    }
}
