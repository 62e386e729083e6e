//! One tracing session: the only place that joins the parts.
//!
//! A [`Session`] owns the kernel side, everything known about the processes it traces, and the
//! ledger. It runs on one thread: [`Session::wait`] handles what the kernel sends until a time or
//! a signal, [`Session::report`] reads the tables and says what they hold. Both leave the targets
//! alone.

mod anchor;
mod attach;
mod calls;
mod collect;
mod contexts;
mod cycles;
mod dispatch;
mod evict;
mod faults;
mod follow;
mod incident;
mod jit;
mod late;
mod launch;
pub(crate) mod limits;
mod losses;
mod mappings;
pub mod marks;
mod oom;
mod overhead;
mod process;
mod recall;
mod reconcile;
mod record;
mod regions;
mod reporting;
mod seccomp;
mod select;
mod series;
mod signals;
pub mod thresholds;
mod usage;
mod wait;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;

pub use launch::{LaunchError, Launched};
pub use reporting::Taken;
pub use signals::{Arrived, Signals};
pub use wait::Wake;

use crate::{
    cli::plan::Probes,
    id::SpaceId,
    ledger::{Ledger, LedgerOptions, cycles::Marked},
    probe::{
        Attachments, Features, KernelOptions, KernelSide, MapLog, ProbeError, ReturnProbes,
        calibrate,
    },
    record::{Recorder, StackKey},
    report::model::{Filters, Mark, Target},
    report::profile::Events,
    stream::Stream,
    symbolize::Symbolizer,
    target::{
        cgroup::CgroupFs,
        container::names::{Names, Sockets},
        discover::Discoverer,
        family::CustomFunctions,
        process::{ProcFs, ProcessError},
        select::Selector,
    },
    unwind::{ModuleStore, StackTable, Unwinder},
};
use attach::Attached;
use contexts::Contexts;
use overhead::{Brake, CostModel, Meter};
use process::{Ended, Traced};

/// What a session is asked to do.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// How the target is called in reports.
    pub target: Target,
    /// Sizes and filters of the kernel side.
    pub kernel: KernelOptions,
    /// What is traced.
    pub probes: Probes,
    /// Only allocations at least this old are shown.
    pub older: Option<Duration>,
    /// Time between reports; survivors are older than this.
    pub interval: Duration,
    /// Filters, as asked for, for the report.
    pub filters: Filters,
    /// Mean bytes between samples; 1 is exact.
    pub sample_bytes: u64,
    /// Largest share of the targets' CPU time that tracing may take.
    pub max_overhead: Option<f64>,
    /// Allocators the user named.
    pub custom: CustomFunctions,
    /// Search only these objects; empty: all.
    pub objects: Vec<std::path::PathBuf>,
    /// Shares of a memory limit whose crossing is an incident.
    pub thresholds: thresholds::Thresholds,
    /// Sockets of container runtimes; empty: the usual ones.
    pub sockets: Vec<std::path::PathBuf>,
    /// Trace the children of targets too.
    pub follow: bool,
    /// Trace the processes that this selects, now and later.
    pub selector: Option<Selector>,
}

/// What ends a session before its time.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The kernel side.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A target.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Nothing to probe in a target.
    #[error("{0}")]
    NoAllocator(String),
    /// Return probes would kill a target (R25).
    #[error("{0}")]
    Seccomp(String),
    /// A system call of memtrace's own.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Processes whose figures are kept at once when they become targets by themselves.
const MAX_SHARED_SPACES: usize = 8192;
/// Room for many processes; for their call paths and threads, taken in the kernel as they come.
const SHARED_TARGETS: u32 = 1 << 14;
const SHARED_CONTEXTS: u32 = 1 << 18;
const SHARED_THREADS: u32 = 1 << 15;

/// A running session.
pub struct Session {
    options: SessionOptions,
    proc: ProcFs,
    kernel: KernelSide,
    stream: Stream,
    attachments: Attachments,
    attached: HashSet<Attached>,
    costs: CostModel,
    meter: Meter,
    detached: bool,
    return_probes: ReturnProbes,
    discoverer: Discoverer,
    modules: ModuleStore,
    unwinder: Unwinder,
    stacks: StackTable,
    contexts: Contexts,
    follow: follow::Follow,
    selected: select::Selected,
    idle: evict::Idle,
    contexts_evicted: u64,
    forks_told: bool,
    symbolizer: Symbolizer,
    jit: jit::JitNames,
    ledger: Ledger,
    oom: oom::Oom,
    usage: usage::Usage,
    groups: CgroupFs,
    incidents: incident::Incidents,
    names: Names,
    regions: regions::Accounts,
    faults: faults::Accounts,
    reconciled: reconcile::Reconciled,
    /// Calls one by one, where they are asked for.
    calls: Option<calls::Calls>,
    traced: Vec<Traced>,
    ended: Vec<Ended>,
    started: Instant,
    started_at: Timestamp,
    reports: u32,
    last_walk: Option<(Instant, Duration)>,
    mixed: HashSet<(SpaceId, crate::id::StackId)>,
    notices: Vec<String>,
    /// What a program that `run` starts maps, for when it ends too soon.
    map_log: Option<MapLog>,
    /// A target is being added: what fails now fails the command.
    is_adding: bool,
    /// Ended images no longer shown, and their CPU time.
    images_dropped: u64,
    cpu_ns_dropped: u64,
    /// Times that probes had to be put on another thread; calls in between were missed.
    probes_moved: u64,
    /// Probes that could not be put on later than at the start.
    probes_refused: u64,
    /// Gets every report.
    recorder: Option<Recorder>,
    /// Where marks come from.
    mark_socket: Option<marks::MarkSocket>,
    /// Marks that this process sets itself, for the next report.
    own_marks: Vec<marks::Asked>,
    /// Marks that no shown report has told.
    untold_marks: Vec<Mark>,
    /// Thresholds and incidents so far.
    events: Events,
    /// What happened between marks.
    marked: Marked<StackKey>,
    /// When the tables were read last, since the start.
    observed_at: Duration,
}

/// Every probe is an open file, and the usual limit of 1,024 is reached with some thirty objects.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it there is room for fewer probes, which is said when it is too little.
    let _ = setrlimit(Resource::Nofile, raised);
}

impl Session {
    /// Loads the kernel side and measures what a hit costs. No target is touched yet.
    pub fn new(mut options: SessionOptions) -> Result<Self, SessionError> {
        let shared = options.follow || options.selector.is_some();
        options.kernel.selection = follow::selection(options.follow, options.selector.as_ref());
        if shared {
            options.kernel.target_entries = options.kernel.target_entries.max(SHARED_TARGETS);
            options.kernel.text_slots = options.kernel.text_slots.max(follow::Follow::SLOTS);
            options.kernel.context_entries = options.kernel.context_entries.max(SHARED_CONTEXTS);
            options.kernel.thread_entries = options.kernel.thread_entries.max(SHARED_THREADS);
        }
        let proc = ProcFs::default();
        raise_file_limit();
        let (mut kernel, ring) = KernelSide::load(&options.kernel, &Features::detect())?;
        kernel.attach_lifecycle()?;
        let notices = oom::watch(&mut kernel).into_iter().collect();
        let (calibration, attachments) = calibrate(&mut kernel)?;
        kernel.set_sampling(options.sample_bytes)?;
        let sampling = options.sample_bytes > 1;
        let mut return_probes = ReturnProbes::default();
        if shared {
            seccomp::check_shared(&mut return_probes, &mut kernel)?;
        }
        let slots = options.kernel.text_slots;
        let ledger = LedgerOptions {
            max_spaces: if shared { MAX_SHARED_SPACES } else { 1024 },
            max_contexts: options.kernel.context_entries as usize,
            ..LedgerOptions::default()
        };
        let discoverer = Discoverer::new(proc.clone(), options.custom.clone());
        let mut session = Self {
            oom: oom::Oom::new(),
            usage: usage::Usage::new(options.thresholds.clone()),
            groups: oom::groups(),
            incidents: incident::Incidents::default(),
            names: Names::new(Sockets::new(std::path::Path::new("/"), &options.sockets)),
            marked: cycles::marked(&options.thresholds),
            options,
            proc,
            kernel,
            stream: Stream::new(ring),
            attachments,
            attached: HashSet::new(),
            costs: CostModel {
                exact: calibration.exact,
                sampled: calibration.sampled,
                sampling,
                stacks: calibration.stacks,
                ..CostModel::default()
            },
            meter: Meter::default(),
            detached: false,
            return_probes,
            discoverer,
            modules: ModuleStore::default(),
            unwinder: Unwinder::default(),
            stacks: StackTable::default(),
            contexts: Contexts::default(),
            follow: follow::Follow::new(shared, slots),
            selected: select::Selected::default(),
            idle: evict::Idle::default(),
            contexts_evicted: 0,
            forks_told: false,
            symbolizer: Symbolizer::new(),
            jit: jit::JitNames::default(),
            ledger: Ledger::new(ledger),
            regions: regions::Accounts::default(),
            faults: faults::Accounts::default(),
            reconciled: reconcile::Reconciled::default(),
            calls: None,
            traced: Vec::new(),
            ended: Vec::new(),
            started: Instant::now(),
            started_at: Timestamp::now(),
            reports: 0,
            last_walk: None,
            mixed: HashSet::new(),
            notices,
            map_log: None,
            is_adding: false,
            images_dropped: 0,
            cpu_ns_dropped: 0,
            probes_moved: 0,
            probes_refused: 0,
            recorder: None,
            mark_socket: None,
            own_marks: Vec::new(),
            untold_marks: Vec::new(),
            events: Events::default(),
            observed_at: Duration::ZERO,
        };
        session.attach_memory()?;
        // What the calibration sent.
        session.stream.drain(usize::MAX, |_| {});
        session.begin_calls()?;
        Ok(session)
    }

    /// Things to tell the user once, since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Applies the brake after a report: samples more coarsely, or takes the probes off.
    pub fn apply_brake(&mut self) -> Result<(), SessionError> {
        let Some(limit) = self.options.max_overhead else {
            return Ok(());
        };
        if self.detached {
            return Ok(());
        }
        let percent = |fraction: f64| format!("{:.1}%", fraction * 100.0);
        let cost = percent(self.meter.fraction.unwrap_or(0.0));
        match self.meter.brake(limit, self.kernel.sample_bytes()) {
            Brake::Release => {}
            Brake::Sample(bytes) => {
                self.kernel.set_sampling(bytes)?;
                self.costs.sampling = true;
                self.notices.push(format!(
                    "tracing takes {cost} of the target's CPU time, more than --max-overhead {}: \
                     sampling one in {} from now on, figures are estimates",
                    percent(limit),
                    crate::report::human::bytes(bytes),
                ));
            }
            Brake::Detach => {
                self.notices.push(format!(
                    "tracing takes {cost} of the target's CPU time even when sampling, more than \
                     --max-overhead {}: probes are taken off, figures stand still",
                    percent(limit),
                ));
                self.detach();
            }
        }
        Ok(())
    }

    /// Takes all probes off; what was recorded stays readable.
    pub fn detach(&mut self) {
        for process in &self.traced {
            // Hits stop counting at once, even before the last probe is off.
            let _ = self.kernel.remove_target(process.tgid);
        }
        self.attachments.detach();
        self.detached = true;
    }

    /// Whole reports so far.
    #[must_use]
    pub fn reports(&self) -> u32 {
        self.reports
    }
}
