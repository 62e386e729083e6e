//! A map from addresses to values by intervals, cut exactly where something ends.

use std::collections::BTreeMap;

/// A stretch of addresses with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What is there.
    pub value: T,
}

impl<T> Piece<T> {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never true of a piece in a map.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }
}

/// Pieces that do not overlap. Neighbours stay apart unless [`Intervals::put_joined`] joins them.
#[derive(Clone, Debug)]
pub struct Intervals<T> {
    pieces: BTreeMap<u64, (u64, T)>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self {
            pieces: BTreeMap::new(),
        }
    }
}

impl<T: Copy + PartialEq> Intervals<T> {
    /// Pieces held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// By rising address.
    pub fn iter(&self) -> impl Iterator<Item = Piece<T>> + '_ {
        self.pieces
            .iter()
            .map(|(&start, &(end, value))| Piece { start, end, value })
    }

    /// The piece that holds an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Piece<T>> {
        let (&start, &(end, value)) = self.pieces.range(..=address).next_back()?;
        (address < end).then_some(Piece { start, end, value })
    }

    /// What lies in `start..end`, cut at its ends; nothing is changed.
    #[must_use]
    pub fn within(&self, start: u64, end: u64) -> Vec<Piece<T>> {
        let before = self.at(start).filter(|piece| piece.start < start);
        let inside = self.pieces.range(start..end.max(start));
        before
            .into_iter()
            .chain(inside.map(|(&start, &(end, value))| Piece { start, end, value }))
            .filter_map(|piece| {
                let (from, to) = (piece.start.max(start), piece.end.min(end));
                (from < to).then_some(Piece {
                    start: from,
                    end: to,
                    value: piece.value,
                })
            })
            .collect()
    }

    /// Takes out what lies in `start..end` and passes `which`; pieces that reach over the ends are
    /// cut there.
    pub fn take(&mut self, start: u64, end: u64, which: impl Fn(&T) -> bool) -> Vec<Piece<T>> {
        let mut taken = self.within(start, end);
        taken.retain(|piece| which(&piece.value));
        for piece in &taken {
            self.remove(piece);
        }
        taken
    }

    /// Removes a stretch that lies in one piece.
    fn remove(&mut self, part: &Piece<T>) {
        let Some(whole) = self.at(part.start) else {
            return;
        };
        self.pieces.remove(&whole.start);
        if whole.start < part.start {
            self.pieces.insert(whole.start, (part.start, whole.value));
        }
        if part.end < whole.end {
            self.pieces.insert(part.end, (whole.end, whole.value));
        }
    }

    /// Puts a piece where nothing is: what was there must have been taken out.
    pub fn put(&mut self, piece: Piece<T>) {
        debug_assert!(self.within(piece.start, piece.end).is_empty(), "overlap");
        if piece.start < piece.end {
            self.pieces.insert(piece.start, (piece.end, piece.value));
        }
    }

    /// The same; neighbours with the same value become one piece.
    pub fn put_joined(&mut self, piece: Piece<T>) {
        let Piece {
            mut start,
            mut end,
            value,
        } = piece;
        if start >= end {
            return;
        }
        let before = start.checked_sub(1).and_then(|address| self.at(address));
        if let Some(before) = before.filter(|b| b.end == start && b.value == value) {
            start = before.start;
        }
        if let Some(&(behind, _)) = self.pieces.get(&end).filter(|(_, v)| *v == value) {
            self.pieces.remove(&end);
            end = behind;
        }
        self.pieces.insert(start, (end, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Taking and putting is the same as writing an array of cells, one by one.
        #[test]
        fn like_an_array(steps in proptest::collection::vec((0_u64..40, 0_u64..20, 0_u8..4, any::<bool>()), 0..80)) {
            let mut cells = [None; 64];
            let mut map = Intervals::default();
            for (start, length, value, joined) in steps {
                let end = start + length;
                map.take(start, end, |_| true);
                cells[start as usize..end as usize].fill((value > 0).then_some(value));
                if value > 0 {
                    let piece = Piece { start, end, value };
                    if joined { map.put_joined(piece) } else { map.put(piece) }
                }
                for (at, cell) in cells.iter().enumerate() {
                    prop_assert_eq!(map.at(at as u64).map(|p| p.value), *cell);
                }
                let held: u64 = map.iter().map(|p| p.len()).sum();
                prop_assert_eq!(held, cells.iter().flatten().count() as u64);
            }
        }
    }
}
