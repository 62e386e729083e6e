//! `memtrace --pid …` and `memtrace run …`: one session from attach to the last report.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;

use super::{gate, libraries, root};
use crate::{
    cli::{
        exit::Exit,
        plan::{Allocators, Program, TargetPlan, Timing, TracePlan, Verbosity},
        terminal,
    },
    id::Tgid,
    probe::KernelOptions,
    record::{RecordError, Writer},
    report::{
        gate::{Gate, Outcome},
        group, human, incident,
        model::{Filters, GroupBy, Overhead, Report, Target},
        output::Delivery,
        profile::{Series, UsageHistory},
        reporter::Reporter,
    },
    session::{Arrived, Launched, Session, SessionOptions, Signals, Taken, Wake},
    target::{
        container::{find::find, names::Sockets},
        family::CustomFunctions,
        process::ProcFs,
        select::Selector,
    },
};

/// Above this share of the target's CPU time a warning is due, limit or not.
const WARN_FRACTION: f64 = 0.2;
/// And this much of a processor.
const WARN_CORE: f64 = 0.05;

/// Traces until the target ends, the time is up, or a signal.
pub(super) fn trace(plan: &TracePlan) -> anyhow::Result<Exit> {
    plan.output.destination.check()?;
    let gate = gate::load(&plan.gate)?;
    root::require_privileges()?;
    root::require_host_pids()?;
    root::require_tracefs()?;
    let recorder = recorder(plan)?;
    let signals = Signals::take_over().context("cannot take signals over")?;
    // The child is forked before any thread exists.
    let child = match &plan.target {
        TargetPlan::Run(program) => Some(Launched::new(&program.name, &program.arguments)?),
        TargetPlan::Pids(_) | TargetPlan::Select(_) => None,
    };
    let mut session = Session::new(options(plan)?)?;
    if let Some(recorder) = recorder {
        session
            .start_recording(recorder)
            .context("cannot start a thread to record")?;
    }
    let incidents = match &plan.watch.incidents {
        Some(path) => Some(incident::Directory::open(path)?),
        None => None,
    };
    let reporter = Reporter::new(
        plan.output.form(terminal::text_options(&plan.output)),
        plan.output.destination.clone(),
    );
    let tracing = Tracing {
        plan,
        session,
        signals,
        child,
        reporter,
        usage: UsageHistory::default(),
        gate,
        incidents,
        fail_on_met: false,
        outcome: None,
        warned: false,
        stop: false,
        selected: 0,
    };
    tracing.run()
}

/// The new recording, if one was asked for: refused before anything is touched.
pub(super) fn recorder(plan: &TracePlan) -> Result<Option<Writer>, RecordError> {
    let record = plan.record.as_ref();
    record
        .map(|record| Writer::create(&record.path, record.retention))
        .transpose()
}

struct Tracing<'a> {
    plan: &'a TracePlan,
    session: Session,
    signals: Signals,
    child: Option<Launched>,
    reporter: Reporter,
    usage: UsageHistory,
    gate: Gate,
    incidents: Option<incident::Directory>,
    fail_on_met: bool,
    /// What the gate says, and about which report.
    outcome: Option<(Outcome, Report)>,
    warned: bool,
    stop: bool,
    /// Processes that were selected at the start.
    selected: usize,
}

impl Tracing<'_> {
    fn run(mut self) -> anyhow::Result<Exit> {
        self.attach()?;
        let began = Instant::now();
        let Timing {
            interval,
            duration,
            count,
        } = self.plan.timing;
        let end = duration.map(|length| began + length);
        let mut next = began + interval;
        let mut intervals = 0;
        while !self.stop {
            let until = end.map_or(next, |end| end.min(next));
            match self.session.wait(until, &mut self.signals)? {
                Wake::Time if end.is_some_and(|end| Instant::now() >= end) => break,
                Wake::Time => {
                    intervals += 1;
                    if count.is_some_and(|count| intervals >= count.get()) {
                        break;
                    }
                    self.interval()?;
                    // A report that took longer than the interval does not make the next ones rush.
                    let now = Instant::now();
                    next += interval;
                    if next < now {
                        next = now + interval;
                    }
                }
                Wake::Signal(signal) => self.signalled(signal),
                Wake::Incident => self.incidents()?,
                Wake::Mark => {
                    self.report(false, self.plan.output.wants_every_report())?;
                    self.notices();
                }
                Wake::AllEnded => break,
                Wake::Bell | Wake::Events { .. } => {}
            }
        }
        self.finish()
    }

    /// Puts the probes on, and says so.
    fn attach(&mut self) -> anyhow::Result<()> {
        match &self.plan.target {
            TargetPlan::Pids(pids) => {
                for tgid in pids.as_slice() {
                    if self.plan.follow {
                        self.session.add_tree(*tgid)?;
                    } else {
                        self.session.add_process(*tgid)?;
                    }
                }
            }
            TargetPlan::Select(_) => self.selected = self.session.add_selected()?,
            TargetPlan::Run(Program { name, .. }) => {
                if let Some(child) = &mut self.child {
                    self.session
                        .add_launched(child.tgid(), &libraries::of_program(name))?;
                    child.start()?;
                }
            }
        }
        self.session.listen_for_marks();
        if !self.is_quiet() {
            eprintln!("memtrace: tracing {}", self.what());
            if self.session.shares_probes() {
                eprintln!(
                    "memtrace: other processes with the same allocators meet these probes too, and \
                     are slowed by about a microsecond for each malloc and free"
                );
            }
        }
        self.notices();
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.plan.output.verbosity == Verbosity::Quiet
    }

    fn what(&self) -> String {
        match (&self.plan.target, &self.child) {
            (TargetPlan::Run(program), Some(child)) => {
                format!("{} (pid {})", program.name.display(), child.tgid())
            }
            (TargetPlan::Pids(pids), _) => {
                let pids: Vec<_> = pids.as_slice().iter().map(Tgid::to_string).collect();
                format!(
                    "pid {} (Ctrl-C ends it with a last report)",
                    pids.join(", ")
                )
            }
            (TargetPlan::Select(selector), _) => {
                let (kind, value) = selector.describe();
                let what = match kind {
                    "all" => "all processes".to_owned(),
                    kind => format!("{kind} {value}"),
                };
                let now = match self.selected {
                    0 => "no process yet".to_owned(),
                    1 => "1 process now".to_owned(),
                    many => format!("{many} processes now"),
                };
                format!("{what}: {now} (Ctrl-C ends it with a last report)")
            }
            _ => String::new(),
        }
    }

    /// An interval has passed.
    fn interval(&mut self) -> anyhow::Result<()> {
        self.report(false, self.plan.output.wants_every_report())?;
        self.session.apply_brake()?;
        self.notices();
        Ok(())
    }

    /// Writes and prints what happened, before anything else: memtrace may be killed next.
    fn incidents(&mut self) -> anyhow::Result<()> {
        for incident in self.session.take_incidents() {
            let written = self.incidents.as_mut().map(|to| to.write(&incident));
            if !self.is_quiet() {
                for line in incident::lines(&incident) {
                    eprintln!("memtrace: {line}");
                }
            }
            match written {
                Some(Ok(path)) if !self.is_quiet() => {
                    eprintln!("memtrace:   written to {}", path.display());
                }
                // The disk may have room again at the next one; tracing goes on.
                Some(Err(error)) => eprintln!("memtrace: {error}"),
                _ => {}
            }
        }
        self.notices();
        Ok(())
    }

    fn notices(&mut self) {
        for notice in self.session.take_notices() {
            if !self.is_quiet() {
                eprintln!("memtrace: {notice}");
            }
        }
    }

    fn report(&mut self, last: bool, show: bool) -> anyhow::Result<()> {
        let grouped = self.plan.selection.group_by != GroupBy::Stack;
        let top = self.plan.selection.top.limit();
        // The last report counts: a warm-up may look like growth for a while.
        let judges = last && self.judges();
        let whole = grouped || judges;
        let mut taken = self.session.report(if whole { None } else { top }, last)?;
        if judges {
            let outcome = self.gate.judge(&taken.report);
            self.fail_on_met = outcome.failed();
            self.outcome = Some((outcome, taken.report.clone()));
        }
        if whole {
            group::apply(&mut taken.report, self.plan.selection.group_by, top);
        }
        self.warn_of_cost(&taken.report.overhead);
        self.usage.add(&taken.report);
        if show {
            let series = self.series(&taken);
            let delivery = self.reporter.report_with(&taken.report, series)?;
            self.stop |= delivery == Delivery::ReaderGone;
            self.session.marks_told();
        }
        Ok(())
    }

    /// Whether every stack of the last report is to be looked at.
    fn judges(&self) -> bool {
        self.gate.is_set() || self.plan.gate.summary.is_some()
    }

    /// What the session knows of the past, where the format shows it.
    fn series(&self, taken: &Taken) -> Series {
        if !self.reporter.wants_series() {
            return Series::default();
        }
        Series {
            usage: self.usage.points(),
            stacks: self.session.histories(taken),
            events: self.session.events(),
            ..Series::default()
        }
    }

    /// Once, when tracing is dear and nobody set a limit. A target that mostly sleeps is not
    /// slowed noticeably by any share of what little it does.
    fn warn_of_cost(&mut self, overhead: &Overhead) {
        let share = overhead.fraction_of_target_cpu.unwrap_or(0.0);
        let core = overhead.fraction_of_one_core.unwrap_or(0.0);
        let quiet = self.plan.output.verbosity == Verbosity::Quiet;
        let limited = self.plan.cost.max_overhead.is_some();
        if self.warned || quiet || limited || share < WARN_FRACTION || core < WARN_CORE {
            return;
        }
        self.warned = true;
        eprintln!(
            "memtrace: tracing takes {} of the target's CPU time; --sample-bytes 512KiB or \
             --max-overhead 5% make it cheaper",
            human::percent(share)
        );
    }

    fn signalled(&mut self, signal: Arrived) {
        match &self.child {
            None => self.stop |= signal.ends(),
            // The terminal has told the program already.
            Some(_) if signal.from_terminal => {}
            Some(child) => child.signal(signal.number),
        }
    }

    /// The last report, and how to end.
    fn finish(mut self) -> anyhow::Result<Exit> {
        self.notices();
        let show = !self.stop || self.child.is_none();
        if show || self.judges() {
            self.report(true, show)?;
        }
        self.session.detach();
        let delivered = match self.outcome.take() {
            Some((outcome, report)) => {
                gate::deliver(&self.plan.gate, &outcome, &report, self.is_quiet())
            }
            None => Ok(()),
        };
        self.session.finish_recording();
        self.notices();
        let Some(child) = &mut self.child else {
            delivered?;
            return Ok(if self.fail_on_met {
                Exit::FailOnMet
            } else {
                Exit::Done
            });
        };
        // The time may be up before the program ends: it goes on without probes.
        while let Wake::Signal(signal) = wait_for_child(child, &mut self.signals)? {
            if !signal.from_terminal {
                child.signal(signal.number);
            }
        }
        let status = child.wait()?;
        delivered?;
        Ok(Exit::of_run(status, self.fail_on_met))
    }
}

/// Waits for the program's end or a signal to pass on.
pub(super) fn wait_for_child(child: &Launched, signals: &mut Signals) -> anyhow::Result<Wake> {
    loop {
        if let Some(signal) = signals.take() {
            return Ok(Wake::Signal(signal));
        }
        if child.wait_or(signals)? {
            return Ok(Wake::AllEnded);
        }
    }
}

pub(super) fn options(plan: &TracePlan) -> anyhow::Result<SessionOptions> {
    let (min_size, max_size) = plan.selection.sizes.bounds();
    let (min_asked, max_asked) = plan.selection.sizes.asked();
    let targets = match &plan.target {
        TargetPlan::Pids(pids) => pids.as_slice().len(),
        TargetPlan::Run(_) | TargetPlan::Select(_) => 1,
    };
    let defaults = KernelOptions::default();
    Ok(SessionOptions {
        target: target(&plan.target),
        kernel: KernelOptions {
            live_entries: plan.cost.live_entries.get(),
            ring_bytes: plan.cost.ring_bytes.get(),
            text_slots: defaults
                .text_slots
                .max(u32::try_from(targets).unwrap_or(u32::MAX)),
            min_size,
            max_size,
            regions: plan.probes.region,
            ..defaults
        },
        probes: plan.probes,
        older: plan.selection.older,
        interval: plan.timing.interval,
        filters: Filters {
            older_seconds: plan.selection.older.map(|older| older.as_secs_f64()),
            min_size_bytes: min_asked,
            max_size_bytes: max_asked,
        },
        sample_bytes: plan.cost.sample_bytes.get(),
        max_overhead: plan.cost.max_overhead.map(|percent| percent.fraction()),
        custom: custom(&plan.allocators)?,
        objects: plan.allocators.objects.clone(),
        thresholds: plan.watch.thresholds.clone(),
        sockets: plan.watch.sockets.clone(),
        follow: plan.follow,
        selector: match &plan.target {
            TargetPlan::Select(selector) => Some(resolved(selector, &plan.watch.sockets)?),
            TargetPlan::Pids(_) | TargetPlan::Run(_) => None,
        },
    })
}

/// A container may be named as its runtime calls it; from here on its id counts.
fn resolved(selector: &Selector, sockets: &[PathBuf]) -> anyhow::Result<Selector> {
    let Selector::Container(query) = selector else {
        return Ok(selector.clone());
    };
    let sockets = Sockets::new(Path::new("/"), sockets);
    let found = find(&ProcFs::default(), &sockets, query)?;
    Ok(Selector::Container(found.identity.id))
}

fn target(plan: &TargetPlan) -> Target {
    match plan {
        TargetPlan::Pids(pids) => {
            let pids: Vec<_> = pids.as_slice().iter().map(Tgid::to_string).collect();
            Target {
                kind: "pid",
                value: pids.join(","),
            }
        }
        TargetPlan::Select(selector) => {
            let (kind, value) = selector.describe();
            Target { kind, value }
        }
        TargetPlan::Run(program) => {
            let words = std::iter::once(&program.name).chain(&program.arguments);
            let words: Vec<_> = words
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            Target {
                kind: "run",
                value: words.join(" "),
            }
        }
    }
}

/// The user's own allocators.
pub(super) fn custom(plan: &Allocators) -> anyhow::Result<CustomFunctions> {
    let mut custom = CustomFunctions::default();
    for function in &plan.alloc_functions {
        custom.add_alloc(&function.name, function.argument.from_one() - 1)?;
    }
    for function in &plan.free_functions {
        custom.add_free(&function.name, function.argument.from_one() - 1)?;
    }
    for prefix in &plan.prefixes {
        custom.add_prefix(prefix)?;
    }
    Ok(custom)
}
