//! Processes that become targets by themselves: children of targets, and those that are selected by
//! name, cgroup or container.
//!
//! Their probes are those of the file, for every process that maps it, and the kernel side tells
//! targets from others: a child is a target before it runs, so that none of its calls is missed.
//! Forked processes share what they have in common, the *family*: call paths, their stacks and the
//! text table are learnt once. What ended processes held is kept process by process for the last
//! ones and summed by program for the others.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use memtrace_common::{
    Selection,
    heap::{FOLLOW_ALL, FOLLOW_EXEC, FOLLOW_FORK, WATCH_EXEC},
};

use super::{
    Session, SessionError,
    collect::{Attribution, Found, is_of_heap, totals},
    limits,
    process::{Ended, Image, Traced},
};
use crate::{
    id::{SpaceId, Tgid},
    ledger::Row,
    report::model::ProcessState,
    target::{container::Identity, maps::Mapping, select::Selector},
};

/// Ended processes that are waited for before the tables are read: one walk serves many.
const MAX_WAITING: usize = 512;
/// And how long the first of them waits.
const WAIT: Duration = Duration::from_millis(100);
/// Blocks of ended processes may take this share of the table of live blocks.
const DEAD_SHARE: u64 = 8;
/// Programs whose ended processes are summed apart; those of others are summed together.
const MAX_SUMS: usize = 128;
/// Mappings remembered of one text table.
const MAX_MAPPINGS: usize = 16_384;
/// Space ids of sums: no pid is so large.
const SUMS: u64 = 1 << 62;
const OTHERS: &str = "(other programs)";

/// Which processes the kernel side makes targets, for what the user asked for.
pub(super) fn selection(follow: bool, selector: Option<&Selector>) -> Selection {
    let by_selector = match selector {
        None if !follow => return Selection::default(),
        None => FOLLOW_EXEC,
        Some(Selector::Comm(_)) if !follow => 0,
        Some(Selector::Comm(_)) => FOLLOW_EXEC,
        Some(Selector::Cgroup(_) | Selector::Container(_)) => FOLLOW_EXEC | WATCH_EXEC,
        Some(Selector::All) => FOLLOW_EXEC | FOLLOW_ALL,
    };
    Selection {
        modes: FOLLOW_FORK | by_selector,
        comm: selector.map_or([0; 2], Selector::comm_words),
    }
}

/// A text table and the mappings it was made of: those of all processes of the family.
#[derive(Debug, Default)]
struct Slot {
    number: u32,
    mappings: Vec<Mapping>,
    known: HashSet<(u64, u64)>,
}

/// What ended processes of one program held.
pub(super) struct Sum {
    pub image: Image,
}

/// See the module.
#[derive(Default)]
pub(super) struct Follow {
    /// Probes are those of files, targets are told apart by the kernel side.
    pub shared: bool,
    slots: HashMap<SpaceId, Slot>,
    free_slots: Vec<u32>,
    /// Processes of a family that live, or whose last figures were not read yet.
    members: HashMap<SpaceId, usize>,
    /// Families of the spaces that are not their own.
    families: HashMap<SpaceId, SpaceId>,
    unused: HashSet<SpaceId>,
    waiting: Vec<Ended>,
    waiting_since: Option<Instant>,
    dead: HashSet<SpaceId>,
    dead_objects: u64,
    pub sums: Vec<Sum>,
    sums_made: u64,
    /// Spaces in the kernel's tables that nobody knows, seen at the last report.
    strangers: HashSet<SpaceId>,
    /// Lifecycle events that were lost at the last look.
    pub events_lost: u64,
    /// Families that found no text table: their call paths are told apart by more than code.
    pub without_slot: u64,
    /// Processes that were over before their mappings could be read.
    pub unread: u64,
}

impl Follow {
    /// `slots` text tables can be given out.
    pub fn new(shared: bool, slots: u32) -> Self {
        Self {
            shared,
            free_slots: (0..slots).rev().collect(),
            ..Self::default()
        }
    }

    /// The family of an address space.
    pub fn family(&self, space: SpaceId) -> SpaceId {
        self.families.get(&space).copied().unwrap_or(space)
    }

    /// A process joins a family; the text table of that, when there is room.
    pub fn join(&mut self, space: SpaceId, family: SpaceId) -> Option<u32> {
        if space != family {
            self.families.insert(space, family);
        }
        *self.members.entry(family).or_default() += 1;
        self.unused.remove(&family);
        if let Some(slot) = self.slots.get(&family) {
            return Some(slot.number);
        }
        let Some(number) = self.free_slots.pop() else {
            self.without_slot += 1;
            return None;
        };
        let slot = Slot {
            number,
            ..Slot::default()
        };
        self.slots.insert(family, slot);
        Some(number)
    }

    /// A process's last figures are read.
    pub fn leave(&mut self, space: SpaceId) {
        let family = self.families.remove(&space).unwrap_or(space);
        let Some(members) = self.members.get_mut(&family) else {
            return;
        };
        *members -= 1;
        if *members > 0 {
            return;
        }
        self.members.remove(&family);
        self.unused.insert(family);
        if let Some(slot) = self.slots.remove(&family) {
            self.free_slots.push(slot.number);
        }
    }

    /// The mappings of all processes of a family with these of one of them: a word that is code in
    /// any of them counts as code in all.
    pub fn with_others<'a>(&'a mut self, family: SpaceId, own: &'a [Mapping]) -> &'a [Mapping] {
        if self.members.get(&family).is_none_or(|many| *many <= 1) {
            // Alone: what it unmapped is forgotten.
            if let Some(slot) = self.slots.get_mut(&family) {
                slot.mappings.clear();
                slot.known.clear();
            }
        }
        let Some(slot) = self.slots.get_mut(&family) else {
            return own;
        };
        let wanted = |m: &&Mapping| m.permissions.execute || (m.is_file() && !m.permissions.write);
        for mapping in own.iter().filter(wanted) {
            if slot.mappings.len() < MAX_MAPPINGS && slot.known.insert((mapping.start, mapping.end))
            {
                slot.mappings.push(mapping.clone());
            }
        }
        &slot.mappings
    }

    /// Whether the process with this space has ended and waits for its last figures to be read.
    fn waits(&self, space: SpaceId) -> bool {
        self.waiting.iter().any(|ended| ended.image.space == space)
    }

    /// When the tables have to be read for ended processes.
    pub fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + WAIT)
    }

    /// Bytes of text tables are few: that many families can live at once.
    pub const SLOTS: u32 = 512;
}

impl Session {
    /// A target has forked: the child begins with its parent's mappings and an empty heap (R13).
    pub(super) fn forked(&mut self, child: Tgid, space: SpaceId, parent_space: SpaceId) {
        if self.is_known(space) {
            return;
        }
        let parent = self.traced.iter().find(|t| t.image.space == parent_space);
        let waiting = || {
            let mut all = self.follow.waiting.iter();
            all.find(|ended| ended.image.space == parent_space)
        };
        let (image, mappings_seen) = match (parent, waiting()) {
            (Some(parent), _) => (&parent.image, parent.mappings_seen),
            (None, Some(ended)) => (&ended.image, 0),
            (None, None) => return self.adopt(child, space),
        };
        let image = Image {
            tgid: child,
            space,
            rss_at_attach: None,
            rss: None,
            coverage: Vec::new(),
            ..image.clone()
        };
        if !self.unwinder.knows(space) {
            // The parent's were read only now.
            self.unwinder.fork_space(parent_space, space);
        }
        let slot = self.follow.join(space, image.family);
        let mut traced = Traced::followed(image, slot);
        traced.mappings_seen = mappings_seen;
        self.traced.push(traced);
    }

    fn is_known(&self, space: SpaceId) -> bool {
        self.traced.iter().any(|t| t.image.space == space) || self.follow.waits(space)
    }

    /// A target that user space has not heard of before.
    pub(super) fn adopt(&mut self, tgid: Tgid, space: SpaceId) {
        if self.is_known(space) {
            return;
        }
        let family = self
            .kernel
            .target(tgid)
            .filter(|target| target.space == space.0)
            .map_or(space, |target| SpaceId(target.image));
        let mut image = Image::unknown(tgid, space, family);
        if let Ok(process) = self.proc.read(tgid) {
            image.exe = process.exe_text();
            image.rss = process.rss_bytes;
            image.comm = process.comm;
            image.container = Identity::of_process(&self.proc, tgid);
            image.memory = limits::read(&self.proc, Path::new("/"), tgid);
        }
        let slot = self.follow.join(space, family);
        if let Some(slot) = slot
            && let Err(error) = self.kernel.set_slot(family, slot)
        {
            self.notices.push(error.to_string());
        }
        self.traced.push(Traced::followed(image, slot));
    }

    /// A program began in a process that shares its probes with others.
    pub(super) fn exec_shared(
        &mut self,
        tgid: Tgid,
        old: SpaceId,
        new: SpaceId,
    ) -> Result<(), SessionError> {
        if self.is_known(new) {
            return Ok(());
        }
        if let Some(index) = self.traced.iter().position(|t| t.image.space == old) {
            let traced = self.traced.swap_remove(index);
            let before = self.wait_for_figures(&traced, ProcessState::Exec, traced.cpu_ns);
            let comm = before.then(|| traced.image.comm.clone());
            self.adopt(tgid, new);
            if let Some(begun) = self.traced.iter_mut().find(|t| t.image.space == new) {
                begun.pidfd = traced.pidfd;
                begun.start_ticks = traced.start_ticks;
                begun.cpu_ns = traced.cpu_ns;
                if begun.image.comm.is_empty() {
                    begun.image.comm = comm.unwrap_or_default();
                }
                if begun.image.container.is_none() {
                    begun.image.container = traced.image.container;
                    begun.image.memory = traced.image.memory;
                }
            }
        } else {
            self.adopt(tgid, new);
        }
        if let Some(begun) = self.traced.iter_mut().find(|t| t.image.space == new) {
            begun.mapping_announced();
        }
        self.refresh(tgid)?;
        if !self.unwinder.knows(new) {
            self.follow.unread += 1;
        }
        Ok(())
    }

    /// The last thread of a target has ended, or it is no target any more.
    pub(super) fn ended(&mut self, tgid: Tgid, space: SpaceId, by_exec: bool) {
        let state = if by_exec {
            ProcessState::Exec
        } else if self.oom.has_killed(space) {
            ProcessState::OomKilled
        } else {
            ProcessState::Exited
        };
        let Some(index) = self.traced.iter().position(|t| t.image.space == space) else {
            // Said twice, or its beginning was lost: see `find_lost`.
            return;
        };
        let traced = self.traced.swap_remove(index);
        // Time of a child that was waited for is its parent's then.
        let cpu_ns = match (&traced.pidfd, self.proc.read(tgid)) {
            (None, _) => 0,
            (_, Ok(process)) if process.start_ticks == traced.start_ticks => {
                process.cpu_time_ns + process.children_cpu_time_ns
            }
            _ => traced.cpu_ns,
        };
        self.wait_for_figures(&traced, state, cpu_ns);
    }

    /// Keeps an ended process until the tables are read. False for what never ran a program.
    fn wait_for_figures(&mut self, traced: &Traced, state: ProcessState, cpu_ns: u64) -> bool {
        let cpu_ns = if state == ProcessState::Exec {
            0
        } else {
            cpu_ns
        };
        self.follow.waiting_since.get_or_insert_with(Instant::now);
        self.follow.waiting.push(Ended {
            image: traced.image.clone(),
            state,
            cpu_ns,
            hidden: traced.launching,
        });
        !traced.launching
    }

    /// Reads the last figures of ended processes, many at once; `all`: now.
    pub(super) fn settle(&mut self, all: bool) -> Result<(), SessionError> {
        let now = Instant::now();
        let due = self.follow.due().is_some_and(|due| due <= now)
            || self.follow.waiting.len() >= MAX_WAITING;
        if self.follow.waiting.is_empty() || !(all || due) {
            return Ok(());
        }
        self.follow.waiting_since = None;
        let waiting = std::mem::take(&mut self.follow.waiting);
        let spaces: HashSet<_> = waiting.iter().map(|ended| ended.image.space).collect();
        // Ages are only read when somebody asks for blocks by age: the walk is long.
        let found = match self.options.older {
            Some(_) => Some(self.walk_live(Duration::ZERO)?),
            None => None,
        };
        let rows = self.rows_of(&spaces, found.as_ref())?;
        let at = self.started.elapsed();
        self.ledger.end_all(at, &spaces, rows);
        self.end_memory(at, &spaces);
        self.follow.dead.extend(&spaces);
        let room = u64::from(self.options.kernel.live_entries);
        if all || self.follow.dead_objects > room / DEAD_SHARE {
            self.bury()?;
        }
        for ended in waiting {
            self.follow.leave(ended.image.space);
            if ended.hidden {
                self.forget_accounts(ended.image.space);
                self.unwinder.remove_space(ended.image.space);
            } else {
                self.keep_ended(ended);
            }
        }
        self.forget_families()
    }

    /// Removes the blocks of ended processes from the kernel's table.
    fn bury(&mut self) -> Result<(), SessionError> {
        let dead = std::mem::take(&mut self.follow.dead);
        if self.follow.dead_objects > 0 {
            self.kernel.forget_blocks(&dead)?;
        }
        self.follow.dead_objects = 0;
        Ok(())
    }

    fn rows_of(
        &mut self,
        spaces: &HashSet<SpaceId>,
        found: Option<&Found>,
    ) -> Result<Vec<Row>, SessionError> {
        let mut rows = Vec::new();
        let Self {
            kernel,
            contexts,
            stacks,
            mixed,
            follow,
            ..
        } = self;
        let mut attribution = Attribution {
            contexts,
            stacks,
            mixed,
            found,
        };
        kernel.take_contexts(spaces, |key, context| {
            if !is_of_heap(key) {
                return;
            }
            follow.dead_objects += totals(&context)
                .outstanding_objects_q16()
                .div_ceil(memtrace_common::ONE_OBJECT);
            rows.extend(attribution.row(follow, key, &context));
        })?;
        Ok(rows)
    }

    /// Forgets what belongs to families without a process.
    fn forget_families(&mut self) -> Result<(), SessionError> {
        if self.follow.unused.is_empty() {
            return Ok(());
        }
        let unused = std::mem::take(&mut self.follow.unused);
        self.kernel.forget_images(&unused)?;
        self.contexts.forget_all(&unused);
        Ok(())
    }

    /// Adds the oldest ended processes to the sums of their programs.
    pub(super) fn fold_ended(&mut self, count: usize) {
        let oldest: Vec<Ended> = self.ended.drain(..count.min(self.ended.len())).collect();
        let mut into = HashMap::new();
        for ended in &oldest {
            self.cpu_ns_dropped += ended.cpu_ns;
            into.insert(ended.image.space, self.sum_for(ended));
        }
        let Self {
            ledger,
            unwinder,
            stacks,
            mixed,
            regions,
            faults,
            ..
        } = self;
        let at = self.started.elapsed();
        let mut translate = |space: SpaceId, id| {
            let to = into.get(&space).copied().unwrap_or(space);
            let Some(stack) = stacks.get(id).cloned() else {
                return id;
            };
            let translated = unwinder.translate(space, to, &stack);
            let new = stacks.intern(&translated).unwrap_or(id);
            if mixed.remove(&(space, id)) {
                mixed.insert((to, new));
            }
            new
        };
        ledger.fold(at, &into, &mut translate);
        faults.ledger_mut().fold(at, &into, &mut translate);
        for ledger in regions.ledgers_mut() {
            ledger.fold(at, &into, &mut translate);
        }
        if let Some(whole) = regions.whole_mut() {
            whole.fold(at, &into, |_, id| id);
        }
        for space in into.keys() {
            self.reconciled.forget(*space);
            self.unwinder.remove_space(*space);
        }
        self.mixed.retain(|(space, _)| !into.contains_key(space));
        self.forget_stacks();
    }

    /// The sum that an ended process belongs to: that of its program in its container.
    fn sum_for(&mut self, ended: &Ended) -> SpaceId {
        let of = &ended.image;
        let alike = |sum: &&mut Sum| sum.image.exe == of.exe && sum.image.container == of.container;
        if let Some(sum) = self.follow.sums.iter_mut().find(alike) {
            sum.image.processes += of.processes;
            return sum.image.space;
        }
        if self.follow.sums.len() >= MAX_SUMS
            && let Some(last) = self.follow.sums.last_mut()
        {
            OTHERS.clone_into(&mut last.image.exe);
            OTHERS.clone_into(&mut last.image.comm);
            last.image.container = None;
            last.image.processes += of.processes;
            return last.image.space;
        }
        self.follow.sums_made += 1;
        let space = SpaceId(SUMS | self.follow.sums_made);
        self.unwinder.fork_space(of.space, space);
        let image = Image {
            space,
            family: space,
            ..of.clone()
        };
        self.follow.sums.push(Sum { image });
        space
    }

    /// Drops the accounts of an address space.
    pub(super) fn forget_accounts(&mut self, space: SpaceId) {
        self.ledger.forget(space);
        self.faults.ledger_mut().forget(space);
        let ledgers = self.regions.ledgers_mut();
        ledgers.for_each(|ledger| ledger.forget(space));
        if let Some(whole) = self.regions.whole_mut() {
            whole.forget(space);
        }
        self.reconciled.forget(space);
    }

    /// Makes room for stacks, when the table fills, by those that nothing refers to.
    fn forget_stacks(&mut self) {
        if self.stacks.is_crowded() {
            let mut wanted = self.ledger.stack_ids();
            wanted.extend(self.regions.stack_ids());
            wanted.extend(self.faults.ledger().stack_ids());
            wanted.extend(self.contexts.stack_ids());
            self.stacks.retain(|id| wanted.contains(&id));
            self.forget_call_paths();
        }
    }

    /// Finds targets that a full ring buffer kept from user space, and figures of processes that
    /// nobody knows: they have ended unseen.
    pub(super) fn find_lost(&mut self, lost: u64) -> Result<(), SessionError> {
        let lost_none = std::mem::replace(&mut self.follow.events_lost, lost) == lost;
        if lost_none && self.follow.strangers.is_empty() {
            return Ok(());
        }
        if !lost_none {
            self.traced.iter_mut().for_each(Traced::mapping_missed);
        }
        let mut targets = HashMap::new();
        self.kernel.walk_targets(|tgid, target| {
            if target.borrowed == 0 {
                targets.insert(SpaceId(target.space), tgid);
            }
        })?;
        for (space, tgid) in &targets {
            self.adopt(*tgid, *space);
        }
        let gone: Vec<_> = self
            .traced
            .iter()
            .filter(|t| !targets.contains_key(&t.image.space) && t.pidfd.is_none())
            .map(|t| (t.tgid, t.image.space))
            .collect();
        for (tgid, space) in gone {
            self.ended(tgid, space, false);
        }
        let mut strangers = HashSet::new();
        self.kernel.walk_contexts(|key, _| {
            strangers.insert(SpaceId(key.space));
        })?;
        strangers.retain(|space| !targets.contains_key(space) && !self.is_known(*space));
        // Twice: one may have begun, or ended, between the two walks.
        for space in strangers.intersection(&self.follow.strangers.clone()) {
            let tgid = Tgid(u32::try_from(space.0 >> 32).unwrap_or(0));
            self.adopt(tgid, *space);
            self.ended(tgid, *space, false);
        }
        self.follow.strangers = strangers;
        Ok(())
    }
}
