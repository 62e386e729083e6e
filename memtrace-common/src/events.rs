//! Records in the ring buffer. Each begins with an [`EventHeader`].

use crate::{MAX_CALLS, STACK_COPY_BYTES};

/// What follows an [`EventHeader`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`ContextHeader`] and a stack copy.
    Context = 1,
    /// [`LifecycleEvent`]: a traced process replaced its image.
    Exec = 2,
    /// [`LifecycleEvent`]: the thread that a traced process's probes hang on ended.
    Exit = 3,
    /// [`LifecycleEvent`]: a traced process created another.
    Fork = 4,
    /// [`MappingEvent`]: an executable mapping was made or asked for.
    Mapping = 5,
    /// [`RegionEvent`]: a system call changed the mappings.
    Region = 6,
    /// [`FaultEvent`]: a page was touched for the first time.
    Fault = 7,
    /// [`LifecycleEvent`]: the last thread of a traced process ended, or it became a program that
    /// is not traced.
    Ended = 10,
    /// [`LifecycleEvent`]: a program began, or moved to another cgroup, that may have to be traced.
    Candidate = 11,
    /// [`OomEvent`]: the kernel chose a process to kill.
    Oom = 16,
    /// [`CallEvent`]: one call, on its own; only where each one is wanted.
    Call = 20,
}

/// Head of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// An [`EventKind`].
    pub kind: u32,
    /// Thread group id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Explicit padding.
    pub pad: u32,
    /// Address space.
    pub space: u64,
    /// Monotonic nanoseconds.
    pub time_ns: u64,
}

/// A new context: registers at the probed function's entry; `stack_len` bytes of stack follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextHeader {
    /// Common head.
    pub header: EventHeader,
    /// The address space that this one was forked from (see [`crate::Target::image`]).
    pub image: u64,
    /// The fingerprint the kernel counts under.
    pub fingerprint: u64,
    /// The fingerprint before widening; equal to `fingerprint` unless that was ambiguous.
    pub narrow: u64,
    /// Instruction pointer (inside the probed function).
    pub ip: u64,
    /// Stack pointer: address of the first copied byte.
    pub sp: u64,
    /// Frame pointer register (rbp, x29).
    pub fp: u64,
    /// Link register (aarch64), 0 elsewhere.
    pub lr: u64,
    /// Valid bytes of the copy.
    pub stack_len: u32,
    /// A [`crate::Function`], or a [`RegionCall`] or [`FAULT`] above [`OTHER_PROBES`].
    pub function: u32,
    /// Calls in flight whose return address may be a return probe's trampoline (R26): the stack
    /// pointer at entry and where the call really returns to; 0 where there is none.
    pub pending: [[u64; 2]; MAX_CALLS],
}

/// Added to what is in [`ContextHeader::function`] when that is no [`crate::Function`].
pub const OTHER_PROBES: u32 = 100;
/// What a context is of that belongs to page faults.
pub const FAULT: u32 = 20;

/// A system call that changes mappings.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionCall {
    /// `mmap(address, length, prot, flags, fd)`
    Mmap = 1,
    /// `munmap(address, length)`
    Munmap = 2,
    /// `mremap(old, old_length, new_length, flags, new)`
    Mremap = 3,
    /// `brk(address)`
    Brk = 4,
    /// `madvise(address, length, advice)`
    Madvise = 5,
    /// `mprotect(address, length, prot)`
    Mprotect = 6,
}

impl RegionCall {
    /// By its number.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Mmap,
            2 => Self::Munmap,
            3 => Self::Mremap,
            4 => Self::Brk,
            5 => Self::Madvise,
            6 => Self::Mprotect,
            _ => return None,
        })
    }
}

/// The call was made by an allocator, for itself (R20).
pub const IN_ALLOCATOR: u32 = 1;

/// A system call that succeeded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionEvent {
    /// Common head; the time is that of the return.
    pub header: EventHeader,
    /// Monotonic nanoseconds of the entry.
    pub entered_ns: u64,
    /// Fingerprint of the call path; 0 when it was not asked for.
    pub context: u64,
    /// What the call returned.
    pub result: u64,
    /// Its first five arguments.
    pub arguments: [u64; 5],
    /// A [`RegionCall`].
    pub call: u32,
    /// [`IN_ALLOCATOR`] or 0.
    pub flags: u32,
}

/// The page was there, and written to against its protection (copy on write).
pub const FAULT_PRESENT: u64 = 1;
/// It was written to.
pub const FAULT_WRITE: u64 = 2;

/// A page fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultEvent {
    /// Common head.
    pub header: EventHeader,
    /// The address touched.
    pub address: u64,
    /// Fingerprint of the call path.
    pub context: u64,
    /// [`FAULT_PRESENT`], [`FAULT_WRITE`].
    pub flags: u64,
}

/// Fork, exec or exit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifecycleEvent {
    /// Common head; `space` is the one that began (exec, fork) or ended (exit). Fork: the child's.
    pub header: EventHeader,
    /// Exec: the space that ended, 0 when that was none of its own. Fork: the parent's space.
    pub other_space: u64,
    /// Fork: the parent's thread group. Else 0.
    pub other_tgid: u32,
    /// Ended: 1 when it became a program that is not traced. Else 0.
    pub by_exec: u32,
}

/// An executable mapping is about to appear.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingEvent {
    /// Common head.
    pub header: EventHeader,
    /// Generation of the space's mappings after this event.
    pub generation: u32,
    /// The space's [`crate::TextTable`] slot.
    pub text_slot: u32,
}

/// What of each call is sent: nothing, as long as calls are folded into tables.
pub const NO_CALLS: u64 = 0;
/// Each call, without its call path.
pub const EACH_CALL: u64 = 1;
/// Each call with its call path.
pub const EACH_CALL_WITH_PATH: u64 = 2;

/// Added to what [`CallEvent::what`] says of a process's life.
pub const LIFE: u32 = 200;
/// A process was forked; the child's id is the first value, the flags of clone the second.
pub const LIFE_FORK: u32 = LIFE + 1;
/// A program began.
pub const LIFE_EXEC: u32 = LIFE + 2;
/// The last thread ended.
pub const LIFE_EXIT: u32 = LIFE + 3;

/// The old block is known: its size and birth are given.
pub const OLD_KNOWN: u32 = 2;

/// One call that has returned (a free: that begins), or what became of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEvent {
    /// Common head; the time is that of the return.
    pub header: EventHeader,
    /// A [`crate::Function`], a [`RegionCall`] above [`OTHER_PROBES`], or `LIFE_*`.
    pub what: u32,
    /// [`IN_ALLOCATOR`], [`OLD_KNOWN`].
    pub flags: u32,
    /// Records of this kind that found no room before this one, since the start.
    pub lost: u64,
    /// The thread's name.
    pub comm: [u8; 16],
    /// Fingerprint of the call path; 0 when it was not asked for.
    pub context: u64,
    /// Where the probed function was entered; 0 for others.
    pub ip: u64,
    /// Allocators: the block, 0 when the call failed. System calls: what they returned.
    pub result: u64,
    /// Allocators: requested bytes, the old block (of realloc and free), its requested bytes, its
    /// birth in monotonic nanoseconds. System calls: the first five arguments.
    pub values: [u64; 5],
}

/// Bytes of the `oom:mark_victim` record that are passed on; the longest known one has 88.
pub const OOM_RECORD_BYTES: usize = 160;

/// A victim of the out-of-memory killer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomEvent {
    /// Common head: the process whose allocation failed, which often is not the victim; `space`
    /// is the victim's when it is traced, else 0.
    pub header: EventHeader,
    /// That process's name.
    pub comm: [u8; 16],
    /// The tracepoint's record, to be read by the event's format file.
    pub record: [u8; OOM_RECORD_BYTES],
}

/// Size of the largest record.
pub const MAX_EVENT_BYTES: usize = size_of::<ContextHeader>() + STACK_COPY_BYTES;

const _: () = assert!(size_of::<EventHeader>() == 32);
const _: () = assert!(size_of::<ContextHeader>() == 96 + 16 * MAX_CALLS);
const _: () = assert!(size_of::<RegionEvent>() == 104);
const _: () = assert!(size_of::<FaultEvent>() == 56);
const _: () = assert!(size_of::<LifecycleEvent>() == 48);
const _: () = assert!(size_of::<MappingEvent>() == 40);
const _: () = assert!(size_of::<OomEvent>() == 48 + OOM_RECORD_BYTES);
const _: () = assert!(size_of::<CallEvent>() == 128);

/// Offset of `pid` in the `task:task_newtask` record.
pub const NEWTASK_PID_OFFSET: usize = 8;
/// Offset of `clone_flags` in the `task:task_newtask` record.
pub const NEWTASK_FLAGS_OFFSET: usize = 32;
/// Offset of `pid` in the `cgroup:cgroup_attach_task` record.
pub const CGROUP_ATTACH_PID_OFFSET: usize = 24;
/// Offset of `old_pid` in the `sched:sched_process_exec` record.
pub const EXEC_OLD_PID_OFFSET: usize = 16;
/// Offset of `pid` in the `oom:mark_victim` record.
pub const OOM_PID_OFFSET: usize = 8;
/// Offset of `prot` in the `syscalls:sys_enter_mmap` record.
pub const MMAP_PROT_OFFSET: usize = 32;
/// Of `address` in `exceptions:page_fault_user` and `…_kernel`.
pub const FAULT_ADDRESS_OFFSET: usize = 8;
/// Of `error_code` in them.
pub const FAULT_ERROR_OFFSET: usize = 24;
