//! Arguments as typed: the one definition that help, man pages and completions come from.
//!
//! What the values mean together is decided in [`super::plan`].

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::events::EventsArgs;
use super::help;
use super::incidents::IncidentsArgs;
use super::mark::MarkArgs;
use super::recordings::{DiffArgs, RecordArgs, ReportArgs};
use super::targets::TargetArgs;
use super::top::TopArgs;
use super::units;
use super::values::{self, CustomFunction, FailOn, Percent, RingBytes, Top};
use crate::session::thresholds::Thresholds;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "memtrace",
    version,
    about = help::ABOUT,
    long_about = help::LONG_ABOUT,
    override_usage = help::USAGE,
    after_help = help::EXAMPLES,
    after_long_help = help::LONG_EXAMPLES,
    args_conflicts_with_subcommands = true,
    max_term_width = 80,
    next_line_help = false
)]
pub struct Cli {
    /// What else than tracing by pid.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What to trace.
    #[command(flatten)]
    pub target: TargetArgs,

    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a program and trace it from its first allocation
    ///
    /// The program gets its arguments, standard streams and signals as if it were started
    /// without memtrace. memtrace ends when the program does and passes its exit status on
    /// (128 + signal); when that is 0 and --fail-on was met, the exit status is 3.
    #[command(override_usage = help::RUN_USAGE, after_help = help::RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Watch processes and stacks on the terminal
    ///
    /// Sort, filter, open a stack, freeze, mark, write a snapshot; ? tells the keys. The screen stays
    /// when the process ends, until q. With a recording every moment of it, to go to and fro in.
    #[command(override_usage = help::TOP_USAGE, after_help = help::TOP_EXAMPLES)]
    #[command(mut_args(help::of_top))]
    Top(Box<TopArgs>),
    /// Show each allocator call, mapping, fork, exec and exit as a line
    ///
    /// OOM kills too. Like strace, without stopping the program. Each line has time, pid (and /tid of a thread), the
    /// thread's name, and the call with its size, addresses and result. Events that found no room on
    /// their way are counted, and shown where they are missing.
    #[command(override_usage = help::EVENTS_USAGE, after_help = help::EVENTS_EXAMPLES)]
    Events(Box<EventsArgs>),
    /// Read a recording: any moment, any format
    ///
    /// Shows what live reporting showed at that moment. The target, its files and the machine
    /// may be gone. Needs no privileges.
    #[command(after_help = help::REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Compare two recordings, or two moments of one
    ///
    /// What grew, what is new, what went, by function and by stack. Stacks are matched by their
    /// functions, so that two builds of a program and two machines compare. Needs no privileges.
    #[command(after_help = help::DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Read OOM kills and crossed thresholds from a recording
    ///
    /// Lists them; with a number shows one whole: victims, limit, what the kernel said, usage against the limit
    /// before it, the stacks that grew until then and those that held the memory. Needs no privileges.
    #[command(after_help = help::INCIDENTS_EXAMPLES)]
    Incidents(IncidentsArgs),
    /// Name this moment in every running session and its recording
    ///
    /// The end of a test cycle, a deployment. Each session of this machine takes a report at once;
    /// `report --at NAME` and `diff FILE --from NAME --to NAME` then find it in a recording. From the
    /// second mark on reports tell what each stack gained from mark to mark, and from the fourth on
    /// what grows in every cycle. Tells in how many sessions the mark was set; fails when there is
    /// none.
    #[command(after_help = help::MARK_EXAMPLES)]
    Mark(MarkArgs),
    /// Tell what this machine can do, what is missing and how to mend it
    ///
    /// Looks at the kernel, privileges, BTF and security settings. With --pid also at that
    /// process: the allocators it has, and where probes would be placed and why.
    #[command(after_help = help::DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    #[command(after_help = help::COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print a manual page (roff)
    #[command(after_help = help::MAN_EXAMPLES)]
    Man {
        /// The page of this command; memtrace's own when left out
        #[arg(value_name = "COMMAND", value_parser = ["run", "top", "events", "report", "diff", "incidents", "mark", "doctor", "completions", "man"])]
        command: Option<String>,
    },
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// The program and its arguments, after --
    #[arg(value_name = "CMD", trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// Options of every tracing command.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Trace children too, from their first allocation on, and what they become by exec
    ///
    /// Their probes are met by every process of the machine that uses the same allocator, which
    /// slows all of them (the guide has figures).
    #[arg(short, long, help_heading = "Target")]
    pub follow: bool,
    /// Time between reports
    ///
    /// A growth verdict needs at least five intervals.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    #[arg(help_heading = "Timing")]
    pub interval: Duration,
    /// End after this time; else on Ctrl-C or when the process ends
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    #[arg(help_heading = "Timing")]
    pub duration: Option<Duration>,
    /// End after this many intervals
    #[arg(short = 'n', long, value_name = "N", value_parser = values::intervals)]
    #[arg(help_heading = "Timing", allow_negative_numbers = true)]
    pub count: Option<NonZeroU32>,

    /// Show this many stacks or groups, or `all` [default: 10]
    ///
    /// folded, svg, pprof, speedscope, gperftools and html hold all stacks unless told otherwise.
    #[arg(short = 'T', long, value_name = "N", help_heading = "Selection")]
    pub top: Option<Top>,
    /// Count only allocations at least this old, such as 30s
    ///
    /// Leaves out what is allocated and freed again all the time.
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    #[arg(help_heading = "Selection")]
    pub older: Option<Duration>,
    /// Trace only allocations of at least this size
    #[arg(short = 'z', long, value_name = "SIZE", value_parser = units::size)]
    #[arg(help_heading = "Selection")]
    pub min_size: Option<u64>,
    /// Trace only allocations of at most this size
    #[arg(short = 'Z', long, value_name = "SIZE", value_parser = units::size)]
    #[arg(help_heading = "Selection")]
    pub max_size: Option<u64>,
    /// Sum stacks by what they share
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = GroupByArg::Stack)]
    #[arg(help_heading = "Selection")]
    pub group_by: GroupByArg,

    /// What is traced: heap, region, fault, separated by commas
    ///
    /// heap: allocator calls. region: mmap, brk and their like, what of the address space is in use
    /// by whom. fault: memory as it is first touched, what is resident and who made it so; the
    /// cheapest. They combine, nothing is counted twice in the sums of a process.
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "heap"
    )]
    #[arg(help_heading = "Selection")]
    pub probe: Vec<ProbeArg>,

    /// How allocators are found.
    #[command(flatten)]
    pub allocators: AllocatorArgs,

    /// Record one allocation per SIZE bytes on average; 1 records all
    ///
    /// Cheaper; the figures become unbiased estimates and are marked with ~. 512KiB is a good
    /// first choice for a busy service.
    #[arg(long, value_name = "SIZE", default_value = "1", value_parser = units::size)]
    #[arg(help_heading = "Cost")]
    pub sample_bytes: u64,
    /// Keep the cost below this share of the target's CPU time
    ///
    /// Samples more coarsely while it is above, and detaches when that is not enough. Without
    /// this option there is no limit; the cost is in every report.
    #[arg(long, value_name = "PERCENT", help_heading = "Cost")]
    pub max_overhead: Option<Percent>,
    /// Room for this many live allocations (about 100 bytes each)
    ///
    /// What does not fit is counted as lost and reported.
    #[arg(long, value_name = "N", default_value = "1Mi", value_parser = values::entries)]
    #[arg(help_heading = "Cost")]
    pub live_entries: NonZeroU32,
    /// Room for new stacks on their way from the kernel, a power of two
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "8MiB",
        help_heading = "Cost"
    )]
    pub ring_bytes: RingBytes,

    /// What memory limits are watched for.
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Where reports go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What is kept of them.
    #[command(flatten)]
    pub record: RecordArgs,

    /// What fails a CI job.
    #[command(flatten)]
    pub gate: GateArgs,
}

/// What fails a CI job, and where that is written down.
#[derive(Debug, Args)]
pub struct GateArgs {
    /// Exit with 3 when something grows (at least so many bytes a second)
    ///
    /// The last report counts: `growing`, or `growing:10KiB`.
    #[arg(long, value_name = "growing[:SIZE]", help_heading = "CI")]
    pub fail_on: Option<FailOn>,
    /// Exit with 3 when something is worse than in this recording or report
    ///
    /// Make it with --record FILE, whose last moment counts, or with --format json --top all. Stacks are
    /// matched by functions and modules, so it may come from another build or machine.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "CI")]
    pub baseline: Option<PathBuf>,
    /// What may grow: a TOML file of function and module patterns with reasons
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "CI")]
    pub suppressions: Option<PathBuf>,
    /// Write the outcome to FILE as JUnit XML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "CI")]
    pub junit: Option<PathBuf>,
    /// Write the outcome to FILE as Markdown, for a pull request
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "CI")]
    pub summary: Option<PathBuf>,
}

/// How allocators are found (R16, R17).
#[derive(Debug, Args)]
pub struct AllocatorArgs {
    /// Search only this object for allocators, as a path the process sees; repeatable
    #[arg(short = 'O', long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Allocators")]
    pub object: Vec<PathBuf>,
    /// Also search for malloc, free, … with this prefix, such as je_; repeatable
    #[arg(long, value_name = "PREFIX", help_heading = "Allocators")]
    pub prefix: Vec<String>,
    /// An allocation function and which argument is its size; repeatable
    ///
    /// Arguments are counted from 1: --alloc-fn pool_alloc:2 for
    /// pool_alloc(struct pool *pool, size_t size). It returns the pointer.
    #[arg(long, value_name = "NAME:SIZE_ARG", help_heading = "Allocators")]
    pub alloc_fn: Vec<CustomFunction>,
    /// A free function and which argument is the pointer; repeatable
    ///
    /// Arguments are counted from 1: --free-fn pool_free:2 for
    /// pool_free(struct pool *pool, void *pointer).
    #[arg(long, value_name = "NAME:PTR_ARG", help_heading = "Allocators")]
    pub free_fn: Vec<CustomFunction>,
}

/// What memory limits are watched for.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Tell when usage crosses these shares of the memory limit, in percent, or `none`
    ///
    /// Each crossing is told at once, with the stacks that hold the memory, before the kernel has
    /// to kill. Usage is that of the container (memory cgroup) without files that are only cached.
    #[arg(long, value_name = "PERCENT,…", default_value = "75,85,90")]
    #[arg(value_parser = values::thresholds, help_heading = "Incidents")]
    pub threshold: Thresholds,
    /// Write each OOM kill and each crossed threshold to a file of its own in DIR, at once
    ///
    /// One self-contained JSON object with the stacks (schema memtrace.incident/1). DIR is made
    /// when it is not there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Incidents")]
    pub incidents: Option<PathBuf>,
    /// Ask the container runtime at this socket for names, pods and images; repeatable
    ///
    /// The Docker API (Podman serves it too) or the Kubernetes CRI. Without it the usual sockets
    /// of containerd, CRI-O, Docker and Podman are asked; without any, containers have only ids.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Incidents")]
    pub runtime_socket: Vec<PathBuf>,
}

/// Where reports go and how they look.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Form of the reports
    #[arg(long, value_enum, value_name = "FORM", default_value_t = FormatArg::Text)]
    #[arg(help_heading = "Output")]
    pub format: FormatArg,
    /// Write reports to FILE instead of standard output
    ///
    /// FILE always holds the latest report whole; ndjson and csv are appended.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Print the last report only, and no notices
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Print every frame, every probed function, and notes
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// When to use colours; NO_COLOR in the environment turns `auto` off
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto)]
    #[arg(help_heading = "Output")]
    pub color: ColorArg,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at this process too; give it again or separate with commas for more
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = values::pid)]
    pub pid: Vec<u32>,
    /// How allocators are found.
    #[command(flatten)]
    pub allocators: AllocatorArgs,
    /// Form of the report
    #[arg(long, value_enum, value_name = "FORM", default_value_t = DoctorFormatArg::Text)]
    #[arg(help_heading = "Output")]
    pub format: DoctorFormatArg,
    /// Give the reason of every placement
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// When to use colours; NO_COLOR in the environment turns `auto` off
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto)]
    #[arg(help_heading = "Output")]
    pub color: ColorArg,
}

/// `--group-by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupByArg {
    /// Every call stack by itself
    Stack,
    /// The function that allocates
    Function,
    /// The program or library that allocates
    Module,
    /// The program whose processes hold it, ended ones included
    Process,
    /// The container whose processes hold it
    Container,
}

/// `--probe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeArg {
    /// Allocator calls
    Heap,
    /// System calls that change mappings
    Region,
    /// First touches of memory
    Fault,
}

/// `--format` of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// For people
    Text,
    /// One object, the last report
    Json,
    /// One line for every report
    Ndjson,
    /// A row for each process and stack in every report
    Csv,
    /// A line for each stack, for flame graph tools
    Folded,
    /// A flame graph with search and zoom
    Svg,
    /// One page: memory over time, stacks, flame graph
    Html,
    /// Gzipped profile.proto, for `go tool pprof`
    Pprof,
    /// For speedscope.app
    Speedscope,
    /// Heap profile with symbols, for google-perftools' `pprof`
    Gperftools,
}

/// `--format` of doctor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormatArg {
    /// For people
    Text,
    /// One object
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// When standard output is a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
