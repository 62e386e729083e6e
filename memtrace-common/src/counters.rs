//! Counters the kernel side keeps: probe hits, and one for every way to lose something (R12).

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal $name:literal $class:ident,)+) => {
        /// A counter's index in the COUNTERS map. Numbers are never reused.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter { $($(#[doc = $doc])+ $variant = $number,)+ }

        /// Every counter with its name in reports and metrics.
        pub const COUNTERS: &[(Counter, &str, Class)] =
            &[$((Counter::$variant, $name, Class::$class),)+];
    };
}

/// What a counter's growth means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Work done; no meaning for correctness.
    Work,
    /// Something worth knowing that loses nothing.
    Note,
    /// An allocation was not recorded: a leak may be hidden.
    LostAllocation,
    /// A free was not seen: a leak may be invented.
    LostFree,
    /// Bytes are right, but the stack they stand under may not be.
    LostAttribution,
}

counters! {
    /// Runs of an allocation function's entry program.
    EntryHits = 0 "entry_hits" Work,
    /// Runs of the return program.
    ReturnHits = 1 "return_hits" Work,
    /// Runs of a free function's program.
    FreeHits = 2 "free_hits" Work,
    /// Frees of addresses not in the table: allocated before the attach (R2).
    UnmatchedFrees = 3 "unmatched_frees" Note,
    /// The LIVE table was full or out of memory: the allocation is not recorded.
    LiveTableFull = 4 "live_table_full" LostAllocation,
    /// Bytes of the allocations counted under `live_table_full`.
    LiveTableFullBytes = 5 "live_table_full_bytes" LostAllocation,
    /// The THREADS table was full: a thread's calls are not recorded.
    ThreadTableFull = 6 "thread_table_full" LostAllocation,
    /// More than `MAX_CALLS` allocator calls nested in one thread.
    NestingTooDeep = 7 "nesting_too_deep" LostAllocation,
    /// A return without a recorded call (a missed entry, or one dropped as vanished).
    OrphanReturns = 8 "orphan_returns" LostAllocation,
    /// Calls in flight that never returned: longjmp, exceptions (R10).
    VanishedCalls = 9 "vanished_calls" Note,
    /// Vanished realloc calls whose old block's fate is unknown.
    VanishedReallocs = 10 "vanished_reallocs" LostAllocation,
    /// An insert hit a live address: a free was not seen (R11).
    MissedFrees = 11 "missed_frees" Note,
    /// The CONTEXTS table was full: bytes stand under "unattributed".
    ContextTableFull = 12 "context_table_full" LostAttribution,
    /// A stack copy found no room in the ring buffer; asked for again at the next hit.
    StackCopyLost = 13 "stack_copies_lost" Note,
    /// A lifecycle event found no room in the ring buffer.
    EventLost = 14 "lifecycle_events_lost" LostAttribution,
    /// The top of the user stack could not be read.
    StackReadFailed = 15 "stack_reads_failed" LostAttribution,
    /// The out-pointer of posix_memalign could not be read.
    OutPointerUnreadable = 16 "out_pointers_unreadable" LostAllocation,
    /// Contexts found to stand for several call paths, split since.
    AmbiguousContexts = 17 "ambiguous_contexts" Note,
    /// A block larger than 2^48 bytes.
    SizeTooLarge = 18 "sizes_too_large" LostAllocation,
    /// Stack copies sent.
    StackCopies = 19 "stack_copies" Work,
    /// Processes that a traced one forked: they are not traced.
    ForksNotFollowed = 20 "forks_not_followed" Note,
    /// The TARGETS table was full: a process that shares a traced address space is not traced.
    TargetTableFull = 21 "target_table_full" LostFree,
    /// Runs of the program on return instructions.
    SteppedReturnHits = 22 "stepped_return_hits" Work,
    /// Processes that were traced from their fork on.
    ForksFollowed = 30 "forks_followed" Work,
    /// System calls that changed mappings.
    RegionHits = 40 "region_hits" Work,
    /// A change of mappings found no room in the ring buffer: regions may be shown that are gone.
    RegionEventLost = 41 "region_events_lost" LostFree,
    /// Page faults.
    FaultHits = 42 "fault_hits" Work,
    /// A page fault found no room in the ring buffer: its page stands under no stack.
    FaultEventLost = 43 "fault_events_lost" LostAttribution,
    /// Windows of [`crate::FINGERPRINT_BYTES`] that were hashed beyond the first of a hit.
    MoreWindows = 45 "more_windows" Work,
    /// A call found no room in the ring buffer: `events` does not show it.
    CallEventLost = 50 "call_events_lost" Note,
}

/// Room in the COUNTERS map.
pub const MAX_COUNTERS: u32 = 64;

const _: () = assert!(COUNTERS.len() <= MAX_COUNTERS as usize);
