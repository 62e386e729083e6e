//! Outstanding, allocated and freed bytes and objects per stack and process. Pure: no I/O, no
//! clock.
//!
//! A session hands over what it read at each report ([`Ledger::observe`]); the ledger keeps the
//! accounts and their histories, and lends them out ranked ([`Ledger::snapshot`]). It holds no
//! more than its options allow, and counts what had to go ([`Dropped`]).

mod account;
pub mod cycles;
pub mod faults;
mod fold;
mod history;
mod input;
mod intervals;
pub mod reconcile;
pub mod regions;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::id::{SpaceId, StackId};
use source::{Source, SourceKey, Sources};

pub use account::Account;
pub use history::{History, MIN_HISTORY_POINTS, Point};
pub use input::{Dropped, LedgerOptions, Row};
pub use snapshot::{Rank, Snapshot, SpaceAccount, StackAccount};
pub use totals::{Ages, Survivors, Totals};

#[derive(Debug)]
struct Space {
    account: Account,
    ended: bool,
}

/// The accounts of one session.
#[derive(Debug)]
pub struct Ledger {
    options: LedgerOptions,
    stacks: HashMap<(SpaceId, StackId), Account>,
    spaces: HashMap<SpaceId, Space>,
    sources: Sources,
    dropped: Dropped,
    /// The last report: what appears later had nothing outstanding then.
    observed: Option<Duration>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        Self {
            options,
            stacks: HashMap::new(),
            spaces: HashMap::new(),
            sources: Sources::default(),
            dropped: Dropped::default(),
            observed: None,
        }
    }

    /// Takes what the kernel's counters read at `at` (since the session began, never going back).
    ///
    /// Rows of one context are added up. What was given before and is missing now keeps its last
    /// figures. A context whose counters went back was evicted and began anew: both lives count.
    /// A context that is now under another stack takes its bytes there. Rows of an ended space
    /// are ignored.
    pub fn observe(&mut self, at: Duration, rows: impl IntoIterator<Item = Row>) {
        let rows = self.merged(rows);
        for (key, row) in &rows {
            self.take(at, *key, row);
        }
        self.close(at, None);
        self.sources.close(at);
        self.observed = Some(at);
        self.enforce_caps();
    }

    /// The space's process ended or replaced its image (R15): its figures and histories stand
    /// still from here on. `rows` is what was read last, for this space alone; it may be empty.
    ///
    /// The end of one process is no report: only this space's histories get a point.
    pub fn end(&mut self, at: Duration, space: SpaceId, rows: impl IntoIterator<Item = Row>) {
        let rows = self.merged(rows.into_iter().filter(|row| row.space == space));
        for (key, row) in &rows {
            self.take(at, *key, row);
        }
        if !rows.is_empty() {
            self.close(at, Some(space));
        }
        if let Some(entry) = self.spaces.get_mut(&space) {
            entry.ended = true;
        }
        self.sources.forget(space);
        self.enforce_caps();
    }

    /// Drops all that is known of a space.
    pub fn forget(&mut self, space: SpaceId) {
        self.forget_all(&HashSet::from([space]));
    }

    /// Drops all that is known of many spaces: the tables are gone through once.
    fn forget_all(&mut self, spaces: &HashSet<SpaceId>) {
        self.spaces.retain(|space, _| !spaces.contains(space));
        self.stacks.retain(|(of, _), _| !spaces.contains(of));
        self.sources.forget_all(spaces);
    }

    /// What the caps cost so far.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Adds up the rows of each context. Keeps the order they came in.
    fn merged(&self, rows: impl IntoIterator<Item = Row>) -> Vec<(SourceKey, Row)> {
        let mut index: HashMap<SourceKey, usize> = HashMap::new();
        let mut merged: Vec<(SourceKey, Row)> = Vec::new();
        for row in rows {
            let key = SourceKey::of(&row);
            let next = merged.len();
            match merged.get_mut(*index.entry(key).or_insert(next)) {
                Some((_, sum)) => {
                    sum.totals += row.totals;
                    sum.stack = row.stack;
                    sum.survivors = match (sum.survivors, row.survivors) {
                        (Some(mut a), Some(b)) => {
                            a += b;
                            Some(a)
                        }
                        (a, b) => a.or(b),
                    };
                }
                None => merged.push((key, row)),
            }
        }
        merged
    }

    /// Books one context's row.
    fn take(&mut self, at: Duration, key: SourceKey, row: &Row) {
        if self.spaces.get(&row.space).is_some_and(|s| s.ended) {
            return;
        }
        if !self
            .sources
            .has_room_for(key, self.options.max_contexts, at)
        {
            self.dropped.rows += 1;
            return;
        }
        let known = self.sources.get(key);
        if let Some(known) = known.filter(|known| known.stack != row.stack) {
            self.move_between(at, row.space, known, row.stack);
        }
        let delta = match known {
            Some(known) if row.totals.covers(known.last) => row.totals.saturating_sub(known.last),
            _ => row.totals,
        };
        let mut source = known.unwrap_or_default();
        source.stack = row.stack;
        source.last = row.totals;
        source.sum += delta;
        source.seen = at;
        self.space(at, row.space)
            .account
            .book(at, delta, row.survivors);
        self.book(at, row, delta, &mut source);
        self.sources.insert(key, source);
    }

    /// Books to the stack's account; a context whose account was dropped brings all of its sum
    /// back, but only when something happened or there is room.
    fn book(&mut self, at: Duration, row: &Row, delta: Totals, source: &mut Source) {
        let room = self.stacks.len() < self.options.max_stacks;
        let key = (row.space, row.stack);
        if !source.listed && !room && delta == Totals::default() && !self.stacks.contains_key(&key)
        {
            return;
        }
        let amount = if source.listed { delta } else { source.sum };
        source.listed = true;
        let since = self
            .spaces
            .get(&row.space)
            .and_then(|s| s.account.observed_before(at))
            .or(self.observed);
        self.account(at, key, since).book(at, amount, row.survivors);
    }

    /// A context's bytes go to another stack's account (its stack copy came late, or it was split).
    fn move_between(&mut self, at: Duration, space: SpaceId, source: Source, to: StackId) {
        if !source.listed {
            return;
        }
        let from = (space, source.stack);
        let alone = self
            .stacks
            .get(&from)
            .is_some_and(|a| a.totals() == source.sum);
        if alone && !self.stacks.contains_key(&(space, to)) {
            // The account with its history was this context's alone: it only gets its right name.
            if let Some(account) = self.stacks.remove(&from) {
                self.stacks.insert((space, to), account);
            }
            return;
        }
        if let Some(account) = self.stacks.get_mut(&from) {
            account.unbook(source.sum);
        }
        if alone {
            self.stacks.remove(&from);
        }
        self.account(at, (space, to), None)
            .book(at, source.sum, None);
    }

    /// The account, made when it is not there; `since` as in [`Account::new`].
    fn account(
        &mut self,
        at: Duration,
        key: (SpaceId, StackId),
        since: Option<Duration>,
    ) -> &mut Account {
        let cap = self.options.history_points;
        self.stacks
            .entry(key)
            .or_insert_with(|| Account::new(cap, at, since))
    }

    fn space(&mut self, at: Duration, space: SpaceId) -> &mut Space {
        let (cap, since) = (self.options.history_points, self.observed);
        self.spaces.entry(space).or_insert_with(|| Space {
            account: Account::new(cap, at, since),
            ended: false,
        })
    }

    /// Writes the point of `at` into every history that still runs, or into those of one space.
    fn close(&mut self, at: Duration, only: Option<SpaceId>) {
        let spaces = &mut self.spaces;
        let runs = |space: SpaceId, entry: &Space| !entry.ended && only.is_none_or(|o| o == space);
        for ((space, _), account) in &mut self.stacks {
            if spaces.get(space).is_some_and(|entry| runs(*space, entry)) {
                account.close(at);
            }
        }
        for (space, entry) in spaces.iter_mut() {
            if runs(*space, entry) {
                entry.account.close(at);
            }
        }
    }

    fn enforce_caps(&mut self) {
        let excess = self.stacks.len().saturating_sub(self.options.max_stacks);
        for key in self.first_to_go(excess) {
            if let Some(account) = self.stacks.remove(&key) {
                self.dropped.stacks += 1;
                let bytes = &mut self.dropped.stack_outstanding_bytes;
                *bytes = bytes.saturating_add(account.totals().outstanding_bytes());
            }
        }
        if excess > 0 {
            self.sources
                .unlist(|space, stack| !self.stacks.contains_key(&(space, stack)));
        }
        self.drop_spaces(self.spaces.len().saturating_sub(self.options.max_spaces));
    }

    /// Ended spaces go first, longest unchanged first.
    fn drop_spaces(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let rank = |(id, s): (&SpaceId, &Space)| (!s.ended, s.account.changed(), *id);
        let mut order: Vec<_> = self.spaces.iter().map(rank).collect();
        order.sort_unstable();
        let first = order.into_iter().take(count).map(|(_, _, space)| space);
        self.forget_all(&first.collect());
        self.dropped.spaces += count as u64;
    }

    /// Stacks with nothing outstanding, longest unchanged first; after them the smallest.
    fn first_to_go(&self, count: usize) -> Vec<(SpaceId, StackId)> {
        if count == 0 {
            return Vec::new();
        }
        let rank = |(key, account): (&(SpaceId, StackId), &Account)| {
            (
                account.totals().outstanding_bytes(),
                account.changed(),
                *key,
            )
        };
        let mut order: Vec<_> = self.stacks.iter().map(rank).collect();
        order.sort_unstable();
        order
            .into_iter()
            .take(count)
            .map(|(_, _, key)| key)
            .collect()
    }
}
