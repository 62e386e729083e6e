//! Loading the kernel side, and its maps by meaning.

use std::{collections::BTreeMap, os::fd::AsFd as _, path::Path, sync::LazyLock};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray, RingBuf},
    programs::{FEntry, TracePoint, trace_point::TracePointLinkId},
};
use memtrace_common::{
    COUNTERS, Context, ContextKey, Counter, LiveKey, LiveValue, MAX_SAMPLING_EPOCHS, Sampling,
    Selection, Settings, Target, TextTable, WIDE_SLOTS,
    counters::MAX_COUNTERS,
    events::{EACH_CALL_WITH_PATH, NO_CALLS},
    heap::FOLLOW_FORK,
    thread::Thread,
};

use super::{
    AttachPoint, Attachments, Features, ProbeError, Purpose,
    batch::{self, Walk},
    kernel_btf, object,
    plain::Plain,
    programs,
    trace_events::TraceEvents,
    tracefs,
    unpreempted::KernelProbe,
};
use crate::id::{Fingerprint, SpaceId, Tgid};

/// Of `bpf_map_update_elem`: only when there is none yet.
const BPF_NOEXIST: u64 = 1;

/// Sizes and filters, fixed for the life of a session.
#[derive(Clone, Copy, Debug)]
pub struct KernelOptions {
    /// Blocks that can be live at once.
    pub live_entries: u32,
    /// Contexts that can be known at once.
    pub context_entries: u32,
    /// Threads with calls in flight at once.
    pub thread_entries: u32,
    /// Processes that can be targets at once.
    pub target_entries: u32,
    /// Text tables: address spaces traced at once.
    pub text_slots: u32,
    /// Ring buffer, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Smallest block recorded.
    pub min_size: u64,
    /// Largest block recorded.
    pub max_size: u64,
    /// Which processes become targets by themselves.
    pub selection: Selection,
    /// The call paths of mapping system calls are wanted.
    pub regions: bool,
    /// What of each call is sent on its own: `NO_CALLS` and its like of memtrace-common.
    pub calls: u64,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            live_entries: 1 << 20,
            context_entries: 1 << 16,
            thread_entries: 1 << 13,
            target_entries: 1 << 11,
            text_slots: 16,
            ring_bytes: 8 << 20,
            min_size: 0,
            max_size: u64::MAX,
            selection: Selection::default(),
            regions: false,
            calls: NO_CALLS,
        }
    }
}

/// Call paths of forked processes whose stacks need no second copy.
const KNOWN_ENTRIES: u32 = 1 << 16;

/// Sums of the counters over all processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<Counter, u64>);

impl Counters {
    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(&counter).copied().unwrap_or(0)
    }
}

/// The loaded kernel side. Dropping it takes every probe off and frees every map.
pub struct KernelSide {
    pub(super) ebpf: Ebpf,
    pub(super) events: Option<TraceEvents>,
    pub(super) targets: HashMap<MapData, u32, Plain<Target>>,
    threads: Map,
    pub(super) live: Map,
    pub(super) contexts: Map,
    text: Array<MapData, Plain<TextTable>>,
    generation: Array<MapData, u32>,
    /// See [`Features::preemptible`].
    pub(super) preemptible: bool,
    pub(super) kernel_probes: Vec<KernelProbe>,
    wide: Array<MapData, u32>,
    sampling: Array<MapData, Plain<Sampling>>,
    counters: PerCpuArray<MapData, u64>,
    calls_lost: Array<MapData, u64>,
    pub(super) slots: HashMap<MapData, u64, u32>,
    pub(super) known: Map,
    rates: Sampling,
    // Kept: the kernel drops a program array's entries with the last user-space reference.
    _continue: ProgramArray<MapData>,
}

static EXACT: LazyLock<Sampling> = LazyLock::new(|| Sampling {
    epoch: 0,
    rates: [1; MAX_SAMPLING_EPOCHS],
});

impl KernelSide {
    /// Loads maps and the programs that every session needs; also gives the ring buffer.
    pub fn load(
        options: &KernelOptions,
        features: &Features,
    ) -> Result<(Self, RingBuf<MapData>), ProbeError> {
        tracefs::check_tracepoints(Path::new("/"))?;
        let settings = Settings {
            min_size: options.min_size,
            max_size: options.max_size,
            regions: u64::from(options.regions),
        };
        let settings = [settings.min_size, settings.max_size, settings.regions];
        let selection = &options.selection;
        // Nobody asks for the call paths of forked processes where none is followed.
        let follows = selection.modes & FOLLOW_FORK != 0;
        let known_entries = if follows { KNOWN_ENTRIES } else { 1 };
        let selection = [selection.modes, selection.comm[0], selection.comm[1]];
        let mut loader = EbpfLoader::new();
        loader
            // Nothing in the object is relocated by the kernel's types; reading them takes 100 ms.
            .btf(None)
            // The reason of a rejection, not the megabytes of how it was found.
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("SETTINGS", settings.as_slice(), true)
            .override_global("SELECTION", selection.as_slice(), true)
            .override_global("CALLS", &options.calls, true)
            .map_max_entries("SLOTS", options.text_slots)
            .map_max_entries("TARGETS", options.target_entries)
            .map_max_entries("KNOWN", known_entries)
            .map_max_entries("LIVE", options.live_entries)
            .map_max_entries("CONTEXTS", options.context_entries)
            .map_max_entries("THREADS", options.thread_entries)
            .map_max_entries("TEXT", options.text_slots)
            .map_max_entries("TEXT_GENERATION", options.text_slots)
            .map_max_entries("EVENTS", options.ring_bytes);
        let object = object::for_kernel(features.maps_on_demand)?;
        let mut ebpf = loader.load(&object)?;
        let mut take = |name| ebpf.take_map(name).ok_or(ProbeError::Missing(name));
        let ring = RingBuf::try_from(take("EVENTS")?).map_err(ProbeError::map("EVENTS"))?;
        let targets = HashMap::try_from(take("TARGETS")?).map_err(ProbeError::map("TARGETS"))?;
        let threads = take("THREADS")?;
        let live = take("LIVE")?;
        let contexts = take("CONTEXTS")?;
        let text = Array::try_from(take("TEXT")?).map_err(ProbeError::map("TEXT"))?;
        let generation = Array::try_from(take("TEXT_GENERATION")?)
            .map_err(ProbeError::map("TEXT_GENERATION"))?;
        let wide = Array::try_from(take("WIDE")?).map_err(ProbeError::map("WIDE"))?;
        let sampling = Array::try_from(take("SAMPLING")?).map_err(ProbeError::map("SAMPLING"))?;
        let counters =
            PerCpuArray::try_from(take("COUNTERS")?).map_err(ProbeError::map("COUNTERS"))?;
        let calls_lost =
            Array::try_from(take("CALLS_LOST")?).map_err(ProbeError::map("CALLS_LOST"))?;
        let slots = HashMap::try_from(take("SLOTS")?).map_err(ProbeError::map("SLOTS"))?;
        let known = take("KNOWN")?;
        let mut after_entry =
            ProgramArray::try_from(take("CONTINUE")?).map_err(ProbeError::map("CONTINUE"))?;
        let deep = programs::load(&mut ebpf, "deep")?;
        let deep = deep.fd().map_err(ProbeError::program("deep"))?;
        after_entry
            .set(0, deep, 0)
            .map_err(ProbeError::map("CONTINUE"))?;
        if options.calls == EACH_CALL_WITH_PATH {
            let free_path = programs::load(&mut ebpf, "free_path")?;
            let free_path = free_path.fd().map_err(ProbeError::program("free_path"))?;
            after_entry
                .set(1, free_path, 0)
                .map_err(ProbeError::map("CONTINUE"))?;
        }
        let mut kernel = Self {
            ebpf,
            events: features.joined_probes.then(TraceEvents::open).flatten(),
            targets,
            threads,
            live,
            contexts,
            text,
            generation,
            wide,
            sampling,
            counters,
            calls_lost,
            preemptible: features.preemptible,
            kernel_probes: Vec::new(),
            slots,
            known,
            rates: *EXACT,
            _continue: after_entry,
        };
        kernel.set_sampling(1)?;
        Ok((kernel, ring))
    }

    /// Attaches to the life of processes. Before any target is named.
    pub fn attach_lifecycle(&mut self) -> Result<(), ProbeError> {
        self.attach_tracepoint("task", "task_newtask")?;
        self.attach_tracepoint("sched", "sched_process_exec")?;
        self.attach_tracepoint("sched", "sched_process_exit")?;
        let on = (self.preemptible && self.attach_mappings_unpreempted().is_ok())
            || self
                .attach_function("mmap_file", "security_mmap_file")
                .is_some();
        if !on {
            self.attach_tracepoint("syscalls", "sys_enter_mmap")?;
        }
        Ok(())
    }

    /// Attaches to OOM kills. Tracing goes on where that fails.
    pub fn attach_oom(&mut self) -> Result<(), ProbeError> {
        tracefs::check_oom(Path::new("/"))?;
        self.attach_tracepoint("oom", "mark_victim")
    }

    /// Attaches the program of a tracepoint's own name to it.
    pub(super) fn attach_tracepoint(
        &mut self,
        category: &str,
        name: &'static str,
    ) -> Result<(), ProbeError> {
        self.attach_to_tracepoint(name, category, name).map(drop)
    }

    /// Attaches a program to a tracepoint.
    pub(super) fn attach_to_tracepoint(
        &mut self,
        name: &'static str,
        category: &str,
        tracepoint: &str,
    ) -> Result<TracePointLinkId, ProbeError> {
        let error = ProbeError::program(name);
        let program = self.ebpf.program_mut(name);
        let program = program.ok_or(ProbeError::Missing(name))?;
        let program: &mut TracePoint = program.try_into().map_err(&error)?;
        if program.fd().is_err() {
            program.load().map_err(&error)?;
        }
        program.attach(category, tracepoint).map_err(&error)
    }

    /// Attaches to a function of the kernel; nothing where that cannot be done, for which there
    /// are many reasons: no type information, no function tracer, an architecture without it.
    fn attach_function(&mut self, name: &str, function: &str) -> Option<()> {
        let btf = kernel_btf::with_only(function)?;
        let program: &mut FEntry = self.ebpf.program_mut(name)?.try_into().ok()?;
        program.load(function, &btf).ok()?;
        program.attach().ok().map(drop)
    }

    /// Puts probes on; what became of each point, in their order.
    pub fn attach(
        &mut self,
        attachments: &mut Attachments,
        points: &[AttachPoint<'_>],
        purpose: Purpose,
    ) -> Vec<Result<(), ProbeError>> {
        attachments.attach((&mut self.ebpf, self.events.as_ref()), points, purpose)
    }

    /// Begins to trace a process: from here on its hits count.
    pub fn add_target(&mut self, tgid: Tgid, target: Target) -> Result<(), ProbeError> {
        self.targets
            .insert(tgid.0, Plain(target), 0)
            .map_err(ProbeError::map("TARGETS"))
    }

    /// The same for a process that can become a target by itself at any moment: false when it has,
    /// which then stands.
    pub fn claim_target(&mut self, tgid: Tgid, target: Target) -> Result<bool, ProbeError> {
        match self.targets.insert(tgid.0, Plain(target), BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(false)
            }
            Err(error) => Err(ProbeError::map("TARGETS")(error)),
        }
    }

    /// What the kernel side knows of a target.
    #[must_use]
    pub fn target(&self, tgid: Tgid) -> Option<Target> {
        self.targets.get(&tgid.0, 0).ok().map(|plain| plain.0)
    }

    /// Ends tracing of a process; its blocks stay in the tables until [`Self::forget_space`].
    pub fn remove_target(&mut self, tgid: Tgid) -> Result<(), ProbeError> {
        match self.targets.remove(&tgid.0) {
            Err(error) if !is_no_such_key(&error) => Err(ProbeError::map("TARGETS")(error)),
            _ => Ok(()),
        }
    }

    /// The same, unless its pid is that of another target by now.
    pub fn remove_target_of(&mut self, tgid: Tgid, space: SpaceId) -> Result<(), ProbeError> {
        match self.target(tgid) {
            Some(target) if target.space == space.0 => self.remove_target(tgid),
            _ => Ok(()),
        }
    }

    /// Removes what is left of an address space.
    pub fn forget_space(&mut self, space: SpaceId) -> Result<(), ProbeError> {
        let mut blocks = Vec::new();
        self.walk_live(|key, _| {
            if key.space == space.0 {
                blocks.push(key);
            }
        })?;
        let live = map_fd(&self.live)?;
        batch::delete(live, &blocks).map_err(|e| ProbeError::system("emptying LIVE", e))?;
        let mut keys = Vec::new();
        self.walk_contexts(|key, _| {
            if key.space == space.0 {
                keys.push(key);
            }
        })?;
        let contexts = map_fd(&self.contexts)?;
        batch::delete(contexts, &keys).map_err(|e| ProbeError::system("emptying CONTEXTS", e))
    }

    /// Forgets a thread that ended unseen.
    pub fn forget_thread(&mut self, tid: u32) -> Result<(), ProbeError> {
        let fd = map_fd(&self.threads)?;
        batch::delete(fd, &[ThreadKey(tid)]).map_err(|e| ProbeError::system("emptying THREADS", e))
    }

    /// Visits every live block.
    pub fn walk_live(&self, mut visit: impl FnMut(LiveKey, LiveValue)) -> Result<(), ProbeError> {
        let mut walk = Walk::<LiveKey, LiveValue>::new(map_fd(&self.live)?, 4096);
        let error = |e| ProbeError::system("reading LIVE", e);
        while let Some(entries) = walk.next_batch().map_err(error)? {
            entries.for_each(|(key, value)| visit(key, value));
        }
        Ok(())
    }

    /// Visits every context.
    pub fn walk_contexts(
        &self,
        mut visit: impl FnMut(ContextKey, Context),
    ) -> Result<(), ProbeError> {
        let mut walk = Walk::<ContextKey, Context>::new(map_fd(&self.contexts)?, 1024);
        let error = |e| ProbeError::system("reading CONTEXTS", e);
        while let Some(entries) = walk.next_batch().map_err(error)? {
            entries.for_each(|(key, value)| visit(key, value));
        }
        Ok(())
    }

    /// Removes contexts: only those nothing can count under any more.
    pub fn remove_contexts(&mut self, keys: &[ContextKey]) -> Result<(), ProbeError> {
        let contexts = map_fd(&self.contexts)?;
        batch::delete(contexts, keys).map_err(|e| ProbeError::system("emptying CONTEXTS", e))
    }

    /// Replaces a text table.
    pub fn set_text(&mut self, slot: u32, table: &TextTable) -> Result<(), ProbeError> {
        self.text
            .set(slot, Plain(*table), 0)
            .map_err(ProbeError::map("TEXT"))
    }

    /// Generation of a slot's mappings. To be read before the mappings are.
    pub fn text_generation(&self, slot: u32) -> Result<u32, ProbeError> {
        self.generation
            .get(&slot, 0)
            .map_err(ProbeError::map("TEXT_GENERATION"))
    }

    /// Sets how a fingerprint is treated (`WIDE_*` of memtrace-common).
    pub fn set_wide(&mut self, fingerprint: Fingerprint, mode: u32) -> Result<(), ProbeError> {
        let slot = fingerprint.0 as u32 & (WIDE_SLOTS as u32 - 1);
        self.wide
            .set(slot, mode, 0)
            .map_err(ProbeError::map("WIDE"))
    }

    /// Samples one block in so many bytes from now on; 1 records everything. After
    /// `MAX_SAMPLING_EPOCHS` changes the rate stays as it is.
    pub fn set_sampling(&mut self, rate: u64) -> Result<(), ProbeError> {
        let current = self.rates.epoch as usize;
        let rate = rate.clamp(1, 1 << 39);
        if self.rates.rates.get(current) == Some(&rate) || current + 1 >= MAX_SAMPLING_EPOCHS {
            return self.write_sampling();
        }
        if let Some(slot) = self.rates.rates.get_mut(current + 1) {
            *slot = rate;
            // The rate must be there before the epoch that uses it.
            self.write_sampling()?;
            self.rates.epoch += 1;
        }
        self.write_sampling()
    }

    fn write_sampling(&mut self) -> Result<(), ProbeError> {
        self.sampling
            .set(0, Plain(self.rates), 0)
            .map_err(ProbeError::map("SAMPLING"))
    }

    /// Mean bytes between samples of every epoch so far and to come.
    #[must_use]
    pub fn rates(&self) -> &[u64; MAX_SAMPLING_EPOCHS] {
        &self.rates.rates
    }

    /// Mean bytes between samples.
    #[must_use]
    pub fn sample_bytes(&self) -> u64 {
        self.rates
            .rates
            .get(self.rates.epoch as usize)
            .copied()
            .unwrap_or(1)
    }

    /// The counters now.
    pub fn counters(&self) -> Result<Counters, ProbeError> {
        let mut sums = BTreeMap::new();
        for (counter, _, _) in COUNTERS {
            let values = self
                .counters
                .get(&(*counter as u32), 0)
                .map_err(ProbeError::map("COUNTERS"))?;
            sums.insert(*counter, values.iter().sum());
        }
        let mut add = |counter, by| *sums.entry(counter).or_insert(0) += by;
        let mut walk = Walk::<ThreadKey, Thread>::new(map_fd(&self.threads)?, 64);
        let error = |e| ProbeError::system("reading THREADS", e);
        while let Some(threads) = walk.next_batch().map_err(error)? {
            for (_, Thread { hits, .. }) in threads {
                add(Counter::EntryHits, hits.entries);
                add(Counter::ReturnHits, hits.returns);
                add(Counter::FreeHits, hits.frees);
                add(Counter::UnmatchedFrees, hits.unmatched);
                add(Counter::SteppedReturnHits, hits.stepped_returns);
            }
        }
        Ok(Counters(sums))
    }

    /// Calls that were to be sent on their own and found no room in the ring buffer.
    pub fn calls_lost(&self) -> Result<u64, ProbeError> {
        self.calls_lost
            .get(&0, 0)
            .map_err(ProbeError::map("CALLS_LOST"))
    }

    /// Sets all counters to zero.
    pub fn reset_counters(&mut self) -> Result<(), ProbeError> {
        let error = |e| ProbeError::system("number of processors", e);
        let cpus = aya::util::nr_cpus().map_err(|(_, e)| error(e))?;
        for index in 0..MAX_COUNTERS {
            let zeros = aya::maps::PerCpuValues::try_from(vec![0_u64; cpus]).map_err(error)?;
            self.counters
                .set(index, zeros, 0)
                .map_err(ProbeError::map("COUNTERS"))?;
        }
        Ok(())
    }
}

/// A thread id as a key.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct ThreadKey(u32);
// SAFETY: one integer.
unsafe impl super::plain::Shared for ThreadKey {}

/// Whether an entry to remove was not there.
pub(super) fn is_no_such_key(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

pub(super) fn map_fd(map: &Map) -> Result<std::os::fd::BorrowedFd<'_>, ProbeError> {
    match map {
        Map::HashMap(data) => Ok(data.fd().as_fd()),
        _ => Err(ProbeError::Missing("a hash map")),
    }
}
