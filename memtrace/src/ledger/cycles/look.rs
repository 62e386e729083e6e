//! What there is to tell of the cycles at one moment.

use std::collections::BTreeMap;

use super::{Columns, Cycle, MAX_CANDIDATES, MAX_LISTED, NEEDED, Segment, Track, columns};

/// A session's marks: the stretches between them, and what the stacks `K` held at them.
#[derive(Clone, Debug)]
pub struct Marked<K> {
    /// The stretches.
    pub track: Track,
    /// The stacks.
    pub columns: Columns<K>,
}

impl<K> Default for Marked<K> {
    fn default() -> Self {
        Self {
            track: Track::default(),
            columns: Columns::default(),
        }
    }
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Look<K> {
    /// The name of the marks that begin a cycle; nothing when every mark does.
    pub name: Option<String>,
    /// Cycles that are over.
    pub completed: usize,
    /// All of those joined.
    pub total: Option<Segment>,
    /// How many of those reached each of the thresholds asked for; empty without a limit.
    pub reached: Vec<(u8, usize)>,
    /// How many cycles are before those listed.
    pub earlier: usize,
    /// The latest cycles, as far as the stacks of their marks are known.
    pub listed: Vec<Cycle>,
    /// What each of the stacks shown, and of the candidates, gained in each of those.
    pub growth: BTreeMap<K, Vec<i64>>,
    /// Stacks that may be of what grows in every completed cycle listed, those that gained most
    /// first; none before there are [`NEEDED`] such cycles.
    pub candidates: Vec<K>,
    /// How many stacks gained in those cycles; more than candidates when there are too many.
    pub gaining: usize,
}

impl<K> Look<K> {
    /// Completed cycles among those listed.
    #[must_use]
    pub fn over(&self) -> usize {
        self.listed.iter().filter(|cycle| cycle.is_over()).count()
    }
}

impl<K: Ord + Copy> Marked<K> {
    /// What there is to tell at a moment at which the stacks hold `now`, in the order of the stacks,
    /// and which shows those of `shown`; nothing before the first cycle.
    #[must_use]
    pub fn look(&self, now: &[(K, u64)], shown: &[K]) -> Option<Look<K>> {
        let mut listed = self.track.cycles();
        if listed.is_empty() {
            return None;
        }
        let over = || listed.iter().filter(|cycle| cycle.is_over());
        let has_limit = over().any(|cycle| cycle.segment.nearest.is_some());
        let thresholds = self.track.thresholds.iter();
        let reached = thresholds.filter(|_| has_limit).map(|percent| {
            let cycles = over().filter(|cycle| cycle.reached(*percent));
            (*percent, cycles.count())
        });
        let total = over().fold(None, |total: Option<Segment>, cycle| match total {
            Some(total) => Some(total.join(&cycle.segment)),
            None => Some(cycle.segment.clone()),
        });
        let mut look = Look {
            name: self.track.name().map(str::to_owned),
            completed: over().count(),
            total,
            reached: reached.collect(),
            earlier: 0,
            listed: Vec::new(),
            growth: BTreeMap::new(),
            candidates: Vec::new(),
            gaining: 0,
        };
        let first = self.columns.first().unwrap_or(u64::MAX);
        let unknown = listed.iter().filter(|cycle| cycle.segment.number < first);
        look.earlier = unknown.count().max(listed.len().saturating_sub(MAX_LISTED));
        look.listed = listed.split_off(look.earlier.min(listed.len()));
        self.grown(&mut look, now, shown);
        Some(look)
    }

    fn grown(&self, look: &mut Look<K>, now: &[(K, u64)], shown: &[K]) {
        let mut marks: Vec<u64> = look.listed.iter().map(|c| c.segment.number).collect();
        let is_open = look.listed.last().is_some_and(|cycle| !cycle.is_over());
        let end = look.listed.last().and_then(|cycle| cycle.ended_by.as_ref());
        marks.extend(end.map(|(number, _)| *number));
        let moments = self.columns.moments(&marks, is_open.then_some(now));
        look.candidates = gaining(&moments, look.over());
        look.gaining = look.candidates.len();
        look.candidates.truncate(MAX_CANDIDATES);
        let wanted = look.candidates.iter().chain(shown);
        look.growth = wanted
            .map(|stack| (*stack, columns::gained(&moments, stack)))
            .collect();
    }
}

/// The stacks that hold more after the first `over` cycles than before them, those that gained most
/// first.
fn gaining<K: Ord + Copy>(moments: &[&[(K, u64)]], over: usize) -> Vec<K> {
    let (Some(first), Some(last)) = (moments.first(), moments.get(over)) else {
        return Vec::new();
    };
    if over < NEEDED {
        return Vec::new();
    }
    let mut gained: Vec<(i64, K)> = last
        .iter()
        .map(|(stack, _)| {
            let change = columns::gained(&[*first, *last], stack);
            (change.into_iter().sum(), *stack)
        })
        .filter(|(gained, _)| *gained > 0)
        .collect();
    gained.sort_unstable_by_key(|(gained, stack)| (std::cmp::Reverse(*gained), *stack));
    gained.into_iter().map(|(_, stack)| stack).collect()
}
