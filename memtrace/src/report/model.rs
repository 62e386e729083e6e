//! The report as data: exactly what `--format json` prints (schema `memtrace.report/1`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::cycles::Cycles;
use crate::{
    ledger::{
        cycles::Segment,
        reconcile::{Reconciliation, Share},
        regions::RegionKind,
    },
    trend::Verdict,
};

pub use crate::unwind::DebugLink;

/// One report.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    #[serde(deserialize_with = "fixed")]
    pub schema: Word,
    /// memtrace's version.
    #[serde(deserialize_with = "fixed")]
    pub tool_version: Word,
    /// Host name.
    pub host: String,
    /// When tracing began, RFC 3339.
    pub started_at: String,
    /// When this report was taken, RFC 3339.
    pub taken_at: String,
    /// Seconds between the two on the monotonic clock.
    pub duration_seconds: f64,
    /// The moment since which the figures of stacks and processes are what was gained, RFC 3339;
    /// nothing when they are what is outstanding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gained_since: Option<String>,
    /// How far the series behind the verdicts reaches.
    pub intervals: Intervals,
    /// What was asked for.
    pub target: Target,
    /// What is traced: heap, region, fault.
    #[serde(deserialize_with = "all_fixed")]
    pub probes: Vec<Word>,
    /// Which allocations are shown; the traced ones unless the user asked for fewer.
    pub filters: Filters,
    /// What tracing costs.
    pub overhead: Overhead,
    /// Nothing when nothing was lost; else counter name → count.
    pub losses: BTreeMap<String, u64>,
    /// Counters that lose nothing but explain (frees of blocks older than the attach, …).
    pub notes: BTreeMap<String, u64>,
    /// Where probes are.
    pub coverage: Vec<Coverage>,
    /// The processes traced.
    pub processes: Vec<Process>,
    /// What the rows of the text report are.
    pub group_by: GroupBy,
    /// The stacks summed by function or module, ranked; empty when `group_by` is `stack`.
    pub groups: Vec<Group>,
    /// The stacks shown, ranked.
    pub stacks: Vec<Stack>,
    /// Stacks known but not shown, and what they hold together.
    pub not_shown: NotShown,
    /// Moments that somebody named since the report before, in their order.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// What happened between marks; nothing before the first cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles: Option<Cycles>,
    /// The latest stretches between marks: only in recordings, which make the cycles of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

/// A named moment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Mark {
    /// As it was given.
    pub name: String,
    /// When, RFC 3339.
    pub at: String,
}

/// A word that reports have as a constant. (Under its own name, because serde would borrow a `&str`
/// from what it reads.)
pub type Word = &'static str;

impl Report {
    /// Sets whose each stack is by the processes, where only the process ids were kept.
    pub fn name_owners(&mut self) {
        for stack in &mut self.stacks {
            let mut processes = self.processes.iter();
            if let Some(process) = processes.find(|process| process.pid == stack.pid) {
                stack.owner = Owner {
                    program: process.exe.clone(),
                    container: process.container.as_ref().map(|c| c.id.clone()),
                };
            }
        }
    }
}

/// Name and version of the JSON schema.
pub const SCHEMA: &str = "memtrace.report/1";

/// What the user asked to trace.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// pid, run, container, cgroup, comm, all, recording.
    #[serde(deserialize_with = "fixed")]
    pub kind: Word,
    /// As typed.
    pub value: String,
}

/// The series behind the verdicts.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Intervals {
    /// Length of one.
    pub seconds: f64,
    /// Complete ones so far.
    pub completed: u32,
    /// How many a verdict needs.
    pub needed: u32,
}

/// Which allocations the report is about.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Filters {
    /// Only those at least this old.
    pub older_seconds: Option<f64>,
    /// Only those of at least this size.
    pub min_size_bytes: Option<u64>,
    /// Only those of at most this size.
    pub max_size_bytes: Option<u64>,
}

/// What stacks are summed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupBy {
    /// Not at all.
    #[default]
    Stack,
    /// The innermost function that is not the allocator's or a standard library's.
    Function,
    /// The object that function is in.
    Module,
    /// The program of the process, with all processes of it, those that have ended too.
    Process,
    /// The container of the process.
    Container,
}

/// Cost of tracing, counted and measured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Overhead {
    /// Probe hits since the attach.
    pub probe_hits: ProbeHits,
    /// Measured cost of one hit on this kernel, averaged over the kinds hit.
    pub nanoseconds_per_hit: f64,
    /// Share of the targets' CPU time spent in probes since the last report; null before the first.
    pub fraction_of_target_cpu: Option<f64>,
    /// The same as a share of one processor.
    pub fraction_of_one_core: Option<f64>,
    /// Mean bytes between samples; 1 is exact.
    pub sample_bytes: u64,
    /// True when the overhead limit made memtrace detach.
    pub detached: bool,
}

/// Hits by kind of probe.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct ProbeHits {
    /// Allocator entries, returns and frees.
    pub heap: u64,
    /// Mapping system calls.
    pub region: u64,
    /// Page faults.
    pub fault: u64,
}

/// One object with probes, or the reason why it has none.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Coverage {
    /// A process that maps it.
    pub pid: u32,
    /// Path as the process sees it.
    pub object: String,
    /// glibc, musl, jemalloc, tcmalloc, mimalloc, c++, custom.
    pub family: String,
    /// Functions probed.
    pub functions: Vec<String>,
    /// Functions of the family the object does not have.
    pub missing: Vec<String>,
    /// Anything a person should know.
    pub note: Option<String>,
}

/// State of a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    /// Alive.
    Running,
    /// Ended by itself or a signal.
    Exited,
    /// Replaced its image; the new image is a process entry of its own.
    Exec,
    /// Killed by the kernel for memory.
    OomKilled,
}

/// One traced process (one image of it).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Process {
    /// Thread group id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Executable, as the process sees it.
    pub exe: String,
    /// State.
    pub state: ProcessState,
    /// How many processes this stands for: 1, or the ended ones of a program that are summed (pid
    /// and name are one's of them).
    pub processes: u64,
    /// Its container.
    pub container: Option<Container>,
    /// Resident bytes when tracing began.
    pub rss_bytes_at_attach: Option<u64>,
    /// Resident bytes now (or when last seen).
    pub rss_bytes: Option<u64>,
    /// Memory limit that applies.
    pub memory_limit_bytes: Option<u64>,
    /// Usage counted against that limit.
    pub memory_usage_bytes: Option<u64>,
    /// Bytes outstanding since the attach.
    pub outstanding_bytes: u64,
    /// Objects outstanding since the attach.
    pub outstanding_objects: u64,
    /// Growth.
    #[serde(deserialize_with = "number")]
    pub growth_bytes_per_second: f64,
    /// Verdict on the process as a whole.
    pub verdict: Verdict,
    /// Time until the limit is met at this growth; null when nothing grows.
    pub seconds_to_limit: Option<f64>,
    /// What its resident memory is made of, when last looked at.
    pub reconciliation: Option<Reconciliation>,
    /// What grew most of that since the attach.
    pub grower: Option<Grower>,
    /// The runtime that manages its memory.
    pub runtime: Option<RuntimeInfo>,
}

/// What made a process grow.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Grower {
    /// The part of the reconciliation that grew most.
    pub share: Share,
    /// By how many bytes.
    pub bytes: u64,
    /// By how many bytes resident memory grew as a whole.
    pub rss_bytes: u64,
}

/// A runtime that manages its program's memory.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RuntimeInfo {
    /// jvm, go, node, python, dotnet, ruby.
    pub name: crate::target::runtime::Runtime,
    /// By how much resident memory grew where the runtime has its heap: private mappings that are
    /// neither malloc's areas nor stacks. An estimate; null when it was not looked at.
    #[serde(default)]
    pub heap_growth_bytes: Option<i64>,
    /// What to run next.
    pub advice: String,
}

/// Identity of a container, or of a service of systemd's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Container {
    /// docker, containerd, cri-o, podman, systemd, …
    pub runtime: String,
    /// Full id.
    pub id: String,
    /// Name.
    pub name: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Image.
    pub image: Option<String>,
    /// The pod's uid, which its cgroup path has.
    pub pod_uid: Option<String>,
    /// The pod's quality of service: guaranteed, burstable or best-effort.
    #[serde(default, deserialize_with = "maybe_fixed")]
    pub qos: Option<Word>,
    /// Labels, as the runtime has them; bounded.
    pub labels: BTreeMap<String, String>,
}

impl Container {
    /// In one line: `shop/cart-7d/app (containerd 3f2504e04f89)`, or what is known of that.
    #[must_use]
    pub fn title(&self) -> String {
        let is_hex = self.id.len() >= 32 && self.id.bytes().all(|b| b.is_ascii_hexdigit());
        let short: String = self.id.chars().take(if is_hex { 12 } else { 64 }).collect();
        let name = self.name.as_deref().unwrap_or(&short);
        let place = match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}/{name}"),
            (None, Some(pod)) => format!("{pod}/{name}"),
            _ => name.to_owned(),
        };
        if name == short {
            return format!("{place} ({})", self.runtime);
        }
        format!("{place} ({} {short})", self.runtime)
    }
}

/// One stack's account.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stack {
    /// 1 is first.
    pub rank: usize,
    /// Process.
    pub pid: u32,
    /// Whose stack it is; not printed, `processes` has it.
    #[serde(skip)]
    pub owner: Owner,
    /// heap, region or fault.
    #[serde(deserialize_with = "fixed")]
    pub probe: Word,
    /// What a region is used as; only with the probe `region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RegionKind>,
    /// Bytes allocated and not freed.
    pub outstanding_bytes: u64,
    /// Objects allocated and not freed.
    pub outstanding_objects: u64,
    /// Bytes allocated since the attach.
    pub allocated_bytes: u64,
    /// Objects allocated since the attach.
    pub allocated_objects: u64,
    /// Bytes of those freed.
    pub freed_bytes: u64,
    /// Objects of those freed.
    pub freed_objects: u64,
    /// Age of the oldest live block.
    pub oldest_seconds: Option<f64>,
    /// Growth.
    #[serde(deserialize_with = "number")]
    pub growth_bytes_per_second: f64,
    /// Verdict.
    pub verdict: Verdict,
    /// 0 to 1; falls with losses.
    pub confidence: f64,
    /// False when the outermost frames are missing.
    pub complete: bool,
    /// True when part of the bytes may belong to a stack that looks alike (see the guide).
    pub approximate: bool,
    /// What was gained in each of the report's cycles; empty without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gained_per_cycle: Vec<i64>,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

impl Stack {
    /// Shown, but no memory of the program's in use: addresses, an allocator's reserve, files.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.kind.is_some_and(RegionKind::is_apart)
    }
}

/// Whose stack it is, for grouping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Executable.
    pub program: String,
    /// Container's id.
    pub container: Option<String>,
}

/// Stacks that share a function or a module, summed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Group {
    /// 1 is first.
    pub rank: usize,
    /// Function or module; null when unknown.
    pub name: Option<String>,
    /// The object a function is in; null when unknown or when modules are the groups.
    pub module: Option<String>,
    /// Processes it was seen in.
    pub pids: Vec<u32>,
    /// How many stacks.
    pub stacks: usize,
    /// Bytes allocated and not freed.
    pub outstanding_bytes: u64,
    /// Objects allocated and not freed.
    pub outstanding_objects: u64,
    /// Bytes allocated since the attach.
    pub allocated_bytes: u64,
    /// Objects allocated since the attach.
    pub allocated_objects: u64,
    /// Bytes of those freed.
    pub freed_bytes: u64,
    /// Objects of those freed.
    pub freed_objects: u64,
    /// Age of the oldest live block.
    pub oldest_seconds: Option<f64>,
    /// Growth of all of them together.
    pub growth_bytes_per_second: f64,
    /// `growing` when one of them grows, else the verdict of the one that holds most.
    pub verdict: Verdict,
    /// Confidence in that stack's verdict.
    pub confidence: f64,
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Frame {
    /// Demangled name; null when unknown.
    pub function: Option<String>,
    /// Object the address is in.
    pub module: Option<String>,
    /// Its build id, hex.
    pub build_id: Option<String>,
    /// Offset in the object's file, hex with 0x.
    pub offset: Option<String>,
    /// Address in the process, hex with 0x.
    pub address: String,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// Inlined into the frame after it.
    pub inlined: bool,
    /// True for the allocator's own frames at the top.
    pub allocator: bool,
    /// Why `function` is null.
    pub reason: Option<String>,
    /// What finds better names later; not printed, recordings keep it.
    #[serde(skip)]
    pub stated: Option<Stated>,
}

/// Where a frame is in the words of its object, whatever file has the object's symbols.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stated {
    /// The address as the object's symbols and debug information state it.
    pub address: u64,
    /// What tells the object's debug file when there is no build id.
    pub link: Option<DebugLink>,
}

/// What lies below the top N.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct NotShown {
    /// Stacks.
    pub stacks: usize,
    /// Their outstanding bytes.
    pub outstanding_bytes: u64,
    /// Their outstanding objects.
    pub outstanding_objects: u64,
}

/// Words of a report that was read back: few, and short.
const MAX_FIXED: usize = 256;

/// A word that reports have as a constant. Those read back are kept for the life of the process,
/// each once, so that reading many reports needs no more memory than reading one.
pub(super) fn fixed<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    use std::sync::{Mutex, PoisonError};
    static WORDS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let word = String::deserialize(from)?;
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = words.iter().find(|known| **known == word) {
        return Ok(known);
    }
    if words.len() >= MAX_FIXED || word.len() > MAX_FIXED {
        return Err(serde::de::Error::custom("too many versions or kinds"));
    }
    let word: &'static str = Box::leak(word.into_boxed_str());
    words.push(word);
    Ok(word)
}

fn maybe_fixed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'static str>, D::Error> {
    #[derive(Deserialize)]
    struct Fixed(#[serde(deserialize_with = "fixed")] Word);
    Ok(Option::<Fixed>::deserialize(from)?.map(|word| word.0))
}

fn all_fixed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Word>, D::Error> {
    #[derive(Deserialize)]
    struct Fixed(#[serde(deserialize_with = "fixed")] Word);
    let words = Vec::<Fixed>::deserialize(from)?;
    Ok(words.into_iter().map(|word| word.0).collect())
}

/// A number; JSON writes one that is none as null.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}
