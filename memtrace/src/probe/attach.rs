//! Probes on functions: which program goes where, and taking them off again.
//!
//! Taking a probe off waits until no processor can be in it any more, one probe after the other,
//! whatever thread closes them. A trace event can have many places and waits once: so the places of
//! a batch are joined by program where that can be done, and put on one by one where it cannot, or
//! where one of them is refused.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::Ebpf;
use memtrace_common::Function;

use super::{
    ProbeError, programs,
    sys::{self, Scope},
    trace_events::{Definition, TraceEvents},
};
use crate::id::Tgid;

/// One place to probe.
#[derive(Clone, Copy, Debug)]
pub struct AttachPoint<'a> {
    /// The object's file, as memtrace can open it.
    pub path: &'a Path,
    /// File offset of the instruction that the probe replaces.
    pub offset: u64,
    /// Calling convention.
    pub function: Function,
    /// File offsets of the instructions that the function returns with, where its return address
    /// must stay what it is; empty: the kernel's return probe.
    pub returns: &'a [u64],
    /// Only in this process; `None` for every process that maps the file.
    pub process: Option<Tgid>,
    /// The thread of the process that the probe hangs on; its own id for the first.
    pub anchor: Option<Tgid>,
}

impl AttachPoint<'_> {
    fn scope(&self) -> Scope {
        let one = self.anchor.or(self.process);
        one.map_or(Scope::All, |thread| Scope::One(thread.0))
    }
}

/// Which programs are put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Those that record.
    Trace,
    /// Those that do nothing: the floor that tracing is measured against.
    Floor,
}

/// A program at one place.
struct Place {
    point: usize,
    path: PathBuf,
    offset: u64,
}

/// Places that one trace event can cover. The order is that of putting them on: returns first, so that no
/// entry is recorded whose return cannot be seen; frees before allocations, so that no block is
/// recorded whose free cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    step: u8,
    program: &'static str,
    at_return: bool,
    scope: Scope,
    process: Option<Tgid>,
}

/// Threads that take probes off.
const DETACH_AT_ONCE: usize = 128;

/// A probe, or many.
struct Link {
    event: OwnedFd,
    process: Option<Tgid>,
    // Goes after the event that uses it.
    definition: Option<Definition>,
}

/// Probes that are on. Dropping takes them off.
#[derive(Default)]
pub struct Attachments {
    links: Vec<Link>,
}

impl Drop for Attachments {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Attachments {
    /// Events that are on, each a probe or many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether none is on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Takes all probes off.
    pub fn detach(&mut self) {
        close(std::mem::take(&mut self.links));
    }

    /// Takes the probes of one process off.
    pub fn detach_process(&mut self, tgid: Tgid) {
        let gone = self.links.extract_if(.., |link| link.process == Some(tgid));
        close(gone.collect());
    }

    /// Puts probes on; what became of each point, in their order.
    pub(super) fn attach(
        &mut self,
        (ebpf, events): (&mut Ebpf, Option<&TraceEvents>),
        points: &[AttachPoint<'_>],
        purpose: Purpose,
    ) -> Vec<Result<(), ProbeError>> {
        let mut results: Vec<_> = points.iter().map(|_| Ok(())).collect();
        for (group, mut places) in groups(points, purpose) {
            // Without its return a function's entry is not wanted.
            places.retain(|place| results.get(place.point).is_some_and(Result::is_ok));
            let program = match programs::loaded(ebpf, group.program) {
                Ok(program) => program,
                Err(error) => {
                    refuse(&mut results, &places, group.program, error);
                    continue;
                }
            };
            let joined = events.filter(|_| places.len() > 1);
            if joined.is_some_and(|events| self.join(events, program, &group, &places).is_ok()) {
                continue;
            }
            for place in places {
                let (path, offset) = (&place.path, place.offset);
                let event = sys::attach_single(program, path, offset, group.at_return, group.scope);
                match event {
                    Ok(event) => self.links.push(Link {
                        event,
                        process: group.process,
                        definition: None,
                    }),
                    Err(source) => {
                        if let Some(result) = results.get_mut(place.point) {
                            *result = Err(ProbeError::Attach {
                                path: place.path,
                                offset,
                                source,
                            });
                        }
                    }
                }
            }
        }
        results
    }

    /// One trace event for all places of a group.
    fn join(
        &mut self,
        events: &TraceEvents,
        program: BorrowedFd<'_>,
        group: &Group,
        places: &[Place],
    ) -> io::Result<()> {
        let mut all: Vec<_> = places
            .iter()
            .map(|place| (place.path.as_path(), place.offset))
            .collect();
        all.sort_unstable();
        all.dedup();
        let definition = events.define(group.at_return, &all)?;
        let event = sys::attach_event(program, definition.id()?, group.scope)?;
        self.links.push(Link {
            event,
            process: group.process,
            definition: Some(definition),
        });
        Ok(())
    }
}

/// None of the places can have its program: the first point says why, every other one that.
fn refuse(
    results: &mut [Result<(), ProbeError>],
    places: &[Place],
    program: &'static str,
    error: ProbeError,
) {
    let mut why = Some(error);
    for place in places {
        let Some(result) = results.get_mut(place.point) else {
            continue;
        };
        if result.is_err() {
            // A point can have many places.
            continue;
        }
        let path = place.path.clone();
        *result = Err(why
            .take()
            .unwrap_or(ProbeError::NotLoaded { program, path }));
    }
}

/// Closes probes, not too many at once: what waits apart waits together. Then their definitions go.
fn close(mut links: Vec<Link>) {
    while !links.is_empty() {
        let rest = links.len().saturating_sub(DETACH_AT_ONCE);
        std::thread::scope(|scope| {
            for link in links.drain(rest..) {
                scope.spawn(move || {
                    drop(link.event);
                    drop(link.definition);
                });
            }
        });
    }
}

/// The places of some points, by what one trace event can cover.
fn groups(points: &[AttachPoint<'_>], purpose: Purpose) -> BTreeMap<Group, Vec<Place>> {
    let mut groups: BTreeMap<Group, Vec<Place>> = BTreeMap::new();
    for (index, point) in points.iter().enumerate() {
        let mut add = |step, program, at_return, offset| {
            let group = Group {
                step,
                program: match (purpose, at_return) {
                    (Purpose::Trace, _) => program,
                    (Purpose::Floor, false) => "empty",
                    (Purpose::Floor, true) => "empty_return",
                },
                at_return,
                scope: point.scope(),
                process: point.process,
            };
            let place = Place {
                point: index,
                path: point.path.to_path_buf(),
                offset,
            };
            groups.entry(group).or_default().push(place);
        };
        if needs_return(point.function) && point.returns.is_empty() {
            add(0, "leave", true, point.offset);
        }
        for offset in point.returns {
            add(1, "leave_at_return", false, *offset);
        }
        let (step, program) = program(point.function);
        add(step, program, false, point.offset);
    }
    groups
}

/// Whether a function's result matters.
fn needs_return(function: Function) -> bool {
    (function as u8) < Function::Free0 as u8
}

/// The program at the entry of a function, and when it is put on.
fn program(function: Function) -> (u8, &'static str) {
    match function {
        Function::Free0 => (2, "free_0"),
        Function::Free1 => (2, "free_1"),
        Function::Free2 => (2, "free_2"),
        Function::Free3 => (2, "free_3"),
        Function::Free4 => (2, "free_4"),
        Function::Free5 => (2, "free_5"),
        Function::Realloc => (3, "enter_realloc"),
        Function::ReallocArray => (3, "enter_reallocarray"),
        Function::Xallocx => (3, "enter_xallocx"),
        Function::Size0 => (4, "enter_size0"),
        Function::Size1 => (4, "enter_size1"),
        Function::Size2 => (4, "enter_size2"),
        Function::Size3 => (4, "enter_size3"),
        Function::Size4 => (4, "enter_size4"),
        Function::Size5 => (4, "enter_size5"),
        Function::Calloc => (4, "enter_calloc"),
        Function::PosixMemalign => (4, "enter_posix_memalign"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(path: &'static str, offset: u64, function: Function) -> AttachPoint<'static> {
        AttachPoint {
            path: Path::new(path),
            offset,
            function,
            returns: &[],
            process: Some(Tgid(7)),
            anchor: Some(Tgid(7)),
        }
    }

    /// Places are joined by program, and go on in the order that invents no leak: returns, frees,
    /// functions that free and allocate, functions that allocate.
    #[test]
    fn joined_and_ordered() {
        let mut throwing = point("/a", 5, Function::Size0);
        throwing.returns = &[50, 51];
        let points = [
            point("/a", 1, Function::Size0),
            point("/a", 2, Function::Size0),
            point("/b", 1, Function::Size0),
            point("/a", 3, Function::Realloc),
            point("/a", 4, Function::Free0),
            throwing,
        ];
        let groups = groups(&points, Purpose::Trace);
        let told: Vec<_> = groups
            .iter()
            .map(|(group, places)| {
                let places: Vec<_> = places
                    .iter()
                    .map(|place| format!("{}:{}", place.path.display(), place.offset))
                    .collect();
                (group.program, places.join(" "))
            })
            .collect();
        let told: Vec<_> = told.iter().map(|(p, places)| (*p, &**places)).collect();
        assert_eq!(
            told,
            [
                ("leave", "/a:1 /a:2 /b:1 /a:3"),
                ("leave_at_return", "/a:50 /a:51"),
                ("free_0", "/a:4"),
                ("enter_realloc", "/a:3"),
                ("enter_size0", "/a:1 /a:2 /b:1 /a:5"),
            ]
        );
    }

    /// A program that cannot be loaded is told of every point that needs it, its reason once.
    #[test]
    fn all_points_of_a_program_fail() {
        let points = [
            point("/a", 1, Function::Size0),
            point("/a", 2, Function::Free0),
            point("/b", 1, Function::Size0),
        ];
        let mut results: Vec<_> = points.iter().map(|_| Ok(())).collect();
        let groups = groups(&points, Purpose::Trace);
        for (group, places) in groups.iter().filter(|(group, _)| group.step == 0) {
            let error = ProbeError::Missing("leave");
            refuse(&mut results, places, group.program, error);
        }
        assert!(matches!(results[0], Err(ProbeError::Missing("leave"))));
        assert!(results[1].is_ok());
        assert!(matches!(
            &results[2],
            Err(ProbeError::NotLoaded { program: "leave", path }) if path == Path::new("/b")
        ));
    }

    /// Probes of one process hang on the thread that was named, and do not mix with another's.
    #[test]
    fn scopes_stay_apart() {
        let mut other = point("/a", 1, Function::Free0);
        other.anchor = Some(Tgid(8));
        let points = [point("/a", 1, Function::Free0), other];
        let groups = groups(&points, Purpose::Trace);
        let scopes: Vec<_> = groups.keys().map(|group| group.scope).collect();
        assert_eq!(scopes, [Scope::One(7), Scope::One(8)]);
    }
}
