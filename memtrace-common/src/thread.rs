//! Per-thread state of the kernel side: the value of the THREADS map.

use crate::{FINGERPRINT_BYTES, LiveValue, MAX_CALLS};

/// Words of the fingerprint window.
pub const WINDOW_WORDS: usize = FINGERPRINT_BYTES / 8;

/// The block counts (size filter and sampling said so).
pub const RECORD: u32 = 1;
/// `old` was taken out of the live table.
pub const TAKEN: u32 = 2;
/// Where the sampling epoch stands in [`Call::flags`].
pub const EPOCH_SHIFT: u32 = 16;

/// One allocator call in flight.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Stack pointer at entry: identifies the call (R10).
    pub sp: u64,
    /// Requested bytes.
    pub size: u64,
    /// Fingerprint to count under.
    pub context: u64,
    /// Where posix_memalign writes its result.
    pub out_pointer: u64,
    /// The block given to realloc, 0 for none.
    pub old_address: u64,
    /// That block's record when [`TAKEN`].
    pub old: LiveValue,
    /// A block that a nested call returned and that is not recorded yet: it may be this call's
    /// own result (R9).
    pub inner_address: u64,
    /// Its size.
    pub inner_size: u64,
    /// Where it returns to, before a return probe puts its trampoline there (R26); 0 when unknown.
    pub return_to: u64,
    /// Where it was entered; only set where each call is sent.
    pub ip: u64,
    /// A [`crate::Function`].
    pub function: u32,
    /// [`RECORD`], [`TAKEN`], and the sampling epoch above [`EPOCH_SHIFT`].
    pub flags: u32,
}

/// Probe hits of one thread, in its own state because nobody else writes there: a shared counter
/// would cost a twentieth of a hit. Added to the counters when the thread ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadHits {
    /// Runs of an allocation function's entry program.
    pub entries: u64,
    /// Runs of the return program.
    pub returns: u64,
    /// Runs of a free function's program.
    pub frees: u64,
    /// Frees of addresses that are not in the table.
    pub unmatched: u64,
    /// Runs of the program on return instructions, which are single-stepped.
    pub stepped_returns: u64,
}

/// State of one thread; only that thread's own probes touch it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    /// What its probes did.
    pub hits: ThreadHits,
    /// Address space of its process.
    pub space: u64,
    /// The one that was forked from (see [`crate::Target::image`]).
    pub image: u64,
    /// Slot of its text table.
    pub text_slot: u32,
    /// Calls in flight.
    pub depth: u32,
    /// Bytes until the next sample.
    pub until_sample: i64,
    /// Sampling epoch `until_sample` was drawn in, plus one; 0 before the first draw.
    pub sample_epoch: u64,
    /// The address freed last: `operator delete` and the `free` it calls are one free (R9).
    pub last_freed: u64,
    /// When the system call in flight was entered.
    pub entered_ns: u64,
    /// Which that is: a [`crate::RegionCall`], 0 for none.
    pub system_call: u32,
    /// 1 while a program reads the user's memory: a fault that this causes is none of the program's.
    pub reading: u32,
    /// The calls, outermost first.
    pub calls: [Call; MAX_CALLS],
    /// Window of the user stack being hashed. Not on the program's stack (too small) and not per
    /// CPU (programs can be preempted).
    pub window: [u64; WINDOW_WORDS],
}

const _: () = assert!(size_of::<Call>() == 104);

const _: () = assert!(size_of::<Thread>() == 40 + 64 + 104 * MAX_CALLS + FINGERPRINT_BYTES);
