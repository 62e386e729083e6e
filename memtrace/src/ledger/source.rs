//! The kernel's counter sets one by one, so that none is counted twice or lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Row, Totals};
use crate::id::{Fingerprint, SpaceId, StackId};

/// Identity of one set of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SourceKey {
    /// A kernel context.
    Context(SpaceId, Fingerprint),
    /// All contexts of a stack, merged by the caller.
    Merged(SpaceId, StackId),
}

impl SourceKey {
    pub(super) fn of(row: &Row) -> Self {
        match row.context {
            Some(fingerprint) => Self::Context(row.space, fingerprint),
            None => Self::Merged(row.space, row.stack),
        }
    }

    fn space(self) -> SpaceId {
        match self {
            Self::Context(space, _) | Self::Merged(space, _) => space,
        }
    }
}

/// What is known of one set of counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// The stack it was booked under.
    pub(super) stack: StackId,
    /// As last read.
    pub(super) last: Totals,
    /// All it ever counted: `last` and its earlier lives.
    pub(super) sum: Totals,
    /// When it was last read.
    pub(super) seen: Duration,
    /// False when the stack's account was dropped: `sum` is in no account.
    pub(super) listed: bool,
}

impl Default for Source {
    fn default() -> Self {
        let none = Totals::default();
        Self {
            stack: StackId(0),
            last: none,
            sum: none,
            seen: Duration::ZERO,
            listed: true,
        }
    }
}

/// All sets of counters.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: HashMap<SourceKey, Source>,
    /// The observation before the running one.
    previous: Duration,
    /// When room was last made; once an observation is enough.
    swept: Option<Duration>,
}

impl Sources {
    pub(super) fn get(&self, key: SourceKey) -> Option<Source> {
        self.known.get(&key).copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn insert(&mut self, key: SourceKey, source: Source) {
        self.known.insert(key, source);
    }

    /// Whether `key` can be kept. When full, those that were not read in the last observation go:
    /// the kernel has evicted them, and their bytes are booked.
    pub(super) fn has_room_for(&mut self, key: SourceKey, cap: usize, at: Duration) -> bool {
        if self.known.contains_key(&key) || self.known.len() < cap {
            return true;
        }
        if self.swept != Some(at) {
            self.swept = Some(at);
            let previous = self.previous;
            self.known.retain(|_, source| source.seen >= previous);
        }
        self.known.len() < cap
    }

    /// An observation of all spaces is over.
    pub(super) fn close(&mut self, at: Duration) {
        self.previous = at;
    }

    pub(super) fn forget(&mut self, space: SpaceId) {
        self.known.retain(|key, _| key.space() != space);
    }

    pub(super) fn forget_all(&mut self, spaces: &HashSet<SpaceId>) {
        self.known.retain(|key, _| !spaces.contains(&key.space()));
        if self.known.len() * 4 < self.known.capacity() {
            self.known.shrink_to_fit();
        }
    }

    /// Marks those whose account is gone.
    pub(super) fn unlist(&mut self, gone: impl Fn(SpaceId, StackId) -> bool) {
        for (key, source) in &mut self.known {
            if gone(key.space(), source.stack) {
                source.listed = false;
            }
        }
    }
}
