//! What a session gives to a ledger, and what the ledger may keep of it.

use super::{Survivors, Totals};
use crate::id::{Fingerprint, SpaceId, StackId};

/// One set of the kernel's counters, as read at a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The process's address space.
    pub space: SpaceId,
    /// The stack the counters stand under, as known now.
    pub stack: StackId,
    /// The kernel context they belong to. `None` when the caller has already merged all contexts
    /// of the stack; then a context the kernel evicts must stay in the caller's sum.
    pub context: Option<Fingerprint>,
    /// Counters since the attach.
    pub totals: Totals,
    /// From the walk of the live table; `None` when there was none.
    pub survivors: Option<Survivors>,
}

/// How much a ledger may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Points of 16 bytes kept of each stack and space; see [`super::History`].
    pub history_points: usize,
    /// Stacks kept, over all spaces. With the defaults a stack costs at most 3 KiB.
    pub max_stacks: usize,
    /// Kernel contexts kept, over all spaces. Each costs about 100 bytes.
    pub max_contexts: usize,
    /// Spaces kept.
    pub max_spaces: usize,
}

impl Default for LedgerOptions {
    /// 1,000 stacks of any age take 3 MiB; all caps reached, 60 MiB.
    fn default() -> Self {
        Self {
            history_points: 160,
            max_stacks: 16_384,
            max_contexts: 65_536,
            max_spaces: 1024,
        }
    }
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.stacks += other.stacks;
        let bytes = &mut self.stack_outstanding_bytes;
        *bytes = bytes.saturating_add(other.stack_outstanding_bytes);
        self.rows += other.rows;
        self.spaces += other.spaces;
    }
}

/// What the caps cost, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Times a stack's account was dropped. Its bytes stay in its space's totals.
    pub stacks: u64,
    /// Outstanding bytes those accounts held when they went.
    pub stack_outstanding_bytes: u64,
    /// Rows not taken because `max_contexts` was reached: bytes missing everywhere.
    pub rows: u64,
    /// Spaces dropped with all they had.
    pub spaces: u64,
}
