//! One tracing session: the only place that joins the parts.
//!
//! A [`Session`] owns the kernel side, everything known about the processes it traces, and the
//! ledger. It runs on one thread: [`Session::wait`] handles what the kernel sends until a time or
//! a signal, [`Session::report`] reads the tables and says what they hold. Both leave the targets
//! alone.

mod anchor;
mod attach;
mod collect;
mod contexts;
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

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use memtrace_common::WIDE_BYTES;
use rustix::event::{PollFd, PollFlags, Timespec};

pub use launch::{LaunchError, Launched};
pub use reporting::Taken;
pub use signals::{Arrived, Signals};

use crate::{
    cli::plan::Probes,
    id::{SpaceId, Tgid},
    ledger::{Ledger, LedgerOptions, regions::Change},
    probe::{
        Attachments, Features, KernelOptions, KernelSide, MapLog, ProbeError, ReturnProbes,
        calibrate,
    },
    record::Recorder,
    report::model::{Filters, Mark, Target},
    stream::{Event, Stream},
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
use contexts::{Advice, Contexts};
use late::{Late, MAX_LATE};
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

/// Why [`Session::wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The time is reached.
    Time,
    /// A signal arrived.
    Signal(Arrived),
    /// No traced process is left.
    AllEnded,
    /// The bell of [`Session::wait_or`] can be read.
    Bell,
    /// An OOM kill or the crossing of a threshold waits to be told.
    Incident,
    /// Somebody names this moment: the report that is due now has the mark.
    Mark,
}

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
    /// Marks that no shown report has told.
    untold_marks: Vec<Mark>,
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

/// What can be read beside what the kernel sends.
#[derive(Clone, Copy, Default)]
struct Rings {
    bell: bool,
    mark: bool,
}

/// What happened to a process, in its order.
enum Life {
    Exec(Tgid, SpaceId, SpaceId),
    AnchorEnded(Tgid),
    Forked(Tgid, SpaceId, SpaceId),
    Ended(Tgid, SpaceId, bool),
    Candidate(Tgid),
}

impl Life {
    fn of(event: &Event<'_>) -> Option<Self> {
        match event {
            Event::Exec { tgid, old, new } => Some(Self::Exec(*tgid, *old, *new)),
            Event::AnchorEnded { tgid } => Some(Self::AnchorEnded(*tgid)),
            Event::Fork {
                tgid,
                space,
                parent_space,
                ..
            } => Some(Self::Forked(*tgid, *space, *parent_space)),
            Event::Ended {
                tgid,
                space,
                by_exec,
            } => Some(Self::Ended(*tgid, *space, *by_exec)),
            Event::Candidate { tgid } => Some(Self::Candidate(*tgid)),
            Event::Context(_)
            | Event::Mapping { .. }
            | Event::Region(_)
            | Event::Fault(_)
            | Event::Oom(_) => None,
        }
    }
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
            traced: Vec::new(),
            ended: Vec::new(),
            started: Instant::now(),
            started_at: Timestamp::now(),
            reports: 0,
            last_walk: None,
            mixed: HashSet::new(),
            notices: Vec::new(),
            map_log: None,
            is_adding: false,
            images_dropped: 0,
            cpu_ns_dropped: 0,
            probes_moved: 0,
            probes_refused: 0,
            recorder: None,
            mark_socket: None,
            untold_marks: Vec::new(),
            observed_at: Duration::ZERO,
        };
        session.attach_memory()?;
        // What the calibration sent.
        session.stream.drain(usize::MAX, |_| {});
        Ok(session)
    }

    /// Things to tell the user once, since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Handles events until `until`, a signal, or the end of the last target.
    pub fn wait(&mut self, until: Instant, signals: &mut Signals) -> Result<Wake, SessionError> {
        self.wait_or(until, signals, None)
    }

    /// The same, or until `bell` can be read.
    pub fn wait_or(
        &mut self,
        until: Instant,
        signals: &mut Signals,
        bell: Option<BorrowedFd<'_>>,
    ) -> Result<Wake, SessionError> {
        let mut rings = Rings::default();
        loop {
            let more = self.handle_events()?;
            self.refresh_due()?;
            self.reap()?;
            self.settle(false)?;
            if let Some(signal) = signals.take() {
                return Ok(Wake::Signal(signal));
            }
            if rings.bell {
                return Ok(Wake::Bell);
            }
            let is_over = self.is_over();
            if self.make_incidents(is_over)? {
                return Ok(Wake::Incident);
            }
            if is_over {
                return Ok(Wake::AllEnded);
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Wake::Time);
            }
            if rings.mark {
                return Ok(Wake::Mark);
            }
            let due = self.next_deadline(until).saturating_duration_since(now);
            // With more to read only a look: a busy target must not keep the user waiting.
            let time = if more { Duration::ZERO } else { due };
            if !more || bell.is_some() || self.mark_socket.is_some() {
                rings = self.poll(time, signals, bell)?;
            }
        }
    }

    /// Sleeps until something can be read, or for `time`; what rings.
    fn poll(
        &self,
        time: Duration,
        signals: &Signals,
        bell: Option<BorrowedFd<'_>>,
    ) -> Result<Rings, SessionError> {
        let (has_bell, has_marks) = (bell.is_some(), self.mark_socket.is_some());
        let bell = bell.unwrap_or(signals.as_fd());
        let marks = self.mark_socket.as_ref().map(AsFd::as_fd);
        let mut fds = vec![
            PollFd::from_borrowed_fd(bell, PollFlags::IN),
            PollFd::from_borrowed_fd(marks.unwrap_or(signals.as_fd()), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        fds.extend(
            self.traced
                .iter()
                .filter_map(|t| t.pidfd.as_ref())
                .map(|pidfd| PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)),
        );
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let rings = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                Ok(Rings {
                    bell: has_bell && rings(0),
                    mark: has_marks && rings(1),
                })
            }
            Err(rustix::io::Errno::INTR) => Ok(Rings::default()),
            Err(errno) => Err(SessionError::System {
                what: "poll",
                source: errno.into(),
            }),
        }
    }

    fn next_deadline(&self, until: Instant) -> Instant {
        self.traced
            .iter()
            .filter_map(Traced::next_refresh)
            .chain(self.incident_due())
            .chain(self.follow.due())
            .fold(until, Instant::min)
    }

    /// Handles what is in the ring buffer; true when there may be more.
    fn handle_events(&mut self) -> Result<bool, SessionError> {
        let mut lives = Vec::new();
        let mut late = Vec::new();
        let mut advices = Vec::new();
        let mut kills = Vec::new();
        let Self {
            stream,
            unwinder,
            stacks,
            contexts,
            traced,
            regions,
            faults,
            options,
            ..
        } = self;
        let probes = options.probes;
        // Few at a time: each may be a stack to keep or to unwind, and the clock must go on.
        let more = stream.drain(MAX_LATE, |event| match event {
            Event::Context(context) => {
                let family = context.image;
                if family != context.space && !unwinder.knows(context.space) {
                    unwinder.fork_space(family, context.space);
                }
                let unwound =
                    unwinder.unwind_with_pending(context.space, &context.stack, &context.pending);
                let unknown =
                    !unwinder.knows(context.space) || unwinder.unknown_address().is_some();
                if unknown {
                    late.push(Late::new(&context));
                    return;
                }
                let Some(stack) = stacks.intern(&unwound) else {
                    return;
                };
                let (fingerprint, narrow) = (context.fingerprint, context.narrow);
                if unwinder.depth() > WIDE_BYTES as u64 {
                    contexts.mark_deep(family, fingerprint);
                }
                advices.push(contexts.learn(family, fingerprint, narrow, stack));
            }
            Event::Mapping { tgid, .. } => {
                for process in traced.iter_mut().filter(|t| t.tgid == tgid) {
                    process.mapping_announced();
                }
            }
            Event::Region(event) => {
                let Some(change) = Change::of(&event) else {
                    return;
                };
                let space = SpaceId(event.header.space);
                if probes.region {
                    regions.take(space, &change);
                }
                if probes.fault {
                    faults.change(space, &change);
                }
            }
            Event::Fault(event) => faults.take(&event),
            Event::Oom(kill) => kills.push(kill),
            event => {
                if let Event::Fork {
                    space,
                    parent_space,
                    ..
                } = event
                {
                    unwinder.fork_space(parent_space, space);
                    // The child begins with its parent's mappings and pages, nobody's (R13).
                    regions.fork(parent_space, space);
                    faults.fork(parent_space, space);
                }
                lives.push(Life::of(&event));
            }
        });
        for kill in kills {
            self.oom_kill(&kill);
        }
        for life in lives.into_iter().flatten() {
            match life {
                Life::Exec(tgid, old, new) => self.exec(tgid, old, new)?,
                Life::AnchorEnded(tgid) => self.anchor_ended(tgid)?,
                Life::Forked(child, space, parent) => self.forked(child, space, parent),
                Life::Ended(tgid, space, by_exec) => self.ended(tgid, space, by_exec),
                Life::Candidate(tgid) => self.consider(tgid)?,
            }
        }
        advices.extend(self.unwind_late(late)?);
        for advice in advices {
            if let Advice::SetWide(fingerprint, mode) = advice {
                self.kernel.set_wide(fingerprint, mode)?;
            }
        }
        Ok(more)
    }

    /// Re-reads the mappings of processes that announced a new one.
    fn refresh_due(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        let due: Vec<Tgid> = self
            .traced
            .iter_mut()
            .filter_map(|t| t.take_refresh(now).then_some(t.tgid))
            .collect();
        due.into_iter().try_for_each(|tgid| self.refresh(tgid))
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
