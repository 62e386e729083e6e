//! One call, mapping or turn in a process's life: what `events` shows a line of.

mod system_call;
#[cfg(test)]
mod tests;
mod text;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

pub use system_call::{Outcome, advice_name, protection};
pub use text::Lines;

use super::model::{Frame, Word};

/// Version of what a line of NDJSON has.
pub const SCHEMA: &str = "memtrace.event/1";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An allocation function returned.
    Alloc,
    /// `realloc` or its like returned.
    Realloc,
    /// A free function was called.
    Free,
    /// `mmap` returned.
    Mmap,
    /// `munmap` returned.
    Munmap,
    /// `mremap` returned.
    Mremap,
    /// `brk` returned.
    Brk,
    /// `madvise` returned.
    Madvise,
    /// `mprotect` returned.
    Mprotect,
    /// A process was created.
    Fork,
    /// A process became another program.
    Exec,
    /// A process ended.
    Exit,
    /// The kernel chose a process to kill.
    OomKill,
}

impl Kind {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> Word {
        match self {
            Self::Alloc => "alloc",
            Self::Realloc => "realloc",
            Self::Free => "free",
            Self::Mmap => "mmap",
            Self::Munmap => "munmap",
            Self::Mremap => "mremap",
            Self::Brk => "brk",
            Self::Madvise => "madvise",
            Self::Mprotect => "mprotect",
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::OomKill => "oom-kill",
        }
    }

    /// An allocator's call.
    #[must_use]
    pub fn is_heap(self) -> bool {
        matches!(self, Self::Alloc | Self::Realloc | Self::Free)
    }

    /// A system call that changes mappings.
    #[must_use]
    pub fn is_region(self) -> bool {
        matches!(
            self,
            Self::Mmap | Self::Munmap | Self::Mremap | Self::Brk | Self::Madvise | Self::Mprotect
        )
    }
}

/// An address; in JSON a string in hex, because a number would lose its last digits in JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// One event. What does not apply to its kind is `None`, and not in its JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When it had happened; a free: when it began.
    #[serde(serialize_with = "as_text")]
    pub time: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// The process.
    pub pid: u32,
    /// The thread that called.
    pub tid: u32,
    /// The thread's name.
    pub comm: String,
    /// The allocator's function. Of several names of one address the first.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_name")]
    pub function: Option<Arc<str>>,
    /// Bytes: asked for, of the freed block, of the mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The block or mapping; brk: where the heap's end is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// realloc, mremap: what was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_address: Option<Address>,
    /// Its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_size: Option<u64>,
    /// Time since the freed or reallocated block was allocated first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Outcome>,
    /// mmap, mprotect: `rwx` with `-` for what is not allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<Word>,
    /// mmap, mremap: flags as passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Address>,
    /// mmap of a file: its descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// madvise: what was advised, as passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<u64>,
    /// An allocator made the call, for its own use.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_allocator: bool,
    /// fork: the new process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_pid: Option<u32>,
    /// fork: the new process uses the same memory (vfork, clone).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shares_memory: bool,
    /// oom-kill: the process whose allocation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_pid: Option<u32>,
    /// The call's stack, innermost first, where asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub stack: Option<Stack>,
}

/// Where a call came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stack {
    /// False when the outermost frame may not be the thread's first.
    pub complete: bool,
    /// Innermost first.
    #[serde(serialize_with = "as_frames")]
    pub frames: Arc<[Frame]>,
}

/// Events of which nothing is known but that they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When the next one came through.
    pub time: Timestamp,
    /// How many.
    pub events: u64,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, and a box would cost each of them"
)]
pub enum Line {
    /// An event.
    Event(Event),
    /// A gap.
    Lost(Lost),
}

/// What is said when all is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub time: Timestamp,
    /// Events shown.
    pub events: u64,
    /// Losses by name; none are left out.
    pub losses: BTreeMap<String, u64>,
}

impl Event {
    /// An event without anything that not every kind has.
    #[must_use]
    pub fn new(time: Timestamp, kind: Kind, [pid, tid]: [u32; 2], comm: String) -> Self {
        Self {
            schema: SCHEMA,
            time,
            kind,
            pid,
            tid,
            comm,
            function: None,
            size: None,
            address: None,
            old_address: None,
            old_size: None,
            age_seconds: None,
            result: None,
            protection: None,
            flags: None,
            fd: None,
            advice: None,
            by_allocator: false,
            child_pid: None,
            shares_memory: false,
            trigger_pid: None,
            stack: None,
        }
    }

    /// Appends it as one line of JSON.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        write_json(self, into);
    }
}

impl Lost {
    /// Appends it as one line of JSON.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Object {
            schema: &'static str,
            time: String,
            kind: Word,
            events: u64,
        }
        let object = Object {
            schema: SCHEMA,
            time: self.time.to_string(),
            kind: "lost",
            events: self.events,
        };
        write_json(&object, into);
    }
}

impl End {
    /// Appends it as one line of JSON.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Object<'a> {
            schema: &'static str,
            time: String,
            kind: Word,
            events: u64,
            losses: &'a BTreeMap<String, u64>,
        }
        let object = Object {
            schema: SCHEMA,
            time: self.time.to_string(),
            kind: "end",
            events: self.events,
            losses: &self.losses,
        };
        write_json(&object, into);
    }

    /// The losses in words: `3 call_events_lost, 1 stack_copies_lost`; nothing when there are none.
    #[must_use]
    pub fn losses_text(&self) -> Option<String> {
        let losses = self.losses.iter();
        let parts: Vec<_> = losses
            .map(|(name, value)| format!("{} {name}", super::human::count(*value)))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn write_json(value: &impl Serialize, into: &mut Vec<u8>) {
    let before = into.len();
    // Into memory, of what has string keys only: cannot fail. Half a line would be worse than none.
    match serde_json::to_writer(&mut *into, value) {
        Ok(()) => into.push(b'\n'),
        Err(_) => into.truncate(before),
    }
}

fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

fn as_name<S: Serializer>(name: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name.as_deref().unwrap_or_default())
}

fn as_frames<S: Serializer>(frames: &Arc<[Frame]>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(frames.iter())
}
