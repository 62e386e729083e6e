//! `memtrace top`: a session on this thread, a screen on another.

use std::{os::fd::AsFd as _, sync::Arc, time::Instant};

use anyhow::Context as _;

use super::{root, trace};
use crate::{
    cli::{
        exit::Exit,
        plan::{TargetPlan, Timing, TopPlan, TracePlan},
        terminal,
    },
    report::{incident, output::Destination},
    session::{Arrived, Session, Signals, Wake},
    tui::{self, Key, Mark, Moment, Past, Request, Screen},
};

/// Traces and shows until the user quits, or a signal.
pub(super) fn top(plan: &TopPlan) -> anyhow::Result<Exit> {
    tui::require()?;
    if let Some(path) = &plan.snapshot {
        Destination::Replace(path.clone()).check()?;
    }
    let incidents = plan.trace.watch.incidents.as_deref();
    let incidents = incidents.map(incident::Directory::open).transpose()?;
    root::require_privileges()?;
    root::require_host_pids()?;
    root::require_tracefs()?;
    let recorder = trace::recorder(&plan.trace)?;
    let signals = Signals::take_over().context("cannot take signals over")?;
    eprintln!("memtrace: attaching …");
    let mut session = Session::new(trace::options(&plan.trace)?)?;
    if let Some(recorder) = recorder {
        session
            .start_recording(recorder)
            .context("cannot start a thread to record")?;
    }
    attach(&mut session, &plan.trace)?;
    session.listen_for_marks();
    let screen = Screen::open(tui::Options {
        color: terminal::color(plan.trace.output.color),
        snapshot: plan.snapshot.clone(),
    })?;
    let live = Live {
        plan: &plan.trace,
        session,
        signals,
        screen,
        incidents,
        marks: Vec::new(),
        stop: false,
        is_over: false,
        has_failed: false,
    };
    live.run()
}

fn attach(session: &mut Session, plan: &TracePlan) -> anyhow::Result<()> {
    match &plan.target {
        TargetPlan::Pids(pids) => {
            for tgid in pids.as_slice() {
                if plan.follow {
                    session.add_tree(*tgid)?;
                } else {
                    session.add_process(*tgid)?;
                }
            }
        }
        TargetPlan::Select(_) => {
            session.add_selected()?;
        }
        // Its output would be written over the screen.
        TargetPlan::Run(_) => {}
    }
    Ok(())
}

/// Marks kept with what was outstanding then; the oldest goes first.
const MAX_MARKS: usize = 64;

struct Live<'a> {
    plan: &'a TracePlan,
    session: Session,
    signals: Signals,
    screen: Screen,
    incidents: Option<incident::Directory>,
    marks: Vec<Arc<Mark>>,
    stop: bool,
    /// Nothing is traced any more.
    is_over: bool,
    has_failed: bool,
}

impl Live<'_> {
    fn run(mut self) -> anyhow::Result<Exit> {
        let why = self.trace()?;
        if !self.stop {
            // What was traced can still be looked at.
            self.report(true)?;
            self.screen.ended(why);
            self.is_over = true;
            self.session.ignore_marks();
            self.session.detach();
        }
        while !self.stop {
            self.screen.wait_or(&self.signals)?;
            while let Some(signal) = self.signals.take() {
                self.signalled(signal);
            }
            self.asked()?;
        }
        // Before the probes come off, which takes its time.
        drop(self.screen);
        self.session.detach();
        self.session.finish_recording();
        for notice in self.session.take_notices() {
            eprintln!("memtrace: {notice}");
        }
        Ok(if self.has_failed {
            Exit::Failed
        } else {
            Exit::Done
        })
    }

    /// Traces until there is nothing more to trace; why.
    fn trace(&mut self) -> anyhow::Result<&'static str> {
        let Timing { interval, .. } = self.plan.timing;
        let began = Instant::now();
        let end = self
            .plan
            .timing
            .length()
            .and_then(|length| began.checked_add(length));
        let mut next = began + interval;
        self.report(false)?;
        while !self.stop {
            let until = end.map_or(next, |end| end.min(next));
            let bell = Some(self.screen.as_fd());
            match self.session.wait_or(until, &mut self.signals, bell)? {
                Wake::Time if end.is_some_and(|end| Instant::now() >= end) => {
                    return Ok("the time is up, nothing is traced any more");
                }
                Wake::Time => {
                    self.report(false)?;
                    self.session.apply_brake()?;
                    // A report that took longer than the interval does not make the next ones rush.
                    let now = Instant::now();
                    next += interval;
                    if next < now {
                        next = now + interval;
                    }
                }
                Wake::Signal(signal) => self.signalled(signal),
                Wake::Incident => self.incidents(),
                Wake::Mark => self.report(false)?,
                Wake::Bell | Wake::Events { .. } => self.asked()?,
                Wake::AllEnded => return Ok("all traced processes have ended"),
            }
        }
        Ok("")
    }

    /// Shows the session as it is now.
    fn report(&mut self, last: bool) -> anyhow::Result<()> {
        let taken = self.session.report(self.plan.selection.top.limit(), last)?;
        let series = self.session.stack_series(&taken).into_iter();
        let stacks = series.zip(&taken.report.stacks);
        let stacks = stacks.map(|(((space, number), points), stack)| Past {
            key: Key::of_stack(space.0, u64::from(number.0), stack),
            points,
        });
        let stacks = stacks.collect();
        let processes = self.session.process_series().into_iter();
        let processes = processes.map(|(space, points)| Past {
            key: Key::of_process(space.0),
            points,
        });
        let mut moment = Moment {
            report: taken.report,
            stacks,
            processes: processes.collect(),
            marks: Vec::new(),
            is_recording: self.session.is_recording(),
            cursor: None,
        };
        self.keep_marks(&moment);
        moment.marks.clone_from(&self.marks);
        self.screen.show(moment);
        for notice in self.session.take_notices() {
            self.screen.notice(notice);
        }
        Ok(())
    }

    /// Keeps what the stacks of a marked moment hold, and tells the mark.
    fn keep_marks(&mut self, moment: &Moment) {
        for mark in &moment.report.marks {
            if self.marks.len() >= MAX_MARKS {
                self.marks.remove(0);
            }
            self.marks.push(Arc::new(moment.mark(mark.name.clone())));
            let text = format!("mark \"{}\": growth is shown since then", mark.name);
            self.screen.notice(text);
        }
        self.session.marks_told();
    }

    /// Writes and tells what happened at once.
    fn incidents(&mut self) {
        for incident in self.session.take_incidents() {
            if let Some(Err(error)) = self.incidents.as_mut().map(|to| to.write(&incident)) {
                self.screen.notice(error.to_string());
            }
            for line in incident::lines(&incident) {
                self.screen.notice(line);
            }
        }
    }

    fn signalled(&mut self, signal: Arrived) {
        match signal.number {
            libc::SIGWINCH => self.screen.resized(),
            libc::SIGCONT => self.screen.resumed(),
            _ => self.stop |= signal.ends(),
        }
    }

    fn asked(&mut self) -> anyhow::Result<()> {
        let mut is_marked = false;
        for request in self.screen.requests() {
            match request {
                // A live session has no other moment.
                Request::Seek(_) => {}
                // Asked for before the end was on the screen.
                Request::Mark(_) if self.is_over => {}
                Request::Mark(name) => match self.session.mark(&name) {
                    Ok(()) => is_marked = true,
                    Err(error) => self.screen.notice(format!("not marked: {error}")),
                },
                Request::Quit | Request::Gone => self.stop = true,
                Request::Failed => {
                    self.stop = true;
                    self.has_failed = true;
                }
            }
        }
        if is_marked {
            self.report(false)?;
        }
        Ok(())
    }
}
