//! The kernel side's table of code addresses, made from the mappings.
//!
//! The fingerprint hashes the words of the stack that point into code. A word that is not code but
//! is taken for it (a heap pointer in a granule that is shared with code) would make a new context
//! of every call, so a granule is entered only when all of it is code or file contents that cannot
//! be written; a granule that is missing only weakens the fingerprint.

use memtrace_common::{TEXT_SLOTS, TextTable};

use super::maps::Mapping;

/// Addresses at and above this are no user addresses (x86-64 and aarch64 with five-level tables);
/// `[vsyscall]` is.
const ADDRESS_END: u64 = 1 << 56;
/// log2 of the smallest page.
const SHIFT_MIN: u32 = 12;
/// log2 of the coarsest granule tried; beyond it nothing is wholly code.
const SHIFT_MAX: u32 = 30;
/// Granules looked at for one shift: more cannot fit anyway.
const WALK_CAP: u64 = 4 * TEXT_SLOTS as u64;

// Tags count from 1 and must fit 32 bits.
const _: () = assert!((ADDRESS_END >> SHIFT_MIN) / TEXT_SLOTS as u64 <= u32::MAX as u64);

/// A table and how complete it is.
#[derive(Clone, Debug)]
pub struct Text {
    /// For the kernel.
    pub table: Box<TextTable>,
    /// Granules in it.
    pub granules: usize,
    /// Granules with code in them that are not in it: shared with memory that can be written, or
    /// in conflict with another one for their slot.
    pub left_out: usize,
    /// Bytes of code in those.
    pub left_out_bytes: u64,
}

/// Makes the table of the executable ones among `mappings` for a mapping generation.
#[must_use]
pub fn build(mappings: &[Mapping], generation: u32) -> Text {
    let code = ranges(mappings, is_code);
    let steady = ranges(mappings, |m| {
        is_code(m) || (m.is_file() && !m.permissions.write)
    });
    let mut best: Option<Text> = None;
    for shift in SHIFT_MIN..=SHIFT_MAX {
        let count: u64 = code
            .iter()
            .map(|r| ((r.end - 1) >> shift) - (r.start >> shift) + 1)
            .sum();
        if count > WALK_CAP {
            continue;
        }
        let text = fill(&code, &steady, shift, generation);
        let better = best
            .as_ref()
            .is_none_or(|b| text.left_out_bytes < b.left_out_bytes);
        let complete = text.left_out == 0;
        if better {
            best = Some(text);
        }
        if complete {
            break;
        }
    }
    best.unwrap_or_else(|| Text {
        table: empty(SHIFT_MIN, generation),
        granules: 0,
        left_out: code.len(),
        left_out_bytes: code.iter().map(|r| r.end - r.start).sum(),
    })
}

/// True when the table says that `address` is code: what the kernel side does with it.
#[must_use]
pub fn contains(table: &TextTable, address: u64) -> bool {
    let (slot, tag) = slot_and_tag(address >> table.shift);
    tag != 0 && table.tags.get(slot) == Some(&tag)
}

/// `[start, end)`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// Code whose addresses are on stacks. The kernel's own pages for probes are not: they appear with
/// the first probe hit, and would change every fingerprint then.
fn is_code(mapping: &Mapping) -> bool {
    mapping.permissions.execute
        && mapping.end <= ADDRESS_END
        && !mapping.path.to_string_lossy().starts_with("[uprobes")
}

/// The mappings that are wanted, sorted, with neighbours joined.
fn ranges(mappings: &[Mapping], wanted: impl Fn(&Mapping) -> bool) -> Vec<Range> {
    let mut all: Vec<Range> = mappings
        .iter()
        .filter(|m| m.start < m.end && wanted(m))
        .map(|m| Range {
            start: m.start,
            end: m.end,
        })
        .collect();
    all.sort_unstable_by_key(|r| r.start);
    let mut joined: Vec<Range> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn empty(shift: u32, generation: u32) -> Box<TextTable> {
    Box::new(TextTable {
        generation,
        shift,
        tags: [0; TEXT_SLOTS],
    })
}

/// Where a granule belongs. Tag 0 is no granule.
fn slot_and_tag(granule: u64) -> (usize, u32) {
    let slots = TEXT_SLOTS as u64;
    let tag = u32::try_from(granule / slots + 1).unwrap_or(0);
    (usize::try_from(granule % slots).unwrap_or(0), tag)
}

/// Enters every granule of `code` that lies wholly in `steady` and whose slot is free.
fn fill(code: &[Range], steady: &[Range], shift: u32, generation: u32) -> Text {
    let mut text = Text {
        table: empty(shift, generation),
        granules: 0,
        left_out: 0,
        left_out_bytes: 0,
    };
    let mut last = None;
    for range in code {
        for granule in range.start >> shift..=(range.end - 1) >> shift {
            let start = granule << shift;
            let end = start + (1 << shift);
            let entered = match last {
                // Two pieces of code can share a granule.
                Some((same, entered)) if same == granule => entered,
                _ => {
                    let entered = covers(steady, start, end) && enter(&mut text.table, granule);
                    text.granules += usize::from(entered);
                    text.left_out += usize::from(!entered);
                    entered
                }
            };
            last = Some((granule, entered));
            if !entered {
                text.left_out_bytes += range.end.min(end) - range.start.max(start);
            }
        }
    }
    text
}

/// True when one range holds all of `[start, end)`.
fn covers(ranges: &[Range], start: u64, end: u64) -> bool {
    let after = ranges.partition_point(|r| r.start <= start);
    after
        .checked_sub(1)
        .and_then(|i| ranges.get(i))
        .is_some_and(|r| end <= r.end)
}

/// First come, first served.
fn enter(table: &mut TextTable, granule: u64) -> bool {
    let (slot, tag) = slot_and_tag(granule);
    match table.tags.get_mut(slot) {
        Some(free @ 0) if tag != 0 => {
            *free = tag;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::Permissions;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A mapping of whole pages; `kind` is one of x (code), r (read-only file), w (writable), n
    /// (no access, anonymous).
    fn mapping(page: u64, pages: u64, kind: char) -> Mapping {
        let file = kind != 'n';
        Mapping {
            start: page * 4096,
            end: (page + pages) * 4096,
            permissions: Permissions {
                read: file,
                write: kind == 'w',
                execute: kind == 'x',
                shared: false,
            },
            offset: 0,
            device: (0, 0),
            inode: u64::from(file),
            path: if file { "/lib/x".into() } else { "".into() },
            deleted: false,
        }
    }

    /// A small program fits at page granularity, nothing is left out.
    #[test]
    fn small_programs_fit() {
        let maps = [
            mapping(0x400, 16, 'x'),
            mapping(0x410, 4, 'w'),
            mapping(0x7f00_0000, 400, 'x'),
        ];
        let text = build(&maps, 7);
        assert_eq!((text.table.shift, text.table.generation), (12, 7));
        assert_eq!((text.granules, text.left_out), (416, 0));
        assert!(contains(&text.table, 0x40_ffff) && !contains(&text.table, 0x41_0000));
        assert!(contains(&text.table, 0x7f00_0000 << 12));
    }

    /// 100 MiB of code need a coarser granule; its edges next to writable memory are left out.
    #[test]
    fn large_programs_use_coarser_granules() {
        let pages = 100 << 8;
        let maps = [
            mapping(0x1001, pages, 'x'),
            mapping(0x1001 + pages, 64, 'w'),
        ];
        let text = build(&maps, 1);
        assert_eq!(text.table.shift, 14);
        assert_eq!(text.left_out, 2);
        assert_eq!(text.left_out_bytes, 4 * 4096);
        assert!(!contains(&text.table, 0x1001 << 12));
        assert!(!contains(&text.table, (0x1001 + pages) << 12));
        assert!(contains(&text.table, 0x2000 << 12));
    }

    /// Read-only file contents beside code do no harm: their pointers never change.
    #[test]
    fn read_only_neighbours_are_fine() {
        let pages = 100 << 8;
        let maps = [
            mapping(0x1000, 1, 'r'),
            mapping(0x1001, pages, 'x'),
            mapping(0x1001 + pages, 3, 'r'),
        ];
        assert_eq!(build(&maps, 1).left_out, 0);
    }

    /// Code mappings larger than any memory, and addresses of the kernel's, cost nothing.
    #[test]
    fn absurd_mappings_are_bounded() {
        let mut all = mapping(1, 1, 'x');
        all.end = u64::MAX;
        assert_eq!(build(&[all], 1).granules, 0);
        let half = mapping(1, 1 << 43, 'x');
        let text = build(&[half], 1);
        assert!(text.left_out > 0 && text.granules <= TEXT_SLOTS);
        assert_eq!(build(&[], 1).left_out, 0);
    }

    /// The kernel's own pages for probes are not code of the program.
    #[test]
    fn probe_pages_are_left_aside() {
        let mut page = mapping(5, 1, 'x');
        page.path = "[uprobes]".into();
        assert_eq!(build(&[page], 1).granules, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Against a model that looks at every page: an address found is in steady memory, in a
        /// granule with code; what is not found is in a granule that was counted as left out.
        #[test]
        fn agrees_with_a_naive_model(
            pieces in proptest::collection::vec((0_u64..200, 1_u64..40, prop::sample::select(vec!['x', 'x', 'r', 'w', 'n'])), 1..14),
            base in prop::sample::select(vec![0_u64, 0x7f00_0000, (1 << 44) - 10_000]),
            stretch in prop::sample::select(vec![1_u64, 600]),
        ) {
            // Mappings never overlap: each begins where the last ended, or after a gap.
            let mut page = base;
            let mut maps = Vec::new();
            for (gap, pages, kind) in pieces {
                page += gap % 7 * (gap / 7);
                let pages = if kind == 'x' { pages * stretch } else { pages };
                if page + pages >= 1 << 44 { break; }
                maps.push(mapping(page, pages, kind));
                page += pages;
            }
            let text = build(&maps, 3);
            let shift = text.table.shift - 12;
            let kind_of = |p: u64| maps.iter().find(|m| (m.start..m.end).contains(&(p << 12)));
            let mut absent = BTreeSet::new();
            let mut present = BTreeSet::new();
            for m in maps.iter().filter(|m| m.permissions.execute) {
                for p in m.start >> 12..m.end >> 12 {
                    if contains(&text.table, p << 12) { present.insert(p >> shift) } else { absent.insert(p >> shift) };
                }
            }
            prop_assert_eq!(text.left_out, absent.len());
            prop_assert_eq!(text.granules, present.len());
            let mut edge_pages = BTreeSet::new();
            for g in &present {
                edge_pages.insert(g << shift);
                edge_pages.insert(((g + 1) << shift) - 1);
            }
            for m in &maps {
                edge_pages.insert((m.start >> 12).saturating_sub(1));
                edge_pages.insert(m.end >> 12);
            }
            for p in edge_pages.into_iter().filter(|p| contains(&text.table, p << 12)) {
                let m = kind_of(p);
                prop_assert!(m.is_some_and(|m| !m.permissions.write && m.is_file()), "{p:#x} {m:?}");
            }
            if shift == 0 {
                // Pages of one run of at most 8192 never conflict with each other.
                prop_assert!(absent.is_empty() || maps.iter().filter(|m| m.permissions.execute).count() > 1 || stretch > 1);
            }
        }
    }
}
