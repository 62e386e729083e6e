//! A recording to go to and fro in: the report of any moment, and the past of all in it.

use std::path::Path;

use super::past::Pasts;
use super::{Moment, Recording};
use super::{RecordError, When};
use crate::ledger::Point;
use crate::report::model::{Report, Stack};

/// Intervals whose rows are read at once, so that whoever waits is asked in between.
const AT_ONCE: usize = 16;

/// A recording with its moments, and what has been read of its past.
#[derive(Debug)]
pub struct Playback {
    recording: Recording,
    moments: Vec<Moment>,
    stacks: Pasts,
    processes: Pasts,
    /// Moments whose rows are in the pasts.
    read: usize,
    is_whole: bool,
}

/// A stack or process of a report that was read back.
#[derive(Clone, Debug)]
pub struct Played {
    /// Its address space, as the recorder numbered it.
    pub space: u64,
    /// The stack's number in the recording; 0 for a process.
    pub stack: u64,
    /// What it held until then.
    pub points: Vec<Point>,
}

/// A moment of a recording.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The report.
    pub report: Report,
    /// For each of its stacks.
    pub stacks: Vec<Played>,
    /// For each of its processes.
    pub processes: Vec<Played>,
}

/// What a stack held at a moment.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Its address space, as the recorder numbered it.
    pub space: u64,
    /// The stack's number in the recording.
    pub stack: u64,
    /// Its account, without frames.
    pub account: Stack,
}

impl Playback {
    /// Opens a recording, also while it is written.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let recording = Recording::open(path)?;
        let moments = recording.moments()?;
        let is_whole = recording.is_whole()?;
        recording.let_go()?;
        Ok(Self {
            recording,
            moments,
            stacks: Pasts::default(),
            processes: Pasts::default(),
            read: 0,
            is_whole,
        })
    }

    /// Its moments, in their order; at least one.
    #[must_use]
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// False while the recorder may still write.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The share of the past that has been read, 0 to 1.
    #[must_use]
    pub fn read_share(&self) -> f64 {
        self.read as f64 / self.moments.len().max(1) as f64
    }

    /// True when there are more stacks or processes than pasts are kept of.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.stacks.is_partial() || self.processes.is_partial()
    }

    /// Which of the moments is meant.
    ///
    /// # Errors
    /// When nothing is recorded there, or no mark has the name.
    pub fn find(&self, when: &When) -> Result<usize, RecordError> {
        let found = self.recording.find(when)?;
        let after = self
            .moments
            .partition_point(|m| m.interval <= found.interval);
        Ok(after.saturating_sub(1))
    }

    /// Looks for what was recorded since; true when there is more, or something went.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn refresh(&mut self) -> Result<bool, RecordError> {
        let (is_whole, moments) = self
            .recording
            .at_once(|file| Ok((file.is_whole()?, file.moments()?)))?;
        self.is_whole = is_whole;
        let has_changed = moments != self.moments;
        let same = self.moments.iter().zip(&moments);
        let same = same.take_while(|(a, b)| a.interval == b.interval).count();
        if same < self.read {
            // Old moments were thinned out: the numbers of the others are new.
            (self.stacks, self.processes) = (Pasts::default(), Pasts::default());
            self.read = 0;
        }
        self.moments = moments;
        Ok(has_changed)
    }

    /// Reads on in the past; false when there is no more of it.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read_on(&mut self) -> Result<bool, RecordError> {
        self.recording.be_patient();
        let next = self.moments.get(self.read..).unwrap_or_default();
        let next = next.get(..AT_ONCE.min(next.len())).unwrap_or_default();
        let (Some(first), Some(last)) = (next.first(), next.last()) else {
            return Ok(false);
        };
        let base = self.read;
        let place = |interval: i64| {
            let at = next.partition_point(|m| m.interval < interval);
            base + at.min(next.len() - 1)
        };
        let stacks = &mut self.stacks;
        self.recording
            .each_row(first.interval, last.interval, |interval, _, stack, row| {
                stacks.add(stack, place(interval), row.held_bytes());
            })?;
        let processes = &mut self.processes;
        self.recording
            .each_process(first.interval, last.interval, |interval, space, bytes| {
                processes.add(space, place(interval), bytes);
            })?;
        self.read = base + next.len();
        Ok(self.read < self.moments.len())
    }

    /// The report of a moment with its first `top` stacks.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn scene(&self, at: usize, top: Option<usize>) -> Result<Scene, RecordError> {
        let moment = self.moment(at)?;
        let (read, spaces) = self
            .recording
            .at_once(|file| Ok((file.report(moment, top)?, file.process_spaces(moment)?)))?;
        let ids = read.spaces.iter().zip(&read.stacks);
        let stacks = ids.zip(&read.report.stacks);
        let stacks = stacks.map(|((space, id), stack)| Played {
            space: *space,
            stack: id.cast_unsigned(),
            points: self.points(&self.stacks, *id, at, stack.outstanding_bytes),
        });
        let processes = spaces.iter().zip(&read.report.processes);
        let processes = processes.map(|(space, process)| Played {
            space: space.cast_unsigned(),
            stack: 0,
            points: self.points(&self.processes, *space, at, process.outstanding_bytes),
        });
        Ok(Scene {
            stacks: stacks.collect(),
            processes: processes.collect(),
            report: read.report,
        })
    }

    /// What every stack held at a moment.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn holdings(&self, at: usize) -> Result<Vec<Holding>, RecordError> {
        let moment = self.moment(at)?;
        let held = self.recording.at_once(|file| file.held(moment))?;
        let holding = |held: super::read::Held| Holding {
            space: held.space.cast_unsigned(),
            stack: held.id.cast_unsigned(),
            account: held.row.account(moment.at_ms, held.pid, held.of),
        };
        Ok(held.into_iter().map(holding).collect())
    }

    fn moment(&self, at: usize) -> Result<&Moment, RecordError> {
        let last = self.moments.last();
        let moment = self.moments.get(at).or(last);
        moment.ok_or_else(|| RecordError::Empty(self.recording.path().to_owned()))
    }

    fn points(&self, pasts: &Pasts, key: i64, at: usize, now: u64) -> Vec<Point> {
        let seconds = |at: usize| {
            let moment = self.moments.get(at).or(self.moments.last());
            moment.map_or(0.0, |moment| moment.at_ms as f64 / 1000.0)
        };
        let series = pasts.series(key, at, now).into_iter();
        series
            .map(|(at, bytes)| Point {
                at: seconds(at),
                bytes,
            })
            .collect()
    }
}
