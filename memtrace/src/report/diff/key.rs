//! What makes two stacks of two recordings the same.

use std::collections::HashSet;

use crate::ledger::regions::RegionKind;
use crate::report::culprit::file_name;
use crate::report::model::{Frame, Report, Stack};

/// A stack without anything that another build or start changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    probe: &'static str,
    kind: Option<RegionKind>,
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// A function of an object.
    Function(String, String),
    /// Without a name: the place in this very build of the object.
    Offset(String, Option<String>, Option<String>),
    /// Without a name and outside of all that have one: what calls `main` differs between
    /// versions of a C library and tells nothing.
    Outside,
}

/// What a program calls itself: two builds of it may have two file names.
const PROGRAM: &str = "[program]";

/// The executables of a report's processes.
pub(super) struct Programs<'a>(HashSet<(u32, &'a str)>);

impl<'a> Programs<'a> {
    /// By what /proc said, and, since a program can end before that was read, by who has `main`.
    pub fn of(report: &'a Report) -> Self {
        let told = report.processes.iter();
        let told = told.map(|process| (process.pid, process.exe.as_str()));
        let seen = report.stacks.iter().flat_map(|stack| {
            let entry = stack.frames.iter().rev();
            let mut entry =
                entry.filter(|f| matches!(f.function.as_deref(), Some("main" | "_start")));
            let module = entry.find_map(|frame| frame.module.as_deref());
            module.map(|module| (stack.pid, module))
        });
        Self(told.chain(seen).collect())
    }

    pub fn key(&self, stack: &Stack) -> Key {
        let named = stack
            .frames
            .iter()
            .rposition(|frame| frame.function.is_some());
        let place = |(at, frame): (usize, &Frame)| {
            let module = match frame.module.as_deref() {
                Some(path) if self.0.contains(&(stack.pid, path)) => PROGRAM,
                Some(path) => file_name(path),
                None => "",
            };
            match &frame.function {
                Some(function) => Place::Function(bare(function), module.to_owned()),
                None if named.is_some_and(|named| at > named) => Place::Outside,
                None => Place::Offset(
                    module.to_owned(),
                    frame.build_id.clone(),
                    frame.offset.clone(),
                ),
            }
        };
        let mut places: Vec<Place> = stack.frames.iter().enumerate().map(place).collect();
        places.retain(|place| *place != Place::Outside);
        Key {
            probe: stack.probe,
            kind: stack.kind,
            places,
        }
    }
}

impl Key {
    /// The function and the object at a place; nothing where neither is known.
    pub fn at(&self, place: usize) -> (Option<&str>, &str) {
        match self.places.get(place) {
            Some(Place::Function(function, module)) => (Some(function), module),
            Some(Place::Offset(module, ..)) => (None, module),
            Some(Place::Outside) | None => (None, ""),
        }
    }
}

/// A function's name without what an optimizer adds to its copies (`f.constprop.0`, `f.cold`).
pub(super) fn bare(function: &str) -> String {
    const COPIES: [&str; 5] = [".constprop.", ".isra.", ".part.", ".cold", ".lto_priv."];
    let cut = COPIES.iter().filter_map(|copy| function.find(copy)).min();
    let end = cut.filter(|at| *at > 0).unwrap_or(function.len());
    function.get(..end).unwrap_or(function).to_owned()
}
