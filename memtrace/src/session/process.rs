//! Traced processes: beginning, mappings to re-read, exec, end.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use memtrace_common::{Counter, NO_SLOT, THREADS_UNKNOWN, Target};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Session, SessionError, anchor, limits};
use crate::{
    id::{SpaceId, Tgid},
    probe::MapLog,
    report::model::{Coverage, ProcessState},
    target::{
        container::Identity,
        process::{ProcFs, Process, ProcessError},
    },
    unwind::ModuleMapping,
};

/// After an executable mapping was announced, mappings are read again at these times: the
/// announcement comes before the mapping is there, and a loader makes several in a row.
const REFRESH_AFTER: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
];

/// Ended processes and images that reports still show one by one.
const MAX_ENDED: usize = 256;
/// The same when processes become targets by themselves: the others are summed by program.
const MAX_ENDED_SHARED: usize = 64;

/// What is kept of a process for reports.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub tgid: Tgid,
    pub space: SpaceId,
    /// The space that its mappings were forked from; its own when none.
    pub family: SpaceId,
    /// How many processes this stands for: more than one in a sum of ended ones.
    pub processes: u64,
    pub comm: String,
    pub exe: String,
    pub rss_at_attach: Option<u64>,
    pub rss: Option<u64>,
    pub memory: limits::Memory,
    pub container: Option<Identity>,
    pub coverage: Vec<Coverage>,
}

/// A process being traced.
pub(super) struct Traced {
    pub tgid: Tgid,
    /// The thread that its probes hang on; /proc shows its memory.
    pub anchor: Tgid,
    /// None of a process whose end the kernel side tells.
    pub pidfd: Option<OwnedFd>,
    pub start_ticks: u64,
    /// Still memtrace's own child, waiting to become the program.
    pub launching: bool,
    pub text_slot: u32,
    pub image: Image,
    pub cpu_ns: u64,
    /// Digest of the executable mappings seen last.
    pub mappings_seen: u64,
    /// Executable mappings that the unwinder was given last.
    pub modules: Vec<ModuleMapping>,
    /// Generation of the mappings that the text table was made from.
    pub generation_seen: u32,
    refreshes: Vec<Instant>,
}

/// A process, or an image of one, that is gone.
pub(super) struct Ended {
    pub image: Image,
    pub state: ProcessState,
    pub cpu_ns: u64,
    /// It was memtrace's own child still and has nothing to show.
    pub hidden: bool,
}

impl Image {
    /// Of a process that nothing is known of but that it was.
    pub fn unknown(tgid: Tgid, space: SpaceId, family: SpaceId) -> Self {
        Self {
            tgid,
            space,
            family,
            processes: 1,
            comm: String::new(),
            exe: "(unknown)".to_owned(),
            rss_at_attach: None,
            rss: None,
            memory: limits::Memory::default(),
            container: None,
            coverage: Vec::new(),
        }
    }
}

impl Traced {
    /// A process that the kernel side made a target.
    pub fn followed(image: Image, text_slot: Option<u32>) -> Self {
        Self {
            tgid: image.tgid,
            anchor: image.tgid,
            pidfd: None,
            start_ticks: 0,
            launching: false,
            text_slot: text_slot.unwrap_or(NO_SLOT),
            image,
            cpu_ns: 0,
            mappings_seen: 0,
            modules: Vec::new(),
            generation_seen: 0,
            refreshes: Vec::new(),
        }
    }

    /// Whether its pidfd says that it has ended.
    pub fn has_ended(&self) -> bool {
        self.pidfd.as_ref().is_some_and(has_ended)
    }

    /// An executable mapping will appear.
    pub fn mapping_announced(&mut self) {
        let now = Instant::now();
        self.refreshes = REFRESH_AFTER.iter().map(|after| now + *after).collect();
    }

    /// One has appeared, and nobody said so.
    pub fn mapping_missed(&mut self) {
        if self.refreshes.is_empty() {
            self.refreshes = vec![Instant::now()];
        }
    }

    pub fn next_refresh(&self) -> Option<Instant> {
        self.refreshes.first().copied()
    }

    /// True when mappings are to be read again now.
    pub fn take_refresh(&mut self, now: Instant) -> bool {
        let before = self.refreshes.len();
        self.refreshes.retain(|at| *at > now);
        self.refreshes.len() < before
    }
}

impl Session {
    /// Begins to trace a process.
    pub fn add_process(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        self.add(tgid, true)
    }

    /// Begins to trace a child that has not become its program yet: what it will map is not known,
    /// so the objects that its loader will use are named by the caller.
    pub fn add_launched(
        &mut self,
        child: Tgid,
        objects: &[std::path::PathBuf],
    ) -> Result<(), SessionError> {
        self.add(child, false)?;
        self.selected.root = Some(child);
        // Without it only a program that ends at once loses its stacks.
        self.map_log = MapLog::open(child).ok();
        for path in objects {
            self.attach_file(child, path)?;
        }
        Ok(())
    }

    fn add(&mut self, tgid: Tgid, running: bool) -> Result<(), SessionError> {
        // First: whatever the pid is given to later, this stays the process that is read below.
        let opened = pidfd(tgid);
        // /proc knows better why a pid is none: it is a thread's, say.
        let process = self.proc.read(tgid)?;
        let pidfd = opened?;
        process.check_traceable()?;
        self.check_seccomp(&process)?;
        self.is_adding = true;
        let added = self.put_on(&process, pidfd, running);
        self.is_adding = false;
        let gone = self.traced.iter().any(|t| t.tgid == tgid && t.has_ended());
        if added.is_err() {
            self.withdraw(tgid);
        }
        if added.is_err() && gone {
            let comm = process.comm;
            return Err(ProcessError::EndedMeanwhile { tgid, comm }.into());
        }
        added
    }

    fn put_on(
        &mut self,
        process: &Process,
        pidfd: OwnedFd,
        running: bool,
    ) -> Result<(), SessionError> {
        let tgid = process.tgid;
        // Two processes in one slot would hash one's stacks by the other's mappings. There are as
        // many slots as processes were asked for.
        let space =
            SpaceId(u64::from(tgid.0) << 32 | (process.start_ticks & 0x7fff_ffff) | 1 << 31);
        let shared = self.follow.shared;
        let text_slot = if shared {
            self.follow.join(space, space).unwrap_or(NO_SLOT)
        } else {
            (0..self.options.kernel.text_slots)
                .find(|slot| self.traced.iter().all(|t| t.text_slot != *slot))
                .unwrap_or(self.options.kernel.text_slots)
        };
        if !shared {
            self.kernel.distrust(text_slot)?;
        }
        let image = Image {
            tgid,
            space,
            family: space,
            processes: 1,
            comm: process.comm.clone(),
            exe: process.exe_text(),
            rss_at_attach: process.rss_bytes,
            rss: process.rss_bytes,
            memory: limits::read(&self.proc, Path::new("/"), tgid),
            container: Identity::of_process(&self.proc, tgid),
            coverage: Vec::new(),
        };
        let cpu_ns = self.cpu_ns_of(process);
        self.traced.push(Traced {
            tgid,
            anchor: tgid,
            pidfd: Some(pidfd),
            start_ticks: process.start_ticks,
            launching: !running,
            text_slot,
            image,
            cpu_ns,
            mappings_seen: 0,
            modules: Vec::new(),
            generation_seen: 0,
            refreshes: Vec::new(),
        });
        if running {
            // Mappings made while the probes go on announce themselves only to a known target, so
            // they are read once more afterwards.
            self.refresh(tgid)?;
            self.check_allocators(tgid, process)?;
            self.tell_notes(tgid);
        }
        let target = Target {
            space: space.0,
            image: space.0,
            threads: THREADS_UNKNOWN,
            text_slot: if shared { NO_SLOT } else { text_slot },
            borrowed: 0,
            anchor: if shared { 0 } else { tgid.0 },
            pad: 0,
        };
        if shared && text_slot != NO_SLOT {
            self.kernel.set_slot(space, text_slot)?;
        }
        if !shared {
            self.kernel.add_target(tgid, target)?;
        } else if !self.kernel.claim_target(tgid, target)? {
            // It has begun another program, which is traced: two names for one heap would lose what
            // one thread allocates and another one frees.
            let comm = process.comm.clone();
            return Err(ProcessError::EndedMeanwhile { tgid, comm }.into());
        }
        if running {
            self.refresh(tgid)?;
            self.begin_regions(tgid, space);
            self.begin_faults(tgid, space);
            self.begin_reconciliation(tgid, space);
        }
        self.meter.begin(cpu_ns);
        if !std::mem::replace(&mut self.selected.begun, true) {
            // Tracing begins when the probes are on, not when they began to go on.
            self.started = Instant::now();
            self.started_at = jiff::Timestamp::now();
        }
        self.learn_names(Duration::ZERO);
        if self.is_limited(tgid) {
            let unspared = self.oom.take_unspared();
            self.notices.extend(unspared);
        }
        Ok(())
    }

    /// CPU time so far; with that of its ended children where those are traced too.
    pub(super) fn cpu_ns_of(&self, process: &Process) -> u64 {
        let children = if self.follow.shared {
            process.children_cpu_time_ns
        } else {
            0
        };
        process.cpu_time_ns + children
    }

    /// What is not as usual about a process is said at once, not only in its report.
    fn tell_notes(&mut self, tgid: Tgid) {
        let traced = self.traced.iter().find(|t| t.tgid == tgid);
        let notes = traced
            .into_iter()
            .flat_map(|t| &t.image.coverage)
            .filter_map(|covered| covered.note.as_ref())
            .map(|note| format!("pid {tgid}: {note}"));
        self.notices.extend(notes);
    }

    /// A session without any probe would only report silence.
    fn check_allocators(&self, tgid: Tgid, process: &Process) -> Result<(), SessionError> {
        let Some(traced) = self.traced.iter().find(|t| t.tgid == tgid) else {
            return Ok(());
        };
        if !self.options.probes.heap {
            return Ok(());
        }
        if traced
            .image
            .coverage
            .iter()
            .any(|c| !c.functions.is_empty())
        {
            return Ok(());
        }
        let notes: Vec<_> = traced
            .image
            .coverage
            .iter()
            .filter_map(|c| c.note.clone())
            .collect();
        let why = if notes.is_empty() {
            "no known allocator in any mapped object".into()
        } else {
            notes.join("; ")
        };
        Err(SessionError::NoAllocator(format!(
            "process {tgid} ({}) cannot be traced: {why}; `--probe region` follows its mappings, \
             which needs no allocator; see also `memtrace doctor --pid {tgid}`",
            process.comm
        )))
    }

    /// A process replaced its image (R15): the old one's figures are final.
    pub(super) fn exec(
        &mut self,
        tgid: Tgid,
        old: SpaceId,
        new: SpaceId,
    ) -> Result<(), SessionError> {
        if self.follow.shared {
            return self.exec_shared(tgid, old, new);
        }
        let Some(index) = self.traced.iter().position(|t| t.tgid == tgid) else {
            return Ok(());
        };
        if self.traced.get(index).is_some_and(|t| t.image.space == new) {
            // Seen already, before its event was read.
            return Ok(());
        }
        // A child that only waited has no figures; its program may be over soon.
        if !self.traced.get(index).is_some_and(|t| t.launching) {
            self.collect_final(old)?;
        }
        let Some(traced) = self.traced.get_mut(index) else {
            return Ok(());
        };
        let process = self.proc.read(tgid);
        let mut image = Image {
            space: new,
            family: new,
            ..traced.image.clone()
        };
        if let Ok(process) = &process {
            image.comm.clone_from(&process.comm);
            image.exe = process.exe_text();
            image.rss_at_attach = process.rss_bytes;
            image.rss = process.rss_bytes;
        }
        // Only the thread that execs goes on, as the first one. If probes hung on another, its end
        // was announced before.
        traced.anchor = tgid;
        let text_slot = traced.text_slot;
        let before = std::mem::replace(&mut traced.image, image);
        traced.mappings_seen = 0;
        traced.modules.clear();
        traced.mapping_announced();
        if !std::mem::take(&mut traced.launching) {
            self.keep_ended(Ended {
                image: before,
                state: ProcessState::Exec,
                cpu_ns: 0,
                hidden: false,
            });
        }
        if self.kernel.target(tgid).is_some_and(|t| t.anchor != tgid.0) {
            let target = Target {
                space: new.0,
                image: new.0,
                threads: THREADS_UNKNOWN,
                text_slot,
                borrowed: 0,
                anchor: tgid.0,
                pad: 0,
            };
            self.kernel.add_target(tgid, target)?;
        }
        self.refresh(tgid)
    }

    /// Finds processes that have ended and keeps their last state.
    pub(super) fn reap(&mut self) -> Result<(), SessionError> {
        let mut index = 0;
        while let Some(traced) = self.traced.get(index) {
            if !traced.has_ended() {
                index += 1;
                continue;
            }
            let (tgid, space) = (traced.tgid, traced.image.space);
            // What it sent before its end is still in the ring buffer.
            self.catch_up_with_events()?;
            self.tell_exit(tgid, space);
            if self.follow.shared {
                // The kernel side may have made a target of the next one with this pid.
                self.kernel.remove_target_of(tgid, space)?;
                self.ended(tgid, space, false);
                continue;
            }
            self.collect_final(space)?;
            self.kernel.remove_target(tgid)?;
            let state = match self.oom.has_killed(space) {
                true => ProcessState::OomKilled,
                false => ProcessState::Exited,
            };
            let traced = self.traced.swap_remove(index);
            // As long as nobody has waited for it, what it used is still written there.
            let cpu_ns = match self.proc.read(tgid) {
                Ok(process) if process.start_ticks == traced.start_ticks => process.cpu_time_ns,
                _ => traced.cpu_ns,
            };
            self.keep_ended(Ended {
                image: traced.image,
                state,
                cpu_ns,
                hidden: false,
            });
        }
        Ok(())
    }

    /// Keeps what reports say of a process that is gone. One that execs for ever must not fill the
    /// memory: the oldest images go, their CPU time stays in the sum.
    pub(super) fn keep_ended(&mut self, ended: Ended) {
        if self.follow.shared {
            if self.ended.len() >= MAX_ENDED_SHARED {
                self.fold_ended(MAX_ENDED_SHARED / 2);
            }
        } else if self.ended.len() >= MAX_ENDED {
            let oldest = self.ended.remove(0);
            self.images_dropped += 1;
            self.cpu_ns_dropped += oldest.cpu_ns;
            self.forget_accounts(oldest.image.space);
            self.unwinder.remove_space(oldest.image.space);
            self.mixed.retain(|(space, _)| *space != oldest.image.space);
        }
        self.ended.push(ended);
    }

    /// Catches up with what a full ring buffer lost: an exec, a new mapping.
    pub(super) fn catch_up(&mut self) -> Result<(), SessionError> {
        let missed = self.kernel.missed();
        let lost = self.kernel.counters()?.get(Counter::EventLost) + missed.lives + missed.mappings;
        if self.follow.shared {
            // Its processes announce their mappings, and what was lost is looked for otherwise.
            return self.find_lost(lost);
        }
        let lost_some = std::mem::replace(&mut self.follow.events_lost, lost) != lost;
        let mut execs = Vec::new();
        for traced in &mut self.traced {
            if lost_some || self.kernel.text_generation(traced.text_slot)? != traced.generation_seen
            {
                traced.mapping_missed();
            }
            let target = self.kernel.target(traced.tgid);
            let new = target.map(|target| SpaceId(target.space));
            if let Some(new) = new.filter(|new| *new != traced.image.space) {
                execs.push((traced.tgid, traced.image.space, new));
            }
        }
        for (tgid, old, new) in execs {
            self.exec(tgid, old, new)?;
        }
        Ok(())
    }

    /// Reads again what /proc says of every process that lives.
    pub(super) fn update_processes(&mut self) {
        let shared = self.follow.shared;
        for traced in &mut self.traced {
            match self.proc.read(traced.tgid) {
                Ok(process)
                    if process.start_ticks == traced.start_ticks || traced.start_ticks == 0 =>
                {
                    let rss = if traced.anchor == traced.tgid {
                        process.rss_bytes
                    } else {
                        anchor::rss_bytes(&self.proc, traced.anchor)
                    };
                    traced.image.rss = rss.or(traced.image.rss);
                    traced.cpu_ns = process.cpu_time_ns
                        + if shared {
                            process.children_cpu_time_ns
                        } else {
                            0
                        };
                    traced.image.comm = process.comm;
                    update_memory(&self.proc, traced);
                }
                // Ended, or about to: its last figures stand.
                _ => {}
            }
        }
    }
}

/// Limit, usage and container of a process that lives; one that has just ended keeps the last.
fn update_memory(proc: &ProcFs, traced: &mut Traced) {
    let memory = limits::read(proc, Path::new("/"), traced.tgid);
    if memory.group.is_some() {
        traced.image.memory = memory;
    }
    if let Some(container) = Identity::of_process(proc, traced.tgid) {
        traced.image.container = Some(container);
    }
}

fn pidfd(tgid: Tgid) -> Result<OwnedFd, SessionError> {
    let gone = || SessionError::Process(ProcessError::NotFound { tgid });
    let pid = i32::try_from(tgid.0)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(gone)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
        rustix::io::Errno::SRCH => gone(),
        errno => SessionError::System {
            what: "pidfd_open",
            source: errno.into(),
        },
    })
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    ends_within(pidfd, Duration::ZERO)
}

/// Waits for a process's end, below a second.
pub(super) fn ends_within(pidfd: &OwnedFd, time: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    matches!(poll(&mut fds, Some(&time)), Ok(count) if count > 0)
}
