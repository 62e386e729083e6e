//! What the stacks held at each mark, in bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{MAX_LISTED, difference};

/// Stacks of all marks together that are kept: some 20 MiB. The oldest marks go first.
pub const MAX_ENTRIES: usize = 1 << 19;

/// One column a mark.
#[derive(Clone, Debug)]
pub struct Columns<K> {
    columns: VecDeque<Column<K>>,
    entries: usize,
}

#[derive(Clone, Debug)]
struct Column<K> {
    number: u64,
    held: Arc<[(K, u64)]>,
}

impl<K> Default for Columns<K> {
    fn default() -> Self {
        Self {
            columns: VecDeque::new(),
            entries: 0,
        }
    }
}

impl<K: Ord + Copy> Columns<K> {
    /// What the stacks hold at the mark of this number, which is higher than those before; in the
    /// order of the stacks, each once. Stacks that hold nothing take no room.
    pub fn push(&mut self, number: u64, held: &[(K, u64)]) {
        let held = held.iter().filter(|(_, bytes)| *bytes > 0);
        let held: Arc<[_]> = held.copied().collect();
        self.entries += held.len();
        self.columns.push_back(Column { number, held });
        while self.columns.len() > MAX_LISTED + 1 || self.entries > MAX_ENTRIES {
            let Some(gone) = self.columns.pop_front() else {
                break;
            };
            self.entries -= gone.held.len();
        }
    }

    /// The same of the mark before all of those known, for who reads backwards and leaves out what
    /// holds nothing. False, and nothing taken, when there is no room for it.
    pub fn push_older(&mut self, number: u64, held: Arc<[(K, u64)]>) -> bool {
        if self.columns.len() > MAX_LISTED || self.entries + held.len() > MAX_ENTRIES {
            return false;
        }
        self.entries += held.len();
        self.columns.push_front(Column { number, held });
        true
    }

    /// The first mark that is still known.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.columns.front().map(|column| column.number)
    }

    /// What is held at the mark of this number; nothing when it is not known.
    fn held(&self, number: u64) -> &[(K, u64)] {
        let column = self.columns.iter().find(|column| column.number == number);
        column.map_or(&[], |column| &column.held)
    }

    /// What is held at each of these marks, and `now` where that is wanted.
    pub(super) fn moments<'a>(
        &'a self,
        marks: &[u64],
        now: Option<&'a [(K, u64)]>,
    ) -> Vec<&'a [(K, u64)]> {
        let known = marks.iter().map(|number| self.held(*number));
        known.chain(now).collect()
    }
}

/// What a stack gained from each of these moments to the next.
pub(super) fn gained<K: Ord>(moments: &[&[(K, u64)]], stack: &K) -> Vec<i64> {
    let held = moments.iter().map(|moment| {
        let found = moment.binary_search_by(|(one, _)| one.cmp(stack));
        found
            .ok()
            .and_then(|at| moment.get(at))
            .map_or(0, |(_, bytes)| *bytes)
    });
    let held: Vec<u64> = held.collect();
    let pairs = held.iter().zip(held.iter().skip(1));
    pairs.map(|(from, to)| difference(*from, *to)).collect()
}
