//! Processes and threads coming and going, and executable mappings appearing (R13–R15).
//!
//! Field offsets are those of the event's format files; user space checks them before loading.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    programs::{FEntryContext, ProbeContext, TracePointContext},
};
use memtrace_common::{
    Counter, EventKind, LifecycleEvent, MappingEvent, NO_SLOT, Target,
    events::{
        CGROUP_ATTACH_PID_OFFSET, EXEC_OLD_PID_OFFSET, LIFE_EXEC, LIFE_EXIT, LIFE_FORK,
        MMAP_PROT_OFFSET, NEWTASK_FLAGS_OFFSET, NEWTASK_PID_OFFSET, NO_CALLS,
    },
    heap::{FOLLOW_ALL, FOLLOW_EXEC, FOLLOW_FORK, WATCH_EXEC},
};

use crate::{
    calls,
    context::slot_of,
    event::{header, send},
    maps::{TARGETS, TEXT_GENERATION, THREADS, add, count},
    selection,
};

const CLONE_VM: u64 = 0x100;
const CLONE_THREAD: u64 = 0x1_0000;
const PROT_EXEC: u64 = 4;

/// A field of the tracepoint's record at a constant offset.
#[inline(always)]
pub fn field<T: Copy>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: the verifier checks the offset against the record's size; user space checked that
    // the field is there.
    unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<u8>().add(offset).cast()) }
}

#[inline(always)]
fn target(tgid: u32) -> Option<Target> {
    // SAFETY: copied at once.
    unsafe { TARGETS.get(tgid) }.copied()
}

/// `task:task_newtask`: threads are counted, a process that shares the parent's memory shares its
/// heap (R14), one that got a copy begins with an empty heap of its own (R13).
#[inline(always)]
pub fn newtask(ctx: &TracePointContext) {
    let flags: u64 = field(ctx, NEWTASK_FLAGS_OFFSET);
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if flags & CLONE_THREAD != 0 {
        if selection().modes & FOLLOW_FORK != 0
            && let Some(target) = TARGETS.get_ptr_mut(tgid)
        {
            // SAFETY: a map value's aligned field; all writers use atomic additions.
            add(unsafe { &raw mut (*target).threads }, 1);
        }
        return;
    }
    let Some(parent) = target(tgid) else {
        return;
    };
    let child: u32 = field(ctx, NEWTASK_PID_OFFSET);
    if calls::wanted() != NO_CALLS {
        calls::life(LIFE_FORK, parent.space, [u64::from(child), flags]);
    }
    if flags & CLONE_VM != 0 {
        let borrowing = Target {
            borrowed: 1,
            threads: 1,
            ..parent
        };
        if TARGETS.insert(child, borrowing, 0).is_err() {
            count(Counter::TargetTableFull, 1);
        }
    } else if selection().modes & FOLLOW_FORK == 0 {
        count(Counter::ForksNotFollowed, 1);
    } else {
        forked(tgid, &parent, child);
    }
}

/// The child is a target before it runs: not one of its calls is missed.
#[inline(always)]
fn forked(tgid: u32, parent: &Target, child: u32) {
    let mut event = LifecycleEvent {
        header: header(
            EventKind::Fork,
            u64::from(child) << 32 | u64::from(child),
            0,
        ),
        other_space: parent.space,
        other_tgid: tgid,
        by_exec: 0,
    };
    let space = new_space(child, event.header.time_ns);
    event.header.space = space;
    let target = Target {
        space,
        threads: 1,
        borrowed: 0,
        ..*parent
    };
    if TARGETS.insert(child, target, 0).is_err() {
        count(Counter::TargetTableFull, 1);
        return;
    }
    count(Counter::ForksFollowed, 1);
    send(&event);
}

/// Unique for as long as anyone looks: the time in 4 µs steps wraps after five hours, and the same
/// pid would have to be given again, or exec again, in the same step.
#[inline(always)]
fn new_space(tgid: u32, time_ns: u64) -> u64 {
    u64::from(tgid) << 32 | (time_ns >> 12) & 0xffff_ffff
}

/// `sched:sched_process_exec`: the heap is gone, a new one begins (R15).
#[inline(always)]
pub fn exec(ctx: &TracePointContext) {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // Also where the target is not known any more: a thread that takes its leader's id over.
    end_thread(id as u32);
    end_thread(field(ctx, EXEC_OLD_PID_OFFSET));
    let old = target(tgid);
    if calls::wanted() != NO_CALLS {
        let space = old.as_ref().map_or(0, |old| old.space);
        if space != 0 || (selection().modes != 0 && stays(false)) {
            calls::life(LIFE_EXEC, space, [0; 2]);
        }
    }
    if selection().modes == 0 {
        if let Some(old) = old {
            exec_of_one(id, tgid, &old);
        }
        return;
    }
    let old_space = match old {
        Some(old) if old.borrowed == 0 => old.space,
        _ => 0,
    };
    if !stays(old.is_some()) {
        if old.is_some() {
            let _ = TARGETS.remove(tgid);
        }
        if old_space != 0 {
            send(&LifecycleEvent {
                header: header(EventKind::Ended, id, old_space),
                other_space: 0,
                other_tgid: 0,
                by_exec: 1,
            });
        }
        if selection().modes & WATCH_EXEC != 0 {
            candidate(id);
        }
        return;
    }
    let mut event = LifecycleEvent {
        header: header(EventKind::Exec, id, 0),
        other_space: old_space,
        other_tgid: 0,
        by_exec: 0,
    };
    let space = new_space(tgid, event.header.time_ns);
    event.header.space = space;
    let target = Target {
        space,
        image: space,
        threads: 1,
        text_slot: NO_SLOT,
        borrowed: 0,
        anchor: 0,
        pad: 0,
    };
    if TARGETS.insert(tgid, target, 0).is_err() {
        count(Counter::TargetTableFull, 1);
        return;
    }
    send(&event);
}

/// The exec of a process that was named by its pid, and whose probes hang on it.
#[inline(always)]
fn exec_of_one(id: u64, tgid: u32, old: &Target) {
    if old.borrowed != 0 {
        let _ = TARGETS.remove(tgid);
        return;
    }
    let mut event = LifecycleEvent {
        header: header(EventKind::Exec, id, 0),
        other_space: old.space,
        other_tgid: 0,
        by_exec: 0,
    };
    let space = new_space(tgid, event.header.time_ns);
    event.header.space = space;
    next_generation(old.text_slot);
    let target = Target {
        space,
        image: space,
        ..*old
    };
    let _ = TARGETS.insert(tgid, target, 0);
    send(&event);
}

/// Whether the current process, which has just become another program, is to be traced.
#[inline(always)]
fn stays(was_target: bool) -> bool {
    let selection = selection();
    if selection.modes & FOLLOW_ALL != 0 || (was_target && selection.modes & FOLLOW_EXEC != 0) {
        return true;
    }
    if selection.comm[0] == 0 {
        return false;
    }
    let Ok(comm) = bpf_get_current_comm() else {
        return false;
    };
    let mut words = [0_u64; 2];
    for (index, byte) in comm.iter().enumerate() {
        words[index / 8] |= u64::from(*byte) << (index % 8 * 8);
    }
    words[0] == selection.comm[0] && words[1] == selection.comm[1]
}

/// User space finds out whether the process is to be traced.
#[inline(always)]
fn candidate(id: u64) {
    send(&LifecycleEvent {
        header: header(EventKind::Candidate, id, 0),
        other_space: 0,
        other_tgid: 0,
        by_exec: 0,
    });
}

/// `cgroup:cgroup_attach_task`: a process is put into a cgroup, as container runtimes do before
/// their program begins.
#[inline(always)]
pub fn moved(ctx: &TracePointContext) {
    let tid: u32 = field(ctx, CGROUP_ATTACH_PID_OFFSET);
    candidate(u64::from(tid) << 32 | u64::from(tid));
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
            if calls::wanted() != NO_CALLS {
                calls::life(LIFE_EXIT, target.space, [0; 2]);
            }
        }
        return;
    }
    if target.anchor == 0 {
        thread_ended(id, tgid, target.space);
        return;
    }
    if target.anchor != tid {
        return;
    }
    send(&LifecycleEvent {
        header: header(EventKind::Exit, id, target.space),
        other_space: 0,
        other_tgid: 0,
        by_exec: 0,
    });
}

/// With the last thread the process ends; its pid can be given to another at once. When two end at
/// the same time both may say so.
#[inline(always)]
fn thread_ended(id: u64, tgid: u32, space: u64) {
    let Some(target) = TARGETS.get_ptr_mut(tgid) else {
        return;
    };
    // SAFETY: a map value's aligned field; all writers use atomic additions.
    let threads = unsafe {
        add(&raw mut (*target).threads, u64::MAX);
        core::ptr::read_volatile(&raw const (*target).threads)
    };
    if threads != 0 {
        return;
    }
    let _ = TARGETS.remove(tgid);
    if calls::wanted() != NO_CALLS {
        calls::life(LIFE_EXIT, space, [0; 2]);
    }
    send(&LifecycleEvent {
        header: header(EventKind::Ended, id, space),
        other_space: 0,
        other_tgid: 0,
        by_exec: 0,
    });
}

/// Entry of `security_mmap_file`: a mapping is being made.
#[inline(always)]
pub fn mmap_file(ctx: &FEntryContext) {
    mapping(ctx.arg(1));
}

/// The same where that is a kprobe.
#[inline(always)]
pub fn file_is_mapped(ctx: &ProbeContext) {
    if let Some(prot) = ctx.arg(1) {
        mapping(prot);
    }
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
    let slot = match target.text_slot {
        NO_SLOT => slot_of(target.image).unwrap_or(NO_SLOT),
        slot => slot,
    };
    let generation = next_generation(slot);
    send(&MappingEvent {
        header: header(EventKind::Mapping, id, target.space),
        generation,
        text_slot: slot,
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
