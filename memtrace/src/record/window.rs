//! What was gained between two moments.

use std::collections::HashMap;

use super::RecordError;
use super::cycles::bytes_of;
use super::read::{Held, Moment, Read, Recording};
use crate::ledger::Point;
use crate::report::model::{NotShown, Report, Stack};
use crate::trend::{self, Judgement, Verdict};

/// Stacks that are judged, those that gained most: as live reporting does.
const MAX_JUDGED: usize = 2000;

/// A stack's gain.
struct Gained {
    held: Held,
    account: Stack,
    judgement: Judgement,
}

impl Recording {
    /// A report of what happened between two moments: its figures are those of `to` less those of
    /// `from`, its verdicts made of the intervals between. Stacks that gained nothing are left out.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn window(
        &self,
        from: &Moment,
        to: &Moment,
        top: Option<usize>,
    ) -> Result<Read, RecordError> {
        let mut report = self.without_stacks(to)?;
        let losses_before = self.without_stacks(from)?.losses;
        report.losses.retain(|name, count| {
            *count = count.saturating_sub(losses_before.get(name).copied().unwrap_or(0));
            *count > 0
        });
        report.started_at.clone_from(&from.taken_at);
        report.gained_since = Some(from.taken_at.clone());
        report.duration_seconds = (to.at_ms - from.at_ms) as f64 / 1000.0;
        let seconds = report.intervals.seconds;
        let completed = (report.duration_seconds / seconds + 0.1) as u32;
        report.intervals.completed = completed.min(report.intervals.completed);
        let before: HashMap<i64, Held> = self
            .held(from)?
            .into_iter()
            .map(|held| (held.id, held))
            .collect();
        let held = self.held(to)?;
        let now = bytes_of(&held);
        let mut gained = self.gained(held, &before, (from, to), &report)?;
        gained.sort_by_key(|gained| {
            (
                gained.judgement.verdict != Verdict::Growing,
                std::cmp::Reverse(gained.account.outstanding_bytes),
                gained.held.id,
            )
        });
        let fastest_growing = gained
            .iter()
            .filter(|gained| gained.judgement.verdict == Verdict::Growing)
            .map(|gained| gained.judgement.growth_bytes_per_second)
            .reduce(f64::max);
        let rest = gained.split_off(top.unwrap_or(usize::MAX).min(gained.len()));
        let known = &report;
        let summed = || {
            let accounts = rest.iter().map(|gained| &gained.account);
            accounts.filter(move |account| known.is_summed(account))
        };
        let not_shown = NotShown {
            stacks: rest.len(),
            outstanding_bytes: summed().map(|account| account.outstanding_bytes).sum(),
            outstanding_objects: summed().map(|account| account.outstanding_objects).sum(),
        };
        report.not_shown = not_shown;
        let keys: Vec<_> = gained.iter().map(|gained| gained.held.key()).collect();
        let stacks = gained.iter().map(|gained| gained.held.id).collect();
        let space = |gained: &Gained| gained.held.space.cast_unsigned();
        let spaces = gained.iter().map(space).collect();
        for (rank, gained) in (1..).zip(gained) {
            report.stacks.push(Stack {
                rank,
                frames: self.frames(gained.held.id)?,
                growth_bytes_per_second: gained.judgement.growth_bytes_per_second,
                verdict: gained.judgement.verdict,
                confidence: (gained.judgement.confidence * 100.0).round() / 100.0,
                ..gained.account
            });
        }
        report.name_owners();
        self.tell_cycles(&mut report, (Some(from), to), &now, &keys)?;
        Ok(Read {
            report,
            fastest_growing,
            stacks,
            spaces,
        })
    }

    fn gained(
        &self,
        held: Vec<Held>,
        before: &HashMap<i64, Held>,
        (from, to): (&Moment, &Moment),
        report: &Report,
    ) -> Result<Vec<Gained>, RecordError> {
        let mut gained: Vec<Gained> = held
            .into_iter()
            .filter_map(|held| {
                let account = gain(&held, before.get(&held.id), from, to)?;
                Some(Gained {
                    held,
                    account,
                    judgement: Judgement {
                        verdict: Verdict::TooEarly,
                        confidence: 0.0,
                        growth_bytes_per_second: 0.0,
                    },
                })
            })
            .collect();
        gained.sort_by_key(|g| (std::cmp::Reverse(g.account.outstanding_bytes), g.held.id));
        let judged: Vec<i64> = gained.iter().take(MAX_JUDGED).map(|g| g.held.id).collect();
        let histories = self.histories_between(&judged, from, to)?;
        let options = trend::Options {
            interval_seconds: report.intervals.seconds,
            losses: trend::Losses {
                // How large they were is not recorded: what is lost forbids a verdict.
                forbid: !report.losses.is_empty(),
                ..trend::Losses::default()
            },
        };
        for (gained, history) in gained.iter_mut().zip(histories) {
            let points: Vec<Point> = history
                .into_iter()
                .map(|(at, bytes)| Point { at, bytes })
                .collect();
            gained.judgement = trend::judge(&points, None, &options);
        }
        Ok(gained)
    }
}

/// What a stack gained; nothing when it did not.
fn gain(held: &Held, before: Option<&Held>, from: &Moment, to: &Moment) -> Option<Stack> {
    let now = held.row.account(to.at_ms, held.pid, held.of);
    let then = before.map(|before| before.row.account(from.at_ms, held.pid, held.of));
    let less = |of: fn(&Stack) -> u64| of(&now).saturating_sub(then.as_ref().map_or(0, of));
    let bytes = less(|s| s.outstanding_bytes);
    let objects = less(|s| s.outstanding_objects);
    if bytes == 0 && objects == 0 {
        return None;
    }
    let length = (to.at_ms - from.at_ms) as f64 / 1000.0;
    Some(Stack {
        outstanding_bytes: bytes,
        outstanding_objects: objects,
        allocated_bytes: less(|s| s.allocated_bytes),
        allocated_objects: less(|s| s.allocated_objects),
        freed_bytes: less(|s| s.freed_bytes),
        freed_objects: less(|s| s.freed_objects),
        oldest_seconds: now.oldest_seconds.map(|age| age.min(length)),
        ..now
    })
}
