//! The ABI between memtrace's kernel side and its user side.
//!
//! Everything here is `#[repr(C)]`, explicitly padded, plain data without logic; sizes and
//! offsets are asserted at compile time, because the two sides are compiled for different
//! targets. No type here is stable outside of one build: kernel object and binary travel together.
#![no_std]

pub mod counters;
pub mod events;
pub mod heap;
pub mod thread;
pub mod weight;

pub use counters::{COUNTERS, Counter};
pub use events::{
    CallEvent, ContextHeader, EventHeader, EventKind, FaultEvent, LifecycleEvent, MappingEvent,
    OomEvent, RegionCall, RegionEvent,
};
pub use heap::{
    Context, ContextKey, Function, LiveKey, LiveValue, NO_SLOT, Sampling, Selection, Settings,
    THREADS_UNKNOWN, Target, TextTable,
};

/// A fixed-point one for object weights: counters of objects are kept in 1/65536 of an object,
/// so that sampled weights (R22) add up without rounding.
pub const ONE_OBJECT: u64 = 1 << 16;

/// Bytes of user stack read for the context fingerprint of every recorded call.
pub const FINGERPRINT_BYTES: usize = 512;
/// Bytes of user stack hashed for contexts whose narrow fingerprint is ambiguous.
pub const MIDDLE_BYTES: usize = 2048;
/// Bytes of user stack hashed where those do not tell them apart either, and for checks.
pub const WIDE_BYTES: usize = 8192;
/// Bytes of user stack copied at most for a new context.
pub const STACK_COPY_BYTES: usize = 32 * 1024;
/// Granules in a [`TextTable`]. A power of two.
pub const TEXT_SLOTS: usize = 8192;
/// Entries of the ambiguity table. A power of two; indexed by the fingerprint's low bits.
pub const WIDE_SLOTS: usize = 4096;
/// Value of the ambiguity table: count by the narrow fingerprint, and check it now and then.
pub const WIDE_CHECK: u32 = 0;
/// The narrow fingerprint is ambiguous: the middle window is hashed at every hit, and that is checked
/// now and then.
pub const WIDE_MIDDLE: u32 = 1;
/// That is ambiguous, too: the wide window is hashed at every hit.
pub const WIDE_ALWAYS: u32 = 2;
/// The wide window differed for one and the same stack: no more checks.
pub const WIDE_NEVER: u32 = 3;
/// Calls in flight that are kept for one thread. Real nesting is at most four deep
/// (`reallocarray` → `realloc` → `malloc` → `mmap`).
pub const MAX_CALLS: usize = 8;
/// The bits of a fingerprint that say which probe it is of.
pub const PROBE_BITS: u64 = 3 << 61;
/// A fingerprint of an allocator call.
pub const HEAP_FINGERPRINT: u64 = 0;
/// A fingerprint of a system call that changes mappings.
pub const REGION_FINGERPRINT: u64 = 1 << 61;
/// A fingerprint of a page fault.
pub const FAULT_FINGERPRINT: u64 = 2 << 61;
/// Sampling rates one session can go through; the last one stays.
pub const MAX_SAMPLING_EPOCHS: usize = 64;

const _: () = assert!(TEXT_SLOTS.is_power_of_two());
const _: () = assert!(MIDDLE_BYTES.is_multiple_of(FINGERPRINT_BYTES) && MIDDLE_BYTES < WIDE_BYTES);
// One step wider is one more.
const _: () = assert!(WIDE_MIDDLE == WIDE_CHECK + 1 && WIDE_ALWAYS == WIDE_MIDDLE + 1);
const _: () = assert!(WIDE_SLOTS.is_power_of_two());
const _: () = assert!(MAX_CALLS.is_power_of_two());
const _: () = assert!(WIDE_BYTES.is_multiple_of(FINGERPRINT_BYTES));
