//! What can be wrong with arguments that are each valid.

use std::time::Duration;

use super::plan::{MIN_INTERVAL, VERDICT_INTERVALS};
use super::units::show_duration;
use crate::session::marks::NameError;

/// Arguments that are each valid but make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No arguments at all.
    #[error("{}", super::help::NO_TARGET)]
    Nothing,
    /// Options, but nothing to trace.
    #[error(
        "nothing to trace: name a process with --pid (or processes with --comm, --cgroup, --container, --all), or start one with `memtrace run -- CMD`"
    )]
    NoTarget,
    /// `run` without a program.
    #[error(
        "nothing to run: name the program after --, as in `memtrace run -- ./server --port 80`"
    )]
    NoProgram,
    /// The interval is too short.
    #[error("--interval {}: it must be at least {}", show_duration(*.0), show_duration(MIN_INTERVAL))]
    IntervalTooShort(Duration),
    /// No time to trace.
    #[error("--duration 0: nothing can be seen in no time")]
    NoDuration,

    /// `--min-size` above `--max-size`.
    #[error("--min-size {min} is more than --max-size {max}: no allocation has such a size")]
    SizesCross {
        /// As bytes with unit.
        min: String,
        /// As bytes with unit.
        max: String,
    },
    /// `--sample-bytes 0`.
    #[error("--sample-bytes 0: write 1 to record every allocation, or a size such as 512KiB")]
    NoSampling,
    /// `--older` is more than the session's length.
    #[error(
        "--older {} with a session of {}: nothing can be that old",
        show_duration(*older), show_duration(*session)
    )]
    OlderThanSession {
        /// `--older`.
        older: Duration,
        /// `--duration`, or `--count` intervals.
        session: Duration,
    },
    /// `--fail-on` cannot be met in the session's time.
    #[error(
        "--fail-on growing needs {VERDICT_INTERVALS} intervals and the session has {intervals}: \
         make --interval shorter or the session longer"
    )]
    FailOnTooShort {
        /// Whole intervals in the session.
        intervals: u64,
    },
    /// A name that marks nothing.
    #[error("the mark's name: {0}; write it like `memtrace mark 'cycle 5'`")]
    Mark(NameError),
    /// `--record-max-size` that holds nothing.
    #[error("--record-max-size: a recording needs at least 1 MiB")]
    RecordTooSmall,
    /// `--group-by` with a format that is made of stacks.
    #[error("--group-by has no place in --format {0}, which is made of whole stacks")]
    GroupsInProfile(&'static str),
    /// `--suppressions` where nothing can fail.
    #[error("--suppressions without --fail-on growing or --baseline FILE: nothing can fail anyway")]
    NothingToSuppress,
    /// `--junit` where nothing can fail.
    #[error("--junit without --fail-on growing or --baseline FILE: there is nothing to test for")]
    NothingToTest,
    /// `--baseline` of what was gained.
    #[error(
        "--baseline compares what is held at one moment: leave --from and --to out, or use \
         `memtrace diff`"
    )]
    BaselineOfStretch,
    /// Bytes that a terminal cannot show.
    #[error(
        "--format {0} is binary and standard output is a terminal: write it to a file with \
         --output FILE, or into a pipe"
    )]
    BinaryToTerminal(&'static str),
    /// An option of printed reports, given to `top`.
    #[error("--{0} is about printed reports: leave it out with top; `w` there writes JSON")]
    NotOnAScreen(&'static str),
    /// An empty name.
    #[error("--{0} is empty")]
    Empty(&'static str),
}
