//! Arguments and plans of what writes and reads recordings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::args::{ColorArg, GateArgs, GroupByArg, OutputArgs};
use super::plan::{ColorWhen, GatePlan, OutputPlan, Plan};
use super::units;
use super::usage::UsageError;
use super::values::Top;
use crate::record::{Retention, When};
use crate::report::model::GroupBy;

/// `--record` of every tracing command.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Record every stack and report to FILE, for `memtrace report` and `diff`
    ///
    /// One SQLite file, readable while it is written and by any SQLite tool. It must not be there
    /// yet. It grows with the stacks that change.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Recording")]
    pub record: Option<PathBuf>,
    /// Drop what was recorded longer ago than this; thinned when older than an hour
    #[arg(long, value_name = "TIME", default_value = "168h", value_parser = units::duration)]
    #[arg(help_heading = "Recording", hide_short_help = true)]
    pub record_max_age: Duration,
    /// Thin what was recorded when the file becomes larger than this
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::size)]
    #[arg(help_heading = "Recording", hide_short_help = true)]
    pub record_max_size: u64,
}

/// Where to record and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    /// A new file.
    pub path: PathBuf,
    /// What is kept.
    pub retention: Retention,
}

/// Less than this holds no interval of a busy target.
const MIN_SIZE: u64 = 1 << 20;

impl RecordArgs {
    pub(super) fn plan(self) -> Result<Option<RecordPlan>, UsageError> {
        let Some(path) = self.record else {
            return Ok(None);
        };
        if path.as_os_str().is_empty() {
            return Err(UsageError::Empty("record"));
        }
        if self.record_max_size < MIN_SIZE {
            return Err(UsageError::RecordTooSmall);
        }
        Ok(Some(RecordPlan {
            path,
            retention: Retention {
                max_age: self.record_max_age,
                max_bytes: self.record_max_size,
            },
        }))
    }
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The recording
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Show this moment instead of the last one
    ///
    /// A mark, a time after the start such as 90s or before the end such as -30s, a time of day as
    /// 2026-01-02T03:04:05Z, start or end. The report is the last one taken until then. Of several marks of one
    /// name the latest; `cycle#2` is the second that is called cycle.
    #[arg(long, value_name = "TIME|MARK", value_parser = When::parse, help_heading = "Moment")]
    #[arg(allow_hyphen_values = true)]
    pub at: Option<When>,
    /// Show what was gained from this moment on
    #[arg(long, value_name = "TIME|MARK", value_parser = When::parse, help_heading = "Moment")]
    #[arg(allow_hyphen_values = true, conflicts_with = "at")]
    pub from: Option<When>,
    /// Show what was gained until this moment
    #[arg(long, value_name = "TIME|MARK", value_parser = When::parse, help_heading = "Moment")]
    #[arg(allow_hyphen_values = true, conflicts_with = "at")]
    pub to: Option<When>,
    /// Show this many stacks or groups, or `all` [default: 10]
    #[arg(short = 'T', long, value_name = "N", help_heading = "Selection")]
    pub top: Option<Top>,
    /// Sum stacks by what they share
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = GroupByArg::Stack)]
    #[arg(help_heading = "Selection")]
    pub group_by: GroupByArg,
    /// Better names.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// Where reports go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What fails a CI job.
    #[command(flatten)]
    pub gate: GateArgs,
}

/// Where better names are than were there when it was recorded.
#[derive(Debug, Args)]
pub struct SymbolArgs {
    /// Name functions, files and lines from the symbols in this folder, too
    ///
    /// Debug files, unstripped programs and libraries, anywhere below it and under any name, or as
    /// .build-id/xx/yyyy.debug. Only what has the build id of the recorded object is used (without one:
    /// the checksum of its debug link).
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Selection")]
    pub debug_dir: Option<PathBuf>,
}

/// Read a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportPlan {
    /// The recording.
    pub file: PathBuf,
    /// A folder with symbols.
    pub debug_dir: Option<PathBuf>,
    /// One moment, or what lies between two.
    pub span: Span,
    /// Rows.
    pub top: Top,
    /// What a row is.
    pub group_by: GroupBy,
    /// Where to.
    pub output: OutputPlan,
    /// What ends in exit code 3.
    pub gate: GatePlan,
}

/// What part of a recording is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// A moment; the last one when none was named.
    At(Option<When>),
    /// From one to another.
    Between(When, When),
}

impl ReportArgs {
    pub(super) fn plan(self) -> Result<Plan, UsageError> {
        let group_by = self.group_by.into();
        let gate = self.gate.plan()?;
        if gate.baseline.is_some() && (self.from.is_some() || self.to.is_some()) {
            return Err(UsageError::BaselineOfStretch);
        }
        let top = self
            .top
            .unwrap_or_else(|| super::check::default_top(self.output.format));
        let output = self.output.plan()?;
        super::check::groups_have_a_place(&output, group_by)?;
        let span = match (self.from, self.to) {
            (None, None) => Span::At(self.at),
            (from, to) => Span::Between(from.unwrap_or(When::Start), to.unwrap_or(When::End)),
        };
        Ok(Plan::Report(Box::new(ReportPlan {
            file: self.file,
            debug_dir: self.symbols.debug_dir,
            span,
            top,
            group_by,
            output,
            gate,
        })))
    }
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The recording to compare
    #[arg(value_name = "BEFORE", value_hint = ValueHint::FilePath)]
    pub before: PathBuf,
    /// With this one; without it --from and --to are moments of the first
    #[arg(value_name = "AFTER", value_hint = ValueHint::FilePath)]
    pub after: Option<PathBuf>,
    /// The moment in BEFORE [default: start with one recording, end with two]
    ///
    /// A mark, a time after the start such as 90s or before the end such as -30s, a time of day as
    /// 2026-01-02T03:04:05Z, start or end. Of several marks of one name the latest; `cycle#2` is the second that is
    /// called cycle.
    #[arg(long, value_name = "TIME|MARK", value_parser = When::parse, help_heading = "Moment")]
    #[arg(allow_hyphen_values = true)]
    pub from: Option<When>,
    /// The moment in AFTER [default: end]
    #[arg(long, value_name = "TIME|MARK", value_parser = When::parse, help_heading = "Moment")]
    #[arg(allow_hyphen_values = true)]
    pub to: Option<When>,
    /// Show this many functions and stacks, or `all`
    #[arg(short = 'T', long, value_name = "N", default_value = "10")]
    #[arg(help_heading = "Selection")]
    pub top: Top,
    /// Better names.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// Form of the difference
    #[arg(long, value_enum, value_name = "FORM", default_value_t = DiffForm::Text)]
    #[arg(help_heading = "Output")]
    pub format: DiffForm,
    /// Exit with 3 when one stack holds more than before (by so many bytes at least)
    #[arg(long, value_name = "growth[:SIZE]", help_heading = "Output")]
    pub fail_on: Option<FailOnGrowth>,
    /// Print every frame
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// When to use colours; NO_COLOR in the environment turns `auto` off
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto)]
    #[arg(help_heading = "Output")]
    pub color: ColorArg,
}

/// Forms of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiffForm {
    /// For people
    Text,
    /// memtrace.diff/1
    Json,
    /// A flame graph of what is held after: red grew, blue shrank
    Svg,
}

/// Compare two moments.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffPlan {
    /// The recording of the earlier moment.
    pub before: PathBuf,
    /// The recording of the later moment; may be the same.
    pub after: PathBuf,
    /// A folder with symbols.
    pub debug_dir: Option<PathBuf>,
    /// The earlier moment.
    pub from: When,
    /// The later moment.
    pub to: When,
    /// Rows.
    pub top: Top,
    /// How it is told.
    pub form: DiffForm,
    /// What ends in exit code 3.
    pub fail_on: Option<FailOnGrowth>,
    /// All frames.
    pub verbose: bool,
    /// Colours.
    pub color: ColorWhen,
}

impl DiffArgs {
    pub(super) fn plan(self) -> Plan {
        let first = if self.after.is_none() {
            When::Start
        } else {
            When::End
        };
        Plan::Diff(DiffPlan {
            after: self.after.unwrap_or_else(|| self.before.clone()),
            before: self.before,
            debug_dir: self.symbols.debug_dir,
            from: self.from.unwrap_or(first),
            to: self.to.unwrap_or(When::End),
            top: self.top,
            form: self.format,
            fail_on: self.fail_on,
            verbose: self.verbose,
            color: self.color.into(),
        })
    }
}

/// What makes a difference a failure: a stack that gained at least so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailOnGrowth(u64);

impl FailOnGrowth {
    /// At least 1.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for FailOnGrowth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "growth" => Ok(Self(1)),
            Some(("growth", size)) => units::size(size)
                .map(|bytes| Self(bytes.max(1)))
                .map_err(|error| error.to_string()),
            _ => Err("only `growth` can fail; write it like growth or growth:1MiB".to_owned()),
        }
    }
}
