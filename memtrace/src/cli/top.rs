//! Arguments of `top`, and the plan they make.

use std::num::NonZeroUsize;

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::args::{FormatArg, GroupByArg, TraceArgs};
use super::check::Checked;
use super::plan::{ColorWhen, OutputPlan, Plan, TopPlan};
use super::targets::TargetArgs;
use super::usage::UsageError;
use super::values::Top;
use crate::record::When;
use crate::report::output::Destination;

/// Options that mean nothing to a recording: what was traced, and how, is decided.
const OF_TRACING: [&str; 25] = [
    "pid",
    "comm",
    "cgroup",
    "container",
    "all",
    "follow",
    "interval",
    "duration",
    "count",
    "older",
    "min_size",
    "max_size",
    "probe",
    "object",
    "prefix",
    "alloc_fn",
    "free_fn",
    "sample_bytes",
    "max_overhead",
    "live_entries",
    "ring_bytes",
    "threshold",
    "incidents",
    "runtime_socket",
    "record",
];

/// Watch a recording on the terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayPlan {
    /// The recording.
    pub file: PathBuf,
    /// Where to begin; at its end when nothing was named.
    pub at: Option<When>,
    /// Stacks kept.
    pub top: Top,
    /// Colours.
    pub color: ColorWhen,
    /// The file for snapshots; else one with a name of its own in the working directory.
    pub snapshot: Option<PathBuf>,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Show this recording instead, with a time cursor; needs no privileges
    ///
    /// Every moment of it: the keys left and right go a report back and on, space plays it.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = OF_TRACING)]
    pub file: Option<PathBuf>,
    /// Begin at this moment of the recording instead of its end
    ///
    /// A mark, a time after the start such as 90s or before the end such as -30s, a time of day as
    /// 2026-01-02T03:04:05Z, start or end.
    #[arg(long, value_name = "TIME|MARK", value_parser = When::parse, help_heading = "Moment")]
    #[arg(allow_hyphen_values = true, requires = "file", conflicts_with_all = OF_TRACING)]
    pub at: Option<When>,

    /// What to trace.
    #[command(flatten)]
    pub target: TargetArgs,

    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Stacks that are named and kept unless --top says otherwise: more than anybody scrolls through.
const STACKS: NonZeroUsize = match NonZeroUsize::new(500) {
    Some(stacks) => stacks,
    None => NonZeroUsize::MIN,
};

impl TopArgs {
    pub(super) fn plan(self) -> Checked<Plan> {
        if let Some(option) = self.about_reports() {
            return Err(UsageError::NotOnAScreen(option));
        }
        let mut trace = self.trace;
        let top = trace.top.unwrap_or(Top::First(STACKS));
        if let Some(file) = self.file {
            let output = trace.output.plan()?;
            return Ok(Plan::Replay(ReplayPlan {
                file,
                at: self.at,
                top,
                color: output.color,
                snapshot: snapshot(&output),
            }));
        }
        trace.top = Some(top);
        let trace = trace.trace(self.target.plan()?)?;
        let snapshot = snapshot(&trace.output);
        Ok(Plan::Top(Box::new(TopPlan { trace, snapshot })))
    }

    /// The first option given that is about printed reports and what CI makes of them.
    fn about_reports(&self) -> Option<&'static str> {
        let (output, gate) = (&self.trace.output, &self.trace.gate);
        [
            ("format", output.format != FormatArg::Text),
            ("group-by", self.trace.group_by != GroupByArg::Stack),
            ("fail-on", gate.fail_on.is_some()),
            ("baseline", gate.baseline.is_some()),
            ("suppressions", gate.suppressions.is_some()),
            ("junit", gate.junit.is_some()),
            ("summary", gate.summary.is_some()),
            ("quiet", output.quiet),
            ("verbose", output.verbose),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }
}

fn snapshot(output: &OutputPlan) -> Option<PathBuf> {
    match &output.destination {
        Destination::Replace(path) | Destination::Append(path) => Some(path.clone()),
        Destination::Stdout => None,
    }
}
