//! One account: what a stack or a whole process has allocated and freed, and how it came to that.

use std::time::Duration;

use super::{History, Point, Survivors, Totals};

/// Figures and history of a stack or a process.
#[derive(Clone, Debug)]
pub struct Account {
    totals: Totals,
    /// The totals when the last report but one was closed, for [`Account::last_interval`].
    before: Totals,
    closed: Totals,
    peak_bytes: u64,
    survivors: Option<(Duration, Survivors)>,
    first_seen: Duration,
    last_seen: Duration,
    changed: Duration,
    last_close: Option<Duration>,
    previous_close: Option<Duration>,
    history: History,
}

impl Account {
    /// An account that begins at `at`. With `since`, an earlier report at which it did not exist
    /// yet, its history begins with nothing outstanding then.
    pub(super) fn new(cap: usize, at: Duration, since: Option<Duration>) -> Self {
        let mut history = History::new(cap);
        if let Some(since) = since {
            history.push(Point {
                at: since.as_secs_f64(),
                bytes: 0,
            });
        }
        Self {
            totals: Totals::default(),
            before: Totals::default(),
            closed: Totals::default(),
            peak_bytes: 0,
            survivors: None,
            first_seen: at,
            last_seen: at,
            changed: at,
            last_close: since,
            previous_close: None,
            history,
        }
    }

    /// Counters since the attach.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What was allocated and freed in the last interval.
    #[must_use]
    pub fn last_interval(&self) -> Totals {
        self.closed.saturating_sub(self.before)
    }

    /// Length of that interval; zero before the second report.
    #[must_use]
    pub fn last_interval_length(&self) -> Duration {
        match (self.previous_close, self.last_close) {
            (Some(previous), Some(last)) => last.saturating_sub(previous),
            _ => Duration::ZERO,
        }
    }

    /// Most bytes outstanding at any report.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// What the last walk of the live table found; `None` before the first.
    ///
    /// When the walk is older than the last report, the age is carried forward and no more bytes
    /// are old than are outstanding now. With nothing outstanding nothing survives.
    #[must_use]
    pub fn survivors(&self) -> Option<Survivors> {
        let (walked, mut survivors) = self.survivors?;
        let (bytes, objects) = (
            self.totals.outstanding_bytes(),
            self.totals.outstanding_objects_q16(),
        );
        if bytes == 0 && objects == 0 {
            return Some(Survivors::default());
        }
        let now = self.last_close.unwrap_or(walked).max(walked);
        if now > walked {
            survivors.oldest_seconds += (now - walked).as_secs_f64();
            survivors.old_bytes = survivors.old_bytes.min(bytes);
            survivors.matching_bytes = survivors.matching_bytes.min(bytes);
            survivors.matching_objects_q16 = survivors.matching_objects_q16.min(objects);
        }
        Some(survivors)
    }

    /// When the walk behind [`Account::survivors`] was, since the session began.
    #[must_use]
    pub fn survivors_at(&self) -> Option<Duration> {
        self.survivors.map(|(at, _)| at)
    }

    /// The first report that had it, since the session began.
    #[must_use]
    pub fn first_seen(&self) -> Duration {
        self.first_seen
    }

    /// The last report that had it.
    #[must_use]
    pub fn last_seen(&self) -> Duration {
        self.last_seen
    }

    /// The last report at which a counter had moved.
    #[must_use]
    pub fn changed(&self) -> Duration {
        self.changed
    }

    /// Outstanding bytes over time, for [`crate::trend::judge`].
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        self.history.points()
    }

    /// The history itself.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Bytes per second between the ends of the recent history; to rank by, not to judge by.
    #[must_use]
    pub fn recent_rate(&self) -> f64 {
        self.history.recent_rate()
    }

    /// Adds what a context counted since it was last read.
    pub(super) fn book(&mut self, at: Duration, delta: Totals, survivors: Option<Survivors>) {
        if delta != Totals::default() {
            self.changed = at;
        }
        self.totals += delta;
        self.last_seen = at;
        let Some(found) = survivors else { return };
        match &mut self.survivors {
            Some((walked, sum)) if *walked == at => *sum += found,
            other => *other = Some((at, found)),
        }
    }

    /// Takes back what belongs to another account.
    pub(super) fn unbook(&mut self, amount: Totals) {
        self.totals = self.totals.saturating_sub(amount);
    }

    /// Takes over what another account held at its end: the figures add up, the history is that of
    /// the one that was watched longer, on which the verdict stands.
    pub(super) fn absorb(&mut self, other: Self) {
        self.totals += other.totals;
        self.before += other.before;
        self.closed += other.closed;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.changed = self.changed.max(other.changed);
        self.last_close = self.last_close.max(other.last_close);
        self.survivors = match (self.survivors, other.survivors) {
            (Some((a, mut sum)), Some((b, found))) => {
                sum += found;
                Some((a.max(b), sum))
            }
            (a, b) => a.or(b),
        };
        if other.history.observed() > self.history.observed() {
            self.history = other.history;
        }
    }

    /// Ends the report of `at`: one more point.
    pub(super) fn close(&mut self, at: Duration) {
        let bytes = self.totals.outstanding_bytes();
        self.peak_bytes = self.peak_bytes.max(bytes);
        self.before = self.closed;
        self.closed = self.totals;
        self.previous_close = self.last_close;
        self.last_close = Some(at);
        self.history.push(Point {
            at: at.as_secs_f64(),
            bytes,
        });
    }

    /// The last report closed before `at`.
    pub(super) fn observed_before(&self, at: Duration) -> Option<Duration> {
        self.last_close.filter(|last| *last < at)
    }
}
