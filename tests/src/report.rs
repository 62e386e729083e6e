//! The JSON report as an outsider reads it (schema `memtrace.report/1`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// One report.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Report {
    pub schema: String,
    pub duration_seconds: f64,
    #[serde(default)]
    pub losses: BTreeMap<String, u64>,
    #[serde(default)]
    pub notes: BTreeMap<String, u64>,
    pub overhead: serde_json::Value,
    pub coverage: Vec<Coverage>,
    pub processes: Vec<Process>,
    #[serde(default)]
    pub groups: Vec<Group>,
    pub stacks: Vec<Stack>,
    #[serde(default)]
    pub not_shown: NotShown,
    #[serde(default)]
    pub marks: Vec<Mark>,
}

/// A named moment.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Mark {
    pub name: String,
    pub at: String,
}

/// One object with probes, or without and the reason.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Coverage {
    pub pid: u32,
    pub object: String,
    pub family: String,
    pub functions: Vec<String>,
    pub missing: Vec<String>,
    pub note: Option<String>,
}

/// One image of one process.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Process {
    pub pid: u32,
    pub comm: String,
    pub exe: String,
    pub state: String,
    #[serde(default)]
    pub processes: u64,
    pub rss_bytes_at_attach: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub outstanding_bytes: u64,
    pub outstanding_objects: u64,
    pub growth_bytes_per_second: f64,
    pub verdict: String,
    #[serde(default)]
    pub reconciliation: Option<BTreeMap<String, Option<u64>>>,
    #[serde(default)]
    pub grower: Option<Grower>,
    #[serde(default)]
    pub runtime: Option<Runtime>,
}

/// What made a process grow.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Grower {
    pub share: String,
    pub bytes: u64,
    pub rss_bytes: u64,
}

/// What manages a process's memory.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Runtime {
    pub name: String,
    pub heap_growth_bytes: Option<i64>,
    pub advice: String,
}

/// Stacks summed by what they share.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Group {
    pub name: Option<String>,
    pub pids: Vec<u32>,
    pub outstanding_bytes: u64,
    pub outstanding_objects: u64,
    pub allocated_objects: u64,
}

/// One stack's account.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Stack {
    pub pid: u32,
    pub probe: String,
    #[serde(default)]
    pub kind: Option<String>,
    pub outstanding_bytes: u64,
    pub outstanding_objects: u64,
    pub allocated_bytes: u64,
    pub allocated_objects: u64,
    pub freed_bytes: u64,
    pub freed_objects: u64,
    pub growth_bytes_per_second: f64,
    pub verdict: String,
    pub confidence: f64,
    pub complete: bool,
    #[serde(default)]
    pub approximate: bool,
    #[serde(default)]
    pub gained_per_cycle: Vec<i64>,
    pub frames: Vec<Frame>,
}

/// One frame.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the reference documents the fields")]
pub struct Frame {
    pub function: Option<String>,
    pub module: Option<String>,
    pub offset: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub inlined: bool,
    #[serde(default)]
    pub allocator: bool,
    pub reason: Option<String>,
}

/// What lies below the top N.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NotShown {
    /// Stacks.
    pub stacks: u64,
    /// Their outstanding bytes.
    pub outstanding_bytes: u64,
    /// Their outstanding objects.
    pub outstanding_objects: u64,
}

impl Report {
    /// Parses one report and checks its schema.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let report: Self = serde_json::from_str(text).unwrap_or_else(|error| {
            panic!(
                "not a report: {error}\n{}",
                text.get(..2000).unwrap_or(text)
            )
        });
        assert_eq!(report.schema, "memtrace.report/1");
        report
    }

    /// A loss or note by name; 0 when it is not there.
    pub fn counter(&self, name: &str) -> u64 {
        self.losses
            .get(name)
            .or_else(|| self.notes.get(name))
            .copied()
            .unwrap_or(0)
    }

    /// The newest image of a process.
    #[track_caller]
    pub fn process(&self, pid: u32) -> &Process {
        self.processes
            .iter()
            .filter(|process| process.pid == pid)
            .max_by_key(|process| process.state == "running")
            .unwrap_or_else(|| panic!("no process {pid} in {:?}", self.processes))
    }

    /// The stacks of one process by probe.
    pub fn stacks_of<'a>(&'a self, pid: u32, probe: &'a str) -> impl Iterator<Item = &'a Stack> {
        self.stacks
            .iter()
            .filter(move |stack| stack.pid == pid && stack.probe == probe)
    }

    /// Outstanding bytes by the innermost of these functions in each stack of a probe; those of
    /// none of them under "".
    pub fn bytes_by_function<'a>(
        &'a self,
        pid: u32,
        probe: &'a str,
        functions: &[&'a str],
    ) -> BTreeMap<&'a str, u64> {
        let mut sums = BTreeMap::new();
        for stack in self.stacks_of(pid, probe) {
            let named = stack
                .frames
                .iter()
                .find_map(|frame| functions.iter().find(|name| **name == frame.name()));
            *sums.entry(named.copied().unwrap_or("")).or_default() += stack.outstanding_bytes;
        }
        sums
    }

    /// The stacks of one process's heap.
    pub fn heap_stacks(&self, pid: u32) -> impl Iterator<Item = &Stack> {
        self.stacks
            .iter()
            .filter(move |stack| stack.pid == pid && stack.probe == "heap")
    }
}

impl Frame {
    /// The function's name without arguments and compiler suffixes; "?" when unknown.
    pub fn name(&self) -> &str {
        let name = self.function.as_deref().unwrap_or("?");
        match name.find(['(', '.', '@']) {
            Some(end) if end > 0 => &name[..end],
            _ => name,
        }
    }

    /// True when the file's last part and the line are these.
    pub fn is_at(&self, file: &str, line: u32) -> bool {
        self.line == Some(line)
            && self
                .file
                .as_deref()
                .is_some_and(|path| path.rsplit('/').next() == Some(file))
    }
}

impl Stack {
    /// The stack in one line, for messages.
    pub fn describe(&self) -> String {
        let frames: Vec<String> = self
            .frames
            .iter()
            .map(|frame| match (&frame.function, frame.line) {
                (Some(_), Some(line)) => format!("{}:{line}", frame.name()),
                (Some(_), None) => frame.name().to_owned(),
                (None, _) => format!(
                    "[{}+{} {}]",
                    frame.module.as_deref().unwrap_or("?"),
                    frame.offset.as_deref().unwrap_or("?"),
                    frame.reason.as_deref().unwrap_or("no reason")
                ),
            })
            .collect();
        format!(
            "{} B in {} (allocated {} B in {}), complete {}, approximate {}: {}",
            self.outstanding_bytes,
            self.outstanding_objects,
            self.allocated_bytes,
            self.allocated_objects,
            self.complete,
            self.approximate,
            frames.join(" < ")
        )
    }
}
