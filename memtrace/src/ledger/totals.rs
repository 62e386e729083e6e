//! What is counted: the sums, and what a walk of the live table adds to them.

use std::ops::AddAssign;

/// What one stack of one process has done since the attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes requested.
    pub allocated_bytes: u64,
    /// Bytes of those freed again.
    pub freed_bytes: u64,
    /// Objects allocated, in 1/65536 of an object (`memtrace_common::ONE_OBJECT`).
    pub allocated_objects_q16: u64,
    /// Objects freed, in 1/65536 of an object.
    pub freed_objects_q16: u64,
}

impl Totals {
    /// Bytes allocated and not freed. Never below zero, whatever a racing reader saw.
    #[must_use]
    pub fn outstanding_bytes(&self) -> u64 {
        self.allocated_bytes.saturating_sub(self.freed_bytes)
    }

    /// Objects allocated and not freed, in 1/65536.
    #[must_use]
    pub fn outstanding_objects_q16(&self) -> u64 {
        self.allocated_objects_q16
            .saturating_sub(self.freed_objects_q16)
    }

    /// Field by field; never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// True when every counter is at least the other's.
    pub(super) fn covers(self, other: Self) -> bool {
        self.zip(other, |a, b| u64::from(a < b)) == Self::default()
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            allocated_bytes: f(self.allocated_bytes, other.allocated_bytes),
            freed_bytes: f(self.freed_bytes, other.freed_bytes),
            allocated_objects_q16: f(self.allocated_objects_q16, other.allocated_objects_q16),
            freed_objects_q16: f(self.freed_objects_q16, other.freed_objects_q16),
        }
    }
}

impl AddAssign for Totals {
    /// Saturates: what the kernel sends must not be able to end a session.
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, u64::saturating_add);
    }
}

/// What a walk of the live table found for one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Survivors {
    /// Age of the oldest live block in seconds.
    pub oldest_seconds: f64,
    /// Bytes of blocks older than one reporting interval.
    pub old_bytes: u64,
    /// Bytes of the blocks that pass `--older`; equals outstanding when no such filter is set.
    pub matching_bytes: u64,
    /// Objects of those, in 1/65536.
    pub matching_objects_q16: u64,
}

/// By which ages live memory is told apart. All times are of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Ages are as of this moment.
    pub now_ns: u64,
    /// Above this age memory counts as old.
    pub old_ns: u64,
    /// From this age on it passes `--older`.
    pub matching_ns: u64,
}

impl Survivors {
    /// Adds memory that has lived since `born_ns`. Saturates.
    pub fn add(&mut self, ages: Ages, born_ns: u64, bytes: u64, objects_q16: u64) {
        let age_ns = ages.now_ns.saturating_sub(born_ns);
        let is_old = age_ns > ages.old_ns;
        let is_matching = age_ns >= ages.matching_ns;
        *self += Self {
            oldest_seconds: age_ns as f64 / 1e9,
            old_bytes: if is_old { bytes } else { 0 },
            matching_bytes: if is_matching { bytes } else { 0 },
            matching_objects_q16: if is_matching { objects_q16 } else { 0 },
        };
    }
}

impl AddAssign for Survivors {
    fn add_assign(&mut self, other: Self) {
        self.oldest_seconds = self.oldest_seconds.max(other.oldest_seconds);
        self.old_bytes = self.old_bytes.saturating_add(other.old_bytes);
        self.matching_bytes = self.matching_bytes.saturating_add(other.matching_bytes);
        self.matching_objects_q16 = self
            .matching_objects_q16
            .saturating_add(other.matching_objects_q16);
    }
}
