//! Arguments as typed → a plan, or the contradiction by name.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::args::{
    AllocatorArgs, Cli, ColorArg, Command, DoctorArgs, DoctorFormatArg, FormatArg, GateArgs,
    GroupByArg, OutputArgs, ProbeArg, RunArgs, TraceArgs, WatchArgs,
};
use super::plan::{
    Allocators, ColorWhen, Cost, DoctorPlan, Format, GatePlan, MIN_INTERVAL, OutputPlan, Plan,
    Probes, Program, Selection, SizeRange, TargetPlan, Timing, TracePlan, VERDICT_INTERVALS,
    Verbosity, WatchPlan,
};
use super::targets::once;
use super::usage::UsageError;
use super::values::Top;
use crate::report::model::GroupBy;
use crate::report::output::Destination;
use crate::report::profile::ProfileForm;

pub(super) type Checked<T> = Result<T, UsageError>;

impl Cli {
    /// Makes the plan.
    ///
    /// # Errors
    /// When the arguments contradict each other; the text names them.
    pub fn plan(self) -> Checked<Plan> {
        match self.command {
            Some(Command::Run(run)) => run.plan(),
            Some(Command::Top(top)) => top.plan(),
            Some(Command::Events(events)) => events.plan(),
            Some(Command::Report(report)) => report.plan(),
            Some(Command::Diff(diff)) => Ok(diff.plan()),
            Some(Command::Incidents(incidents)) => Ok(incidents.plan()),
            Some(Command::Mark(mark)) => mark.plan(),
            Some(Command::Doctor(doctor)) => doctor.plan().map(Plan::Doctor),
            Some(Command::Completions { shell }) => Ok(Plan::Completions(shell)),
            Some(Command::Man { command }) => Ok(Plan::Man(command)),
            None => self.trace.plan(self.target.plan()?),
        }
    }
}

impl RunArgs {
    fn plan(self) -> Checked<Plan> {
        let mut words = self.command.into_iter();
        let Some(name) = words.next().filter(|name| !name.is_empty()) else {
            return Err(UsageError::NoProgram);
        };
        self.trace.plan(TargetPlan::Run(Program {
            name,
            arguments: words.collect(),
        }))
    }
}

impl TraceArgs {
    fn plan(self, target: TargetPlan) -> Checked<Plan> {
        Ok(Plan::Trace(Box::new(self.trace(target)?)))
    }

    pub(super) fn trace(self, target: TargetPlan) -> Checked<TracePlan> {
        let timing = timing(self.interval, self.duration, self.count)?;
        let selection = Selection {
            top: self.top.unwrap_or_else(|| default_top(self.output.format)),
            older: self.older.filter(|age| !age.is_zero()),
            sizes: sizes(self.min_size, self.max_size)?,
            group_by: self.group_by.into(),
        };
        let cost = Cost {
            sample_bytes: NonZeroU64::new(self.sample_bytes).ok_or(UsageError::NoSampling)?,
            max_overhead: self.max_overhead,
            live_entries: self.live_entries,
            ring_bytes: self.ring_bytes,
        };
        if let (Some(older), Some(session)) = (selection.older, timing.length())
            && older >= session
        {
            return Err(UsageError::OlderThanSession { older, session });
        }
        let gate = self.gate.plan()?;
        if let (Some(_), Some(intervals)) = (gate.fail_on, timing.intervals())
            && intervals < u64::from(VERDICT_INTERVALS)
        {
            return Err(UsageError::FailOnTooShort { intervals });
        }
        let probes = Probes {
            heap: self.probe.contains(&ProbeArg::Heap),
            region: self.probe.contains(&ProbeArg::Region),
            fault: self.probe.contains(&ProbeArg::Fault),
        };
        let watch = self.watch.plan()?;
        let (allocators, output) = (self.allocators.plan()?, self.output.plan()?);
        groups_have_a_place(&output, selection.group_by)?;
        let record = self.record.plan()?;
        Ok(TracePlan {
            target,
            follow: self.follow,
            timing,
            selection,
            probes,
            allocators,
            cost,
            watch,
            output,
            gate,
            record,
        })
    }
}

/// A table for people has ten rows; a picture of ten stacks would be a wrong picture.
pub(super) fn default_top(format: FormatArg) -> Top {
    match format {
        FormatArg::Text | FormatArg::Json | FormatArg::Ndjson | FormatArg::Csv => Top::default(),
        FormatArg::Folded
        | FormatArg::Svg
        | FormatArg::Html
        | FormatArg::Pprof
        | FormatArg::Speedscope
        | FormatArg::Gperftools => Top::All,
    }
}

/// Groups are rows of a table, not of a picture made of stacks.
pub(super) fn groups_have_a_place(output: &OutputPlan, by: GroupBy) -> Checked<()> {
    match (output.format, by) {
        (_, GroupBy::Stack) => Ok(()),
        (Format::Profile(form), _) => Err(UsageError::GroupsInProfile(form.name())),
        _ => Ok(()),
    }
}

fn timing(
    interval: Duration,
    duration: Option<Duration>,
    count: Option<NonZeroU32>,
) -> Checked<Timing> {
    if interval < MIN_INTERVAL {
        return Err(UsageError::IntervalTooShort(interval));
    }
    if duration.is_some_and(|time| time.is_zero()) {
        return Err(UsageError::NoDuration);
    }

    Ok(Timing {
        interval,
        duration,
        count,
    })
}

pub(super) fn sizes(min: Option<u64>, max: Option<u64>) -> Checked<SizeRange> {
    match (min, max) {
        (Some(low), Some(high)) if low > high => Err(UsageError::SizesCross {
            min: super::units::show_size(low),
            max: super::units::show_size(high),
        }),
        _ => Ok(SizeRange { min, max }),
    }
}

impl AllocatorArgs {
    pub(super) fn plan(self) -> Checked<Allocators> {
        if self.object.iter().any(|path| path.as_os_str().is_empty()) {
            return Err(UsageError::Empty("object"));
        }
        if self.prefix.iter().any(String::is_empty) {
            return Err(UsageError::Empty("prefix"));
        }
        Ok(Allocators {
            objects: self.object,
            prefixes: self.prefix,
            alloc_functions: self.alloc_fn,
            free_functions: self.free_fn,
        })
    }
}

impl GateArgs {
    pub(super) fn plan(self) -> Checked<GatePlan> {
        let files = [
            ("baseline", &self.baseline),
            ("suppressions", &self.suppressions),
            ("junit", &self.junit),
            ("summary", &self.summary),
        ];
        for (option, path) in files {
            if path
                .as_ref()
                .is_some_and(|path| path.as_os_str().is_empty())
            {
                return Err(UsageError::Empty(option));
            }
        }
        let asks = self.fail_on.is_some() || self.baseline.is_some();
        if self.suppressions.is_some() && !asks {
            return Err(UsageError::NothingToSuppress);
        }
        if self.junit.is_some() && !asks {
            return Err(UsageError::NothingToTest);
        }
        Ok(GatePlan {
            fail_on: self.fail_on,
            baseline: self.baseline,
            suppressions: self.suppressions,
            junit: self.junit.map(Destination::Replace),
            summary: self.summary.map(Destination::Replace),
        })
    }
}

impl WatchArgs {
    fn plan(self) -> Checked<WatchPlan> {
        if self
            .incidents
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            return Err(UsageError::Empty("incidents"));
        }
        if self
            .runtime_socket
            .iter()
            .any(|path| path.as_os_str().is_empty())
        {
            return Err(UsageError::Empty("runtime-socket"));
        }
        Ok(WatchPlan {
            thresholds: self.threshold,
            incidents: self.incidents,
            sockets: self.runtime_socket,
        })
    }
}

impl OutputArgs {
    pub(super) fn plan(self) -> Checked<OutputPlan> {
        let format = match self.format {
            FormatArg::Text => Format::Text,
            FormatArg::Json => Format::Json,
            FormatArg::Ndjson => Format::Ndjson,
            FormatArg::Csv => Format::Profile(ProfileForm::Csv),
            FormatArg::Folded => Format::Profile(ProfileForm::Folded),
            FormatArg::Svg => Format::Profile(ProfileForm::Svg),
            FormatArg::Html => Format::Profile(ProfileForm::Html),
            FormatArg::Pprof => Format::Profile(ProfileForm::Pprof),
            FormatArg::Speedscope => Format::Profile(ProfileForm::Speedscope),
            FormatArg::Gperftools => Format::Profile(ProfileForm::Gperftools),
        };
        let destination = match (self.output, format) {
            (None, _) => Destination::Stdout,
            (Some(path), _) if path.as_os_str() == "-" => Destination::Stdout,
            (Some(path), _) if path.as_os_str().is_empty() => {
                return Err(UsageError::Empty("output"));
            }
            (Some(path), Format::Ndjson | Format::Profile(ProfileForm::Csv)) => {
                Destination::Append(path)
            }
            (Some(path), Format::Text | Format::Json | Format::Profile(_)) => {
                Destination::Replace(path)
            }
        };
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        };
        Ok(OutputPlan {
            format,
            destination,
            verbosity,
            color: self.color.into(),
        })
    }
}

impl DoctorArgs {
    fn plan(self) -> Checked<DoctorPlan> {
        Ok(DoctorPlan {
            pids: once(self.pid),
            allocators: self.allocators.plan()?,
            json: self.format == DoctorFormatArg::Json,
            verbose: self.verbose,
            color: self.color.into(),
        })
    }
}

impl From<GroupByArg> for GroupBy {
    fn from(arg: GroupByArg) -> Self {
        match arg {
            GroupByArg::Stack => Self::Stack,
            GroupByArg::Function => Self::Function,
            GroupByArg::Module => Self::Module,
            GroupByArg::Process => Self::Process,
            GroupByArg::Container => Self::Container,
        }
    }
}

impl From<ColorArg> for ColorWhen {
    fn from(arg: ColorArg) -> Self {
        match arg {
            ColorArg::Auto => Self::Auto,
            ColorArg::Always => Self::Always,
            ColorArg::Never => Self::Never,
        }
    }
}
