//! Pages of anonymous memory: who touched them first, and which are still resident. Pure.
//!
//! Faults tell who ([`Faults::touch`]); what the kernel says is resident decides what counts
//! ([`Faults::check`]): pages that are gone were given back, whatever way, and pages that nobody was
//! seen to touch came with a huge page around one that was.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use memtrace_common::ONE_OBJECT;

use super::{
    Ages, Survivors, Totals,
    intervals::{Intervals, Piece},
};
use crate::id::Fingerprint;

/// Times are kept in steps of about a millisecond, so that neighbours touched one after the other
/// are one piece.
const STEP_BITS: u32 = 20;
/// A huge page, and the block in which a page's neighbours are looked for.
const BLOCK: u64 = 2 << 20;
/// Pieces of one address space above which neighbours are joined whatever their age; twice as many are
/// kept.
pub const MAX_PIECES: usize = 1 << 18;
/// Call paths kept of one address space.
const MAX_OWNERS: usize = 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    /// Nobody known: resident at the attach.
    owner: Option<Fingerprint>,
    /// When it was touched, in steps.
    born: u64,
    /// Only read so far: the kernel's page of zeros, until it is written to.
    read: bool,
    /// Not seen to be touched, but a neighbour was.
    inferred: bool,
}

/// The pages of one address space.
#[derive(Clone, Debug)]
pub struct Faults {
    page: u64,
    pages: Intervals<Page>,
    /// Found to be gone by the last check. A fault is told when it begins: its page may have been
    /// on its way.
    gone: Intervals<Page>,
    totals: HashMap<Fingerprint, Totals>,
    /// Neighbours are joined when there are more pieces than this.
    join_above: usize,
    /// Resident bytes without a piece, since the last check.
    unplaced: u64,
    dropped: FaultsDropped,
}

/// What the caps of [`Faults`] cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultsDropped {
    /// Bytes of pages that found no room, at most at one time.
    pub bytes: u64,
    /// Pages, or stretches of them, whose call path found no room: their bytes stand under none.
    pub paths: u64,
    /// Times that neighbours were joined: the older age counts for both.
    pub joins: u64,
}

impl std::ops::AddAssign for FaultsDropped {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.paths = self.paths.saturating_add(other.paths);
        self.joins = self.joins.saturating_add(other.joins);
    }
}

impl Faults {
    /// No pages; they have so many bytes (a power of two).
    #[must_use]
    pub fn new(page_bytes: u64) -> Self {
        Self {
            page: page_bytes.max(1),
            pages: Intervals::default(),
            gone: Intervals::default(),
            totals: HashMap::new(),
            join_above: MAX_PIECES,
            unplaced: 0,
            dropped: FaultsDropped::default(),
        }
    }

    /// What the caps cost so far.
    #[must_use]
    pub fn dropped(&self) -> FaultsDropped {
        self.dropped
    }

    /// The line (R21): what is resident when tracing begins is nobody's.
    pub fn begin(&mut self, resident: &[(u64, u64)]) {
        for &(start, end) in resident {
            self.pages.take(start, end, |_| true);
            let value = Page {
                owner: None,
                born: 0,
                read: false,
                inferred: false,
            };
            self.pages.put_joined(Piece { start, end, value });
        }
    }

    /// The pages that a forked process begins with, nobody's (R13).
    #[must_use]
    pub fn forked(&self) -> Self {
        let mut child = Self::new(self.page);
        for mut piece in self.pages.iter() {
            piece.value.owner = None;
            piece.value.born = 0;
            piece.value.inferred = false;
            child.pages.put_joined(piece);
        }
        child
    }

    /// A fault. One at a page that is `present` is a write to a protected one: a page of zeros that
    /// becomes memory, or the copy of a page shared after a fork, which changes no owner.
    pub fn touch(
        &mut self,
        address: u64,
        owner: Fingerprint,
        present: bool,
        write: bool,
        at_ns: u64,
    ) {
        let start = address & !(self.page - 1);
        let Some(end) = start.checked_add(self.page) else {
            return;
        };
        let known = self.pages.at(start).map(|piece| piece.value);
        if present && known.is_some_and(|page| !page.read) {
            return;
        }
        self.discard(start, end, u64::MAX);
        let value = Page {
            owner: Some(owner),
            born: at_ns >> STEP_BITS,
            read: !write,
            inferred: false,
        };
        self.put(Piece { start, end, value });
        if self.pages.len() > self.join_above {
            self.coalesce();
        }
    }

    /// Pages that were given back by a call entered at `entered_ns`.
    pub fn drop_pages(&mut self, start: u64, end: u64, entered_ns: u64) {
        if start < end {
            self.discard(start, end, entered_ns >> STEP_BITS);
        }
    }

    /// `mremap`: pages go with their mapping.
    pub fn relocate(&mut self, old: u64, length: u64, new: u64, entered_ns: u64) {
        let (Some(old_end), Some(new_end)) = (old.checked_add(length), new.checked_add(length))
        else {
            return;
        };
        if old == new || old >= old_end {
            return;
        }
        let born = entered_ns >> STEP_BITS;
        let moved = self.pages.take(old, old_end, |page| page.born <= born);
        self.discard(new, new_end, u64::MAX);
        for piece in moved {
            self.pages.put_joined(Piece {
                start: piece.start - old + new,
                end: piece.end - old + new,
                value: piece.value,
            });
        }
    }

    /// What the kernel says is resident anonymous memory (sorted, without overlaps), as it was at
    /// some time after `asked_ns`: pages touched later than that stay.
    pub fn check(&mut self, resident: &[(u64, u64)], asked_ns: u64) {
        let asked = asked_ns >> STEP_BITS;
        // What found no room before is looked at again.
        self.unplaced = 0;
        let mut gone = Intervals::default();
        for (start, end) in self.not_in(resident) {
            if asked > 0 {
                let pieces = self.discard(start, end, asked - 1);
                pieces.into_iter().for_each(|piece| gone.put_joined(piece));
            }
        }
        for &(start, end) in resident {
            for (start, end) in self.without_owner(start, end) {
                self.infer(start, end, asked);
            }
        }
        self.gone = gone;
        if self.pages.len() > self.join_above {
            self.coalesce();
        }
    }

    /// Pieces and parts of pieces outside of the resident stretches.
    fn not_in(&self, resident: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut gone = Vec::new();
        let mut next = resident.iter().peekable();
        for piece in self.pages.iter() {
            let mut at = piece.start;
            while at < piece.end {
                while next.peek().is_some_and(|(_, end)| *end <= at) {
                    next.next();
                }
                let (start, end) = next.peek().map_or((u64::MAX, u64::MAX), |r| **r);
                if at < start {
                    gone.push((at, piece.end.min(start)));
                }
                at = end.min(piece.end).max(at.max(start.min(piece.end)));
            }
        }
        gone
    }

    /// The parts of a stretch that no piece covers, cut at blocks.
    fn without_owner(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut at = start;
        let known = self.pages.within(start, end);
        let ends = known.iter().map(|p| (p.start, p.end)).chain([(end, end)]);
        for (from, to) in ends {
            while at < from {
                let block_end = (at & !(BLOCK - 1)).saturating_add(BLOCK);
                let cut = from.min(block_end);
                holes.push((at, cut));
                at = cut;
            }
            at = at.max(to);
        }
        holes
    }

    /// A stretch within one block came with its neighbour, else nobody knows from where.
    fn infer(&mut self, start: u64, end: u64, born: u64) {
        let block = start & !(BLOCK - 1);
        let before = self.pages.within(block, start).into_iter().next_back();
        let after = || {
            let behind = self.pages.within(end, block.saturating_add(BLOCK));
            behind.into_iter().next()
        };
        // One that was on its way at the last check is certain to be the one.
        let late = || {
            let gone = self.gone.within(block, block.saturating_add(BLOCK));
            gone.into_iter().next()
        };
        let neighbour = before.or_else(after).or_else(late);
        let value = Page {
            owner: neighbour.map_or(Some(Fingerprint(0)), |piece| piece.value.owner),
            born,
            read: false,
            inferred: true,
        };
        self.put(Piece { start, end, value });
    }

    fn discard(&mut self, start: u64, end: u64, until: u64) -> Vec<Piece<Page>> {
        let taken = self.pages.take(start, end, |page| page.born <= until);
        for piece in &taken {
            let pages = self.objects(piece.len());
            if let Some(owner) = piece.value.owner {
                let totals = self.of(owner);
                totals.freed_bytes = totals.freed_bytes.saturating_add(piece.len());
                totals.freed_objects_q16 = totals.freed_objects_q16.saturating_add(pages);
            }
        }
        taken
    }

    fn put(&mut self, mut piece: Piece<Page>) {
        if self.pages.len() >= 2 * MAX_PIECES {
            self.unplaced = self.unplaced.saturating_add(piece.len());
            self.dropped.bytes = self.dropped.bytes.max(self.unplaced);
            return;
        }
        let pages = self.objects(piece.len());
        if let Some(owner) = piece.value.owner {
            let known = self.totals.contains_key(&owner) || self.totals.len() < MAX_OWNERS;
            self.dropped.paths += u64::from(!known);
            let owner = if known { owner } else { Fingerprint(0) };
            piece.value.owner = Some(owner);
            let totals = self.of(owner);
            totals.allocated_bytes = totals.allocated_bytes.saturating_add(piece.len());
            totals.allocated_objects_q16 = totals.allocated_objects_q16.saturating_add(pages);
        }
        self.pages.put_joined(piece);
    }

    fn objects(&self, bytes: u64) -> u64 {
        (bytes / self.page).saturating_mul(ONE_OBJECT)
    }

    fn of(&mut self, owner: Fingerprint) -> &mut Totals {
        self.totals.entry(owner).or_default()
    }

    /// Joins neighbours of one call path: the older age counts for both.
    fn coalesce(&mut self) {
        self.dropped.joins += 1;
        let mut joined: Vec<Piece<Page>> = Vec::new();
        for piece in self.pages.iter() {
            match joined.last_mut() {
                Some(last) if last.end == piece.start && last.value.owner == piece.value.owner => {
                    last.end = piece.end;
                    last.value.born = last.value.born.min(piece.value.born);
                }
                _ => joined.push(piece),
            }
        }
        self.pages = Intervals::default();
        for piece in joined {
            self.pages.put_joined(piece);
        }
        // Where little could be joined the next try is not made at once: each looks at every piece.
        self.join_above = MAX_PIECES.max(self.pages.len() + MAX_PIECES / 8);
    }

    /// What was touched and given back since the attach, by call path; objects are pages.
    pub fn totals(&self) -> impl Iterator<Item = (Fingerprint, Totals)> + '_ {
        self.totals.iter().map(|(owner, totals)| (*owner, *totals))
    }

    /// Bytes that came with a neighbour.
    #[must_use]
    pub fn inferred_bytes(&self) -> u64 {
        let inferred = |piece: &Piece<Page>| piece.value.inferred && piece.value.owner.is_some();
        self.pages.iter().filter(inferred).map(|p| p.len()).sum()
    }

    /// Bytes that were resident at the attach and still are.
    #[must_use]
    pub fn bytes_from_before(&self) -> u64 {
        let before = |piece: &Piece<Page>| piece.value.owner.is_none();
        self.pages.iter().filter(before).map(|p| p.len()).sum()
    }

    /// What is resident by its age.
    #[must_use]
    pub fn survivors(&self, ages: Ages) -> HashMap<Fingerprint, Survivors> {
        let mut found: HashMap<Fingerprint, Survivors> = HashMap::new();
        for piece in self.pages.iter() {
            let Some(owner) = piece.value.owner else {
                continue;
            };
            let born_ns = piece.value.born << STEP_BITS;
            let objects = self.objects(piece.len());
            let entry = found.entry(owner).or_default();
            entry.add(ages, born_ns, piece.len(), objects);
        }
        found
    }
}
