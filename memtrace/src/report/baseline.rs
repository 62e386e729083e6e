//! A baseline: an earlier report, of JSON or of a recording, that a run is held against.
//!
//! Stacks are the same when they are for `memtrace diff` (`report::key`). Pure; the file can be
//! anything.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};

use super::{
    key::{Key, Programs},
    layout::clean,
    model::{self, Frame, Report, SCHEMA, Word},
};
use crate::ledger::regions::RegionKind;
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

#[derive(Deserialize)]
struct File {
    schema: String,
    #[serde(default)]
    overhead: FileOverhead,
    #[serde(default)]
    processes: Vec<FileProcess>,
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
struct FileProcess {
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    exe: String,
}

#[derive(Deserialize)]
struct FileStack {
    #[serde(default)]
    pid: u32,
    #[serde(default, deserialize_with = "model::fixed")]
    probe: Word,
    #[serde(default)]
    kind: Option<RegionKind>,
    outstanding_bytes: u64,
    growth_bytes_per_second: Option<f64>,
    verdict: String,
    #[serde(deserialize_with = "frames")]
    frames: Vec<Frame>,
}

/// Of frames what tells them.
fn frames<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Frame>, D::Error> {
    #[derive(Deserialize)]
    struct FileFrame {
        function: Option<String>,
        module: Option<String>,
        build_id: Option<String>,
        offset: Option<String>,
    }
    let frames = Vec::<FileFrame>::deserialize(from)?.into_iter();
    let frame = |frame: FileFrame| Frame {
        function: frame.function,
        module: frame.module,
        build_id: frame.build_id,
        offset: frame.offset,
        ..Frame::default()
    };
    Ok(frames.map(frame).collect())
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
        let programs = Programs::new(
            file.processes.iter().map(|one| (one.pid, one.exe.as_str())),
            file.stacks.iter().map(|s| (s.pid, s.frames.as_slice())),
        );
        for stack in &file.stacks {
            let key = programs.key_of(stack.pid, (stack.probe, stack.kind), &stack.frames);
            let verdict = if growing(stack) {
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
        let programs = Programs::of(report);
        for stack in &report.stacks {
            let (bytes, rate) = (stack.outstanding_bytes, stack.growth_bytes_per_second);
            baseline.add(programs.key(stack), bytes, stack.verdict, rate);
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
    pub(super) fn get(&self, key: &Key) -> Known {
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
        let mut now = report.clone();
        now.processes[0].pid = 99;
        now.processes[0].exe = "/elsewhere/server-of-today".to_owned();
        now.stacks.truncate(1);
        let stack = &mut now.stacks[0];
        stack.pid = 99;
        for frame in &mut stack.frames {
            frame.address = "0x1".to_owned();
            frame.build_id = None;
            frame.line = frame.line.map(|line| line + 3);
            frame.module = frame.module.as_ref().map(|module| match module.as_str() {
                "/srv/server" => "/elsewhere/server-of-today".to_owned(),
                library => format!("/elsewhere{library}"),
            });
        }
        stack.frames[1].function = Some("leak_here.constprop.0".to_owned());
        let get = |now: &Report| baseline.get(&Programs::of(now).key(&now.stacks[0]));
        let known = get(&now);
        assert_eq!((known.bytes, known.growing), (2000, Some(100.0)));
        now.stacks[0].frames[2].function = Some("third_caller".to_owned());
        assert_eq!(get(&now), Known::default());
    }

    // A cut report: what is not in it held no more than the least that is.
    #[test]
    fn cut() {
        let baseline = Baseline::parse(&file(&fixtures::leak())).unwrap();
        assert_eq!(baseline.stacks_not_shown, 3);
        let nothing: [(u32, &str); 0] = [];
        let key =
            Programs::new(nothing.into_iter(), std::iter::empty()).key_of(1, ("heap", None), &[]);
        let known = baseline.get(&key);
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
            let programs = Programs::of(&report);
            for stack in &report.stacks {
                let key = programs.key(stack);
                let same = report.stacks.iter().filter(|other| programs.key(other) == key);
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
