//! A stack's account as a row, and back. Pure.

use crate::ledger::regions::RegionKind;
use crate::report::model::{Owner, Stack, Word};
use crate::trend::Verdict;

/// Which stack: unique within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackKey {
    /// Address space.
    pub space: u64,
    /// Number of the stack.
    pub stack: u32,
    /// heap, region or fault.
    pub probe: Word,
    /// What a region is used as.
    pub kind: Option<RegionKind>,
}

/// One stack at one report, shown or not.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Which.
    pub key: StackKey,
    /// Its account as reports have it; rank and frames are ignored.
    pub account: Stack,
    /// False for stacks below those that are judged: reports only sum them up.
    pub judged: bool,
}

pub(super) const COMPLETE: i64 = 1;
pub(super) const APPROXIMATE: i64 = 2;
/// `oldest_ms` is an age: the process is gone and time stands still for its blocks.
pub(super) const STILL: i64 = 4;
/// The stack is no longer known.
pub(super) const GONE: i64 = 8;

/// In the order of `Verdict`'s numbers, which are written to files: never reordered.
const VERDICTS: [(Verdict, &str); 7] = [
    (Verdict::Growing, "growing"),
    (Verdict::Plateau, "plateau"),
    (Verdict::Sawtooth, "sawtooth"),
    (Verdict::Spike, "spike"),
    (Verdict::Steady, "steady"),
    (Verdict::Shrinking, "shrinking"),
    (Verdict::TooEarly, "too-early"),
];

pub(super) fn verdicts() -> impl Iterator<Item = (i64, &'static str)> {
    (0..).zip(VERDICTS.iter().map(|(_, name)| *name))
}

/// The columns of `samples` after its key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub allocated_bytes: u64,
    pub freed_bytes: u64,
    pub allocated_objects: u64,
    pub freed_objects: u64,
    /// `None`: allocated less freed.
    pub outstanding_bytes: Option<u64>,
    pub outstanding_objects: Option<u64>,
    pub oldest_ms: Option<i64>,
    pub growth: f64,
    pub verdict: Option<i64>,
    pub confidence: i64,
    pub flags: i64,
}

impl Row {
    /// A stack that is no longer known.
    pub const GONE: Self = Self {
        allocated_bytes: 0,
        freed_bytes: 0,
        allocated_objects: 0,
        freed_objects: 0,
        outstanding_bytes: None,
        outstanding_objects: None,
        oldest_ms: None,
        growth: 0.0,
        verdict: None,
        confidence: 0,
        flags: GONE,
    };

    /// `at_ms` is the report's moment, `still` that the process is gone.
    pub fn of(observed: &Observed, at_ms: i64, still: bool) -> Self {
        let stack = &observed.account;
        let age_ms = stack.oldest_seconds.map(|s| (s * 1000.0).round() as i64);
        let differs = |value: u64, usual: u64| (value != usual).then_some(value);
        let verdict = VERDICTS.iter().position(|(v, _)| *v == stack.verdict);
        let flag = |is: bool, flag: i64| if is { flag } else { 0 };
        Self {
            allocated_bytes: stack.allocated_bytes,
            freed_bytes: stack.freed_bytes,
            allocated_objects: stack.allocated_objects,
            freed_objects: stack.freed_objects,
            outstanding_bytes: differs(
                stack.outstanding_bytes,
                stack.allocated_bytes.saturating_sub(stack.freed_bytes),
            ),
            outstanding_objects: differs(
                stack.outstanding_objects,
                stack.allocated_objects.saturating_sub(stack.freed_objects),
            ),
            oldest_ms: age_ms.map(|age| if still { age } else { at_ms - age }),
            growth: finite(stack.growth_bytes_per_second),
            verdict: verdict
                .filter(|_| observed.judged)
                .and_then(|at| i64::try_from(at).ok()),
            confidence: (stack.confidence * 100.0).round() as i64,
            flags: flag(stack.complete, COMPLETE)
                | flag(stack.approximate, APPROXIMATE)
                | flag(still && age_ms.is_some(), STILL),
        }
    }

    /// Bytes allocated and not freed, whatever their age: what stacks are ranked by.
    pub fn rank_bytes(&self) -> u64 {
        self.allocated_bytes.saturating_sub(self.freed_bytes)
    }

    pub fn is_gone(&self) -> bool {
        self.flags & GONE != 0
    }

    pub fn verdict(&self) -> Option<Verdict> {
        let at = usize::try_from(self.verdict?).ok()?;
        VERDICTS.get(at).map(|(verdict, _)| *verdict)
    }

    pub fn held_bytes(&self) -> u64 {
        self.outstanding_bytes.unwrap_or_else(|| self.rank_bytes())
    }

    pub fn held_objects(&self) -> u64 {
        let usual = self.allocated_objects.saturating_sub(self.freed_objects);
        self.outstanding_objects.unwrap_or(usual)
    }

    /// As reports have it, without rank and frames.
    pub fn account(&self, at_ms: i64, pid: u32, of: (Word, Option<RegionKind>)) -> Stack {
        let (probe, kind) = of;
        let age_ms = self.oldest_ms.map(|oldest| match self.flags & STILL {
            0 => at_ms.saturating_sub(oldest),
            _ => oldest,
        });
        Stack {
            rank: 0,
            pid,
            owner: Owner::default(),
            probe,
            kind,
            outstanding_bytes: self.held_bytes(),
            outstanding_objects: self.held_objects(),
            allocated_bytes: self.allocated_bytes,
            allocated_objects: self.allocated_objects,
            freed_bytes: self.freed_bytes,
            freed_objects: self.freed_objects,
            oldest_seconds: age_ms.map(|ms| ms as f64 / 1000.0),
            growth_bytes_per_second: self.growth,
            verdict: self.verdict().unwrap_or(Verdict::TooEarly),
            confidence: self.confidence as f64 / 100.0,
            complete: self.flags & COMPLETE != 0,
            approximate: self.flags & APPROXIMATE != 0,
            gained_per_cycle: Vec::new(),
            frames: Vec::new(),
        }
    }
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}
