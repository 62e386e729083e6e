//! The maps, each with its key, its size and why, and what happens when it is full.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf},
};
use memtrace_common::{
    Context, ContextKey, Counter, LiveKey, LiveValue, Sampling, Target, TextTable, WIDE_SLOTS,
    counters::MAX_COUNTERS, thread::Thread,
};

/// `BPF_F_NO_PREALLOC`. The loader clears it on kernels before 6.1, where run-time allocation
/// in tracing programs is not safe.
const NO_PREALLOC: u32 = 1;

/// Live blocks. 96 bytes an entry when allocated on demand, plus 16 for each bucket of the
/// capacity. Entries go at free, at exec and at exit; full: `live_table_full`.
#[map]
pub static LIVE: HashMap<LiveKey, LiveValue> = HashMap::with_max_entries(1 << 20, NO_PREALLOC);

/// Contexts and their counters, 128 bytes each. User space removes idle ones when it fills;
/// full: bytes go to fingerprint 0, `context_table_full`.
#[map]
pub static CONTEXTS: HashMap<ContextKey, Context> = HashMap::with_max_entries(1 << 16, NO_PREALLOC);

/// Traced processes by thread group id. Written by user space and by fork and exec.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(1 << 14, 0);

/// Text tables by image, for targets without a slot of their own. Written by user space; full: the
/// image's fingerprints are made without a table.
#[map]
pub static SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(1 << 10, 0);

/// Call paths of an image (the key's `space`) whose stack was copied, with the hash of their wide
/// window: a forked process has the same stacks. On demand, some 90 bytes each; full: stacks are
/// copied again.
#[map]
pub static KNOWN: HashMap<ContextKey, u64> = HashMap::with_max_entries(1 << 16, NO_PREALLOC);

/// State of the threads of traced processes by thread id: calls in flight. About 1.3 KiB each,
/// on demand; removed at thread exit; full: `thread_table_full`.
#[map]
pub static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(1 << 13, NO_PREALLOC);

/// One zeroed [`Thread`] to insert from: it does not fit the 512 bytes of a program's stack.
#[map]
pub static EMPTY_THREAD: Array<Thread> = Array::with_max_entries(1, 0);

/// Which addresses are code, one table for each slot handed out by user space.
#[map]
pub static TEXT: Array<TextTable> = Array::with_max_entries(1, 0);

/// Generation of a slot's mappings; a table of an older generation is not trusted.
#[map]
pub static TEXT_GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// What to do with fingerprints by their low bits: see the `WIDE_*` constants. Several
/// fingerprints share an entry; to widen one too many costs time, never truth.
#[map]
pub static WIDE: Array<u32> = Array::with_max_entries(WIDE_SLOTS as u32, 0);

/// The sampling rate, single entry, written by user space.
#[map]
pub static SAMPLING: Array<Sampling> = Array::with_max_entries(1, 0);

/// [`Counter`]s.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_COUNTERS, 0);

/// Contexts, lifecycle and mapping events to user space; 256 contexts in flight by default.
/// Full: a stack copy is asked for again at the next hit, other events count as lost.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Calls that found no room in the ring buffer, single entry: each record says how many were lost
/// before it, which a counter of each processor's own could not.
#[map]
pub static CALLS_LOST: Array<u64> = Array::with_max_entries(1, 0);

/// The programs that heap entries and frees continue in, see [`crate::context::DEEP`].
#[map]
pub static CONTINUE: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Adds to a counter. Atomic: newer kernels can preempt a program between load and store.
#[inline(always)]
pub fn count(counter: Counter, by: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        add(slot, by);
    }
}

/// Adds to a word in a map value atomically. The instruction that does not fetch: kernels before
/// 5.12 know no other, and the compiler has no stable name for it.
#[inline(always)]
pub fn add(word: *mut u64, by: u64) {
    // SAFETY: the callers pass aligned fields of map values, which live as long as the program.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0) += {by}",
            word = in(reg) word,
            by = in(reg) by,
            options(nostack),
        );
    }
}
