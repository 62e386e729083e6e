//! Arguments and plan of `events`.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::args::{AllocatorArgs, ColorArg};
use super::check::{Checked, sizes};
use super::plan::{
    ColorWhen, Cost, Format, GatePlan, OutputPlan, Plan, Probes, Program, Selection, TargetPlan,
    Timing, TracePlan, Verbosity, WatchPlan,
};
use super::targets::TargetArgs;
use super::units;
use super::usage::UsageError;
use super::values::{self, RingBytes, Top};
use crate::report::event::Kind;
use crate::report::model::GroupBy;
use crate::report::output::Destination;
use crate::session::thresholds::Thresholds;

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// What to trace.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Trace children too, from their first call on, and what they become by exec
    #[arg(short, long, help_heading = "Target")]
    pub follow: bool,
    /// Ask the container runtime at this socket for names; repeatable
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Target")]
    pub runtime_socket: Vec<PathBuf>,

    /// Show only these kinds, separated by commas
    ///
    /// `heap` is alloc, realloc and free; `region` mmap, munmap, mremap, brk, madvise and mprotect;
    /// `life` fork, exec, exit and oom-kill. What no kind asks for is not probed and costs nothing.
    #[arg(short, long, value_enum, value_name = "KIND", value_delimiter = ',')]
    #[arg(help_heading = "Selection")]
    pub kind: Vec<KindArg>,
    /// Show only allocator calls and mappings of at least this size
    ///
    /// Frees of blocks whose size is not known are not shown then.
    #[arg(short = 'z', long, value_name = "SIZE", value_parser = units::size)]
    #[arg(help_heading = "Selection")]
    pub min_size: Option<u64>,
    /// Show only allocator calls and mappings of at most this size
    #[arg(short = 'Z', long, value_name = "SIZE", value_parser = units::size)]
    #[arg(help_heading = "Selection")]
    pub max_size: Option<u64>,
    /// Show the whole call stack of each event
    #[arg(short, long, help_heading = "Selection")]
    pub stacks: bool,

    /// End after this time; else on Ctrl-C or when the process ends
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    #[arg(help_heading = "Timing")]
    pub duration: Option<Duration>,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "N", help_heading = "Timing")]
    pub count: Option<NonZeroU64>,

    /// How allocators are found.
    #[command(flatten)]
    pub allocators: AllocatorArgs,

    /// Room for this many live allocations, whose size a free then shows
    #[arg(long, value_name = "N", default_value = "1Mi", value_parser = values::entries)]
    #[arg(help_heading = "Cost")]
    pub live_entries: NonZeroU32,
    /// Room for events on their way from the kernel, a power of two
    ///
    /// What finds no room is counted, and shown where it is missing.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "8MiB",
        help_heading = "Cost"
    )]
    pub ring_bytes: RingBytes,

    /// Form of the events; json and ndjson are the same: one object a line
    #[arg(long, value_enum, value_name = "FORM", default_value_t = EventFormatArg::Text)]
    #[arg(help_heading = "Output")]
    pub format: EventFormatArg,
    /// Write events to FILE instead of standard output; it is made anew
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Print events and failures only, no notices
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// When to use colours; NO_COLOR in the environment turns `auto` off
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto)]
    #[arg(help_heading = "Output")]
    pub color: ColorArg,

    /// A program to start and trace from its first call, and its arguments, after --
    #[arg(value_name = "CMD", last = true, value_hint = ValueHint::CommandWithArguments)]
    #[arg(conflicts_with_all = ["pid", "comm", "cgroup", "container", "all"])]
    pub command: Vec<OsString>,
}

/// `--kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Allocators: alloc, realloc, free
    Heap,
    /// System calls that change mappings
    Region,
    /// fork, exec, exit, oom-kill
    Life,
    /// malloc, calloc, operator new and their like
    Alloc,
    /// realloc and its like
    Realloc,
    /// free and its like
    Free,
    /// mmap
    Mmap,
    /// munmap
    Munmap,
    /// mremap
    Mremap,
    /// brk
    Brk,
    /// madvise
    Madvise,
    /// mprotect
    Mprotect,
    /// fork, vfork, clone
    Fork,
    /// execve
    Exec,
    /// The end of a process
    Exit,
    /// OOM kills
    OomKill,
}

impl KindArg {
    fn includes(self, kind: Kind) -> bool {
        match self {
            Self::Heap => kind.is_heap(),
            Self::Region => kind.is_region(),
            Self::Life => !kind.is_heap() && !kind.is_region(),
            Self::Alloc => kind == Kind::Alloc,
            Self::Realloc => kind == Kind::Realloc,
            Self::Free => kind == Kind::Free,
            Self::Mmap => kind == Kind::Mmap,
            Self::Munmap => kind == Kind::Munmap,
            Self::Mremap => kind == Kind::Mremap,
            Self::Brk => kind == Kind::Brk,
            Self::Madvise => kind == Kind::Madvise,
            Self::Mprotect => kind == Kind::Mprotect,
            Self::Fork => kind == Kind::Fork,
            Self::Exec => kind == Kind::Exec,
            Self::Exit => kind == Kind::Exit,
            Self::OomKill => kind == Kind::OomKill,
        }
    }
}

/// `--format` of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventFormatArg {
    /// For people
    Text,
    /// One object a line
    Json,
    /// One object a line
    Ndjson,
}

/// Show each call.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsPlan {
    /// What to trace and how.
    pub trace: TracePlan,
    /// Kinds shown; empty: all.
    pub kinds: Vec<Kind>,
    /// Each with its call stack.
    pub stacks: bool,
    /// End after so many.
    pub count: Option<NonZeroU64>,
    /// Objects instead of lines for people.
    pub json: bool,
    /// The file to write to; else standard output.
    pub output: Option<PathBuf>,
}

const ALL: [Kind; 13] = [
    Kind::Alloc,
    Kind::Realloc,
    Kind::Free,
    Kind::Mmap,
    Kind::Munmap,
    Kind::Mremap,
    Kind::Brk,
    Kind::Madvise,
    Kind::Mprotect,
    Kind::Fork,
    Kind::Exec,
    Kind::Exit,
    Kind::OomKill,
];

impl EventsArgs {
    pub(super) fn plan(self) -> Checked<Plan> {
        let kinds: Vec<Kind> = ALL
            .into_iter()
            .filter(|kind| self.kind.is_empty() || self.kind.iter().any(|arg| arg.includes(*kind)))
            .collect();
        if self.duration.is_some_and(|time| time.is_zero()) {
            return Err(UsageError::NoDuration);
        }
        let output = self.output.filter(|path| path.as_os_str() != "-");
        if output
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            return Err(UsageError::Empty("output"));
        }
        let mut words = self.command.into_iter();
        let target = match words.next() {
            Some(name) if name.is_empty() => return Err(UsageError::NoProgram),
            Some(name) => TargetPlan::Run(Program {
                name,
                arguments: words.collect(),
            }),
            None => self.target.plan()?,
        };
        let trace = TracePlan {
            target,
            follow: self.follow,
            timing: Timing {
                interval: Duration::from_secs(5),
                duration: self.duration,
                count: None,
            },
            selection: Selection {
                top: Top::default(),
                older: None,
                sizes: sizes(self.min_size, self.max_size)?,
                group_by: GroupBy::Stack,
            },
            probes: Probes {
                heap: kinds.iter().any(|kind| kind.is_heap()),
                region: kinds.iter().any(|kind| kind.is_region()),
                fault: false,
            },
            allocators: self.allocators.plan()?,
            cost: Cost {
                sample_bytes: NonZeroU64::MIN,
                max_overhead: None,
                live_entries: self.live_entries,
                ring_bytes: self.ring_bytes,
            },
            watch: WatchPlan {
                thresholds: Thresholds::none(),
                incidents: None,
                sockets: self.runtime_socket,
            },
            output: OutputPlan {
                format: Format::Ndjson,
                destination: Destination::Stdout,
                verbosity: if self.quiet {
                    Verbosity::Quiet
                } else {
                    Verbosity::Normal
                },
                color: ColorWhen::from(self.color),
            },
            gate: GatePlan::default(),
            record: None,
        };
        Ok(Plan::Events(Box::new(EventsPlan {
            trace,
            kinds,
            stacks: self.stacks,
            count: self.count,
            json: self.format != EventFormatArg::Text,
            output,
        })))
    }
}
