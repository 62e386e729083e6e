//! Which stack each of the kernel's contexts stands for.

use std::collections::{HashMap, HashSet};

use memtrace_common::{WIDE_CHECK, WIDE_NEVER};

use crate::{
    id::{Fingerprint, SpaceId, StackId},
    unwind::{Incomplete, StackTable, UnwoundStack},
};

/// After so many wide contexts that all turn out to be one stack, the wide window is given up for
/// their fingerprint: leftovers in dead stack slots differ, the path does not.
const FALSE_ALARMS: u32 = 16;
/// All hits up to this many are checked by the kernel side, so that nothing can be mixed up.
const PROBATION: u64 = 16;

/// A wide fingerprint's relation to its narrow one.
#[derive(Debug, Default)]
struct Widened {
    alarms: u32,
    split: bool,
}

/// The contexts of a session.
#[derive(Debug, Default)]
pub struct Contexts {
    stacks: HashMap<(SpaceId, Fingerprint), StackId>,
    widened: HashMap<(SpaceId, Fingerprint), Widened>,
    mixed: HashSet<(SpaceId, Fingerprint)>,
    deep: HashSet<(SpaceId, Fingerprint)>,
    unknown: Option<StackId>,
}

/// What to tell the kernel side after a context was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    None,
    /// Set the ambiguity table's entry of this fingerprint.
    SetWide(Fingerprint, u32),
}

impl Contexts {
    /// Learns that a context stands for a stack.
    pub fn learn(
        &mut self,
        space: SpaceId,
        fingerprint: Fingerprint,
        narrow: Fingerprint,
        stack: StackId,
    ) -> Advice {
        self.stacks.insert((space, fingerprint), stack);
        if fingerprint == narrow {
            return Advice::None;
        }
        let base = self.stacks.get(&(space, narrow)).copied();
        let widened = self.widened.entry((space, narrow)).or_default();
        if base.is_some_and(|base| base != stack) {
            widened.split = true;
            self.mixed.insert((space, narrow));
            return Advice::None;
        }
        widened.alarms += 1;
        if widened.split || widened.alarms != FALSE_ALARMS {
            return Advice::None;
        }
        Advice::SetWide(narrow, WIDE_NEVER)
    }

    /// The stack of a context; the "unattributed" one when its copy has not arrived.
    pub fn stack(
        &mut self,
        space: SpaceId,
        fingerprint: Fingerprint,
        table: &mut StackTable,
    ) -> Option<StackId> {
        if let Some(stack) = self.stacks.get(&(space, fingerprint)) {
            return Some(*stack);
        }
        if self.unknown.is_none() {
            let empty = UnwoundStack {
                frames: Vec::new().into(),
                incomplete: Some(Incomplete::CopyTooShort),
            };
            self.unknown = table.intern(&empty);
        }
        self.unknown
    }

    /// The stack of a context, if its copy has arrived.
    #[must_use]
    pub fn known(&self, space: SpaceId, fingerprint: Fingerprint) -> Option<StackId> {
        self.stacks.get(&(space, fingerprint)).copied()
    }

    /// Notes that a context's stack is deeper than any window that is compared: another path that
    /// differs only there would not be noticed.
    pub fn mark_deep(&mut self, space: SpaceId, fingerprint: Fingerprint) {
        self.deep.insert((space, fingerprint));
    }

    /// Whether part of a context's counts may belong to another stack: it was found to stand for
    /// two, after hits that nobody had checked.
    #[must_use]
    pub fn is_mixed(&self, space: SpaceId, fingerprint: Fingerprint, hits: u64) -> bool {
        let context = (space, fingerprint);
        (hits > PROBATION && self.mixed.contains(&context))
            || (hits > 1 && self.deep.contains(&context))
    }

    /// Forgets an address space.
    pub fn forget(&mut self, space: SpaceId) {
        self.stacks.retain(|(of, _), _| *of != space);
        self.widened.retain(|(of, _), _| *of != space);
        self.mixed.retain(|(of, _)| *of != space);
        self.deep.retain(|(of, _)| *of != space);
        self.stacks.shrink_to_fit();
    }
}

impl Contexts {
    /// Forgets many at once.
    pub fn forget_all(&mut self, spaces: &HashSet<SpaceId>) {
        self.stacks.retain(|(of, _), _| !spaces.contains(of));
        self.widened.retain(|(of, _), _| !spaces.contains(of));
        self.mixed.retain(|(of, _)| !spaces.contains(of));
        self.deep.retain(|(of, _)| !spaces.contains(of));
        self.stacks.shrink_to_fit();
    }

    /// Every stack that a context stands for.
    pub fn stack_ids(&self) -> impl Iterator<Item = StackId> {
        self.stacks.values().copied().chain(self.unknown)
    }
}

const _: () = assert!(WIDE_CHECK != WIDE_NEVER);

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId(1);
    const NARROW: Fingerprint = Fingerprint(100);

    /// A wide context of another stack marks the narrow one as mixed, unless all was checked.
    #[test]
    fn ambiguity_is_remembered() {
        let mut contexts = Contexts::default();
        contexts.learn(SPACE, NARROW, NARROW, StackId(1));
        assert!(!contexts.is_mixed(SPACE, NARROW, 1000));
        contexts.learn(SPACE, Fingerprint(200), NARROW, StackId(2));
        assert!(contexts.is_mixed(SPACE, NARROW, 1000));
        assert!(!contexts.is_mixed(SPACE, NARROW, PROBATION));
    }

    /// Many wide contexts of one and the same stack end the checks; one real split keeps them.
    #[test]
    fn false_alarms_end_the_checks() {
        let run = |split: bool| {
            let mut contexts = Contexts::default();
            contexts.learn(SPACE, NARROW, NARROW, StackId(1));
            if split {
                contexts.learn(SPACE, Fingerprint(1), NARROW, StackId(2));
            }
            (0..u64::from(FALSE_ALARMS))
                .map(|n| contexts.learn(SPACE, Fingerprint(200 + n), NARROW, StackId(1)))
                .filter(|advice| *advice == Advice::SetWide(NARROW, WIDE_NEVER))
                .count()
        };
        assert_eq!(run(false), 1);
        assert_eq!(run(true), 0);
    }

    /// A context without a stack yet stands under one common "unattributed" stack.
    #[test]
    fn unknown_contexts_share_a_stack() {
        let mut contexts = Contexts::default();
        let mut table = StackTable::default();
        let a = contexts.stack(SPACE, Fingerprint(1), &mut table);
        let b = contexts.stack(SPACE, Fingerprint(2), &mut table);
        assert!(a.is_some());
        assert_eq!(a, b);
    }
}
