//! Many spaces that end, and their figures after nobody asks for them one by one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Account, Ledger, Row, Space};
use crate::id::{SpaceId, StackId};

impl Ledger {
    /// [`Ledger::end`] for many spaces at once. One that was never observed gets its account here:
    /// a process that begins and ends between two reports is counted.
    pub fn end_all(
        &mut self,
        at: Duration,
        ended: &HashSet<SpaceId>,
        rows: impl IntoIterator<Item = Row>,
    ) {
        let rows = self.merged(rows.into_iter().filter(|row| ended.contains(&row.space)));
        for (key, row) in &rows {
            self.take(at, *key, row);
        }
        let spaces = &mut self.spaces;
        for ((space, _), account) in &mut self.stacks {
            if ended.contains(space) && spaces.get(space).is_some_and(|entry| !entry.ended) {
                account.close(at);
            }
        }
        for space in ended {
            if let Some(entry) = spaces.get_mut(space).filter(|entry| !entry.ended) {
                entry.account.close(at);
                entry.ended = true;
            }
        }
        self.sources.forget_all(ended);
        self.enforce_caps();
    }

    /// Adds ended spaces to others (the values) and forgets them. `stack` gives a stack's id in the
    /// other space. Nothing is lost but which of them held what; the sum has ended as they have.
    pub fn fold(
        &mut self,
        at: Duration,
        into: &HashMap<SpaceId, SpaceId>,
        mut stack: impl FnMut(SpaceId, StackId) -> StackId,
    ) {
        let cap = self.options.history_points;
        let moved: Vec<_> = self
            .stacks
            .extract_if(|(space, _), _| into.contains_key(space))
            .collect();
        for ((space, id), account) in moved {
            let Some(sum) = into.get(&space) else {
                continue;
            };
            self.stacks
                .entry((*sum, stack(space, id)))
                .or_insert_with(|| Account::new(cap, at, None))
                .absorb(account);
        }
        for (space, sum) in into {
            let Some(entry) = self.spaces.remove(space) else {
                continue;
            };
            self.spaces
                .entry(*sum)
                .or_insert_with(|| Space {
                    account: Account::new(cap, at, None),
                    ended: true,
                })
                .account
                .absorb(entry.account);
        }
        self.sources.forget_all(&into.keys().copied().collect());
        self.enforce_caps();
    }

    /// Every stack that has an account.
    pub fn stack_ids(&self) -> HashSet<StackId> {
        self.stacks.keys().map(|(_, stack)| *stack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Fingerprint;
    use crate::ledger::{LedgerOptions, Totals};
    use proptest::prelude::*;

    fn row(space: u64, stack: u32, allocated: u64, freed: u64) -> Row {
        Row {
            space: SpaceId(space),
            stack: StackId(stack),
            context: Some(Fingerprint(u64::from(stack))),
            totals: Totals {
                allocated_bytes: allocated,
                freed_bytes: freed.min(allocated),
                allocated_objects_q16: 2,
                freed_objects_q16: 1,
            },
            survivors: None,
        }
    }

    fn sum<'a>(accounts: impl Iterator<Item = &'a Account>) -> Totals {
        let mut all = Totals::default();
        accounts.for_each(|account| all += account.totals());
        all
    }

    proptest! {
        /// Ending and folding any spaces loses no byte of any stack, and leaves one space.
        #[test]
        fn nothing_is_lost(rows in proptest::collection::vec((1..6_u64, 0..5_u32, 0..99_u64, 0..99_u64), 1..40)) {
            let mut ledger = Ledger::new(LedgerOptions::default());
            let mut given = Totals::default();
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|(space, stack, allocated, freed)| row(space, stack, allocated, freed))
                .collect();
            rows.iter().for_each(|row| given += row.totals);
            let spaces: HashSet<_> = rows.iter().map(|row| row.space).collect();
            ledger.end_all(Duration::from_secs(1), &spaces, rows.iter().copied());
            prop_assert!(ledger.spaces().iter().all(|space| space.ended));
            let into = spaces.iter().map(|space| (*space, SpaceId(100))).collect();
            ledger.fold(Duration::from_secs(2), &into, |_, stack| StackId(stack.0 + 10));
            prop_assert_eq!(sum(ledger.stacks.values()), given);
            let spaces = ledger.spaces();
            prop_assert_eq!(spaces.len(), 1);
            prop_assert_eq!(spaces[0].account.totals(), given);
            prop_assert!(ledger.stacks.keys().all(|(space, stack)| space.0 == 100 && stack.0 >= 10));
        }
    }

    /// A process that began and ended between two reports is in the figures.
    #[test]
    fn short_lives_count() {
        let mut ledger = Ledger::new(LedgerOptions::default());
        ledger.observe(Duration::from_secs(1), [row(1, 1, 10, 0)]);
        let ended = HashSet::from([SpaceId(2)]);
        ledger.end_all(Duration::from_secs(2), &ended, [row(2, 1, 70, 20)]);
        let account = ledger.stack(SpaceId(2), StackId(1)).unwrap();
        assert_eq!(account.totals().outstanding_bytes(), 50);
        assert!(ledger.stack(SpaceId(1), StackId(1)).is_some());
    }
}
