//! Raw addresses to functions, files and lines; only for stacks that will be shown.
//!
//! A [`Symbolizer`] names [`CapturedFrame`]s. It asks a thread of its own, which reads symbols and
//! DWARF with blazesym from copies that nobody can truncate, and remembers every answer. A name that is
//! not found is a frame with a reason. A batch ends at its deadline: what is not named by then says
//! so, and is there the next time.
//!
//! Your part: capture frames while the target lives, call [`find_debug_file`] then too, and pass
//! names of code made at run time (perf maps) along.

mod debug_dir;
mod debug_file;
mod names;
mod screen;
mod snapshot;
#[cfg(test)]
mod tests;
mod trim;
mod worker;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::report::model::{Frame, Stated};
pub use crate::unwind::CapturedFrame;
use crate::unwind::{Bytes, Identity, ModuleFile};

pub use debug_dir::{DebugDir, DebugDirError};
pub use debug_file::find_debug_file;
pub use names::{function_name, printable};
pub use trim::{is_allocator, mark_allocators};

use worker::{Answer, Job, Worker};

/// Answers remembered; some 200 bytes each. The objects least recently asked for go first.
const MAX_ANSWERS: usize = 32_768;
/// A thread that works longer on one object is left behind and the object not asked for again.
const STUCK: Duration = Duration::from_secs(60);
/// Threads left behind before names are given up for the session.
const MAX_STUCK: u32 = 3;

/// Names of frames in executable memory without a file, by address: a perf map.
pub type JitNames<'a> = &'a dyn Fn(u64) -> Option<String>;

/// A stack to be named.
#[derive(Clone, Copy)]
pub struct StackToName<'a> {
    /// Innermost first, as [`crate::unwind::Unwinder::capture`] gives them.
    pub frames: &'a [CapturedFrame],
    /// Names for code made at run time.
    pub jit: Option<JitNames<'a>>,
}

/// An object for the cache: the file, as it was when opened. A build id alone is what a file in a
/// hostile container says of itself, and would let it name another container's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModuleKey {
    identity: Identity,
    stamp: u64,
}

impl ModuleKey {
    fn of(module: &ModuleFile) -> Self {
        let mut hasher = DefaultHasher::new();
        module.build_id().hash(&mut hasher);
        if let Bytes::File { file, len } = module.bytes() {
            len.hash(&mut hasher);
            if let Ok(meta) = file.metadata() {
                (meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
            }
        }
        Self {
            identity: module.identity(),
            stamp: hasher.finish(),
        }
    }
}

/// One function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    function: String,
    file: Option<String>,
    line: Option<u32>,
    inlined: bool,
}

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// Innermost first; all but the last are inlined.
    Names(Arc<[Name]>),
    /// Why there is no name.
    Unknown(Arc<str>),
}

impl Named {
    fn unknown(reason: &str) -> Self {
        Self::Unknown(reason.into())
    }
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SymbolizeCounters {
    /// Addresses named.
    pub named: u64,
    /// Addresses looked at for which there is no name.
    pub unnamed: u64,
    /// Frames returned without a name because the deadline had come.
    pub late: u64,
    /// Answers dropped to stay under the cap.
    pub forgotten: u64,
    /// Threads left behind with an object whose debug information took too long.
    pub stuck: u64,
}

/// Names frames.
#[derive(Default)]
pub struct Symbolizer {
    worker: Option<Worker>,
    /// Why there is no worker and will be none.
    disabled: Option<&'static str>,
    answers: HashMap<ModuleKey, ObjectAnswers>,
    answer_count: usize,
    asked: HashSet<(ModuleKey, u64)>,
    /// The object in the worker's hands.
    working: Option<(ModuleKey, Instant)>,
    poisoned: HashSet<ModuleKey>,
    counters: SymbolizeCounters,
    clock: u64,
}

#[derive(Default)]
struct ObjectAnswers {
    by_offset: HashMap<u64, Named>,
    last_used: u64,
}

impl Symbolizer {
    /// A symbolizer; its thread starts with the first request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names one stack. See [`Self::symbolize`].
    pub fn symbolize_one(&mut self, stack: StackToName<'_>, deadline: Duration) -> Vec<Frame> {
        self.symbolize(&[stack], deadline).pop().unwrap_or_default()
    }

    /// Names stacks, innermost frame first, inlined functions expanded and marked, the allocator's
    /// own frames marked. As many results as stacks, whatever happens; after `deadline` frames that
    /// are not named yet say so.
    pub fn symbolize(&mut self, stacks: &[StackToName<'_>], deadline: Duration) -> Vec<Vec<Frame>> {
        let until = Instant::now() + deadline;
        self.clock += 1;
        let mut keys = HashMap::new();
        let waiting = self.ask(stacks, &mut keys);
        self.wait(waiting, until);
        let named = stacks
            .iter()
            .map(|stack| self.frames(*stack, &keys))
            .collect();
        self.forget_surplus();
        named
    }

    /// What became of requests since the start.
    pub fn counters(&self) -> SymbolizeCounters {
        self.counters
    }

    /// Answers remembered.
    pub fn remembered(&self) -> usize {
        self.answer_count
    }

    /// Asks the worker for everything that is not known, object by object.
    fn ask(&mut self, stacks: &[StackToName<'_>], keys: &mut Keys) -> HashSet<(ModuleKey, u64)> {
        self.take_answers();
        let mut waiting = HashSet::new();
        let mut jobs: HashMap<ModuleKey, Job> = HashMap::new();
        for stack in stacks {
            for (index, frame) in stack.frames.iter().enumerate() {
                let Some((module, offset)) = place(frame, index) else {
                    continue;
                };
                let key = *keys
                    .entry(Arc::as_ptr(module))
                    .or_insert_with(|| ModuleKey::of(module));
                if self.known(key, offset) || self.poisoned.contains(&key) {
                    continue;
                }
                waiting.insert((key, offset));
                if self.asked.insert((key, offset)) {
                    let job = || Job {
                        key,
                        module: Arc::clone(module),
                        offsets: Vec::new(),
                    };
                    jobs.entry(key).or_insert_with(job).offsets.push(offset);
                }
            }
        }
        for job in jobs.into_values() {
            self.send(job);
        }
        waiting
    }

    fn known(&mut self, key: ModuleKey, offset: u64) -> bool {
        let clock = self.clock;
        self.answers.get_mut(&key).is_some_and(|object| {
            object.last_used = clock;
            object.by_offset.contains_key(&offset)
        })
    }

    fn send(&mut self, job: Job) {
        if self.worker.is_none() && self.disabled.is_none() {
            match Worker::start() {
                Ok(worker) => self.worker = Some(worker),
                Err(_) => self.disabled = Some("no thread for symbols"),
            }
        }
        let Some(worker) = &self.worker else { return };
        if worker.jobs.send(job).is_err() {
            // Only a stack overflow ends the thread, and that ends the process; be safe anyway.
            self.worker = None;
            self.asked.clear();
        }
    }

    fn wait(&mut self, mut waiting: HashSet<(ModuleKey, u64)>, until: Instant) {
        loop {
            self.leave_behind_if_stuck();
            waiting.retain(|(key, offset)| {
                let known = self
                    .answers
                    .get(key)
                    .is_some_and(|o| o.by_offset.contains_key(offset));
                !known && !self.poisoned.contains(key)
            });
            let Some(worker) = self.worker.as_ref().filter(|_| !waiting.is_empty()) else {
                return;
            };
            let left = until.saturating_duration_since(Instant::now());
            match worker
                .answers
                .recv_timeout(left.min(Duration::from_secs(1)))
            {
                Ok(answer) => self.take(answer),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.worker = None;
                    self.asked.clear();
                }
            }
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.worker.as_ref().and_then(|w| w.answers.try_recv().ok()) {
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Began(key) => self.working = Some((key, Instant::now())),
            Answer::Done(key, named) => {
                self.working = None;
                let object = self.answers.entry(key).or_default();
                object.last_used = self.clock;
                for (offset, named) in named {
                    self.asked.remove(&(key, offset));
                    match named {
                        Named::Names(_) => self.counters.named += 1,
                        Named::Unknown(_) => self.counters.unnamed += 1,
                    }
                    if object.by_offset.insert(offset, named).is_none() {
                        self.answer_count += 1;
                    }
                }
            }
        }
    }

    /// A thread cannot be stopped, but nobody needs to wait for it.
    fn leave_behind_if_stuck(&mut self) {
        let Some((key, _)) = self.working.filter(|(_, since)| since.elapsed() > STUCK) else {
            return;
        };
        self.counters.stuck += 1;
        self.poisoned.insert(key);
        self.worker = None;
        self.working = None;
        self.asked.clear();
        if self.counters.stuck >= u64::from(MAX_STUCK) {
            self.disabled = Some("naming was given up: debug information took too long");
        }
    }

    fn frames(&mut self, stack: StackToName<'_>, keys: &Keys) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(stack.frames.len());
        for (index, captured) in stack.frames.iter().enumerate() {
            match self.answer(captured, index, stack.jit, keys) {
                Named::Names(names) => {
                    let bare = bare_frame(captured, index);
                    frames.extend(names.iter().map(|name| named_frame(bare.clone(), name)));
                }
                Named::Unknown(reason) => {
                    let reason = Some(reason.as_ref().to_owned());
                    frames.push(Frame {
                        reason,
                        ..bare_frame(captured, index)
                    });
                }
            }
        }
        mark_allocators(&mut frames);
        frames
    }

    fn answer(
        &mut self,
        captured: &CapturedFrame,
        index: usize,
        jit: Option<JitNames<'_>>,
        keys: &Keys,
    ) -> Named {
        let Some((module, offset)) = place(captured, index) else {
            return jit_name(captured.address.wrapping_sub(u64::from(index > 0)), jit);
        };
        let key = keys.get(&Arc::as_ptr(module));
        let known = key.and_then(|key| self.answers.get(key)?.by_offset.get(&offset));
        if let Some(named) = known {
            return named.clone();
        }
        self.counters.late += 1;
        let poisoned = key.is_some_and(|key| self.poisoned.contains(key));
        match self.disabled {
            _ if poisoned => Named::unknown("debug information took too long"),
            Some(reason) => Named::unknown(reason),
            None => Named::unknown("not named in time"),
        }
    }

    fn forget_surplus(&mut self) {
        while self.answer_count > MAX_ANSWERS {
            let oldest = self
                .answers
                .iter()
                .min_by_key(|(_, o)| o.last_used)
                .map(|(key, _)| *key);
            let Some(gone) = oldest.and_then(|key| self.answers.remove(&key)) else {
                return;
            };
            self.answer_count = self.answer_count.saturating_sub(gone.by_offset.len());
            self.counters.forgotten += gone.by_offset.len() as u64;
            self.answers.shrink_to_fit();
        }
    }
}

type Keys = HashMap<*const ModuleFile, ModuleKey>;

/// The object and the offset to look up: inside of the call for all frames but the first.
fn place(frame: &CapturedFrame, index: usize) -> Option<(&Arc<ModuleFile>, u64)> {
    let offset = frame.file_offset?.wrapping_sub(u64::from(index > 0));
    Some((frame.module.as_ref()?, offset))
}

fn jit_name(address: u64, jit: Option<JitNames<'_>>) -> Named {
    let Some(names) = jit else {
        return Named::unknown("code made at run time, no perf map");
    };
    match names(address) {
        Some(name) => Named::Names(Arc::new([Name {
            function: printable(&name),
            file: None,
            line: None,
            inlined: false,
        }])),
        None => Named::unknown("in no file and no perf map"),
    }
}

fn bare_frame(captured: &CapturedFrame, index: usize) -> Frame {
    let module = captured.module.as_ref();
    Frame {
        stated: stated(captured, index),
        module: module.map(|m| printable(m.path())),
        build_id: module.and_then(|m| m.build_id()).map(str::to_owned),
        offset: captured.file_offset.map(|offset| format!("{offset:#x}")),
        address: format!("{:#x}", captured.address),
        ..Frame::default()
    }
}

/// Where a frame is for whoever has the object's symbols later.
fn stated(captured: &CapturedFrame, index: usize) -> Option<Stated> {
    let (module, inside) = place(captured, index)?;
    let address = module.layout().ok()?.address_of(inside)?;
    // Only what has no build id is worth another look at the file.
    let link = match module.build_id() {
        Some(_) => None,
        None => module.debug_link(|| debug_file::read_link(module)),
    };
    Some(Stated {
        address: address.wrapping_add(u64::from(index > 0)),
        link: link.cloned(),
    })
}

fn named_frame(bare: Frame, name: &Name) -> Frame {
    Frame {
        function: Some(name.function.clone()),
        file: name.file.clone(),
        line: name.line,
        inlined: name.inlined,
        ..bare
    }
}
