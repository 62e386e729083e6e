//! `memtrace events`: a session whose calls are shown one by one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::tz::TimeZone;
use memtrace_common::events::{EACH_CALL, EACH_CALL_WITH_PATH};

use super::{libraries, root, sink::Sink, trace};
use crate::{
    cli::{
        events::EventsPlan,
        exit::Exit,
        plan::{TargetPlan, Verbosity},
        terminal,
    },
    report::{
        event::{End, Event, Line, Lines},
        human,
        output::Delivery,
    },
    session::{Arrived, Launched, Session, SessionOptions, Signals, Wake},
};

/// The kernel side does not wake anybody for a single event.
const LOOK: Duration = Duration::from_millis(50);
/// Time between looks at what only reports would find.
const UPKEEP: Duration = Duration::from_secs(2);
/// Bytes that are gathered while there is more to read.
const GATHER: usize = 64 << 10;

/// Shows events until the targets end, the time is up, there are enough, or a signal.
pub(super) fn events(plan: &EventsPlan) -> anyhow::Result<Exit> {
    root::require_privileges()?;
    root::require_host_pids()?;
    root::require_tracefs()?;
    let sink = Sink::open(plan.output.as_deref())?;
    let signals = Signals::take_over().context("cannot take signals over")?;
    // The child is forked before any thread exists.
    let child = match &plan.trace.target {
        TargetPlan::Run(program) => Some(Launched::new(&program.name, &program.arguments)?),
        TargetPlan::Pids(_) | TargetPlan::Select(_) => None,
    };
    let session = Session::new(options(plan)?)?;
    let color = plan.output.is_none() && terminal::color(plan.trace.output.color);
    let showing = Showing {
        plan,
        session,
        signals,
        child,
        sink,
        lines: Lines::new(TimeZone::system(), color),
        shown: 0,
        stop: false,
        reader_gone: false,
    };
    showing.run()
}

fn options(plan: &EventsPlan) -> anyhow::Result<SessionOptions> {
    let mut options = trace::options(&plan.trace)?;
    options.kernel.calls = if plan.stacks {
        EACH_CALL_WITH_PATH
    } else {
        EACH_CALL
    };
    options.kernel.regions = plan.stacks && plan.trace.probes.region;
    Ok(options)
}

struct Showing<'a> {
    plan: &'a EventsPlan,
    session: Session,
    signals: Signals,
    child: Option<Launched>,
    sink: Sink,
    lines: Lines,
    /// Events written or about to be.
    shown: u64,
    stop: bool,
    reader_gone: bool,
}

impl Showing<'_> {
    fn run(mut self) -> anyhow::Result<Exit> {
        self.attach()?;
        let began = Instant::now();
        let end = self
            .plan
            .trace
            .timing
            .duration
            .and_then(|length| began.checked_add(length));
        let mut upkeep = began + UPKEEP;
        while !self.stop {
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            if now >= upkeep {
                self.session.upkeep()?;
                self.notices();
                upkeep = Instant::now() + UPKEEP;
            }
            let until = end.map_or(now + LOOK, |end| end.min(now + LOOK));
            match self.session.wait(until, &mut self.signals)? {
                Wake::Events { more } => self.show(more)?,
                Wake::Signal(signal) => self.signalled(signal),
                Wake::AllEnded => break,
                Wake::Time | Wake::Incident | Wake::Mark | Wake::Bell => {}
            }
        }
        self.finish()
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let plan = &self.plan.trace;
        match &plan.target {
            TargetPlan::Pids(pids) => {
                for tgid in pids.as_slice() {
                    if plan.follow {
                        self.session.add_tree(*tgid)?;
                    } else {
                        self.session.add_process(*tgid)?;
                    }
                }
            }
            TargetPlan::Select(_) => _ = self.session.add_selected()?,
            TargetPlan::Run(program) => {
                if let Some(child) = &mut self.child {
                    let libraries = libraries::of_program(&program.name);
                    self.session.add_launched(child.tgid(), &libraries)?;
                    child.start()?;
                }
            }
        }
        if !self.is_quiet() {
            eprintln!("memtrace: tracing {}", self.what());
        }
        self.notices();
        Ok(())
    }

    fn what(&self) -> String {
        let options = &self.plan.trace.target;
        match (options, &self.child) {
            (TargetPlan::Run(program), Some(child)) => {
                format!("{} (pid {})", program.name.display(), child.tgid())
            }
            (TargetPlan::Pids(pids), _) => {
                let pids: Vec<_> = pids.as_slice().iter().map(ToString::to_string).collect();
                format!("pid {} (Ctrl-C ends it)", pids.join(", "))
            }
            (TargetPlan::Select(selector), _) => match selector.describe() {
                ("all", _) => "all processes (Ctrl-C ends it)".to_owned(),
                (kind, value) => format!("{kind} {value} (Ctrl-C ends it)"),
            },
            _ => String::new(),
        }
    }

    fn is_quiet(&self) -> bool {
        self.plan.trace.output.verbosity == Verbosity::Quiet
    }

    fn notices(&mut self) {
        for notice in self.session.take_notices() {
            if !self.is_quiet() {
                eprintln!("memtrace: {notice}");
            }
        }
    }

    fn signalled(&mut self, signal: Arrived) {
        match &self.child {
            None => self.stop |= signal.ends(),
            // The terminal has told the program already.
            Some(_) if signal.from_terminal => {}
            Some(child) => child.signal(signal.number),
        }
    }

    /// Writes what has come; `more`: not yet all of it.
    fn show(&mut self, more: bool) -> anyhow::Result<()> {
        for line in self.session.take_events() {
            let wanted = match &line {
                Line::Event(event) => self.wants(event),
                Line::Lost(_) => true,
            };
            if !wanted || self.is_enough() {
                continue;
            }
            self.shown += u64::from(matches!(line, Line::Event(_)));
            self.render(&line);
        }
        self.stop |= self.is_enough();
        if !more || self.sink.waiting() >= GATHER {
            self.flush()?;
        }
        Ok(())
    }

    fn is_enough(&self) -> bool {
        let count = self.plan.count;
        count.is_some_and(|count| self.shown >= count.get())
    }

    fn wants(&self, event: &Event) -> bool {
        if !self.plan.kinds.contains(&event.kind) {
            return false;
        }
        // The kernel side has looked at the sizes of blocks.
        let (min, max) = self.plan.trace.selection.sizes.bounds();
        let asked = self.plan.trace.selection.sizes.asked() != (None, None);
        match event.size {
            Some(size) if event.kind.is_region() => (min..=max).contains(&size),
            None if event.kind.is_region() => !asked,
            _ => true,
        }
    }

    fn render(&mut self, line: &Line) {
        match line {
            Line::Event(event) if self.plan.json => event.write_json(self.sink.buffer()),
            Line::Lost(lost) if self.plan.json => lost.write_json(self.sink.buffer()),
            line => {
                let mut text = String::new();
                self.lines.write(line, &mut text);
                self.sink.buffer().extend_from_slice(text.as_bytes());
            }
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let Self {
            sink,
            signals,
            child,
            stop,
            ..
        } = self;
        let delivery = sink.flush(signals, |signal| {
            match child {
                None => *stop |= signal.ends(),
                Some(_) if signal.from_terminal => *stop = true,
                Some(child) => child.signal(signal.number),
            }
            *stop
        })?;
        self.reader_gone |= delivery == Delivery::ReaderGone;
        self.stop |= self.reader_gone;
        Ok(())
    }

    /// What is on its way still, the losses, and how to end.
    fn finish(mut self) -> anyhow::Result<Exit> {
        self.session.detach();
        let is_open = |this: &Self| !this.reader_gone && !this.is_enough() && !this.sink.gave_up();
        while is_open(&self) && self.session.read_on()? {
            self.show(true)?;
        }
        let losses = self.session.end_events()?;
        if is_open(&self) {
            self.show(true)?;
        }
        let end = End {
            time: jiff::Timestamp::now(),
            events: self.shown,
            losses,
        };
        if self.plan.json {
            end.write_json(self.sink.buffer());
        }
        if !self.reader_gone {
            self.flush()?;
        }
        self.notices();
        self.tell_end(&end);
        let Some(child) = &mut self.child else {
            return Ok(Exit::Done);
        };
        // The time may be up before the program ends: it goes on without probes.
        while let Wake::Signal(signal) = trace::wait_for_child(child, &mut self.signals)? {
            if !signal.from_terminal {
                child.signal(signal.number);
            }
        }
        Ok(Exit::of_run(child.wait()?, false))
    }

    fn tell_end(&self, end: &End) {
        let losses = end.losses_text();
        if self.is_quiet() && losses.is_none() {
            return;
        }
        let events = human::counted(end.events, "event", "events");
        let losses = losses.unwrap_or_else(|| "nothing lost".to_owned());
        eprintln!("memtrace: {events}, {losses}");
        if self.sink.gave_up() {
            let place = self
                .plan
                .output
                .as_deref()
                .unwrap_or(Path::new("standard output"));
            eprintln!(
                "memtrace: the last lines are missing: {} takes no more",
                place.display()
            );
        }
    }
}
