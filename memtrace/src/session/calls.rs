//! Calls one by one: from the kernel's records to events for people.
//!
//! What a process alone can tell (which function an address is, what its stack leads through) is
//! looked up as soon as a record is read, names of frames when somebody takes the events.

mod record;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use memtrace_common::{
    CallEvent, Context, ContextKey, Function,
    events::{EACH_CALL_WITH_PATH, LIFE, NO_CALLS},
};

use super::{Session, SessionError, collect::monotonic_ns, oom::Kill};
use crate::{
    id::{Fingerprint, SpaceId, StackId, Tgid},
    report::{
        event::{Event, Kind, Line, Lost, Stack},
        model::Frame,
    },
    symbolize::function_name,
    target::discover::Analysis,
    unwind::CapturedFrame,
};

/// Events that wait to be taken; then the ring buffer has to keep the others.
const MAX_WAITING: usize = 1 << 16;
/// Addresses of functions remembered.
const MAX_FUNCTIONS: usize = 1 << 16;
/// Stacks remembered with their names.
const MAX_PATHS: usize = 1 << 14;
/// Names are waited for this long; the ring buffer fills meanwhile.
const NAMES_DEADLINE: Duration = Duration::from_secs(2);

/// A stack with its objects, and its names once somebody has asked.
struct Path {
    space: SpaceId,
    captured: Vec<CapturedFrame>,
    complete: bool,
    named: OnceLock<Arc<[Frame]>>,
}

/// What an event still lacks.
struct Untied {
    space: SpaceId,
    ip: u64,
    function: u32,
    context: u64,
}

/// An event on its way.
struct Waiting {
    line: Line,
    untied: Option<Untied>,
    path: Option<Arc<Path>>,
}

/// A probe: inode and offset in the file, and what the function there is called.
struct Probe {
    inode: u64,
    offset: u64,
    name: Arc<str>,
}

/// Every probe, by what the kernel tells of a call: the place in the page and how it is called.
#[derive(Default)]
struct Probed(HashMap<(u64, u32), Vec<Probe>>);

impl Probed {
    fn key(address: u64, function: u32) -> (u64, u32) {
        const IN_PAGE: u64 = 4095;
        (address & IN_PAGE, function)
    }

    fn add(&mut self, function: Function, probe: Probe) {
        let of_key = self.0.entry(Self::key(probe.offset, function as u32));
        let of_key = of_key.or_default();
        let is_same = |known: &Probe| (known.inode, known.offset) == (probe.inode, probe.offset);
        if !of_key.iter().any(is_same) {
            of_key.push(probe);
        }
    }

    /// The function called: certain without a look at the process where only one name is in
    /// question, because every call comes from one of these probes.
    fn find(
        &self,
        (ip, function): (u64, u32),
        place: impl FnOnce() -> Option<(u64, u64)>,
    ) -> Option<Arc<str>> {
        let candidates = self.0.get(&Self::key(ip, function))?;
        let first = candidates.first()?;
        if candidates.iter().all(|other| other.name == first.name) {
            return Some(Arc::clone(&first.name));
        }
        let place = place()?;
        let is_there = |probe: &&Probe| (probe.inode, probe.offset) == place;
        let found = candidates.iter().find(is_there)?;
        Some(Arc::clone(&found.name))
    }
}

/// See the module.
pub(super) struct Calls {
    with_paths: bool,
    waiting: Vec<Waiting>,
    /// From here on events lack something.
    first_untied: usize,
    probed: Probed,
    functions: HashMap<(SpaceId, u64), Arc<str>>,
    paths: HashMap<(SpaceId, StackId), Arc<Path>>,
    /// Lost before the session began: its own trials.
    lost_before: u64,
    /// Lost since, as far as told.
    lost: u64,
    /// Nanoseconds from the kernel side's clock to that of people.
    epoch_ns: i128,
}

impl Calls {
    fn time(&self, monotonic_ns: u64) -> Timestamp {
        let at = self.epoch_ns + i128::from(monotonic_ns);
        Timestamp::from_nanosecond(at).unwrap_or_default()
    }

    fn push(&mut self, event: Event, untied: Option<Untied>) {
        self.waiting.push(Waiting {
            line: Line::Event(event),
            untied,
            path: None,
        });
    }

    fn push_lost(&mut self, time: Timestamp, events: u64) {
        self.lost += events;
        self.waiting.push(Waiting {
            line: Line::Lost(Lost { time, events }),
            untied: None,
            path: None,
        });
    }

    /// Takes one record.
    fn take(&mut self, call: &CallEvent) {
        let time = self.time(call.header.time_ns);
        let lost = call.lost.saturating_sub(self.lost_before + self.lost);
        if lost > 0 {
            self.push_lost(time, lost);
        }
        let Some(event) = record::event(call, time) else {
            return;
        };
        let untied = Untied {
            space: SpaceId(call.header.space),
            ip: call.ip,
            function: call.what,
            context: call.context,
        };
        let is_tied = call.what > LIFE || (untied.ip == 0 && !self.with_paths);
        self.push(event, (!is_tied).then_some(untied));
    }
}

impl Session {
    /// Calls are sent one by one from here on, when the options say so.
    pub(super) fn begin_calls(&mut self) -> Result<(), SessionError> {
        let wanted = self.options.kernel.calls;
        if wanted == NO_CALLS {
            return Ok(());
        }
        let now = Timestamp::now().as_nanosecond() - i128::from(monotonic_ns());
        self.calls = Some(Calls {
            with_paths: wanted == EACH_CALL_WITH_PATH,
            waiting: Vec::new(),
            first_untied: 0,
            probed: Probed::default(),
            functions: HashMap::new(),
            paths: HashMap::new(),
            lost_before: self.kernel.calls_lost()?,
            lost: 0,
            epoch_ns: now,
        });
        Ok(())
    }

    /// Whether [`Session::take_events`] has any.
    pub(super) fn has_events(&self) -> bool {
        self.calls.as_ref().is_some_and(|c| !c.waiting.is_empty())
    }

    /// Whether there is no room for more.
    pub(super) fn calls_wait_to_be_taken(&self) -> bool {
        let waiting = self.calls.as_ref().map(|calls| calls.waiting.len());
        waiting.is_some_and(|waiting| waiting >= MAX_WAITING)
    }

    /// Remembers what the probed functions of a file are called.
    pub(super) fn learn_functions(&mut self, analysis: &Analysis) {
        let Some(calls) = &mut self.calls else {
            return;
        };
        for probe in &analysis.functions {
            let Some(name) = probe.found.names.first() else {
                continue;
            };
            let known = Probe {
                inode: analysis.object.id().inode,
                offset: probe.file_offset(),
                name: function_name(name).into(),
            };
            calls.probed.add(probe.placement.function, known);
        }
    }

    /// Takes records, and ties those to their functions and stacks of which that is known.
    pub(super) fn take_calls(&mut self, records: Vec<CallEvent>) {
        let Some(calls) = &mut self.calls else {
            return;
        };
        for record in &records {
            calls.take(record);
        }
        self.tie_calls(false);
    }

    /// Ties events to their functions and stacks; `all`: what is not known by now never will be.
    pub(super) fn tie_calls(&mut self, all: bool) {
        let Self {
            calls: Some(calls),
            unwinder,
            contexts,
            stacks,
            follow,
            ..
        } = self
        else {
            return;
        };
        let Calls {
            waiting,
            first_untied,
            probed,
            functions,
            paths,
            with_paths,
            ..
        } = calls;
        if functions.len() >= MAX_FUNCTIONS {
            functions.clear();
        }
        if paths.len() >= MAX_PATHS {
            paths.clear();
        }
        for one in waiting.iter_mut().skip(*first_untied) {
            let (Some(what), Line::Event(event)) = (&one.untied, &mut one.line) else {
                continue;
            };
            let space = what.space;
            let fingerprint = Some(what.context).filter(|context| *with_paths && *context != 0);
            let stack = fingerprint
                .and_then(|print| contexts.known(follow.family(space), Fingerprint(print)));
            if !all && fingerprint.is_some() && (stack.is_none() || !unwinder.knows(space)) {
                continue;
            }
            if what.ip != 0 {
                let known = functions.get(&(space, what.ip)).cloned();
                event.function = known.or_else(|| {
                    let found = probed.find((what.ip, what.function), || {
                        let (module, offset) = unwinder.resolve(space, what.ip)?;
                        Some((module.identity().inode, offset))
                    })?;
                    functions.insert((space, what.ip), Arc::clone(&found));
                    Some(found)
                });
            }
            if *with_paths {
                // Without a copy of the stack there is a path all the same, that says so.
                let id = stack.unwrap_or(StackId(u32::MAX));
                let path = paths.entry((space, id)).or_insert_with(|| {
                    let unwound = stack.and_then(|stack| stacks.get(stack));
                    let captured = unwound.map(|stack| unwinder.capture(space, stack));
                    Arc::new(Path {
                        space,
                        captured: captured.unwrap_or_default(),
                        complete: unwound.is_some_and(|stack| stack.incomplete.is_none()),
                        named: OnceLock::new(),
                    })
                });
                one.path = Some(Arc::clone(path));
            }
            one.untied = None;
        }
        if all {
            *first_untied = waiting.len();
        }
    }

    /// The table of stacks gives numbers to others.
    pub(super) fn forget_call_paths(&mut self) {
        if let Some(calls) = &mut self.calls {
            calls.paths.clear();
        }
    }

    /// Events since the last call, with the names of their stacks.
    pub fn take_events(&mut self) -> Vec<Line> {
        let Some(calls) = &mut self.calls else {
            return Vec::new();
        };
        calls.first_untied = 0;
        let waiting = std::mem::take(&mut calls.waiting);
        self.name_paths(&waiting);
        let with_stack = |one: Waiting| {
            let mut line = one.line;
            if let (Line::Event(event), Some(path)) = (&mut line, one.path) {
                event.stack = Some(Stack {
                    complete: path.complete,
                    frames: path.named.get().map(Arc::clone).unwrap_or_default(),
                });
            }
            line
        };
        waiting.into_iter().map(with_stack).collect()
    }

    fn name_paths(&mut self, waiting: &[Waiting]) {
        let mut unnamed: Vec<&Arc<Path>> = Vec::new();
        let mut seen = HashSet::new();
        for path in waiting.iter().filter_map(|one| one.path.as_ref()) {
            if path.named.get().is_none() && seen.insert(Arc::as_ptr(path)) {
                unnamed.push(path);
            }
        }
        if unnamed.is_empty() {
            return;
        }
        let captured: Vec<_> = unnamed
            .iter()
            .map(|path| (path.space, path.captured.clone()))
            .collect();
        let late = self.symbolizer.counters().late;
        let named = self.named(&captured, NAMES_DEADLINE);
        for (path, frames) in unnamed.into_iter().zip(named) {
            let _ = path.named.set(frames.into());
        }
        if self.symbolizer.counters().late != late {
            // What was too late has its name the next time.
            self.forget_call_paths();
        }
    }

    /// The end of a process whose probes hang on it; the kernel side tells the others'.
    pub(super) fn tell_exit(&mut self, tgid: Tgid, space: SpaceId) {
        let Some(calls) = &mut self.calls else {
            return;
        };
        let Some(traced) = self.traced.iter().find(|t| t.image.space == space) else {
            // Told already.
            return;
        };
        let comm = traced.image.comm.clone();
        let time = calls.time(monotonic_ns());
        let event = Event::new(time, Kind::Exit, [tgid.0; 2], comm);
        calls.push(event, None);
    }

    /// Tells an OOM kill as an event; false where it is to be an incident.
    pub(super) fn tell_kill(&mut self, time_ns: u64, kill: &Kill) -> bool {
        let Some(calls) = &mut self.calls else {
            return false;
        };
        let ids = [kill.tgid.0, kill.tid];
        let mut event = Event::new(calls.time(time_ns), Kind::OomKill, ids, kill.comm.clone());
        event.trigger_pid = Some(kill.trigger.tgid.0);
        calls.push(event, None);
        true
    }

    /// What reports do besides, for a session that takes none: finds what a full ring buffer lost
    /// and who is selected now, gives the memory of ended processes back.
    pub fn upkeep(&mut self) -> Result<(), SessionError> {
        self.catch_up()?;
        self.rescan()?;
        self.settle(true)?;
        if self.calls.as_ref().is_some_and(|calls| calls.with_paths) {
            let mut contexts: Vec<(ContextKey, Context)> = Vec::new();
            self.kernel
                .walk_contexts(|key, context| contexts.push((key, context)))?;
            for (key, context) in &contexts {
                self.idle.look(*key, context);
            }
            self.evict_contexts()?;
        }
        Ok(())
    }

    /// Reads the rest of what was sent, after [`Session::detach`]; false when that was all.
    pub fn read_on(&mut self) -> Result<bool, SessionError> {
        let more = self.handle_events()?;
        Ok(more || self.has_events())
    }

    /// Adds the gap after the last event, and gives every loss of the session by its name.
    pub fn end_events(&mut self) -> Result<BTreeMap<String, u64>, SessionError> {
        let counters = self.kernel.counters()?;
        let account = self.losses(&counters);
        let mut losses = account.losses;
        let notes = account.notes.into_iter();
        losses.extend(notes.filter(|(name, _)| CALLS_ARE_MISSING.contains(&name.as_str())));
        losses.remove("call_events_lost");
        let total = self.kernel.calls_lost()?;
        let Some(calls) = &mut self.calls else {
            return Ok(losses);
        };
        let total = total.saturating_sub(calls.lost_before);
        if total > calls.lost {
            let time = calls.time(monotonic_ns());
            calls.push_lost(time, total - calls.lost);
        }
        if total > 0 {
            losses.insert("call_events_lost".to_owned(), total);
        }
        Ok(losses)
    }
}

/// Notes of reports that are losses of events.
const CALLS_ARE_MISSING: [&str; 2] = ["vanished_calls", "stack_copies_lost"];

#[cfg(test)]
mod tests;
