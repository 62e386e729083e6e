//! What a process's resident memory is made of (R24). Pure.
//!
//! The kernel's figures say how much of each mapping is resident, the other accounts say whose it
//! is. What neither explains is named so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a mapping is, as far as its name and flags tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// The area that `brk` moves, or an arena of malloc's.
    AllocatorArea,
    /// Another private mapping without a file.
    Anonymous,
    /// A file, with the pages of it that were written to privately.
    File,
    /// Memory shared with other processes.
    Shared,
    /// A thread's stack.
    Stack,
}

/// Resident bytes of one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub mapped: Mapped,
    /// Resident bytes.
    pub rss: u64,
    /// Of those, bytes in regions that the program mapped for itself since the attach.
    pub own_regions: u64,
    /// Of those, bytes in regions that an allocator mapped for itself since the attach.
    pub allocator: u64,
}

/// What else is known of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Bytes of live blocks allocated since the attach; nothing when the heap is not traced.
    pub heap_outstanding: Option<u64>,
    /// Mappings since the attach are known one by one.
    pub regions_traced: bool,
    /// Resident private memory at the attach; 0 for a program that was started under the trace.
    pub private_at_attach: u64,
}

/// The parts of a process's resident memory, in bytes; they add up to `rss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reconciliation {
    /// All of it.
    pub rss: u64,
    /// Live blocks since the attach; null when the heap is not traced. Requested bytes, at most what is
    /// resident.
    pub heap_outstanding: Option<u64>,
    /// Private memory that was resident at the attach, as far as it can still be: whether it is in
    /// use is unknown.
    pub before_attach: u64,
    /// Held by allocators without a live block in it: free lists, fragmentation, headers.
    pub heap_retained: u64,
    /// Private mappings of the program's own since the attach; 0 when regions are not traced.
    pub regions: u64,
    /// Files.
    pub file: u64,
    /// Shared memory.
    pub shared: u64,
    /// Thread stacks.
    pub stack: u64,
    /// The rest: private memory that no account explains.
    pub unexplained: u64,
}

/// A part by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Live blocks.
    HeapOutstanding,
    /// Held by allocators.
    HeapRetained,
    /// The program's own mappings.
    Regions,
    /// Files.
    File,
    /// Shared memory.
    Shared,
    /// Thread stacks.
    Stack,
    /// The rest.
    Unexplained,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeapOutstanding => "live blocks of the heap",
            Self::HeapRetained => "memory the allocator holds without live blocks",
            Self::Regions => "mappings of the program's own",
            Self::File => "files",
            Self::Shared => "shared memory",
            Self::Stack => "thread stacks",
            Self::Unexplained => "private memory that no probe explains",
        })
    }
}

impl Reconciliation {
    /// Puts the parts together.
    #[must_use]
    pub fn of(parts: &[Part], known: &Known) -> Self {
        let sum = |wanted: Mapped| -> u64 {
            parts
                .iter()
                .filter(|p| p.mapped == wanted)
                .map(|p| p.rss)
                .sum()
        };
        let (area, anonymous) = (sum(Mapped::AllocatorArea), sum(Mapped::Anonymous));
        let private = area + anonymous;
        let regions = parts
            .iter()
            .filter(|p| matches!(p.mapped, Mapped::Anonymous | Mapped::AllocatorArea))
            .map(|p| p.own_regions.min(p.rss))
            .sum::<u64>();
        let mut rest = private - regions;
        let mut take = |wanted: u64| {
            let taken = wanted.min(rest);
            rest -= taken;
            taken
        };
        let heap_outstanding = known.heap_outstanding.map(&mut take);
        let before_attach = take(known.private_at_attach);
        // Where mappings are known, what allocators mapped is; else every area that can be theirs.
        let by_allocators = if known.regions_traced {
            area + parts
                .iter()
                .filter(|p| p.mapped == Mapped::Anonymous)
                .map(|p| p.allocator.min(p.rss))
                .sum::<u64>()
        } else {
            area
        };
        let explained = heap_outstanding.unwrap_or(0) + before_attach;
        let heap_retained = match heap_outstanding {
            Some(_) => take(by_allocators.saturating_sub(explained.min(by_allocators))),
            None => 0,
        };
        Self {
            rss: parts.iter().map(|p| p.rss).sum(),
            heap_outstanding,
            before_attach,
            heap_retained,
            regions,
            file: sum(Mapped::File),
            shared: sum(Mapped::Shared),
            stack: sum(Mapped::Stack),
            unexplained: rest,
        }
    }

    /// The part that grew most since an earlier reconciliation, and by how much; nothing when
    /// nothing grew.
    #[must_use]
    pub fn largest_grower(&self, before: &Self) -> Option<(Share, u64)> {
        let grew = |now: u64, then: u64| now.saturating_sub(then);
        let outstanding = |of: &Self| of.heap_outstanding.unwrap_or(0);
        [
            (
                Share::HeapOutstanding,
                grew(outstanding(self), outstanding(before)),
            ),
            (Share::Regions, grew(self.regions, before.regions)),
            (
                Share::HeapRetained,
                grew(self.heap_retained, before.heap_retained),
            ),
            (Share::File, grew(self.file, before.file)),
            (Share::Shared, grew(self.shared, before.shared)),
            (Share::Stack, grew(self.stack, before.stack)),
            (
                Share::Unexplained,
                grew(self.unexplained, before.unexplained),
            ),
        ]
        .into_iter()
        // The first of equals.
        .rev()
        .max_by_key(|(_, bytes)| *bytes)
        .filter(|(_, bytes)| *bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(mapped: Mapped, rss: u64) -> Part {
        Part {
            mapped,
            rss,
            own_regions: 0,
            allocator: 0,
        }
    }

    /// A heap that holds less than is resident of it: the difference is the allocator's.
    #[test]
    fn fragmentation() {
        let parts = [part(Mapped::AllocatorArea, 100), part(Mapped::File, 20)];
        let known = Known {
            heap_outstanding: Some(10),
            private_at_attach: 30,
            ..Known::default()
        };
        let now = Reconciliation::of(&parts, &known);
        assert_eq!((now.heap_outstanding, now.before_attach), (Some(10), 30));
        assert_eq!((now.heap_retained, now.file, now.unexplained), (60, 20, 0));
        let grew = now.largest_grower(&Reconciliation::default());
        assert_eq!(grew, Some((Share::HeapRetained, 60)));
    }

    /// Mappings of the program's own, and memory that is nobody's.
    #[test]
    fn own_mappings() {
        let mut mapped = part(Mapped::Anonymous, 100);
        mapped.own_regions = 70;
        let known = Known {
            heap_outstanding: Some(0),
            regions_traced: true,
            ..Known::default()
        };
        let now = Reconciliation::of(&[mapped], &known);
        assert_eq!(
            (now.regions, now.heap_retained, now.unexplained),
            (70, 0, 30)
        );
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let kind = prop_oneof![
            Just(Mapped::AllocatorArea),
            Just(Mapped::Anonymous),
            Just(Mapped::File),
            Just(Mapped::Shared),
            Just(Mapped::Stack),
        ];
        let part = (kind, 0..1000_u64, 0..1500_u64, 0..1500_u64).prop_map(
            |(mapped, rss, own_regions, allocator)| Part {
                mapped,
                rss,
                own_regions,
                allocator,
            },
        );
        proptest::collection::vec(part, 0..12)
    }

    proptest! {
        /// Whatever is known, the parts add up to what is resident.
        #[test]
        fn adds_up(parts in parts(), heap in proptest::option::of(0..3000_u64), before in 0..2000_u64, regions in any::<bool>()) {
            let known = Known {
                heap_outstanding: heap,
                regions_traced: regions,
                private_at_attach: before,
            };
            let r = Reconciliation::of(&parts, &known);
            let sum = r.heap_outstanding.unwrap_or(0) + r.before_attach + r.heap_retained + r.regions
                + r.file + r.shared + r.stack + r.unexplained;
            prop_assert_eq!(sum, r.rss);
            prop_assert_eq!(r.rss, parts.iter().map(|p| p.rss).sum::<u64>());
        }
    }
}
