//! A baseline: an earlier report, of JSON or of a recording, that a run is held against.
//!
//! Stacks are the same when the functions and objects on them are: addresses, offsets, lines and
//! process ids change with every build and run. What a compiler adds to names (`.constprop.0`, a
//! Rust hash) is left out. Pure; the file can be anything.

use std::collections::HashMap;

use serde::Deserialize;

use super::{
    culprit::file_name,
    layout::clean,
    model::{Frame, Report, SCHEMA, Stack},
};
use crate::trend::Verdict;

/// Bytes of a file: a report of 2,000 stacks has some ten million.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why a file is no baseline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// No JSON report.
    #[error(
        "neither a recording nor a JSON report of memtrace ({0}); make one with --record FILE, or with \
         --format json --top all"
    )]
    NotAReport(String),
    /// A report of another version.
    #[error("its schema is {0}, and this memtrace reads {SCHEMA}: make a new one")]
    OtherSchema(String),
}

/// What stacks held and how fast they grew.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    stacks: HashMap<Key, Known>,
    /// Stacks the report had no place for: one that is not here may have been there.
    pub stacks_not_shown: u64,
    /// What such a stack held at most.
    held_at_most: u64,
    /// Mean bytes between samples; 1 is exact.
    pub sample_bytes: u64,
}

/// What is known of a stack: summed over processes and over builds' details.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Known {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes per second of what was judged growing; `None` when nothing was.
    pub growing: Option<f64>,
}

impl Known {
    /// Adds another stack with the same names.
    pub fn add(&mut self, bytes: u64, verdict: Verdict, rate: f64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if verdict == Verdict::Growing {
            self.growing = Some(self.growing.unwrap_or(0.0) + rate.max(0.0));
        }
    }
}

/// A stack's names, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Vec<(String, String)>);

impl Key {
    /// Of a stack of this run.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        let names = |f: &Frame| (f.function.clone(), f.module.clone());
        Self::new(stack.frames.iter().map(names))
    }

    fn new(frames: impl Iterator<Item = (Option<String>, Option<String>)>) -> Self {
        let part = |(function, module): (Option<String>, Option<String>)| {
            let function = function
                .map(|name| bare(&name).to_owned())
                .unwrap_or_default();
            let module = module
                .map(|path| file_name(&path).to_owned())
                .unwrap_or_default();
            (function, module)
        };
        Self(frames.map(part).collect())
    }
}

/// A function's name without what a compiler added to it.
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
    let name = cut.and_then(|at| name.get(..at)).unwrap_or(name);
    name.trim_end().trim_end_matches(" [clone")
}

#[derive(Deserialize)]
struct File {
    schema: String,
    #[serde(default)]
    overhead: FileOverhead,
    #[serde(default)]
    stacks: Vec<FileStack>,
    #[serde(default)]
    not_shown: FileRest,
}

#[derive(Default, Deserialize)]
struct FileOverhead {
    #[serde(default)]
    sample_bytes: u64,
}

#[derive(Default, Deserialize)]
struct FileRest {
    #[serde(default)]
    stacks: u64,
}

#[derive(Deserialize)]
struct FileStack {
    outstanding_bytes: u64,
    growth_bytes_per_second: Option<f64>,
    verdict: String,
    frames: Vec<FileFrame>,
}

#[derive(Deserialize)]
struct FileFrame {
    function: Option<String>,
    module: Option<String>,
}

impl Baseline {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`BaselineError`] for what is no JSON report of this schema.
    pub fn parse(bytes: &[u8]) -> Result<Self, BaselineError> {
        let not = |error: serde_json::Error| {
            BaselineError::NotAReport(clean(&error.to_string()).into_owned())
        };
        let file: File = serde_json::from_slice(bytes).map_err(not)?;
        if file.schema != SCHEMA {
            let name: String = file.schema.chars().take(60).collect();
            return Err(BaselineError::OtherSchema(clean(&name).into_owned()));
        }
        let growing = |stack: &FileStack| stack.verdict == "growing";
        let held = file.stacks.iter().filter(|stack| !growing(stack));
        let least = held.map(|stack| stack.outstanding_bytes).min();
        let mut baseline = Self::cut(file.not_shown.stacks, least);
        baseline.sample_bytes = file.overhead.sample_bytes.max(1);
        for stack in file.stacks {
            let (is_growing, frames) = (growing(&stack), stack.frames.into_iter());
            let key = Key::new(frames.map(|frame| (frame.function, frame.module)));
            let verdict = if is_growing {
                Verdict::Growing
            } else {
                Verdict::Steady
            };
            let rate = stack.growth_bytes_per_second.unwrap_or(0.0);
            baseline.add(key, stack.outstanding_bytes, verdict, rate);
        }
        Ok(baseline)
    }

    /// The same of a report that was read already, from a recording.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let held = report.stacks.iter();
        let held = held.filter(|stack| stack.verdict != Verdict::Growing);
        let least = held.map(|stack| stack.outstanding_bytes).min();
        let not_shown = u64::try_from(report.not_shown.stacks).unwrap_or(u64::MAX);
        let mut baseline = Self::cut(not_shown, least);
        baseline.sample_bytes = report.overhead.sample_bytes.max(1);
        for stack in &report.stacks {
            let (bytes, rate) = (stack.outstanding_bytes, stack.growth_bytes_per_second);
            baseline.add(Key::of(stack), bytes, stack.verdict, rate);
        }
        baseline
    }

    /// A baseline that lacks so many stacks. They are ranked, what grows first, then by bytes: those
    /// that are missing held no more than `least` of the others.
    fn cut(stacks_not_shown: u64, least: Option<u64>) -> Self {
        let least = least.filter(|_| stacks_not_shown > 0);
        Self {
            stacks_not_shown,
            held_at_most: least.unwrap_or(0),
            ..Self::default()
        }
    }

    fn add(&mut self, key: Key, bytes: u64, verdict: Verdict, rate: f64) {
        self.stacks
            .entry(key)
            .or_default()
            .add(bytes, verdict, rate);
    }

    /// What is known of a stack. One that is not in the report held nothing, or, when the report
    /// was cut, no more than what it shows of others.
    #[must_use]
    pub fn get(&self, key: &Key) -> Known {
        self.stacks.get(key).copied().unwrap_or(Known {
            bytes: self.held_at_most,
            growing: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{fixtures, json, profile::arbitrary};

    fn file(report: &crate::report::model::Report) -> Vec<u8> {
        let mut bytes = Vec::new();
        json::pretty(report, &mut bytes).unwrap();
        bytes
    }

    // Another build and another run of the same program: the stacks are the same ones.
    #[test]
    fn rebuilt() {
        let report = fixtures::two_callers();
        let baseline = Baseline::parse(&file(&report)).unwrap();
        let mut stack = report.stacks[0].clone();
        stack.pid = 99;
        for frame in &mut stack.frames {
            frame.address = "0x1".to_owned();
            frame.offset = Some("0x77".to_owned());
            frame.build_id = None;
            frame.line = frame.line.map(|line| line + 3);
            frame.module = frame.module.as_ref().map(|m| format!("/elsewhere{m}"));
        }
        stack.frames[1].function = Some("leak_here.constprop.0".to_owned());
        let known = baseline.get(&Key::of(&stack));
        assert_eq!((known.bytes, known.growing), (2000, Some(100.0)));
        stack.frames[2].function = Some("third_caller".to_owned());
        assert_eq!(baseline.get(&Key::of(&stack)), Known::default());
    }

    // What compilers add to names.
    #[test]
    fn bare_names() {
        let cases = [
            ("a::b::h0123456789abcdef", "a::b"),
            ("a::hello", "a::hello"),
            ("f.part.0.cold", "f"),
            ("f(int) [clone .constprop.0]", "f(int)"),
            ("operator()", "operator()"),
        ];
        for (name, expected) in cases {
            assert_eq!(bare(name), expected);
        }
    }

    // A cut report: what is not in it held no more than the least that is.
    #[test]
    fn cut() {
        let baseline = Baseline::parse(&file(&fixtures::leak())).unwrap();
        assert_eq!(baseline.stacks_not_shown, 3);
        let known = baseline.get(&Key(Vec::new()));
        assert_eq!((known.bytes, known.growing), (1_048_576, None));
    }

    // What is no report is told in one line.
    #[test]
    fn complaints() {
        let deep = "[".repeat(100_000);
        let cases: [&[u8]; 6] = [
            b"",
            b"{}",
            b"\xff\x00",
            b"{\"schema\": \"memtrace.report/9\"}",
            b"{\"schema\": \"memtrace.report/1\", \"stacks\": [{}]}",
            deep.as_bytes(),
        ];
        let told = cases.map(|bytes| Baseline::parse(bytes).unwrap_err().to_string());
        assert!(told.iter().all(|text| !text.contains('\n')));
        insta::assert_snapshot!(told.join("\n"));
    }

    proptest! {
        // Whatever was reported is read back: every stack is known with its names' sum.
        #[test]
        fn reads_any_report(report in arbitrary::report()) {
            let baseline = Baseline::parse(&file(&report)).unwrap();
            for stack in &report.stacks {
                let key = Key::of(stack);
                let same = report.stacks.iter().filter(|other| Key::of(other) == key);
                let sum: u64 = same.map(|other| other.outstanding_bytes).sum();
                prop_assert_eq!(baseline.get(&key).bytes, sum);
            }
        }

        // A report is the same baseline whether it comes as JSON or from a recording.
        #[test]
        fn both_sources_agree(report in arbitrary::report()) {
            let parsed = Baseline::parse(&file(&report)).unwrap();
            let read = Baseline::of(&report);
            prop_assert_eq!(&parsed.stacks, &read.stacks);
            prop_assert_eq!(parsed.stacks_not_shown, read.stacks_not_shown);
            prop_assert_eq!(parsed.held_at_most, read.held_at_most);
            prop_assert_eq!(parsed.sample_bytes, read.sample_bytes);
        }
    }
}
