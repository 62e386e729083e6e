//! Page faults of the traced processes: to resident bytes by call path.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use memtrace_common::{
    FaultEvent,
    events::{FAULT_PRESENT, FAULT_WRITE},
};

use super::{Session, SessionError, collect::monotonic_ns};
use crate::{
    id::{Fingerprint, SpaceId, Tgid},
    ledger::{
        Ledger, LedgerOptions, Rank, Row, StackAccount,
        faults::{Faults, FaultsDropped},
        regions::Change,
    },
    probe::{FaultHook, ProbeError},
    target::pagemap::{self, Resident},
};

/// Address spaces whose pages are followed at once.
const MAX_SPACES: usize = 1024;
/// Reading page tables may take this share of the time.
const CHECK_SHARE: u32 = 50;

/// What is known of pages.
#[derive(Debug)]
pub(super) struct Accounts {
    spaces: HashMap<SpaceId, Faults>,
    ledger: Ledger,
    hook: Option<FaultHook>,
    last_check: Option<(Instant, Duration)>,
    refused: u64,
    partial: u64,
    /// What the caps cost in spaces that have ended.
    dropped: FaultsDropped,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            spaces: HashMap::new(),
            ledger: Ledger::new(LedgerOptions::default()),
            hook: None,
            last_check: None,
            refused: 0,
            partial: 0,
            dropped: FaultsDropped::default(),
        }
    }
}

impl Accounts {
    /// Takes a fault.
    pub fn take(&mut self, event: &FaultEvent) {
        let space = SpaceId(event.header.space);
        if !self.spaces.contains_key(&space) && self.spaces.len() >= MAX_SPACES {
            self.refused += 1;
            return;
        }
        let faults = self.spaces.entry(space).or_insert_with(new_faults);
        faults.touch(
            event.address,
            Fingerprint(event.context),
            event.flags & FAULT_PRESENT != 0,
            event.flags & FAULT_WRITE != 0,
            event.header.time_ns,
        );
    }

    /// A process begins with the pages of another.
    pub fn fork(&mut self, parent: SpaceId, child: SpaceId) {
        let Some(parent) = self.spaces.get(&parent) else {
            return;
        };
        let forked = parent.forked();
        if self.spaces.len() < MAX_SPACES {
            self.spaces.entry(child).or_insert(forked);
        }
    }

    /// The accounts, to be changed.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Takes a change of the mappings, where those are seen.
    pub fn change(&mut self, space: SpaceId, change: &Change) {
        let Some(faults) = self.spaces.get_mut(&space) else {
            return;
        };
        match *change {
            Change::Unmap {
                start,
                end,
                entered_ns,
                ..
            }
            | Change::Drop {
                start,
                end,
                entered_ns,
                ..
            } => faults.drop_pages(start, end, entered_ns),
            Change::Map { start, end, made } => faults.drop_pages(start, end, made.entered_ns),
            Change::Move {
                old,
                old_end,
                new,
                new_end,
                entered_ns,
                ..
            } => {
                let length = (old_end - old).min(new_end - new);
                faults.relocate(old, length, new, entered_ns);
            }
            Change::Brk { .. } | Change::Protect { .. } => {}
        }
    }

    /// The accounts.
    pub fn stacks(&self) -> Vec<StackAccount<'_>> {
        self.ledger.stacks(Rank::Outstanding)
    }

    /// The accounts by process.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Faults of address spaces beyond the limit.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Times that a process's page tables were too large to be read whole.
    pub fn partial(&self) -> u64 {
        self.partial
    }

    /// What the caps of the spaces cost.
    pub fn dropped(&self) -> FaultsDropped {
        let mut sum = self.dropped;
        let living = self.spaces.values().map(Faults::dropped);
        living.for_each(|dropped| sum += dropped);
        sum
    }

    /// Pages that came with a huge page, in bytes.
    pub fn inferred_bytes(&self) -> u64 {
        self.spaces.values().map(Faults::inferred_bytes).sum()
    }
}

fn new_faults() -> Faults {
    Faults::new(rustix::param::page_size() as u64)
}

impl Session {
    /// Attaches to page faults when they are asked for.
    pub(super) fn attach_faults(&mut self) -> Result<(), SessionError> {
        if !self.options.probes.fault {
            return Ok(());
        }
        let hook = self
            .kernel
            .attach_faults()
            .map_err(ProbeError::unsupported("fault"))?;
        self.faults.hook = Some(hook);
        if !hook.in_system_calls {
            self.notices.push(
                "this kernel (before 5.15) does not tell who called when it touches memory in read \
                 and its like: such pages stand under no stack"
                    .into(),
            );
        }
        Ok(())
    }

    /// Draws the line (R21): what is resident now is nobody's.
    pub(super) fn begin_faults(&mut self, tgid: Tgid, space: SpaceId) {
        if self.faults.hook.is_none() {
            return;
        }
        let mut faults = new_faults();
        if let Ok(resident) = pagemap::resident(&self.proc, tgid) {
            faults.begin(&resident.runs);
            self.faults.partial += u64::from(resident.partial);
        }
        // Above the limit its faults are refused, and counted.
        if self.faults.spaces.len() < MAX_SPACES {
            self.faults.spaces.insert(space, faults);
        }
    }

    /// Brings the accounts of pages up to date: what is resident is asked of the kernel, when that is
    /// not too dear or `must` be. Ages are as of `now_ns`.
    pub(super) fn collect_faults(
        &mut self,
        at: Duration,
        now_ns: u64,
        must: bool,
    ) -> Result<(), SessionError> {
        if self.faults.hook.is_none() {
            return Ok(());
        }
        let last = self.faults.last_check;
        if must || last.is_none_or(|(when, took)| when.elapsed() > took * CHECK_SHARE) {
            let begun = Instant::now();
            self.check_residents()?;
            self.faults.last_check = Some((Instant::now(), begun.elapsed()));
        }
        let rows = self.fault_rows(now_ns, None);
        self.faults.ledger.observe(at, rows);
        Ok(())
    }

    /// The last accounts of processes that are gone.
    pub(super) fn end_faults(&mut self, at: Duration, ended: &HashSet<SpaceId>) {
        if self.faults.hook.is_none() {
            return;
        }
        let rows = self.fault_rows(monotonic_ns(), Some(ended));
        self.faults.ledger.end_all(at, ended, rows);
        for space in ended {
            if let Some(gone) = self.faults.spaces.remove(space) {
                self.faults.dropped += gone.dropped();
            }
        }
    }

    fn check_residents(&mut self) -> Result<(), SessionError> {
        let living: Vec<_> = self
            .traced
            .iter()
            .filter(|t| !t.launching)
            .map(|t| (t.anchor, t.image.space))
            .collect();
        for (anchor, space) in living {
            let asked_ns = monotonic_ns();
            let Ok(Resident { runs, partial, .. }) = pagemap::resident(&self.proc, anchor) else {
                continue;
            };
            // What was touched meanwhile has its event before the pages are looked at.
            while self.handle_events()? {}
            self.faults.partial += u64::from(partial);
            if let Some(faults) = self.faults.spaces.get_mut(&space)
                && !runs.is_empty()
                && !partial
            {
                faults.check(&runs, asked_ns);
            }
        }
        Ok(())
    }

    fn fault_rows(&mut self, now_ns: u64, only: Option<&HashSet<SpaceId>>) -> Vec<Row> {
        let ages = self.ages(now_ns);
        let Self {
            faults,
            contexts,
            stacks,
            follow,
            ..
        } = self;
        let mut rows = Vec::new();
        for (space, pages) in faults
            .spaces
            .iter()
            .filter(|(space, _)| only.is_none_or(|only| only.contains(space)))
        {
            let family = follow.family(*space);
            let survivors = pages.survivors(ages);
            for (owner, totals) in pages.totals() {
                let Some(stack) = contexts.stack(family, owner, stacks) else {
                    continue;
                };
                rows.push(Row {
                    space: *space,
                    stack,
                    context: Some(owner),
                    totals,
                    survivors: Some(survivors.get(&owner).copied().unwrap_or_default()),
                });
            }
        }
        rows
    }
}
