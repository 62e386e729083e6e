//! What was lost, by name, and what that does to verdicts (R12).

use std::collections::BTreeMap;

use memtrace_common::{COUNTERS, Counter, counters::Class};

use super::Session;
use crate::{probe::Counters, report::loss_names, trend};

/// Losses and notes by the names of reports.
pub(super) struct Account {
    pub losses: BTreeMap<String, u64>,
    pub notes: BTreeMap<String, u64>,
    pub trend: trend::Losses,
}

impl Session {
    pub(super) fn losses(&self, counters: &Counters) -> Account {
        let mut losses = BTreeMap::new();
        let mut notes = BTreeMap::new();
        for (counter, name, class) in COUNTERS {
            let value = counters.get(*counter);
            if value == 0 || (self.is_filtered() && *counter == Counter::UnmatchedFrees) {
                continue;
            }
            match class {
                Class::Work => {}
                Class::Note => _ = notes.insert((*name).to_owned(), value),
                _ => _ = losses.insert((*name).to_owned(), value),
            }
        }
        let mut dropped = self.ledger.dropped();
        dropped += self.regions.accounts_dropped();
        dropped += self.faults.ledger().dropped();
        let (regions, faults) = (self.regions.dropped(), self.faults.dropped());
        let missed = self.kernel.missed();
        let [intervals, incidents, limits] = self.not_recorded();
        let lost = [
            self.stream.undecodable(),
            self.stacks.refused(),
            dropped.rows,
            dropped.stacks,
            dropped.spaces,
            self.images_dropped,
            self.probes_moved,
            self.probes_refused,
            self.incidents_dropped(),
            regions.bytes,
            self.regions.refused(),
            self.faults.refused(),
            self.faults.partial(),
            regions.paths,
            faults.bytes,
            faults.paths,
            missed.regions,
            missed.mappings,
            missed.faults,
            intervals,
            incidents,
            limits,
        ];
        for (name, value) in loss_names::LOSSES.into_iter().zip(lost) {
            if value != 0 {
                losses.insert(name.to_owned(), value);
            }
        }
        let unwound = self.unwinder.counters();
        let noted = [
            unwound.objects_without_tables,
            unwound.objects_unusable,
            unwound.objects_too_large,
            unwound.objects_panicked,
            unwound.tables_evicted,
            unwound.mappings_dropped,
            self.contexts_evicted,
            self.selected.skipped,
            self.follow.without_slot,
            self.follow.unread,
            self.faults.inferred_bytes(),
            regions.joins,
            faults.joins,
            missed.lives,
        ];
        for (name, value) in loss_names::NOTES.into_iter().zip(noted) {
            if value != 0 {
                notes.insert(name.to_owned(), value);
            }
        }
        let mut trend = trend_losses(counters, dropped.rows);
        // Without its probe a free function's calls would all look like leaks.
        trend.forbid |= self.probes_refused > 0;
        // And a mapping whose end was not seen like a region that leaks.
        trend.forbid |= self.regions.are_on() && missed.regions > 0;
        Account {
            losses,
            notes,
            trend,
        }
    }

    /// Frees of blocks that were not recorded say nothing when not all are.
    fn is_filtered(&self) -> bool {
        self.kernel.sample_bytes() > 1
            || self.options.filters.min_size_bytes.is_some()
            || self.options.filters.max_size_bytes.is_some()
    }
}

fn trend_losses(counters: &Counters, rows_dropped: u64) -> trend::Losses {
    let get = |counter| counters.get(counter);
    let lost = get(Counter::LiveTableFull)
        + get(Counter::NestingTooDeep)
        + get(Counter::OutPointerUnreadable)
        + get(Counter::OrphanReturns)
        + get(Counter::MissedFrees);
    let calls = get(Counter::EntryHits).max(1);
    trend::Losses {
        // Whole threads or processes unseen: anything could be missing.
        forbid: get(Counter::ThreadTableFull) > 0
            || get(Counter::TargetTableFull) > 0
            || get(Counter::EventLost) > 0
            || get(Counter::RegionEventLost) > 0
            || rows_dropped > 0,
        fraction: (lost as f64 / calls as f64).min(1.0),
        unseen_free_bytes: 0,
        unseen_allocation_bytes: get(Counter::LiveTableFullBytes),
    }
}
