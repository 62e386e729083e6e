//! What makes stacks of two reports the same: for `diff` and `--baseline` alike. Pure.
//!
//! By functions and objects: addresses, offsets, lines and process ids change with every build and run.
//! What a compiler adds to names (`.constprop.0`, a Rust hash) is left out.

use std::collections::HashSet;

use crate::ledger::regions::RegionKind;
use crate::report::culprit::file_name;
use crate::report::model::{Frame, Report, Stack, Word};

/// A stack without anything that another build or start changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    probe: Word,
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
    /// Those of a report.
    pub fn of(report: &'a Report) -> Self {
        let told = report.processes.iter();
        let stacks = report.stacks.iter();
        Self::new(
            told.map(|process| (process.pid, process.exe.as_str())),
            stacks.map(|stack| (stack.pid, stack.frames.as_slice())),
        )
    }

    /// By what /proc said of processes, and, since a program can end before that was read, by who
    /// has `main` on its stacks.
    pub fn new(
        told: impl Iterator<Item = (u32, &'a str)>,
        stacks: impl Iterator<Item = (u32, &'a [Frame])>,
    ) -> Self {
        let seen = stacks.filter_map(|(pid, frames)| {
            let mut entry = frames
                .iter()
                .rev()
                .filter(|f| matches!(f.function.as_deref(), Some("main" | "_start")));
            let module = entry.find_map(|frame| frame.module.as_deref());
            module.map(|module| (pid, module))
        });
        Self(told.chain(seen).collect())
    }

    /// What a stack is told by.
    pub fn key(&self, stack: &Stack) -> Key {
        self.key_of(stack.pid, (stack.probe, stack.kind), &stack.frames)
    }

    /// The same of what is no [`Stack`].
    pub fn key_of(&self, pid: u32, of: (Word, Option<RegionKind>), frames: &[Frame]) -> Key {
        let named = frames.iter().rposition(|frame| frame.function.is_some());
        let place = |(at, frame): (usize, &Frame)| {
            let module = match frame.module.as_deref() {
                Some(path) if self.0.contains(&(pid, path)) => PROGRAM,
                Some(path) => file_name(path),
                None => "",
            };
            match &frame.function {
                Some(function) => Place::Function(bare(function).to_owned(), module.to_owned()),
                None if named.is_some_and(|named| at > named) => Place::Outside,
                None => Place::Offset(
                    module.to_owned(),
                    frame.build_id.clone(),
                    frame.offset.clone(),
                ),
            }
        };
        let mut places: Vec<Place> = frames.iter().enumerate().map(place).collect();
        places.retain(|place| *place != Place::Outside);
        let (probe, kind) = of;
        Key {
            probe,
            kind,
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

/// A function's name without what compilers add to it.
fn bare(name: &str) -> &str {
    let mut name = name;
    // Rust: `path::name::h0123456789abcdef`.
    if let Some((before, hash)) = name.rsplit_once("::h")
        && hash.len() == 16
        && hash.bytes().all(|b| b.is_ascii_hexdigit())
    {
        name = before;
    }
    // GCC and LLVM: `.constprop.0`, `.part.1`, `.isra.0`, `.cold`, `.llvm.123`; GCC's demangler
    // writes ` [clone .constprop.0]`.
    let marks = [
        ".constprop.",
        ".part.",
        ".isra.",
        ".cold",
        ".llvm.",
        ".lto_priv.",
    ];
    let cut = marks.iter().filter_map(|mark| name.find(mark)).min();
    let cut = cut.filter(|at| *at > 0);
    let name = cut.and_then(|at| name.get(..at)).unwrap_or(name);
    name.trim_end().trim_end_matches(" [clone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    // What compilers add to names.
    #[test]
    fn bare_names() {
        let cases = [
            ("a::b::h0123456789abcdef", "a::b"),
            ("a::hello", "a::hello"),
            ("f.part.0.cold", "f"),
            ("f(int) [clone .constprop.0]", "f(int)"),
            ("operator()", "operator()"),
            (".cold", ".cold"),
        ];
        for (name, expected) in cases {
            assert_eq!(bare(name), expected);
        }
    }

    // A program has another file name in another build, a library has not.
    #[test]
    fn renamed_program() {
        let before = fixtures::two_callers();
        let mut after = before.clone();
        for process in &mut after.processes {
            process.exe = "/opt/server-2".to_owned();
        }
        let frames = after.stacks.iter_mut().flat_map(|stack| &mut stack.frames);
        for frame in frames.filter(|f| f.module.as_deref() == Some("/srv/server")) {
            frame.module = Some("/opt/server-2".to_owned());
        }
        let key = |report: &Report| Programs::of(report).key(&report.stacks[0]);
        assert_eq!(key(&before), key(&after));
        let library = |frame: &mut Frame| frame.module = Some("/lib/other.so".to_owned());
        after.stacks[0].frames.first_mut().map(library);
        assert_ne!(key(&before), key(&after));
    }
}
