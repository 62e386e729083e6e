//! What to do, validated: these types cannot hold a contradiction.
//!
//! `check` makes them of arguments.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use super::events::EventsPlan;
use super::incidents::IncidentsPlan;
use super::mark::MarkPlan;
use super::recordings::{DiffPlan, RecordPlan, ReportPlan};
use super::top::ReplayPlan;
use super::values::{CustomFunction, FailOn, Percent, RingBytes, Top};
use crate::id::Tgid;
use crate::report::model::GroupBy;
use crate::report::output::Destination;
use crate::report::profile::ProfileForm;
use crate::report::reporter::Form;
use crate::report::text::TextOptions;
use crate::session::thresholds::Thresholds;
use crate::target::select::Selector;

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Trace and report.
    Trace(Box<TracePlan>),
    /// Trace and watch on the terminal.
    Top(Box<TopPlan>),
    /// Watch a recording on the terminal.
    Replay(ReplayPlan),
    /// Show each call.
    Events(Box<EventsPlan>),
    /// Read a recording.
    Report(Box<ReportPlan>),
    /// Compare recordings.
    Diff(DiffPlan),
    /// Read incidents from a recording.
    Incidents(IncidentsPlan),
    /// Name this moment in running sessions.
    Mark(MarkPlan),
    /// Look at the machine.
    Doctor(DoctorPlan),
    /// Print a completion script.
    Completions(clap_complete::Shell),
    /// Print the manual page of a subcommand, or of memtrace.
    Man(Option<String>),
}

/// One tracing session.
#[derive(Clone, Debug, PartialEq)]
pub struct TracePlan {
    /// What to trace.
    pub target: TargetPlan,
    /// Children too.
    pub follow: bool,
    /// When to report, when to end.
    pub timing: Timing,
    /// What is counted and shown.
    pub selection: Selection,
    /// What is traced.
    pub probes: Probes,
    /// How allocators are found.
    pub allocators: Allocators,
    /// What tracing may cost.
    pub cost: Cost,
    /// What memory limits are watched for.
    pub watch: WatchPlan,
    /// Where reports go.
    pub output: OutputPlan,
    /// What ends in exit code 3.
    pub gate: GatePlan,
    /// Where to record.
    pub record: Option<RecordPlan>,
}

/// What ends in exit code 3, and where that is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatePlan {
    /// Growth.
    pub fail_on: Option<FailOn>,
    /// A JSON report that nothing may be worse than.
    pub baseline: Option<PathBuf>,
    /// What may grow all the same.
    pub suppressions: Option<PathBuf>,
    /// For the outcome as JUnit XML.
    pub junit: Option<Destination>,
    /// For the outcome as Markdown.
    pub summary: Option<Destination>,
}

/// One session watched on the terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct TopPlan {
    /// What to trace, when and how.
    pub trace: TracePlan,
    /// The file for snapshots; else one with a name of its own in the working directory.
    pub snapshot: Option<PathBuf>,
}

/// What to trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPlan {
    /// Running processes.
    Pids(Pids),
    /// A program to start.
    Run(Program),
    /// The processes that something selects, now and later.
    Select(Selector),
}

/// At least one process id, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pids(pub(super) Vec<Tgid>);

impl Pids {
    /// In the order given.
    #[must_use]
    pub fn as_slice(&self) -> &[Tgid] {
        &self.0
    }
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// As typed: a path, or a name to look up in PATH. Not empty.
    pub name: OsString,
    /// Passed on as they are.
    pub arguments: Vec<OsString>,
}

/// When to report, when to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// At least [`MIN_INTERVAL`].
    pub interval: Duration,
    /// End after this time.
    pub duration: Option<Duration>,
    /// End after so many intervals.
    pub count: Option<NonZeroU32>,
}

impl Timing {
    /// The longest the session can last, if it was limited.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        let counted = self
            .count
            .map(|count| self.interval.saturating_mul(count.get()));
        match (self.duration, counted) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whole intervals in [`Timing::length`].
    #[must_use]
    pub fn intervals(&self) -> Option<u64> {
        let nanos = self.length()?.as_nanos() / self.interval.as_nanos().max(1);
        Some(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Shorter intervals only measure memtrace.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Intervals a growth verdict needs.
pub const VERDICT_INTERVALS: u32 = 5;

/// What is counted and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Rows.
    pub top: Top,
    /// Only blocks at least this old.
    pub older: Option<Duration>,
    /// Sizes traced.
    pub sizes: SizeRange,
    /// What a row is.
    pub group_by: GroupBy,
}

/// What is traced; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Allocator calls.
    pub heap: bool,
    /// System calls that change mappings.
    pub region: bool,
    /// First touches of memory.
    pub fault: bool,
}

impl Probes {
    /// Allocator calls alone.
    pub const HEAP: Self = Self {
        heap: true,
        region: false,
        fault: false,
    };

    /// Their names in options and reports.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.heap, "heap"),
            (self.region, "region"),
            (self.fault, "fault"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect()
    }
}

/// Sizes from `min` to `max`, both included; `min ≤ max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    pub(super) min: Option<u64>,
    pub(super) max: Option<u64>,
}

impl SizeRange {
    /// As asked for.
    #[must_use]
    pub fn asked(self) -> (Option<u64>, Option<u64>) {
        (self.min, self.max)
    }

    /// With the widest bounds where none was asked for.
    #[must_use]
    pub fn bounds(self) -> (u64, u64) {
        (self.min.unwrap_or(0), self.max.unwrap_or(u64::MAX))
    }
}

/// How allocators are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocators {
    /// Search only these; empty: all.
    pub objects: Vec<PathBuf>,
    /// Further prefixes of function names.
    pub prefixes: Vec<String>,
    /// Allocation functions by name, the argument is the size.
    pub alloc_functions: Vec<CustomFunction>,
    /// Free functions by name, the argument is the pointer.
    pub free_functions: Vec<CustomFunction>,
}

/// What tracing may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Mean bytes between samples; 1 is exact.
    pub sample_bytes: NonZeroU64,
    /// Limit as a share of the target's CPU time.
    pub max_overhead: Option<Percent>,
    /// Capacity of the table of live blocks.
    pub live_entries: NonZeroU32,
    /// Size of the ring buffer.
    pub ring_bytes: RingBytes,
}

/// What memory limits are watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchPlan {
    /// Shares of the limit whose crossing is told.
    pub thresholds: Thresholds,
    /// Where incidents are written.
    pub incidents: Option<PathBuf>,
    /// Sockets of container runtimes; empty: the usual ones.
    pub sockets: Vec<PathBuf>,
}

/// Where reports go and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPlan {
    /// Form.
    pub format: Format,
    /// Place.
    pub destination: Destination,
    /// How much.
    pub verbosity: Verbosity,
    /// Colours.
    pub color: ColorWhen,
}

impl OutputPlan {
    /// How to write; `text` is how texts look, see [`super::terminal::text_options`].
    #[must_use]
    pub fn form(&self, text: TextOptions) -> Form {
        match self.format {
            Format::Text => Form::Text(text),
            Format::Json => Form::Json,
            Format::Ndjson => Form::Ndjson,
            Format::Profile(form) => Form::Profile(form),
        }
    }

    /// False when only the last report is to be written: `--quiet`, and what is one whole (JSON,
    /// a page, a picture) unless it goes to a file, which then always holds the latest.
    #[must_use]
    pub fn wants_every_report(&self) -> bool {
        let one_whole = match self.format {
            Format::Text | Format::Ndjson => false,
            Format::Json => true,
            Format::Profile(form) => !form.is_appended(),
        };
        let to_stdout = self.destination == Destination::Stdout;
        self.verbosity != Verbosity::Quiet && !(one_whole && to_stdout)
    }
}

/// Form of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Every report as text.
    Text,
    /// The last report as one JSON object.
    Json,
    /// Every report as a line of JSON.
    Ndjson,
    /// Made of the neutral profile.
    Profile(ProfileForm),
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// The last report only, no notices.
    Quiet,
    /// Every report.
    Normal,
    /// Every report with all frames, probes and notes.
    Verbose,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Look at the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorPlan {
    /// Processes to look at, each once; may be none.
    pub pids: Vec<Tgid>,
    /// How allocators are found.
    pub allocators: Allocators,
    /// JSON instead of text.
    pub json: bool,
    /// Reasons of placements.
    pub verbose: bool,
    /// Colours.
    pub color: ColorWhen,
}
