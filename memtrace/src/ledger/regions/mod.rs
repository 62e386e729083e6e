//! Mappings as intervals (R18–R20): who made them, what they are, what is left of them. Pure.
//!
//! [`Change::of`] reads a system call, [`Regions::apply`] cuts the intervals. An unmapping reaches
//! its reader after the call has returned, and another thread may have mapped the same addresses
//! meanwhile: what was made after the call was entered is not what it unmapped.

mod change;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::{
    Ages, Survivors, Totals,
    intervals::{Intervals, Piece},
};
use crate::id::Fingerprint;
use memtrace_common::ONE_OBJECT;

pub use change::{Change, Made};

/// What a piece of address space is used as.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// Private memory in use.
    Anonymous,
    /// Memory shared with other processes, no file of the disk.
    Shared,
    /// A file.
    File,
    /// What an allocator reserved for itself (R20): its blocks are the heap.
    Allocator,
    /// A thread's stack.
    ThreadStack,
    /// Address space only: no access, or no promise of memory.
    Reservation,
}

impl RegionKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Anonymous,
        Self::Shared,
        Self::File,
        Self::Allocator,
        Self::ThreadStack,
        Self::Reservation,
    ];

    /// As in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Shared => "shared",
            Self::File => "file",
            Self::Allocator => "allocator",
            Self::ThreadStack => "thread-stack",
            Self::Reservation => "reservation",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Shown apart from memory in use: it is counted elsewhere, or is none.
    #[must_use]
    pub fn is_apart(self) -> bool {
        !matches!(self, Self::Anonymous | Self::Shared)
    }
}

/// What is behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// Private anonymous memory.
    Anonymous,
    /// Shared anonymous memory.
    Shared,
    /// A file.
    File,
}

/// A stretch of address space with one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Who made it usable; nobody known when it was there before the attach (R21).
    pub owner: Option<Fingerprint>,
    /// What is behind it.
    pub backing: Backing,
    /// Some access is allowed.
    pub accessible: bool,
    /// Mapped with no promise of memory, and not made usable since.
    pub unreserved: bool,
    /// Mapped as a stack.
    pub stack: bool,
    /// Made by an allocator for itself.
    pub allocator: bool,
    /// When the call that made it returned, monotonic nanoseconds.
    pub born_ns: u64,
    /// Pieces of one call have one number.
    object: u64,
}

impl Region {
    /// What it is used as.
    #[must_use]
    pub fn kind(&self) -> RegionKind {
        if self.stack {
            RegionKind::ThreadStack
        } else if !self.accessible || self.unreserved {
            RegionKind::Reservation
        } else if self.allocator {
            RegionKind::Allocator
        } else {
            match self.backing {
                Backing::Anonymous => RegionKind::Anonymous,
                Backing::Shared => RegionKind::Shared,
                Backing::File => RegionKind::File,
            }
        }
    }
}

/// Whose bytes.
pub type RegionKey = (Fingerprint, RegionKind);

/// Regions of one address space that are kept; the kernel's own limit is 65,530 mappings, of which
/// some are several regions here.
pub const MAX_REGIONS: usize = 1 << 17;
/// Call paths by kind that are kept of one address space.
const MAX_KEYS: usize = 1 << 14;

/// The mappings of one address space.
#[derive(Clone, Debug)]
pub struct Regions {
    page: u64,
    pieces: Intervals<Region>,
    totals: HashMap<RegionKey, Totals>,
    /// Pieces left of each object.
    left: HashMap<u64, u64>,
    next_object: u64,
    /// End of the heap that `brk` moves, in whole pages; unknown before the first sight.
    brk_end: Option<u64>,
    /// Changes up to this time are in what was read at the attach.
    line_ns: u64,
    /// Neighbours are joined when there are more pieces than this.
    join_above: usize,
    dropped: RegionsDropped,
}

/// What the caps of [`Regions`] cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionsDropped {
    /// Bytes of regions that found no room.
    pub bytes: u64,
    /// Regions whose call path found no room: their bytes stand under none.
    pub paths: u64,
    /// Times that neighbours were joined: their ages and number are given up.
    pub joins: u64,
}

impl std::ops::AddAssign for RegionsDropped {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.paths = self.paths.saturating_add(other.paths);
        self.joins = self.joins.saturating_add(other.joins);
    }
}

impl Regions {
    /// No mappings, pages of so many bytes (a power of two).
    #[must_use]
    pub fn new(page_bytes: u64) -> Self {
        Self {
            page: page_bytes.max(1),
            pieces: Intervals::default(),
            totals: HashMap::new(),
            left: HashMap::new(),
            next_object: 0,
            brk_end: None,
            line_ns: 0,
            join_above: MAX_REGIONS,
            dropped: RegionsDropped::default(),
        }
    }

    /// The line (R21): these mappings were there when tracing began at `line_ns`, nobody's.
    pub fn begin(
        &mut self,
        line_ns: u64,
        brk_end: Option<u64>,
        mappings: impl IntoIterator<Item = (u64, u64, Backing, bool)>,
    ) {
        self.line_ns = line_ns;
        self.brk_end = brk_end.map(|end| self.whole_pages(end));
        for (start, end, backing, accessible) in mappings {
            self.pieces.take(start, end, |_| true);
            self.pieces.put(Piece {
                start,
                end,
                value: Region {
                    owner: None,
                    backing,
                    accessible,
                    unreserved: false,
                    stack: false,
                    allocator: false,
                    born_ns: 0,
                    object: 0,
                },
            });
        }
    }

    /// The mappings that a forked process begins with, nobody's (R13).
    #[must_use]
    pub fn forked(&self) -> Self {
        let mut child = Self::new(self.page);
        child.brk_end = self.brk_end;
        for piece in self.pieces.iter() {
            let mut piece = piece;
            piece.value.owner = None;
            piece.value.object = 0;
            child.pieces.put(piece);
        }
        child
    }

    /// What the caps cost so far.
    #[must_use]
    pub fn dropped(&self) -> RegionsDropped {
        self.dropped
    }

    /// Every region, by rising address.
    pub fn iter(&self) -> impl Iterator<Item = Piece<Region>> + '_ {
        self.pieces.iter()
    }

    /// The region that holds an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Piece<Region>> {
        self.pieces.at(address)
    }

    /// The regions in a range, cut at its ends.
    #[must_use]
    pub fn within(&self, start: u64, end: u64) -> Vec<Piece<Region>> {
        self.pieces.within(start, end)
    }

    /// What was made and unmapped since the attach, by call path and kind.
    pub fn totals(&self) -> impl Iterator<Item = (RegionKey, Totals)> + '_ {
        self.totals.iter().map(|(key, totals)| (*key, *totals))
    }

    /// What is mapped by its age.
    #[must_use]
    pub fn survivors(&self, ages: Ages) -> HashMap<RegionKey, Survivors> {
        let mut found: HashMap<RegionKey, Survivors> = HashMap::new();
        for piece in self.pieces.iter() {
            let Some(owner) = piece.value.owner else {
                continue;
            };
            let entry = found.entry((owner, piece.value.kind())).or_default();
            entry.add(ages, piece.value.born_ns, piece.len(), ONE_OBJECT);
        }
        found
    }

    /// Takes a call that succeeded.
    pub fn apply(&mut self, change: &Change) {
        if change.at_ns() < self.line_ns {
            return;
        }
        match *change {
            Change::Map { start, end, made } => self.map(start, end, &made),
            Change::Unmap {
                start,
                end,
                entered_ns,
                ..
            } => self.unmap(start, end, entered_ns),
            Change::Move { .. } => self.relocate(change),
            Change::Brk { asked, end, made } => self.brk(asked, end, &made),
            Change::Protect {
                start,
                end,
                accessible,
                made,
            } => {
                self.protect(start, end, accessible, &made);
            }
            Change::Drop { .. } => {}
        }
        if self.pieces.len() > self.join_above {
            self.coalesce();
        }
    }

    fn whole_pages(&self, bytes: u64) -> u64 {
        bytes
            .checked_next_multiple_of(self.page)
            .unwrap_or(bytes & !(self.page - 1))
    }

    fn map(&mut self, start: u64, end: u64, made: &Made) {
        let end = self.whole_pages(end);
        self.discard(start, end, u64::MAX);
        let object = self.object();
        let region = made.region(object);
        self.create(Piece {
            start,
            end,
            value: region,
        });
    }

    fn unmap(&mut self, start: u64, end: u64, entered_ns: u64) {
        let end = self.whole_pages(end);
        self.discard(start, end, entered_ns);
    }

    /// Takes out what was made up to a time, and books it.
    fn discard(&mut self, start: u64, end: u64, until_ns: u64) {
        let parts = self.pull(start, end, until_ns);
        for part in parts {
            self.book_out(&part);
        }
    }

    /// Takes pieces out without booking; those that were cut are counted as more pieces.
    fn pull(&mut self, start: u64, end: u64, until_ns: u64) -> Vec<Piece<Region>> {
        for edge in [start, end] {
            let Some(whole) = self.pieces.at(edge).filter(|p| p.start < edge) else {
                continue;
            };
            self.pieces.take(whole.start, whole.end, |_| true);
            self.pieces.put(Piece { end: edge, ..whole });
            self.pieces.put(Piece {
                start: edge,
                ..whole
            });
            self.count_piece(&whole.value);
        }
        self.pieces
            .take(start, end, |region| region.born_ns <= until_ns)
    }

    fn count_piece(&mut self, region: &Region) {
        if region.owner.is_some() {
            *self.left.entry(region.object).or_insert(0) += 1;
        }
    }

    fn object(&mut self) -> u64 {
        self.next_object += 1;
        self.next_object
    }

    /// A new piece of an object.
    fn create(&mut self, piece: Piece<Region>) {
        if piece.start >= piece.end {
            return;
        }
        if self.pieces.len() >= 2 * MAX_REGIONS {
            self.dropped.bytes = self.dropped.bytes.saturating_add(piece.len());
            return;
        }
        let mut piece = piece;
        if let Some(owner) = piece.value.owner {
            let key = (owner, piece.value.kind());
            if !self.totals.contains_key(&key) && self.totals.len() >= MAX_KEYS {
                piece.value.owner = Some(Fingerprint(0));
                self.dropped.paths += 1;
            }
            let new = !self.left.contains_key(&piece.value.object);
            let totals = self.of(&piece.value);
            totals.allocated_bytes = totals.allocated_bytes.saturating_add(piece.len());
            totals.allocated_objects_q16 += if new { ONE_OBJECT } else { 0 };
            self.count_piece(&piece.value);
        }
        self.pieces.put(piece);
    }

    fn of(&mut self, region: &Region) -> &mut Totals {
        let key = (region.owner.unwrap_or(Fingerprint(0)), region.kind());
        self.totals.entry(key).or_default()
    }

    /// A piece is gone; with the last one of an object the object is.
    fn book_out(&mut self, piece: &Piece<Region>) {
        if piece.value.owner.is_none() {
            return;
        }
        let left = self.left.entry(piece.value.object).or_insert(1);
        *left -= 1;
        let last = *left == 0;
        if last {
            self.left.remove(&piece.value.object);
        }
        let totals = self.of(&piece.value);
        totals.freed_bytes = totals.freed_bytes.saturating_add(piece.len());
        totals.freed_objects_q16 += if last { ONE_OBJECT } else { 0 };
    }

    /// `mremap`: what was there keeps its owner, what is new is the caller's.
    fn relocate(&mut self, change: &Change) {
        let Change::Move {
            old,
            old_end,
            new,
            new_end,
            keeps_old,
            made,
            entered_ns,
        } = *change
        else {
            return;
        };
        let (old_end, new_end) = (self.whole_pages(old_end), self.whole_pages(new_end));
        let model = self
            .pieces
            .at(old_end.saturating_sub(1).max(old))
            .map(|p| p.value);
        let like = |object| match model {
            Some(model) => Region {
                owner: made.owner,
                born_ns: made.at_ns,
                object,
                ..model
            },
            None => made.region(object),
        };
        if keeps_old || old == old_end {
            self.discard(new, new_end, u64::MAX);
            let object = self.object();
            self.create(Piece {
                start: new,
                end: new_end,
                value: like(object),
            });
            return;
        }
        let length = (old_end - old).min(new_end - new);
        let parts = self.pull(old, old + length, entered_ns);
        self.discard(old + length, old_end, entered_ns);
        if new == old {
            // In place: a call of another thread can have mapped nothing here.
            self.discard(old + length, new_end, u64::MAX);
        } else {
            self.discard(new, new_end, u64::MAX);
        }
        for part in parts {
            let at = |address: u64| address - old + new;
            self.pieces.put(Piece {
                start: at(part.start),
                end: at(part.end),
                value: part.value,
            });
        }
        if new + length < new_end {
            let object = self.object();
            self.create(Piece {
                start: new + length,
                end: new_end,
                value: like(object),
            });
        }
    }

    fn brk(&mut self, asked: u64, end: u64, made: &Made) {
        let new_end = self.whole_pages(end);
        let Some(old_end) = self.brk_end.replace(new_end) else {
            return;
        };
        if asked != end || asked == 0 {
            // Only asked, or refused: nothing has changed.
            return;
        }
        if new_end > old_end {
            self.map(old_end, new_end, made);
        } else {
            self.discard(new_end, old_end, made.entered_ns);
        }
    }

    /// `mprotect`: a reservation made usable belongs to who did that.
    fn protect(&mut self, start: u64, end: u64, accessible: bool, made: &Made) {
        let end = self.whole_pages(end);
        let changes = |region: &Region| region.accessible != accessible;
        if !self
            .pieces
            .within(start, end)
            .iter()
            .any(|piece| changes(&piece.value))
        {
            return;
        }
        let parts = self.pull(start, end, made.entered_ns);
        let mut objects: HashMap<(Option<Fingerprint>, RegionKind), u64> = HashMap::new();
        for part in parts {
            if !changes(&part.value) {
                self.pieces.put(part);
                continue;
            }
            let mut region = part.value;
            region.accessible = accessible;
            if accessible {
                region.unreserved = false;
                region.allocator |= made.allocator;
                if !region.stack {
                    region.owner = made.owner;
                    region.born_ns = made.at_ns;
                }
            }
            if (region.owner, region.kind()) == (part.value.owner, part.value.kind()) {
                self.pieces.put(Piece {
                    value: region,
                    ..part
                });
                continue;
            }
            self.book_out(&part);
            let next = self.next_object + 1;
            region.object = *objects.entry((region.owner, region.kind())).or_insert(next);
            self.next_object = self.next_object.max(region.object);
            self.create(Piece {
                value: region,
                ..part
            });
        }
    }

    /// Joins neighbours of one call path and kind: their ages and number are given up, not their
    /// bytes.
    fn coalesce(&mut self) {
        self.dropped.joins += 1;
        let mut joined: Vec<Piece<Region>> = Vec::new();
        for piece in self.pieces.iter() {
            let same = |a: &Region, b: &Region| {
                Region {
                    born_ns: 0,
                    object: 0,
                    ..*a
                } == Region {
                    born_ns: 0,
                    object: 0,
                    ..*b
                }
            };
            match joined.last_mut() {
                Some(last) if last.end == piece.start && same(&last.value, &piece.value) => {
                    last.end = piece.end;
                }
                _ => joined.push(piece),
            }
        }
        self.pieces = Intervals::default();
        self.left.clear();
        let mut objects: HashMap<RegionKey, u64> = HashMap::new();
        for mut piece in joined {
            piece.value.object = self.object();
            self.count_piece(&piece.value);
            if let Some(owner) = piece.value.owner {
                *objects.entry((owner, piece.value.kind())).or_insert(0) += ONE_OBJECT;
            }
            self.pieces.put(piece);
        }
        // Where little could be joined the next try is not made at once: each looks at every piece.
        self.join_above = MAX_REGIONS.max(self.pieces.len() + MAX_REGIONS / 8);
        for (key, totals) in &mut self.totals {
            let now = objects.get(key).copied().unwrap_or(0);
            totals.freed_objects_q16 = totals.allocated_objects_q16.saturating_sub(now);
        }
    }
}
