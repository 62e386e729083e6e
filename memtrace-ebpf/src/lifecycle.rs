//! Processes and threads coming and going, and executable mappings appearing (R13–R15).
//!
//! Field offsets are those of the event's format files; user space checks them before loading.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    programs::{FEntryContext, TracePointContext},
};
use memtrace_common::{
    Counter, EventHeader, EventKind, LifecycleEvent, MappingEvent, Target,
    events::{EXEC_OLD_PID_OFFSET, MMAP_PROT_OFFSET, NEWTASK_FLAGS_OFFSET, NEWTASK_PID_OFFSET},
};

use crate::maps::{EVENTS, TARGETS, TEXT_GENERATION, THREADS, count};

const CLONE_VM: u64 = 0x100;
const CLONE_THREAD: u64 = 0x1_0000;
const PROT_EXEC: u64 = 4;

/// A field of the tracepoint's record at a constant offset.
#[inline(always)]
fn field<T: Copy>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: the verifier checks the offset against the record's size; user space checked that
    // the field is there.
    unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<u8>().add(offset).cast()) }
}

#[inline(always)]
fn target(tgid: u32) -> Option<Target> {
    // SAFETY: copied at once.
    unsafe { TARGETS.get(tgid) }.copied()
}

#[inline(always)]
fn header(kind: EventKind, id: u64, space: u64) -> EventHeader {
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

#[inline(always)]
fn send<T: 'static>(event: &T) {
    if EVENTS.output::<T>(event, 0).is_err() {
        count(Counter::EventLost, 1);
    }
}

/// `task:task_newtask`: a process that shares the parent's memory shares its heap (R14).
#[inline(always)]
pub fn newtask(ctx: &TracePointContext) {
    let flags: u64 = field(ctx, NEWTASK_FLAGS_OFFSET);
    if flags & CLONE_THREAD != 0 {
        return;
    }
    let Some(parent) = target((bpf_get_current_pid_tgid() >> 32) as u32) else {
        return;
    };
    if flags & CLONE_VM == 0 {
        // A copy of the heap (R13), in a process that is not traced.
        count(Counter::ForksNotFollowed, 1);
        return;
    }
    let child: u32 = field(ctx, NEWTASK_PID_OFFSET);
    if TARGETS
        .insert(
            child,
            Target {
                borrowed: 1,
                ..parent
            },
            0,
        )
        .is_err()
    {
        count(Counter::TargetTableFull, 1);
    }
}

/// `sched:sched_process_exec`: the heap is gone, a new one begins (R15).
#[inline(always)]
pub fn exec(ctx: &TracePointContext) {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // Also where the target is not known any more: a thread that takes its leader's id over.
    end_thread(id as u32);
    end_thread(field(ctx, EXEC_OLD_PID_OFFSET));
    let Some(old) = target(tgid) else { return };
    if old.borrowed != 0 {
        let _ = TARGETS.remove(tgid);
        return;
    }
    let mut event = LifecycleEvent {
        header: header(EventKind::Exec, id, 0),
        other_space: old.space,
        other_tgid: 0,
        pad: 0,
    };
    // Unique for as long as anyone looks: the time in 4 µs steps wraps after five hours, and the
    // same process would have to exec in the same step.
    let space = u64::from(tgid) << 32 | (event.header.time_ns >> 12) & 0xffff_ffff;
    event.header.space = space;
    next_generation(old.text_slot);
    let _ = TARGETS.insert(tgid, Target { space, ..old }, 0);
    send(&event);
}

/// Removes a thread's state and keeps what it counted.
#[inline(always)]
fn end_thread(tid: u32) {
    let Some(thread) = THREADS.get_ptr(tid) else {
        return;
    };
    // SAFETY: a map value, copied; the thread it belongs to runs no probe any more.
    let hits = unsafe { (*thread).hits };
    if THREADS.remove(tid).is_ok() {
        count(Counter::EntryHits, hits.entries);
        count(Counter::ReturnHits, hits.returns);
        count(Counter::FreeHits, hits.frees);
        count(Counter::UnmatchedFrees, hits.unmatched);
        count(Counter::SteppedReturnHits, hits.stepped_returns);
    }
}

/// `sched:sched_process_exit`: the thread's calls are gone (R10). Probes hang on one thread of a
/// process: user space is told when that ends, others may go on.
#[inline(always)]
pub fn exit() {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    end_thread(tid);
    let Some(target) = target(tgid) else { return };
    if target.borrowed != 0 {
        if tgid == tid {
            let _ = TARGETS.remove(tgid);
        }
        return;
    }
    if target.anchor != tid {
        return;
    }
    send(&LifecycleEvent {
        header: header(EventKind::Exit, id, target.space),
        other_space: 0,
        other_tgid: 0,
        pad: 0,
    });
}

/// Entry of `security_mmap_file`: a mapping is being made.
#[inline(always)]
pub fn mmap_file(ctx: &FEntryContext) {
    mapping(ctx.arg(1));
}

/// `syscalls:sys_enter_mmap`: the same, asked for.
#[inline(always)]
pub fn mmap(ctx: &TracePointContext) {
    mapping(field(ctx, MMAP_PROT_OFFSET));
}

/// Code may appear that the text table does not know.
#[inline(always)]
fn mapping(prot: u64) {
    if prot & PROT_EXEC == 0 {
        return;
    }
    let id = bpf_get_current_pid_tgid();
    let Some(target) = target((id >> 32) as u32) else {
        return;
    };
    let generation = next_generation(target.text_slot);
    send(&MappingEvent {
        header: header(EventKind::Mapping, id, target.space),
        generation,
        text_slot: target.text_slot,
    });
}

/// Two threads can make one step of two: the table is distrusted all the same.
#[inline(always)]
fn next_generation(slot: u32) -> u32 {
    let Some(generation) = TEXT_GENERATION.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: a map value, aligned.
    unsafe {
        *generation = (*generation).wrapping_add(1);
        *generation
    }
}
