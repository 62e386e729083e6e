//! What was gained between two moments.

use std::collections::{BTreeMap, HashMap};

use super::cycles::bytes_of;
use super::read::{Held, MAX_JUDGED, Read, Recording};
use super::{Moment, RecordError};
use crate::ledger::Point;
use crate::report::loss_names;
use crate::report::model::{Grower, Mark, NotShown, Process, ProcessState, Report, Stack};
use crate::trend::{self, Judgement, Verdict};

/// Stacks that are shown: more than there is room for in the kernel's tables.
const MAX_SHOWN: usize = 100_000;
/// Points of all histories that are judged, together (64 MiB): the more moments, the fewer series.
const MAX_POINTS: usize = 4 << 20;

/// A stack's gain.
struct Gained {
    held: Held,
    account: Stack,
    judgement: Judgement,
}

impl Recording {
    /// A report of what happened between two moments: its figures are those of `to` less those of
    /// `from`, its verdicts made of the intervals between. Stacks that gained nothing are left out; a
    /// process that gave more back than it took gained 0.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn window(
        &self,
        from: &Moment,
        to: &Moment,
        top: Option<usize>,
    ) -> Result<Read, RecordError> {
        let mut report = self.header(to)?;
        since(&mut report, &self.header(from)?, (from, to));
        let mut moments = self.moments()?;
        moments.retain(|m| m.interval > from.interval && m.interval <= to.interval);
        let judging = Judging::of(&report, moments.len());
        report.marks = moments.into_iter().flat_map(marks).collect();
        report.processes = self.process_gains(from, to, &judging)?;
        let before: HashMap<i64, Held> = self
            .held(from)?
            .into_iter()
            .map(|held| (held.id, held))
            .collect();
        let held = self.held(to)?;
        let now = bytes_of(&held);
        let mut gained = self.gained(held, &before, (from, to), &judging)?;
        gained.sort_by_key(|gained| {
            (
                gained.held.is_apart(),
                gained.judgement.verdict != Verdict::Growing,
                std::cmp::Reverse(gained.account.outstanding_bytes),
                gained.held.id,
            )
        });
        let shown = top.unwrap_or(usize::MAX).min(MAX_SHOWN);
        let rest = gained.split_off(shown.min(gained.len()));
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
        let mut frames_read = 0;
        for (rank, gained) in (1..).zip(gained) {
            let frames = self.frames(gained.held.id)?;
            frames_read += frames.len();
            self.not_too_many(frames_read, "frames")?;
            report.stacks.push(Stack {
                rank,
                frames,
                growth_bytes_per_second: gained.judgement.growth_bytes_per_second,
                verdict: gained.judgement.verdict,
                confidence: (gained.judgement.confidence * 100.0).round() / 100.0,
                ..gained.account
            });
        }
        report.name_owners();
        let candidates = self.tell_cycles(&mut report, (Some(from), to), &now, &keys)?;
        Ok(Read {
            report,
            candidates,
            stacks,
            spaces,
        })
    }

    fn gained(
        &self,
        held: Vec<Held>,
        before: &HashMap<i64, Held>,
        (from, to): (&Moment, &Moment),
        judging: &Judging,
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
        let judged = gained.iter().take(judging.most);
        let judged: Vec<i64> = judged.map(|g| g.held.id).collect();
        let histories = self.histories_between(&judged, from, to)?;
        for (gained, history) in gained.iter_mut().zip(histories) {
            let points: Vec<Point> = history
                .into_iter()
                .map(|(at, bytes)| Point { at, bytes })
                .collect();
            gained.judgement = trend::judge(&points, None, &judging.options);
        }
        Ok(gained)
    }

    fn process_gains(
        &self,
        from: &Moment,
        to: &Moment,
        judging: &Judging,
    ) -> Result<Vec<Process>, RecordError> {
        let before: HashMap<i64, Process> = self.processes(from)?.into_iter().collect();
        let processes = self.processes(to)?;
        let held_before = |id: &i64| before.get(id).map(|then| then.outstanding_bytes);
        let mut most_gained: Vec<(u64, i64)> = processes
            .iter()
            .map(|(id, now)| {
                let then = held_before(id).unwrap_or(0);
                (now.outstanding_bytes.saturating_sub(then), *id)
            })
            .collect();
        most_gained.sort_unstable_by_key(|(bytes, id)| (std::cmp::Reverse(*bytes), *id));
        let judged = most_gained.iter().take(judging.most);
        let judged = judged.map(|(_, id)| (*id, held_before(id))).collect();
        let histories = self.process_histories(judged, from, to)?;
        let gained = processes.into_iter().map(|(id, now)| {
            let points = histories.get(&id).map_or(&[][..], Vec::as_slice);
            process_gain(
                now,
                before.get(&id),
                &trend::judge(points, None, &judging.options),
            )
        });
        Ok(gained.collect())
    }

    /// What processes held at every moment between two, beginning with what is given; nothing while
    /// they are not shown.
    fn process_histories(
        &self,
        mut held: HashMap<i64, Option<u64>>,
        from: &Moment,
        to: &Moment,
    ) -> Result<HashMap<i64, Vec<Point>>, RecordError> {
        let wrong = self.wrong();
        let mut moments = self.moments()?;
        moments.retain(|m| (from.interval..=to.interval).contains(&m.interval));
        let mut moments = moments.into_iter().peekable();
        let mut histories: HashMap<i64, Vec<Point>> = HashMap::new();
        let mut close = |before: i64, held: &HashMap<i64, Option<u64>>| {
            while let Some(moment) = moments.next_if(|m| m.interval < before) {
                let at = moment.at_ms as f64 / 1000.0;
                for (process, bytes) in held {
                    let point = bytes.map(|bytes| Point { at, bytes });
                    histories.entry(*process).or_default().extend(point);
                }
            }
        };
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT interval, process, outstanding_bytes FROM process_samples
                 WHERE interval > ?1 AND interval <= ?2 ORDER BY interval",
            )
            .map_err(&wrong)?;
        let mut rows = statement
            .query([from.interval, to.interval])
            .map_err(&wrong)?;
        while let Some(row) = rows.next().map_err(&wrong)? {
            let read = || Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?));
            let (interval, process, bytes) = read().map_err(&wrong)?;
            close(interval, &held);
            if let Some(held) = held.get_mut(&process) {
                *held = bytes.map(i64::cast_unsigned);
            }
        }
        close(i64::MAX, &held);
        Ok(histories)
    }
}

/// Makes the head of a report that of a stretch: what is counted from the start becomes a difference.
fn since(report: &mut Report, before: &Report, (from, to): (&Moment, &Moment)) {
    type Counts = BTreeMap<String, u64>;
    let gained = |now: &mut Counts, then: &Counts| {
        now.retain(|name, count| {
            *count = count.saturating_sub(then.get(name).copied().unwrap_or(0));
            *count > 0
        });
    };
    gained(&mut report.losses, &before.losses);
    gained(&mut report.notes, &before.notes);
    report.started_at.clone_from(&from.taken_at);
    report.gained_since = Some(from.taken_at.clone());
    report.duration_seconds = (to.at_ms - from.at_ms) as f64 / 1000.0;
    let completed = (report.duration_seconds / report.intervals.seconds + 0.1) as u32;
    report.intervals.completed = completed.min(report.intervals.completed);
    let (hits, earlier) = (&mut report.overhead.probe_hits, &before.overhead.probe_hits);
    hits.heap = hits.heap.saturating_sub(earlier.heap);
    hits.region = hits.region.saturating_sub(earlier.region);
    hits.fault = hits.fault.saturating_sub(earlier.fault);
    // Those of the last interval say nothing of the stretch.
    report.overhead.fraction_of_target_cpu = None;
    report.overhead.fraction_of_one_core = None;
}

/// How series of a stretch are judged.
struct Judging {
    options: trend::Options,
    /// So many, those that gained most.
    most: usize,
}

impl Judging {
    fn of(report: &Report, moments: usize) -> Self {
        let bears = |name: &String| !loss_names::OF_RECORDINGS.contains(&name.as_str());
        let options = trend::Options {
            interval_seconds: report.intervals.seconds,
            losses: trend::Losses {
                // How large they were is not recorded: what is lost forbids a verdict.
                forbid: report.losses.keys().any(bears),
                ..trend::Losses::default()
            },
        };
        let most = (MAX_POINTS / (moments + 1)).min(MAX_JUDGED);
        Self { options, most }
    }
}

fn marks(moment: Moment) -> impl Iterator<Item = Mark> {
    let Moment {
        taken_at, marks, ..
    } = moment;
    marks.into_iter().map(move |name| Mark {
        name,
        at: taken_at.clone(),
    })
}

/// What a process gained. One that began within the stretch gained all it has.
fn process_gain(now: Process, then: Option<&Process>, judged: &Judgement) -> Process {
    let less = |of: fn(&Process) -> u64| of(&now).saturating_sub(then.map_or(0, of));
    let growth = judged.growth_bytes_per_second;
    let is_growing = judged.verdict == Verdict::Growing && now.state == ProcessState::Running;
    let room = match now.seconds_to_limit {
        // The room that the live report saw, without what the kernel would give back first.
        Some(seconds) => Some((seconds * now.growth_bytes_per_second) as u64),
        None => now
            .memory_limit_bytes
            .zip(now.memory_usage_bytes)
            .map(|(limit, used)| limit.saturating_sub(used)),
    };
    Process {
        rss_bytes_at_attach: then.map_or(now.rss_bytes_at_attach, |then| then.rss_bytes),
        outstanding_bytes: less(|p| p.outstanding_bytes),
        outstanding_objects: less(|p| p.outstanding_objects),
        growth_bytes_per_second: growth,
        verdict: judged.verdict,
        seconds_to_limit: room
            .filter(|_| is_growing)
            .and_then(|room| trend::forecast(room, growth)),
        grower: match then {
            Some(then) => grower(&now, then),
            None => now.grower,
        },
        ..now
    }
}

/// What of its resident memory grew most within the stretch.
fn grower(now: &Process, then: &Process) -> Option<Grower> {
    let (now, then) = (now.reconciliation?, then.reconciliation?);
    let (share, bytes) = now.largest_grower(&then)?;
    Some(Grower {
        share,
        bytes,
        rss_bytes: now.rss.saturating_sub(then.rss),
    })
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
