//! What many series held over time, in bounded memory. Pure.

use std::collections::HashMap;

/// Cells of time at most: more than a screen has columns.
const MAX_CELLS: usize = 256;
/// Cells of all series together that are kept (24 bytes each).
const MAX_KEPT: usize = 1 << 20;

/// A stretch of moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    /// Which, from the first moment on.
    at: usize,
    /// The most that was held at one of its moments.
    most: u64,
    /// What was held at its end.
    last: u64,
}

/// Series by key: values at moments, numbered from 0, each held until the next one.
///
/// Exact for as long as there are few moments; then each cell of time has the most of it.
#[derive(Debug)]
pub(super) struct Pasts {
    /// A cell has `1 << shift` moments.
    shift: u32,
    series: HashMap<i64, Vec<Cell>>,
    kept: usize,
    most_kept: usize,
    /// Some series found no room.
    is_partial: bool,
}

impl Default for Pasts {
    fn default() -> Self {
        Self::with_room(MAX_KEPT)
    }
}

impl Pasts {
    fn with_room(most_kept: usize) -> Self {
        Self {
            shift: 0,
            series: HashMap::new(),
            kept: 0,
            most_kept,
            is_partial: false,
        }
    }

    /// True when some series found no room.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// A value from this moment on. Moments come in their order.
    pub fn add(&mut self, key: i64, moment: usize, value: u64) {
        while moment >> self.shift >= MAX_CELLS {
            self.coarsen();
        }
        // Coarser cells need less room, as long as there is more than one.
        while self.kept >= self.most_kept && moment >> self.shift > 0 {
            self.coarsen();
        }
        let at = moment >> self.shift;
        let known = self.series.get_mut(&key);
        if let Some(cell) = known.and_then(|cells| cells.last_mut())
            && cell.at == at
        {
            cell.most = cell.most.max(value);
            cell.last = value;
            return;
        }
        if self.kept >= self.most_kept {
            self.is_partial = true;
            return;
        }
        let cells = self.series.entry(key).or_default();
        let held = cells.last().map_or(0, |cell| cell.last);
        let is_first = moment == at << self.shift;
        cells.push(Cell {
            at,
            most: if is_first { value } else { value.max(held) },
            last: value,
        });
        self.kept += 1;
    }

    /// Joins two cells to one.
    fn coarsen(&mut self) {
        self.shift += 1;
        self.kept = 0;
        for cells in self.series.values_mut() {
            let mut joined: Vec<Cell> = Vec::with_capacity(cells.len().div_ceil(2));
            let mut held = 0;
            for cell in cells.iter() {
                match joined.last_mut() {
                    Some(half) if half.at == cell.at / 2 => {
                        half.most = half.most.max(cell.most);
                        half.last = cell.last;
                    }
                    _ => joined.push(Cell {
                        at: cell.at / 2,
                        // In the first half it still held what it held before.
                        most: if cell.at % 2 == 1 {
                            cell.most.max(held)
                        } else {
                            cell.most
                        },
                        last: cell.last,
                    }),
                }
                held = cell.last;
            }
            self.kept += joined.len();
            *cells = joined;
        }
    }

    /// How coarse a series until this moment is: so that it has no more than [`MAX_CELLS`].
    fn shift_until(&self, until: usize) -> u32 {
        let mut shift = self.shift;
        while until >> shift >= MAX_CELLS {
            shift += 1;
        }
        shift
    }

    /// A series until a moment at which it holds `now`: moments and values, from the moment before
    /// its first value on. Nothing that came later is in it.
    pub fn series(&self, key: i64, until: usize, now: u64) -> Vec<(usize, u64)> {
        let cells = self.series.get(&key).map(Vec::as_slice).unwrap_or_default();
        let last = until >> self.shift;
        let Some(first) = cells.first().filter(|cell| cell.at <= last) else {
            return vec![(until, now)];
        };
        // Nothing may have changed for long: that is no reason for more cells.
        let shift = self.shift_until(until);
        let end = |cell: usize| ((cell + 1) << shift) - 1;
        let joined = |cell: usize| cell >> (shift - self.shift);
        let mut out: Vec<(usize, u64)> = Vec::with_capacity((until >> shift) + 2);
        if let Some(before) = joined(first.at).checked_sub(1) {
            out.push((end(before), 0));
        }
        let mut rest = cells.iter().peekable();
        let mut held = 0;
        for at in (first.at..last).take_while(|at| joined(*at) < until >> shift) {
            let value = match rest.next_if(|cell| cell.at == at) {
                Some(cell) => {
                    held = cell.last;
                    cell.most
                }
                None => held,
            };
            match out.last_mut() {
                Some((moment, most)) if *moment == end(joined(at)) => *most = value.max(*most),
                _ => out.push((end(joined(at)), value)),
            }
        }
        out.push((until, now));
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Few moments: every value as it was, and nothing of what comes later.
    #[test]
    fn few_moments_are_exact() {
        let mut pasts = Pasts::default();
        for (moment, value) in [(2, 5), (4, 9), (6, 1)] {
            pasts.add(7, moment, value);
        }
        assert_eq!(
            pasts.series(7, 5, 9),
            [(1, 0), (2, 5), (3, 5), (4, 9), (5, 9)]
        );
        assert_eq!(pasts.series(7, 2, 5), [(1, 0), (2, 5)]);
        assert_eq!(pasts.series(7, 1, 0), [(1, 0)]);
        assert_eq!(pasts.series(8, 5, 3), [(5, 3)]);
    }

    // A series that did not change for long has no more cells for that.
    #[test]
    fn long_rest_is_short() {
        let mut pasts = Pasts::default();
        pasts.add(7, 0, 5);
        let series = pasts.series(7, 100_000, 5);
        assert!(series.len() <= MAX_CELLS, "{}", series.len());
        assert!(series.iter().all(|(_, value)| *value == 5));
    }

    // Series beyond what there is room for are left out, which is known.
    #[test]
    fn room_is_bounded() {
        let mut pasts = Pasts::with_room(10);
        for moment in 0..100 {
            for key in 0..20 {
                pasts.add(key, moment, 1);
            }
        }
        assert!(pasts.kept <= 10 && pasts.is_partial());
        assert_eq!(
            pasts.kept,
            pasts.series.values().map(Vec::len).sum::<usize>()
        );
    }

    proptest! {
        // Against a list of what was held at each moment: each cell has the most of its moments.
        #[test]
        fn cells_have_the_most(
            rows in proptest::collection::btree_map(0..2000_usize, 0..100_u64, 1..200),
            until in 0..2000_usize,
        ) {
            let mut pasts = Pasts::default();
            let mut held = vec![0; 2000];
            for (moment, value) in &rows {
                pasts.add(1, *moment, *value);
                held[*moment..].fill(*value);
            }
            let (size, now) = (1_usize << pasts.shift_until(until), held[until]);
            let first = rows.keys().next().unwrap() / size;
            let series = pasts.series(1, until, now);
            prop_assert!(series.len() <= MAX_CELLS + 1);
            prop_assert!(series.is_sorted_by_key(|(moment, _)| *moment));
            prop_assert_eq!(*series.last().unwrap(), (until, now));
            if first <= until / size {
                let expected: Vec<u64> = (first..until / size)
                    .map(|cell| held[cell * size..(cell + 1) * size].iter().copied().max().unwrap())
                    .chain([now])
                    .collect();
                let before = usize::from(first > 0);
                let values: Vec<u64> = series[before..].iter().map(|(_, value)| *value).collect();
                prop_assert_eq!(values, expected);
            }
        }
    }
}
