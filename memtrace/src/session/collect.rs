//! Reading the kernel's tables into the ledger.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use memtrace_common::{
    Context, ContextKey, HEAP_FINGERPRINT, LiveKey, LiveValue, PROBE_BITS, weight,
};

use super::{Session, SessionError, contexts::Contexts, follow::Follow};
use crate::{
    id::{Fingerprint, SpaceId, StackId},
    ledger::{Ages, Row, Survivors, Totals},
    unwind::StackTable,
};

/// A walk of the live table may take this share of the time: a table of millions is walked less
/// often, and ages are carried forward in between.
const WALK_SHARE: u32 = 50;

pub(super) type Found = HashMap<(SpaceId, Fingerprint), Survivors>;

/// Whether a context counts heap calls, and not those of another probe.
pub(super) fn is_of_heap(key: ContextKey) -> bool {
    key.fingerprint & PROBE_BITS == HEAP_FINGERPRINT
}

/// What a context has counted.
pub(super) fn totals(context: &Context) -> Totals {
    Totals {
        allocated_bytes: context.allocated_bytes,
        freed_bytes: context.freed_bytes,
        allocated_objects_q16: context.allocated_objects,
        freed_objects_q16: context.freed_objects,
    }
}

/// What the kernel's contexts are made into rows of the ledger with.
pub(super) struct Attribution<'a> {
    pub contexts: &'a mut Contexts,
    pub stacks: &'a mut StackTable,
    pub mixed: &'a mut HashSet<(SpaceId, StackId)>,
    /// What a walk of the live table found, where there was one.
    pub found: Option<&'a Found>,
}

impl Attribution<'_> {
    /// The counts of a context under its stack; `None` when the table of stacks is full.
    pub fn row(&mut self, follow: &Follow, key: ContextKey, context: &Context) -> Option<Row> {
        let (space, fingerprint) = (SpaceId(key.space), Fingerprint(key.fingerprint));
        let family = follow.family(space);
        let stack = self.contexts.stack(family, fingerprint, self.stacks)?;
        if self.contexts.is_mixed(family, fingerprint, context.hits) {
            self.mixed.insert((space, stack));
        }
        let survivors = |found: &Found| {
            let of_context = found.get(&(space, fingerprint));
            of_context.copied().unwrap_or_default()
        };
        Some(Row {
            space,
            stack,
            context: Some(fingerprint),
            totals: totals(context),
            survivors: self.found.map(survivors),
        })
    }
}

impl Session {
    /// Handles all that is in the ring buffer. Thousands of processes may have ended in it: their
    /// last figures are read on the way, so that never many of them are kept.
    pub(super) fn catch_up_with_events(&mut self) -> Result<(), SessionError> {
        while self.handle_events()? {
            self.settle(false)?;
        }
        Ok(())
    }

    /// Brings the ledger up to date. `walk` forces the walk of the live table.
    pub(super) fn collect(&mut self, walk: bool) -> Result<(), SessionError> {
        let mut counts = self.counts()?;
        // A call path's stack is sent before its first call is counted: of all that was counted
        // until here the stack is in the ring buffer by now.
        self.catch_up_with_events()?;
        // So is the end of processes. These have last figures of their own: in this report, too.
        self.settle(true)?;
        let living: HashSet<_> = self.traced.iter().map(|t| t.image.space.0).collect();
        counts.retain(|(key, _)| living.contains(&key.space));
        // Ages are as of this moment, and in whole milliseconds since the start a block's birth
        // comes out the same at every report.
        let now = self.started.elapsed();
        self.observed_at = whole_milliseconds(now);
        let at = self.observed_at;
        let as_of_ns = monotonic_ns() - nanoseconds(now - at);
        let rows = self.rows(counts, walk || self.walk_is_due(), now - at)?;
        self.ledger.observe(at, rows);
        self.collect_faults(at, as_of_ns, walk)?;
        self.collect_regions(at, as_of_ns);
        self.reconcile(walk);
        Ok(())
    }

    /// The last figures of an address space that has ended; its entries leave the tables.
    pub(super) fn collect_final(&mut self, space: SpaceId) -> Result<(), SessionError> {
        let counts = self.counts()?;
        let rows = self.rows(counts, true, Duration::ZERO)?;
        let at = whole_milliseconds(self.started.elapsed());
        self.ledger.end(at, space, rows);
        self.end_memory(at, &HashSet::from([space]));
        self.kernel.forget_space(space)?;
        self.contexts.forget(space);
        Ok(())
    }

    /// The kernel's table of contexts as it is now.
    fn counts(&self) -> Result<Vec<(ContextKey, Context)>, SessionError> {
        let mut counts = Vec::new();
        self.kernel
            .walk_contexts(|key, context| counts.push((key, context)))?;
        Ok(counts)
    }

    /// The counts by stack; ages are as of `before` now.
    fn rows(
        &mut self,
        counts: Vec<(ContextKey, Context)>,
        walk: bool,
        before: Duration,
    ) -> Result<Vec<Row>, SessionError> {
        let found = if walk {
            Some(self.walk_live(before)?)
        } else {
            None
        };
        let mut rows = Vec::new();
        let Self {
            contexts,
            stacks,
            mixed,
            idle,
            follow,
            ..
        } = self;
        let mut attribution = Attribution {
            contexts,
            stacks,
            mixed,
            found: found.as_ref(),
        };
        for (key, context) in counts {
            if is_of_heap(key) {
                let Some(row) = attribution.row(follow, key, &context) else {
                    continue;
                };
                rows.push(row);
            }
            idle.look(key, &context);
        }
        self.evict_contexts()?;
        Ok(rows)
    }

    fn walk_is_due(&self) -> bool {
        self.last_walk
            .is_none_or(|(at, took)| at.elapsed() > took * WALK_SHARE)
    }

    /// Ages of the live blocks, per context.
    pub(super) fn walk_live(&mut self, before: Duration) -> Result<Found, SessionError> {
        let begun = Instant::now();
        let ages = self.ages(monotonic_ns() - nanoseconds(before));
        let rates = self.kernel.rates();
        let mut found = Found::new();
        self.kernel
            .walk_live(|LiveKey { space, .. }, value: LiveValue| {
                let rate = rates.get(value.epoch()).copied().unwrap_or(1);
                let objects = weight::objects_q16(value.size(), rate);
                let bytes = weight::bytes(value.size(), objects);
                let survivors = found
                    .entry((SpaceId(space), Fingerprint(value.context)))
                    .or_default();
                survivors.add(ages, value.born_ns, bytes, objects);
            })?;
        self.last_walk = Some((Instant::now(), begun.elapsed()));
        Ok(found)
    }

    /// The ages that reports tell apart, as of a moment of [`monotonic_ns`].
    pub(super) fn ages(&self, now_ns: u64) -> Ages {
        Ages {
            now_ns,
            old_ns: nanoseconds(self.options.interval),
            matching_ns: self.options.older.map_or(0, nanoseconds),
        }
    }
}

fn whole_milliseconds(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of the kernel side.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
