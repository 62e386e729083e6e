//! What happens between marks: amounts of each stretch, joined to cycles, and what every stack gained
//! in each. Pure.
//!
//! A [`Track`] takes a [`Reading`] with every report and opens a [`Segment`] at every mark.
//! [`Marked`] adds what the stacks held at each mark and tells it all ([`Marked::look`]). A recording
//! keeps the segments and has the stacks anyway, so that it tells the same.
//!
//! A reading belongs to one stretch: it is after the mark that opens it, and not after the one that
//! closes it. What was there at the opening mark is where growth is counted from.

mod columns;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

pub use columns::{Columns, MAX_ENTRIES};
pub use look::{Look, Marked};

/// Stretches kept; the oldest go.
pub const MAX_SEGMENTS: usize = 1000;
/// Cycles that are told one by one, the latest.
pub const MAX_LISTED: usize = 100;
/// Stacks looked at for what grows in every cycle, those that gained most.
pub const MAX_CANDIDATES: usize = 64;
/// Cycles from which on growth in every one of them is told: what fills once takes one or two.
pub const NEEDED: usize = 3;

/// What all traced processes use at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Outstanding since the attach.
    pub outstanding: u64,
    /// Resident, of the processes that run.
    pub rss: Option<u64>,
    /// Of the memory limit that is nearest.
    pub used: Option<Used>,
}

/// Usage of a limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Used {
    /// What counts against it, without files the kernel gives back first.
    pub bytes: u64,
    /// The limit.
    pub limit: u64,
}

impl Used {
    /// True when it reaches so many percent of the limit.
    #[must_use]
    pub fn reaches(self, percent: u8) -> bool {
        self.limit > 0
            && u128::from(self.bytes) * 100 >= u128::from(self.limit) * u128::from(percent)
    }

    /// The one that is nearer to its limit.
    #[must_use]
    pub fn nearer(self, other: Self) -> Self {
        // Without a limit nothing is near.
        let share = |a: Self, b: Self| u128::from(a.bytes) * u128::from(b.limit.max(1));
        if share(other, self) > share(self, other) {
            other
        } else {
            self
        }
    }
}

/// One amount over a stretch, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Range {
    /// At the mark that opened it.
    pub first: u64,
    /// At its end.
    pub last: u64,
    /// Least of its readings.
    pub minimum: u64,
    /// Most of its readings.
    pub maximum: u64,
    sum: u64,
    /// How many, the opening mark's not among them.
    pub readings: u32,
}

impl Range {
    fn new(first: u64) -> Self {
        Self {
            first,
            last: first,
            minimum: first,
            maximum: first,
            sum: 0,
            readings: 0,
        }
    }

    fn add(&mut self, bytes: u64) {
        let one = Self {
            readings: 1,
            sum: bytes,
            ..Self::new(bytes)
        };
        *self = self.join(&one);
    }

    /// This and the one after it.
    fn join(&self, later: &Self) -> Self {
        let (minimum, maximum) = match (self.readings, later.readings) {
            (0, _) => (later.minimum, later.maximum),
            (_, 0) => (self.minimum, self.maximum),
            _ => (
                self.minimum.min(later.minimum),
                self.maximum.max(later.maximum),
            ),
        };
        Self {
            first: self.first,
            last: later.last,
            minimum,
            maximum,
            sum: self.sum.saturating_add(later.sum),
            readings: self.readings.saturating_add(later.readings),
        }
    }

    /// Mean of its readings, rounded down.
    #[must_use]
    pub fn average(&self) -> u64 {
        self.sum
            .checked_div(u64::from(self.readings))
            .unwrap_or(self.first)
    }

    /// What was gained from the opening mark to the end; negative when less is there.
    #[must_use]
    pub fn growth(&self) -> i64 {
        difference(self.first, self.last)
    }
}

/// `to` less `from`.
fn difference(from: u64, to: u64) -> i64 {
    let size = i64::try_from(from.abs_diff(to)).unwrap_or(i64::MAX);
    if to >= from { size } else { -size }
}

/// From one moment that was marked to the next, or until now.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Segment {
    /// Of the marked moment, from 1 on.
    pub number: u64,
    /// The names that moment was given.
    pub names: Vec<String>,
    /// When that was, RFC 3339.
    pub at: String,
    /// The same in seconds since tracing began.
    pub from_seconds: f64,
    /// Its end.
    pub to_seconds: f64,
    /// Outstanding since the attach.
    pub outstanding: Range,
    /// Resident.
    pub rss: Option<Range>,
    /// Usage of the limit that is nearest.
    pub usage: Option<Range>,
    /// The reading that was nearest to its limit.
    pub nearest: Option<Used>,
    /// The thresholds that were asked for, in percent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<u8>,
}

impl Segment {
    fn add(&mut self, seconds: f64, reading: &Reading) {
        self.to_seconds = seconds;
        self.outstanding.add(reading.outstanding);
        add(&mut self.rss, reading.rss);
        add(&mut self.usage, reading.used.map(|used| used.bytes));
        self.nearest = nearer(self.nearest, reading.used);
    }

    /// This and the one after it.
    fn join(mut self, later: &Self) -> Self {
        self.to_seconds = later.to_seconds;
        self.outstanding = self.outstanding.join(&later.outstanding);
        self.rss = join(self.rss, later.rss);
        self.usage = join(self.usage, later.usage);
        self.nearest = nearer(self.nearest, later.nearest);
        self
    }

    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.to_seconds - self.from_seconds
    }
}

fn add(range: &mut Option<Range>, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        range.get_or_insert_with(|| Range::new(bytes)).add(bytes);
    }
}

fn join(one: Option<Range>, later: Option<Range>) -> Option<Range> {
    match (one, later) {
        (Some(one), Some(later)) => Some(one.join(&later)),
        (one, later) => one.or(later),
    }
}

fn nearer(one: Option<Used>, other: Option<Used>) -> Option<Used> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.nearer(other)),
        (one, other) => one.or(other),
    }
}

/// The stretches of a session.
#[derive(Clone, Debug, Default)]
pub struct Track {
    segments: VecDeque<Segment>,
    opened: u64,
    thresholds: Vec<u8>,
}

impl Track {
    /// None yet; cycles that reach these percents of the limit are counted.
    #[must_use]
    pub fn new(thresholds: &[u8]) -> Self {
        Self {
            thresholds: thresholds.to_vec(),
            ..Self::default()
        }
    }

    /// Those of a recording, in their order.
    #[must_use]
    pub fn of(segments: impl IntoIterator<Item = Segment>) -> Self {
        let segments: VecDeque<_> = segments.into_iter().collect();
        let last = segments.back();
        Self {
            opened: last.map_or(0, |last| last.number),
            thresholds: last.map(|last| last.thresholds.clone()).unwrap_or_default(),
            segments,
        }
    }

    /// True before the first mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Takes a report's reading: it ends what is open.
    pub fn read(&mut self, seconds: f64, reading: &Reading) {
        if let Some(open) = self.segments.back_mut() {
            open.add(seconds, reading);
        }
    }

    /// The moment of the last reading was given these names. Its number.
    pub fn mark(&mut self, names: Vec<String>, at: &str, seconds: f64, reading: &Reading) -> u64 {
        self.opened += 1;
        if self.segments.len() >= MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(Segment {
            number: self.opened,
            names,
            at: at.to_owned(),
            from_seconds: seconds,
            to_seconds: seconds,
            outstanding: Range::new(reading.outstanding),
            rss: reading.rss.map(Range::new),
            usage: reading.used.map(|used| Range::new(used.bytes)),
            nearest: None,
            thresholds: self.thresholds.clone(),
        });
        self.opened
    }

    /// The marked moments that are known, in seconds since tracing began, with their names.
    pub fn marks(&self) -> impl Iterator<Item = (f64, &str)> {
        let all = self.segments.iter();
        all.flat_map(|one| {
            one.names
                .iter()
                .map(|name| (one.from_seconds, name.as_str()))
        })
    }

    /// What a recording has to keep with each report: the stretch that is open, and at its mark the
    /// one that this closed.
    #[must_use]
    pub fn latest(&self) -> Vec<Segment> {
        let last = self.segments.back();
        let is_new = last.is_some_and(|last| last.outstanding.readings == 0);
        let from = self
            .segments
            .len()
            .saturating_sub(if is_new { 2 } else { 1 });
        self.segments.iter().skip(from).cloned().collect()
    }

    /// The name that begins a cycle: the one that was given most often, and at least twice; of
    /// several the one that was given first.
    fn name(&self) -> Option<&str> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for segment in &self.segments {
            for (at, name) in segment.names.iter().enumerate() {
                // Twice at one moment is once.
                if segment.names.iter().take(at).any(|before| before == name) {
                    continue;
                }
                let place = *places.entry(name).or_insert(counts.len());
                match counts.get_mut(place) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((name, 1)),
                }
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max()?;
        let found = counts.iter().find(|(_, count)| *count == most);
        found.filter(|_| most >= 2).map(|(name, _)| *name)
    }

    /// The cycles in their order: from one mark of that name to the next, or, when no name was given
    /// twice, from each mark to the next. The last one is open, unless nothing was read since.
    fn cycles(&self) -> Vec<Cycle> {
        let name = self.name();
        let begins =
            |segment: &Segment| name.is_none_or(|name| segment.names.iter().any(|own| own == name));
        let mut cycles: Vec<Cycle> = Vec::new();
        for segment in &self.segments {
            match cycles.last_mut() {
                Some(open) if !begins(segment) => {
                    open.segment = open.segment.clone().join(segment);
                }
                None if !begins(segment) => {}
                before => {
                    if let Some(before) = before {
                        before.ended_by = Some((segment.number, segment.names.clone()));
                    }
                    cycles.push(Cycle {
                        segment: segment.clone(),
                        ended_by: None,
                    });
                }
            }
        }
        cycles.pop_if(|open| open.segment.outstanding.readings == 0);
        cycles
    }
}

/// One cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    /// Its stretches, joined.
    pub segment: Segment,
    /// Number and names of the mark that ended it; nothing while it is open.
    pub ended_by: Option<(u64, Vec<String>)>,
}

impl Cycle {
    /// True when a mark has ended it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended_by.is_some()
    }

    /// True when a reading of it reached so many percent of the limit.
    #[must_use]
    pub fn reached(&self, percent: u8) -> bool {
        self.segment
            .nearest
            .is_some_and(|used| used.reaches(percent))
    }
}
