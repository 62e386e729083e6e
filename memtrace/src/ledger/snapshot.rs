//! What a ledger lends out to a report.

use super::{Account, Dropped, Ledger, Space};
use crate::id::{SpaceId, StackId};

/// Order of [`Ledger::stacks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rank {
    /// Most outstanding bytes first.
    #[default]
    Outstanding,
    /// Largest gain of outstanding bytes a second over the recent past first.
    Growth,
}

/// A stack's account as lent out.
#[derive(Clone, Copy, Debug)]
pub struct StackAccount<'a> {
    /// The process's address space.
    pub space: SpaceId,
    /// The stack.
    pub stack: StackId,
    /// The figures.
    pub account: &'a Account,
}

/// A process's account as lent out.
#[derive(Clone, Copy, Debug)]
pub struct SpaceAccount<'a> {
    /// The address space.
    pub space: SpaceId,
    /// The figures: the sum over all its stacks, also of those dropped since.
    pub account: &'a Account,
    /// True once [`Ledger::end`] was called.
    pub ended: bool,
}

/// All accounts as lent out.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Ranked.
    pub stacks: Vec<StackAccount<'a>>,
    /// By space.
    pub spaces: Vec<SpaceAccount<'a>>,
    /// What the caps cost.
    pub dropped: Dropped,
}

impl Ledger {
    /// Everything a report needs, at once.
    #[must_use]
    pub fn snapshot(&self, rank: Rank) -> Snapshot<'_> {
        Snapshot {
            stacks: self.stacks(rank),
            spaces: self.spaces(),
            dropped: self.dropped,
        }
    }

    /// Every stack's account, ranked; equals by space and stack, so that the order is the same in
    /// every run.
    #[must_use]
    pub fn stacks(&self, rank: Rank) -> Vec<StackAccount<'_>> {
        let account = |(&(space, stack), account)| StackAccount {
            space,
            stack,
            account,
        };
        let mut all: Vec<_> = self.stacks.iter().map(account).collect();
        match rank {
            Rank::Outstanding => all.sort_unstable_by_key(|s| {
                (
                    std::cmp::Reverse(s.account.totals().outstanding_bytes()),
                    s.space,
                    s.stack,
                )
            }),
            Rank::Growth => {
                let mut keyed: Vec<_> = all.iter().map(|s| (s.account.recent_rate(), *s)).collect();
                keyed.sort_unstable_by(|(a, s), (b, t)| {
                    b.total_cmp(a)
                        .then((s.space, s.stack).cmp(&(t.space, t.stack)))
                });
                all = keyed.into_iter().map(|(_, s)| s).collect();
            }
        }
        all
    }

    /// One stack's account.
    #[must_use]
    pub fn stack(&self, space: SpaceId, stack: StackId) -> Option<&Account> {
        self.stacks.get(&(space, stack))
    }

    /// Every process's account, by space.
    #[must_use]
    pub fn spaces(&self) -> Vec<SpaceAccount<'_>> {
        let lend = |(&space, entry)| {
            let entry: &Space = entry;
            SpaceAccount {
                space,
                account: &entry.account,
                ended: entry.ended,
            }
        };
        let mut all: Vec<_> = self.spaces.iter().map(lend).collect();
        all.sort_unstable_by_key(|s| s.space);
        all
    }
}
