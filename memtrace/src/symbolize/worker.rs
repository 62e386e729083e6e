//! The thread that owns blazesym, whose `Symbolizer` cannot be sent between threads.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized};

use crate::unwind::{Bytes, Layout, ModuleFile};

use super::debug_file;
use super::names::{OPERATOR, function_name, inlined_operator, printable};
use super::snapshot::{Snapshot, own_path};
use super::{ModuleKey, Name, Named};

/// Address space for the thread's stack: blazesym follows functions inlined into each other by
/// recursion, as deep as [`super::screen`] lets through. Only what is touched takes memory.
const STACK: usize = 32 << 20;
/// Bytes of copies kept open between requests; what blazesym makes of them takes as much again.
const KEEP: u64 = 16 << 20;
/// After this long without requests everything is given back.
const IDLE: Duration = Duration::from_secs(10);
/// Names inlined into each other that are shown of one address.
const MAX_INLINED: usize = 128;

/// Offsets of one object to be named.
pub(super) struct Job {
    pub key: ModuleKey,
    pub module: Arc<ModuleFile>,
    pub offsets: Vec<u64>,
}

/// What the thread says.
pub(super) enum Answer {
    /// It begins with an object.
    Began(ModuleKey),
    /// It is done with one.
    Done(ModuleKey, Vec<(u64, Named)>),
}

/// A handle on the thread. The thread ends when the handle is gone and the job in hand is done.
pub(super) struct Worker {
    pub jobs: Sender<Job>,
    pub answers: Receiver<Answer>,
}

impl Worker {
    pub fn start() -> io::Result<Self> {
        let (jobs, take_jobs) = channel();
        let (give_answers, answers) = channel();
        thread::Builder::new()
            .name("symbolize".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&take_jobs, &give_answers))?;
        Ok(Self { jobs, answers })
    }
}

fn run(jobs: &Receiver<Job>, answers: &Sender<Answer>) {
    let mut open = Open::default();
    loop {
        let job = match jobs.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                open = Open::default();
                give_back();
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if answers.send(Answer::Began(job.key)).is_err() {
            return;
        }
        // The files are a target's. What they can do to their parser ends here.
        let named = catch_unwind(AssertUnwindSafe(|| open.name(&job))).unwrap_or_else(|_| {
            open = Open::default();
            all(&job.offsets, "broken debug information")
        });
        if answers.send(Answer::Done(job.key, named)).is_err() {
            return;
        }
    }
}

fn all(offsets: &[u64], reason: &str) -> Vec<(u64, Named)> {
    offsets
        .iter()
        .map(|offset| (*offset, Named::unknown(reason)))
        .collect()
}

/// Objects whose copies are open.
#[derive(Default)]
struct Open {
    objects: HashMap<ModuleKey, Object>,
    clock: u64,
}

impl Open {
    fn name(&mut self, job: &Job) -> Vec<(u64, Named)> {
        self.clock += 1;
        let object = self
            .objects
            .entry(job.key)
            .or_insert_with(|| Object::open(&job.module));
        object.last_used = self.clock;
        let named = job
            .offsets
            .iter()
            .map(|offset| (*offset, object.name(*offset)))
            .collect();
        self.trim();
        named
    }

    /// Closes the least recently used until the rest is small enough.
    fn trim(&mut self) {
        let mut closed = false;
        while self.objects.values().map(|o| o.size).sum::<u64>() > KEEP {
            let oldest = self
                .objects
                .iter()
                .min_by_key(|(_, o)| o.last_used)
                .map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            self.objects.remove(&oldest);
            closed = true;
        }
        if closed {
            give_back();
        }
    }
}

/// Returns freed memory to the kernel: glibc would keep this thread's for its next request.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: releases free memory only; glibc documents it as safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// One object's sources of names, best first.
struct Object {
    layout: Option<Layout>,
    sources: Vec<Names>,
    /// Why there are none.
    reason: &'static str,
    size: u64,
    last_used: u64,
}

/// One file with names.
struct Names {
    path: PathBuf,
    symbolizer: blazesym::symbolize::Symbolizer,
    has_debug_info: bool,
    /// Held open: `path` leads to it.
    _snapshot: Option<Snapshot>,
    _file: Option<File>,
}

impl Object {
    fn open(module: &ModuleFile) -> Self {
        let mut object = Self {
            layout: None,
            sources: Vec::new(),
            reason: "no symbols",
            size: 0,
            last_used: 0,
        };
        let Ok(layout) = module.layout() else {
            object.reason = "not an ELF file of this machine";
            return object;
        };
        object.layout = Some(layout.clone());
        let own = Snapshot::take(module.bytes(), layout);
        let complete = own.as_ref().is_ok_and(|own| own.has_debug_info);
        if !complete {
            object.add_debug_file(module);
        }
        match own {
            Ok(own) => object.add_snapshot(own),
            Err(super::snapshot::SnapshotError::TooLarge) => object.reason = "symbols too large",
            Err(super::snapshot::SnapshotError::NoSections) => object.reason = "no section headers",
            Err(_) => object.reason = "unreadable",
        }
        object
    }

    fn add_debug_file(&mut self, module: &ModuleFile) {
        let inside = module.debug_file().and_then(|file| file.try_clone().ok());
        if let Some(file) = inside {
            self.add_file(file, false);
        } else if let Some((file, trusted)) = debug_file::find_on_host(module) {
            self.add_file(file, trusted);
        }
    }

    fn add_file(&mut self, file: File, trusted: bool) {
        if trusted {
            // Only root can change it: it may be mapped, and its links may be followed.
            let names = Names::new(own_path(&file), true, None, Some(file));
            self.sources.push(names);
            return;
        }
        let Ok(meta) = file.metadata() else { return };
        let bytes = Bytes::File {
            file,
            len: meta.len(),
        };
        let Ok(layout) = Layout::read(&bytes) else {
            return;
        };
        if let Ok(snapshot) = Snapshot::take(&bytes, &layout) {
            self.add_snapshot(snapshot);
        }
    }

    fn add_snapshot(&mut self, snapshot: Snapshot) {
        self.size += snapshot.size;
        let (path, has_debug_info) = (snapshot.path(), snapshot.has_debug_info);
        self.sources
            .push(Names::new(path, has_debug_info, Some(snapshot), None));
    }

    fn name(&self, offset: u64) -> Named {
        let Some(address) = self
            .layout
            .as_ref()
            .and_then(|layout| layout.address_of(offset))
        else {
            return Named::unknown(if self.layout.is_some() {
                "not code of the file"
            } else {
                self.reason
            });
        };
        let mut reason = self.reason;
        for source in &self.sources {
            match source.name(address) {
                Ok(names) => return Named::Names(names.into()),
                Err(why) => reason = why,
            }
        }
        Named::unknown(reason)
    }
}

impl Names {
    fn new(
        path: PathBuf,
        has_debug_info: bool,
        snapshot: Option<Snapshot>,
        file: Option<File>,
    ) -> Self {
        let symbolizer = blazesym::symbolize::Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_demangling(false)
            .build();
        Self {
            path,
            symbolizer,
            has_debug_info,
            _snapshot: snapshot,
            _file: file,
        }
    }

    fn name(&self, address: u64) -> Result<Vec<Name>, &'static str> {
        if self.has_debug_info
            && let Ok(names) = self.ask(address, true)
        {
            return Ok(names);
        }
        // Broken debug information does not take the symbols away.
        self.ask(address, false)
    }

    fn ask(&self, address: u64, debug_syms: bool) -> Result<Vec<Name>, &'static str> {
        let sym = self.symbol(address, debug_syms)?;
        // DWARF has no linkage names for local classes' and lambdas' methods: their symbols say
        // whose they are.
        let better = (debug_syms && !is_mangled(&sym.name))
            .then(|| self.symbol(address, false).ok())
            .flatten()
            .filter(|better| is_mangled(&better.name));
        Ok(names_of(better.as_ref().unwrap_or(&sym), &sym))
    }

    fn symbol(&self, address: u64, debug_syms: bool) -> Result<Sym<'_>, &'static str> {
        let mut elf = Elf::new(&self.path);
        elf.debug_syms = debug_syms;
        let input = Input::VirtOffset(address);
        match self.symbolizer.symbolize_single(&Source::Elf(elf), input) {
            Ok(Symbolized::Sym(sym)) if !sym.name.is_empty() => Ok(sym),
            Ok(Symbolized::Sym(_)) => Err("no name"),
            Ok(Symbolized::Unknown(Reason::MissingSyms)) => Err("no symbols (stripped)"),
            Ok(Symbolized::Unknown(_)) => Err("no symbol at this address"),
            Err(_) => Err("broken symbols"),
        }
    }
}

fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_Z") || symbol.starts_with("_R")
}

/// A function, by the name of `called`, and what is inlined into it, innermost first.
fn names_of(called: &Sym<'_>, sym: &Sym<'_>) -> Vec<Name> {
    let mut names = vec![name(&called.name, sym.code_info.as_deref(), false)];
    let inlined = sym.inlined.iter().take(MAX_INLINED);
    names.extend(inlined.map(|f| name(&f.name, f.code_info.as_ref(), true)));
    // Outermost first: what a name is inlined into has its own by then.
    for index in 1..names.len() {
        let (outer, inner) = names.split_at_mut(index);
        if let ([.., outer], [inner, ..]) = (outer, inner)
            && inner.function == OPERATOR
        {
            inner.function = inlined_operator(&outer.function);
        }
    }
    names.reverse();
    names
}

fn name(symbol: &str, code: Option<&CodeInfo<'_>>, inlined: bool) -> Name {
    Name {
        function: function_name(symbol),
        file: code.map(|code| printable(&code.to_path().to_string_lossy())),
        line: code.and_then(|code| code.line).filter(|line| *line > 0),
        inlined,
    }
}
