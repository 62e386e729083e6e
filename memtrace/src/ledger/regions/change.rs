//! System calls as changes of the mappings.

use memtrace_common::{RegionCall, RegionEvent, events::IN_ALLOCATOR};

use super::{Backing, Region};
use crate::id::Fingerprint;

// The same numbers on x86-64 and aarch64.
const MAP_SHARED: u64 = 0x01;
const MAP_TYPE: u64 = 0x0f;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_STACK: u64 = 0x2_0000;
const MAP_HUGETLB: u64 = 0x4_0000;
const MAP_HUGE_SHIFT: u64 = 26;
const HUGE_PAGE: u64 = 2 << 20;
const MREMAP_DONTUNMAP: u64 = 4;
const PROT_ANY: u64 = 7;
/// Advices after which pages are gone, or may go: DONTNEED, FREE, REMOVE, DONTNEED_LOCKED,
/// GUARD_INSTALL.
const DROPS: [u64; 5] = [4, 8, 9, 24, 102];

/// What a call made, and who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The call path; nothing when it was not asked for.
    pub owner: Option<Fingerprint>,
    /// An allocator called, for itself.
    pub allocator: bool,
    /// What is behind it.
    pub backing: Backing,
    /// Some access is allowed.
    pub accessible: bool,
    /// No promise of memory.
    pub unreserved: bool,
    /// A stack.
    pub stack: bool,
    /// Entry, monotonic nanoseconds.
    pub entered_ns: u64,
    /// Return.
    pub at_ns: u64,
}

impl Made {
    pub(super) fn region(&self, object: u64) -> Region {
        Region {
            owner: self.owner,
            backing: self.backing,
            accessible: self.accessible,
            unreserved: self.unreserved,
            stack: self.stack,
            allocator: self.allocator,
            born_ns: self.at_ns,
            object,
        }
    }
}

/// A change of the mappings. Ends need not be whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names are those of the system calls' arguments"
)]
pub enum Change {
    /// `mmap`: whatever was there is gone.
    Map { start: u64, end: u64, made: Made },
    /// `munmap`
    Unmap {
        start: u64,
        end: u64,
        entered_ns: u64,
        at_ns: u64,
    },
    /// `mremap`
    Move {
        old: u64,
        old_end: u64,
        new: u64,
        new_end: u64,
        keeps_old: bool,
        made: Made,
        entered_ns: u64,
    },
    /// `brk`: asked for, and where the end is now.
    Brk { asked: u64, end: u64, made: Made },
    /// `mprotect`
    Protect {
        start: u64,
        end: u64,
        accessible: bool,
        made: Made,
    },
    /// `madvise`: pages are gone, the mapping stays.
    Drop {
        start: u64,
        end: u64,
        entered_ns: u64,
        at_ns: u64,
    },
}

impl Change {
    /// What a call that succeeded changed; nothing for one that changes nothing, or that no kernel
    /// would have let succeed.
    #[must_use]
    pub fn of(event: &RegionEvent) -> Option<Self> {
        let [first, second, third, fourth, _] = event.arguments;
        let at_ns = event.header.time_ns;
        // Entered before the attach.
        let entered_ns = if event.entered_ns == 0 {
            at_ns
        } else {
            event.entered_ns
        };
        let made = Made {
            owner: Some(Fingerprint(event.context)),
            allocator: event.flags & IN_ALLOCATOR != 0,
            backing: Backing::Anonymous,
            accessible: true,
            unreserved: false,
            stack: false,
            entered_ns,
            at_ns,
        };
        let behind =
            |start: u64, length: u64| start.checked_add(length).filter(|end| *end < 1 << 63);
        let end = behind(first, second);
        Some(match RegionCall::of(event.call)? {
            RegionCall::Mmap => Self::Map {
                start: event.result,
                end: behind(event.result, whole_huge_pages(second, fourth)?)?,
                made: Made {
                    backing: backing(fourth),
                    accessible: third & PROT_ANY != 0,
                    unreserved: fourth & MAP_NORESERVE != 0,
                    stack: fourth & MAP_STACK != 0,
                    ..made
                },
            },
            RegionCall::Munmap => Self::Unmap {
                start: first,
                end: end?,
                entered_ns,
                at_ns,
            },
            RegionCall::Mremap => Self::Move {
                old: first,
                old_end: end?,
                new: event.result,
                new_end: behind(event.result, third)?,
                keeps_old: fourth & MREMAP_DONTUNMAP != 0,
                made,
                entered_ns,
            },
            RegionCall::Brk => Self::Brk {
                asked: first,
                end: event.result,
                made,
            },
            RegionCall::Madvise if DROPS.contains(&third) => Self::Drop {
                start: first,
                end: end?,
                entered_ns,
                at_ns,
            },
            RegionCall::Madvise => return None,
            RegionCall::Mprotect => Self::Protect {
                start: first,
                end: end?,
                accessible: third & PROT_ANY != 0,
                made,
            },
        })
    }

    /// When the call returned, monotonic nanoseconds.
    #[must_use]
    pub fn at_ns(&self) -> u64 {
        match self {
            Self::Map { made, .. }
            | Self::Move { made, .. }
            | Self::Brk { made, .. }
            | Self::Protect { made, .. } => made.at_ns,
            Self::Unmap { at_ns, .. } | Self::Drop { at_ns, .. } => *at_ns,
        }
    }
}

fn backing(flags: u64) -> Backing {
    match (
        flags & MAP_ANONYMOUS != 0,
        flags & MAP_TYPE & MAP_SHARED != 0,
    ) {
        (true, false) => Backing::Anonymous,
        (true, true) => Backing::Shared,
        (false, _) => Backing::File,
    }
}

/// The kernel maps whole huge pages where they were asked for.
fn whole_huge_pages(length: u64, flags: u64) -> Option<u64> {
    if flags & MAP_HUGETLB == 0 {
        return Some(length);
    }
    let size = match flags >> MAP_HUGE_SHIFT & 63 {
        0 => HUGE_PAGE,
        bits => 1 << bits,
    };
    length.checked_next_multiple_of(size)
}
