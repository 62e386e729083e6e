//! An incident as data: exactly what a file under `--incidents DIR` holds (schema
//! `memtrace.incident/1`), and as text.
//!
//! Self-contained: the report with the stacks is in it, and nothing else is needed to read it
//! when the process, its container and its files are gone.

mod before;
mod file;
mod text;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use before::{Before, Grew, MAX_POINTS, Point, lines as lines_before, spread};
pub use file::{Directory, IncidentError};
pub use text::{lines, said_by_the_kernel};

use super::{
    culprit,
    model::{Container, Frame, Report, Stack, Word, fixed},
};
use crate::{target::cgroup::Pressure, trend::Verdict};

/// Name and version of the JSON schema.
pub const SCHEMA: &str = "memtrace.incident/1";
/// A stack that holds less of a process's outstanding bytes is not named as a suspect.
const SUSPECT_SHARE: f64 = 0.1;
/// Suspects named for each process.
const SUSPECTS: usize = 3;

/// One incident.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Incident {
    /// Always [`SCHEMA`].
    #[serde(deserialize_with = "fixed")]
    pub schema: Word,
    /// memtrace's version.
    #[serde(deserialize_with = "fixed")]
    pub tool_version: Word,
    /// Host name.
    pub host: String,
    /// When it happened, RFC 3339.
    pub at: String,
    /// Seconds since tracing began.
    pub seconds_since_start: f64,
    /// What happened.
    pub kind: Kind,
    /// The container whose limit it is about; null when there is none, or only the machine's.
    pub container: Option<Container>,
    /// The memory cgroup whose limit was met or neared; null when that was the machine's memory.
    pub cgroup: Option<Cgroup>,
    /// Threshold crossings only.
    pub threshold: Option<Threshold>,
    /// OOM kills only: the process whose allocation made the kernel kill.
    pub trigger: Option<Trigger>,
    /// OOM kills only: who was killed.
    pub victims: Vec<Victim>,
    /// The traced processes of that cgroup, with what each holds.
    pub processes: Vec<Holder>,
    /// Where their memory is held, most first.
    pub suspects: Vec<Suspect>,
    /// What could not be found out, for people.
    pub notes: Vec<String>,
    /// What was before it, as far as a recording knows; left out in a list and by `--incidents DIR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// All of the report, as of that moment; left out in a list, and when a recording has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

impl Incident {
    /// The process that it is first of all about.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let victim = self.victims.first().map(|victim| victim.pid);
        victim.or_else(|| self.processes.first().map(|process| process.pid))
    }

    /// The frames of all its stacks, for who can name them better; [`Self::rename`] comes after it.
    pub fn stacks_mut(&mut self) -> Vec<&mut Vec<Frame>> {
        let report = self.report.iter_mut();
        let stacks = report.flat_map(|report| &mut report.stacks);
        let before = self.before.iter_mut();
        let grew = before.flat_map(|before| &mut before.grew);
        stacks
            .map(|stack| &mut stack.frames)
            .chain(grew.map(|grew| &mut grew.frames))
            .collect()
    }

    /// Names what is told again, as the stacks are named now.
    pub fn rename(&mut self) {
        for grew in self.before.iter_mut().flat_map(|before| &mut before.grew) {
            grew.rename();
        }
        let Some(report) = &self.report else { return };
        for known in &mut self.suspects {
            let mut stacks = report.stacks.iter();
            if let Some(stack) = stacks.find(|stack| stack.rank == known.rank) {
                *known = suspect(stack, known.share);
            }
        }
    }

    /// Used of the limit when the kernel chose whom to kill, without files that were not used lately. The
    /// cgroup's files are read a moment later, on a busy machine too late: less than what the victims held of
    /// memory that counts (or, where the kernel does not say that, than most of the limit) is not it.
    #[must_use]
    pub fn used_at_the_kill(&self) -> Option<u64> {
        let cgroup = self.cgroup.as_ref()?;
        let read = cgroup.usage_bytes?;
        let victims = self.victims.iter();
        let held: Option<u64> = victims.map(|victim| victim.figures.anon_rss_bytes).sum();
        let least = held
            .filter(|held| *held > 0)
            .or_else(|| Some(cgroup.limit_bytes? / 10 * 9))?;
        let inactive = cgroup.inactive_file_bytes.unwrap_or(0);
        (read >= least).then(|| read.saturating_sub(inactive))
    }

    /// The same for a list or a recording, which has the report already.
    #[must_use]
    pub fn without_report(&self) -> Self {
        // Not cloned to be dropped: it holds a hundred stacks.
        Self {
            schema: self.schema,
            tool_version: self.tool_version,
            host: self.host.clone(),
            at: self.at.clone(),
            seconds_since_start: self.seconds_since_start,
            kind: self.kind,
            container: self.container.clone(),
            cgroup: self.cgroup.clone(),
            threshold: self.threshold,
            trigger: self.trigger.clone(),
            victims: self.victims.clone(),
            processes: self.processes.clone(),
            suspects: self.suspects.clone(),
            notes: self.notes.clone(),
            before: None,
            report: None,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel killed for memory.
    OomKill,
    /// Usage crossed a share of the limit.
    Threshold,
}

impl Kind {
    /// As in JSON and in file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OomKill => "oom-kill",
            Self::Threshold => "threshold",
        }
    }
}

/// A memory cgroup at that moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Cgroup {
    /// As in /proc/PID/cgroup.
    pub path: String,
    /// 1 or 2.
    pub version: u8,
    /// The kernel's number of it: the inode of its directory.
    pub id: Option<u64>,
    /// Its limit.
    pub limit_bytes: Option<u64>,
    /// What was used, right after the kernel chose or usage crossed.
    pub usage_bytes: Option<u64>,
    /// The most that was ever used.
    pub peak_bytes: Option<u64>,
    /// Of the usage, files the kernel would give back first.
    pub inactive_file_bytes: Option<u64>,
    /// The kernel's counters of it.
    pub events: BTreeMap<String, u64>,
    /// Waiting for memory, in percent of the time; version 2 only.
    pub pressure: Option<Pressure>,
}

/// A crossing.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Threshold {
    /// The threshold, in percent of the limit.
    pub percent: u8,
    /// Bytes used, without files the kernel would give back first.
    pub used_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

/// The process whose allocation failed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Trigger {
    /// Thread group id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name.
    pub comm: String,
    /// Whether memtrace traces it.
    pub traced: bool,
    /// Whether it was killed itself.
    pub is_victim: bool,
    /// Its container.
    pub container: Option<Container>,
}

/// A killed process.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Victim {
    /// Thread group id.
    pub pid: u32,
    /// The thread that the kernel named.
    pub tid: u32,
    /// Name.
    pub comm: String,
    /// Whether memtrace traced it: only then are there stacks.
    pub traced: bool,
    /// Its container.
    pub container: Option<Container>,
    /// Its memory cgroup.
    pub cgroup_path: Option<String>,
    /// The kernel's own figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Bytes outstanding since the attach; null when not traced.
    pub outstanding_bytes: Option<u64>,
    /// Objects outstanding since the attach; null when not traced.
    pub outstanding_objects: Option<u64>,
}

/// What the kernel says of a victim; what it does not say is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Figures {
    /// Address space.
    pub total_vm_bytes: Option<u64>,
    /// Anonymous memory that was resident.
    pub anon_rss_bytes: Option<u64>,
    /// Files that were resident.
    pub file_rss_bytes: Option<u64>,
    /// Shared memory that was resident.
    pub shmem_rss_bytes: Option<u64>,
    /// Page tables.
    pub page_table_bytes: Option<u64>,
    /// User id.
    pub uid: Option<u32>,
    /// How it was to be preferred or spared.
    pub oom_score_adj: Option<i32>,
}

impl Figures {
    /// What one source leaves out is taken from the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            total_vm_bytes: self.total_vm_bytes.or(other.total_vm_bytes),
            anon_rss_bytes: self.anon_rss_bytes.or(other.anon_rss_bytes),
            file_rss_bytes: self.file_rss_bytes.or(other.file_rss_bytes),
            shmem_rss_bytes: self.shmem_rss_bytes.or(other.shmem_rss_bytes),
            page_table_bytes: self.page_table_bytes.or(other.page_table_bytes),
            uid: self.uid.or(other.uid),
            oom_score_adj: self.oom_score_adj.or(other.oom_score_adj),
        }
    }
}

/// A traced process in the cgroup.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Holder {
    /// Thread group id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Bytes outstanding since the attach.
    pub outstanding_bytes: u64,
    /// Growth.
    pub growth_bytes_per_second: f64,
    /// Verdict.
    pub verdict: Verdict,
    /// Whether it was killed.
    pub is_victim: bool,
}

/// A place that holds much of a process's memory.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Suspect {
    /// Process.
    pub pid: u32,
    /// The innermost function that is the program's own; null when unknown.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// Object.
    pub module: Option<String>,
    /// heap, region or fault.
    #[serde(deserialize_with = "fixed")]
    pub probe: Word,
    /// Bytes outstanding.
    pub outstanding_bytes: u64,
    /// Of what the cgroup's traced processes hold, 0 to 1.
    pub share: f64,
    /// Growth.
    pub growth_bytes_per_second: f64,
    /// Verdict.
    pub verdict: Verdict,
    /// The stack in `report.stacks`, by its rank.
    pub rank: usize,
}

/// The stacks of these processes that hold a good share of what they all hold, most first. Who
/// allocates and frees a lot holds little and is not among them.
#[must_use]
pub fn suspects(report: &Report, pids: &[u32]) -> Vec<Suspect> {
    let mut stacks: Vec<&Stack> = report
        .stacks
        .iter()
        .filter(|stack| pids.contains(&stack.pid))
        .collect();
    stacks.sort_by_key(|stack| std::cmp::Reverse(stack.outstanding_bytes));
    // One kind of probe counts the same memory once more.
    let total: u64 = report
        .processes
        .iter()
        .filter(|process| pids.contains(&process.pid))
        .map(|process| process.outstanding_bytes)
        .sum();
    let share = |bytes: u64| bytes as f64 / (total.max(1)) as f64;
    stacks
        .into_iter()
        .filter(|stack| stack.outstanding_bytes > 0)
        .filter(|stack| share(stack.outstanding_bytes) >= SUSPECT_SHARE)
        .take(SUSPECTS)
        .map(|stack| suspect(stack, share(stack.outstanding_bytes).min(1.0)))
        .collect()
}

fn suspect(stack: &Stack, share: f64) -> Suspect {
    let frame = culprit::culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    Suspect {
        pid: stack.pid,
        function: frame.and_then(|frame| frame.function.clone()),
        file: frame.and_then(|frame| frame.file.clone()),
        line: frame.and_then(|frame| frame.line),
        module: frame.and_then(|frame| frame.module.clone()),
        probe: stack.probe,
        outstanding_bytes: stack.outstanding_bytes,
        share,
        growth_bytes_per_second: stack.growth_bytes_per_second,
        verdict: stack.verdict,
        rank: stack.rank,
    }
}
