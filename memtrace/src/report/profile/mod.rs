//! The neutral profile: what every profile format is made of.
//!
//! A [`Profile`] knows no session: a live one, a recording and a test make it from a
//! [`Report`] and, where there is one, a [`Series`]. The forms ([`folded`](super::folded),
//! [`flamegraph`](super::flamegraph), [`pprof`](super::pprof), [`speedscope`](super::speedscope),
//! [`gperftools`](super::gperftools), [`csv`](super::csv), [`html`](super::html)) are pure functions of it, and their sums are those
//! of the JSON report.

mod events;
mod form;
pub mod names;
mod usage;

use std::collections::BTreeMap;

pub use events::Events;
pub use form::ProfileForm;
pub use usage::{MAX_USAGE_POINTS, UsageHistory};

use super::cycles::Cycles;
use super::model::{Frame, NotShown, Report};
use crate::ledger::regions::RegionKind;
use crate::trend::Verdict;

/// Who keeps which memory, at one moment and, with a series, over time.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Where it comes from.
    pub meta: Meta,
    /// The processes.
    pub processes: Vec<ProfiledProcess>,
    /// The stacks, in the report's order.
    pub samples: Vec<Sample>,
    /// What is in no sample.
    pub not_shown: NotShown,
    /// Named moments, in order of time.
    pub marks: Vec<Mark>,
    /// Amounts that are watched.
    pub thresholds: Vec<Threshold>,
    /// What went wrong, in order of time.
    pub incidents: Vec<Incident>,
    /// What happened between marks.
    pub cycles: Option<Cycles>,
    /// Seconds after tracing began at which its time begins.
    pub from_seconds: f64,
}

/// Where a profile comes from.
#[derive(Clone, Debug)]
pub struct Meta {
    /// memtrace's version.
    pub tool_version: String,
    /// Host name.
    pub host: String,
    /// What was traced: `pid 1234`, `run ./server`.
    pub target: String,
    /// When tracing began, RFC 3339.
    pub started_at: String,
    /// The moment it shows, RFC 3339.
    pub taken_at: String,
    /// Seconds between the two.
    pub duration_seconds: f64,
    /// The moment since which the figures of stacks are what was gained; nothing when they are what
    /// is outstanding.
    pub gained_since: Option<String>,
    /// Seconds between reports.
    pub interval_seconds: f64,
    /// Intervals the verdicts are made of.
    pub intervals_completed: u32,
    /// Mean bytes between samples; 1 is exact.
    pub sample_bytes: u64,
    /// Only blocks at least this old are in the outstanding figures.
    pub older_seconds: Option<f64>,
    /// Counter name → what was lost.
    pub losses: BTreeMap<String, u64>,
}

/// One process (one image of it).
#[derive(Clone, Debug)]
pub struct ProfiledProcess {
    /// Thread group id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// `running`, `exited`, `exec`, `oom-killed`.
    pub state: &'static str,
    /// Name of its container, or the beginning of its id.
    pub container: Option<String>,
    /// Resident bytes when tracing began.
    pub rss_bytes_at_attach: Option<u64>,
    /// Resident bytes.
    pub rss_bytes: Option<u64>,
    /// Usage that counts against the limit.
    pub usage_bytes: Option<u64>,
    /// Limit.
    pub limit_bytes: Option<u64>,
    /// Bytes outstanding since the attach.
    pub outstanding_bytes: u64,
    /// Objects outstanding since the attach.
    pub outstanding_objects: u64,
    /// Growth.
    pub growth_bytes_per_second: f64,
    /// Verdict on the whole.
    pub verdict: Verdict,
    /// Time until the limit is met.
    pub seconds_to_limit: Option<f64>,
    /// The past; empty without a series.
    pub usage: Vec<UsagePoint>,
}

/// A process's memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UsagePoint {
    /// Seconds since tracing began.
    pub at: f64,
    /// Bytes outstanding.
    pub outstanding_bytes: u64,
    /// Resident bytes.
    pub rss_bytes: Option<u64>,
    /// Usage that counts against the limit.
    pub usage_bytes: Option<u64>,
    /// Limit.
    pub limit_bytes: Option<u64>,
}

/// Bytes that a format keeps apart from the sums, because adding them would count twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// Resident pages of memory that other probes count too.
    Resident,
    /// Regions that are no memory in use: addresses, an allocator's reserve, files, stacks.
    Reserved,
}

impl Apart {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Resident, Self::Reserved];
}

impl Sample {
    /// Why it is not summed; nothing when it is.
    #[must_use]
    pub fn apart(&self) -> Option<Apart> {
        match (self.summed, self.probe) {
            (true, _) => None,
            (false, "fault") => Some(Apart::Resident),
            (false, _) => Some(Apart::Reserved),
        }
    }
}

/// One stack's account.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Process.
    pub pid: u32,
    /// heap, region or fault.
    pub probe: &'static str,
    /// What a region is used as.
    pub kind: Option<RegionKind>,
    /// Whether it may be added to others (R20); see [`super::sums`].
    pub summed: bool,
    /// Bytes allocated and not freed.
    pub outstanding_bytes: u64,
    /// Objects allocated and not freed.
    pub outstanding_objects: u64,
    /// Bytes allocated since the attach.
    pub allocated_bytes: u64,
    /// Objects allocated since the attach.
    pub allocated_objects: u64,
    /// Age of the oldest live block.
    pub oldest_seconds: Option<f64>,
    /// Growth.
    pub growth_bytes_per_second: f64,
    /// Verdict.
    pub verdict: Verdict,
    /// 0 to 1.
    pub confidence: f64,
    /// False when the outermost frames are missing.
    pub complete: bool,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// What it gained in each cycle; empty without.
    pub gained_per_cycle: Vec<i64>,
    /// The past; empty without a series.
    pub history: Vec<Moment>,
}

/// A stack's outstanding memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Seconds since tracing began.
    pub at: f64,
    /// Bytes outstanding.
    pub outstanding_bytes: u64,
    /// Objects outstanding, where the source keeps them.
    pub outstanding_objects: Option<u64>,
}

/// A named moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Seconds since tracing began.
    pub at: f64,
    /// As the user gave it.
    pub name: String,
}

/// A watched amount.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What crossing it means.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Seconds since tracing began.
    pub at: f64,
    /// The process it is about.
    pub pid: Option<u32>,
    /// In a few words: `OOM kill`, `threshold crossed`.
    pub kind: String,
    /// In one sentence.
    pub text: String,
}

/// The past of a report: what a profile over time has more than one of a moment.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// A process's past, by pid; two images of one pid have one past.
    pub usage: BTreeMap<u32, Vec<UsagePoint>>,
    /// The past of each of the report's stacks, in its order; may be shorter.
    pub stacks: Vec<Vec<Moment>>,
    /// What happened.
    pub events: Events,
    /// Seconds after tracing began at which its time begins.
    pub from_seconds: f64,
}

impl Profile {
    /// A report as a profile; with its past where there is one.
    #[must_use]
    pub fn new(report: &Report, series: Series) -> Self {
        let mut usage = series.usage;
        let mut histories = series.stacks.into_iter();
        // The last image of a pid is the one whose past goes on: ended ones come first.
        let with_past = |process: &super::model::Process| ProfiledProcess {
            usage: usage.remove(&process.pid).unwrap_or_default(),
            ..profiled(process)
        };
        let mut processes: Vec<_> = report.processes.iter().rev().map(with_past).collect();
        processes.reverse();
        Self {
            meta: meta(report),
            processes,
            samples: report
                .stacks
                .iter()
                .map(|stack| {
                    let summed = report.is_summed(stack);
                    sample(stack, summed, histories.next().unwrap_or_default())
                })
                .collect(),
            not_shown: report.not_shown,
            marks: series.events.marks,
            thresholds: series.events.thresholds,
            incidents: series.events.incidents,
            cycles: report.cycles.clone(),
            from_seconds: series.from_seconds,
        }
    }

    /// The samples that may be added up.
    pub fn summed(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.summed)
    }

    /// Outstanding bytes of everything that may be added up, samples and what is in none.
    #[must_use]
    pub fn outstanding_bytes(&self) -> u64 {
        let samples = self.summed().map(|sample| sample.outstanding_bytes);
        samples.fold(self.not_shown.outstanding_bytes, u64::saturating_add)
    }

    /// The process of a sample; the last image when a pid had several.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&ProfiledProcess> {
        self.processes
            .iter()
            .rev()
            .find(|process| process.pid == pid)
    }

    /// True when the figures are estimates.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.meta.sample_bytes > 1
    }
}

fn meta(report: &Report) -> Meta {
    Meta {
        tool_version: report.tool_version.to_owned(),
        host: report.host.clone(),
        target: format!("{} {}", report.target.kind, report.target.value),
        started_at: report.started_at.clone(),
        taken_at: report.taken_at.clone(),
        duration_seconds: report.duration_seconds,
        gained_since: report.gained_since.clone(),
        interval_seconds: report.intervals.seconds,
        intervals_completed: report.intervals.completed,
        sample_bytes: report.overhead.sample_bytes,
        older_seconds: report.filters.older_seconds,
        losses: report.losses.clone(),
    }
}

fn profiled(process: &super::model::Process) -> ProfiledProcess {
    use super::model::ProcessState;
    let container = process.container.as_ref();
    ProfiledProcess {
        pid: process.pid,
        comm: process.comm.clone(),
        state: match process.state {
            ProcessState::Running => "running",
            ProcessState::Exited => "exited",
            ProcessState::Exec => "exec",
            ProcessState::OomKilled => "oom-killed",
        },
        container: container.map(|container| {
            let short = || container.id.chars().take(12).collect();
            container.name.clone().unwrap_or_else(short)
        }),
        rss_bytes_at_attach: process.rss_bytes_at_attach,
        rss_bytes: process.rss_bytes,
        usage_bytes: process.memory_usage_bytes,
        limit_bytes: process.memory_limit_bytes,
        outstanding_bytes: process.outstanding_bytes,
        outstanding_objects: process.outstanding_objects,
        growth_bytes_per_second: process.growth_bytes_per_second,
        verdict: process.verdict,
        seconds_to_limit: process.seconds_to_limit,
        usage: Vec::new(),
    }
}

fn sample(stack: &super::model::Stack, summed: bool, history: Vec<Moment>) -> Sample {
    Sample {
        pid: stack.pid,
        probe: stack.probe,
        kind: stack.kind,
        summed,
        outstanding_bytes: stack.outstanding_bytes,
        outstanding_objects: stack.outstanding_objects,
        allocated_bytes: stack.allocated_bytes,
        allocated_objects: stack.allocated_objects,
        oldest_seconds: stack.oldest_seconds,
        growth_bytes_per_second: stack.growth_bytes_per_second,
        verdict: stack.verdict,
        confidence: stack.confidence,
        complete: stack.complete,
        frames: stack.frames.clone(),
        gained_per_cycle: stack.gained_per_cycle.clone(),
        history,
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    // Of two images with one pid, the one that lives has the past.
    #[test]
    fn past_belongs_to_the_last_image() {
        let mut report = fixtures::leak();
        report.processes.push(report.processes[0].clone());
        let point = UsagePoint {
            at: 1.0,
            ..UsagePoint::default()
        };
        let series = Series {
            usage: BTreeMap::from([(1234, vec![point])]),
            ..Series::default()
        };
        let profile = Profile::new(&report, series);
        let lengths: Vec<_> = profile.processes.iter().map(|p| p.usage.len()).collect();
        assert_eq!(lengths, [0, 1]);
    }
}
