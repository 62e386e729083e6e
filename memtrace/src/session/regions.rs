//! Mappings of the traced processes: from system calls to accounts by call path and kind (R18–R21).

use std::{
    collections::{HashMap, HashSet},
    fs,
    time::Duration,
};

use super::{Session, SessionError, collect::monotonic_ns};
use crate::{
    id::{Fingerprint, SpaceId, StackId, Tgid},
    ledger::{
        Account, Dropped, Ledger, LedgerOptions, Row, StackAccount, Survivors, Totals,
        regions::{Backing, Change, Region, RegionKey, RegionKind, Regions, RegionsDropped},
    },
    probe::{ProbeError, RegionHook, calibrate_memory},
    target::maps::{Mapping, Maps},
};

/// Address spaces whose mappings are followed at once.
const MAX_SPACES: usize = 1024;

/// What is known of mappings.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    spaces: HashMap<SpaceId, Regions>,
    ledgers: HashMap<RegionKind, Ledger>,
    /// Sums of a process over all probes, where there is more than the heap's.
    whole: Option<Ledger>,
    hook: Option<RegionHook>,
    /// What the caps cost in spaces that have ended.
    dropped: RegionsDropped,
    spaces_refused: u64,
}

impl Accounts {
    /// Changes of mappings are followed.
    pub fn are_on(&self) -> bool {
        self.hook.is_some()
    }

    /// Takes a system call.
    pub fn take(&mut self, space: SpaceId, change: &Change) {
        if !self.spaces.contains_key(&space) && self.spaces.len() >= MAX_SPACES {
            self.spaces_refused += 1;
            return;
        }
        let regions = self.spaces.entry(space).or_insert_with(new_regions);
        regions.apply(change);
    }

    /// A process begins with the mappings of another.
    pub fn fork(&mut self, parent: SpaceId, child: SpaceId) {
        let Some(parent) = self.spaces.get(&parent) else {
            return;
        };
        let forked = parent.forked();
        if self.spaces.len() < MAX_SPACES {
            self.spaces.entry(child).or_insert(forked);
        }
    }

    /// Every ledger: of the kinds, and of the sums of processes.
    pub fn ledgers_mut(&mut self) -> impl Iterator<Item = &mut Ledger> {
        self.ledgers.values_mut()
    }

    /// Sums of processes, to be changed.
    pub fn whole_mut(&mut self) -> Option<&mut Ledger> {
        self.whole.as_mut()
    }

    /// Stacks that have an account.
    pub fn stack_ids(&self) -> impl Iterator<Item = StackId> {
        self.ledgers.values().flat_map(Ledger::stack_ids)
    }

    /// Bytes of regions of some kinds, made since the attach, in a range.
    pub fn bytes_within(&self, space: SpaceId, start: u64, end: u64, wanted: &[RegionKind]) -> u64 {
        let Some(regions) = self.spaces.get(&space) else {
            return 0;
        };
        let mine = |region: &Region| region.owner.is_some() && wanted.contains(&region.kind());
        let within = regions.within(start, end).into_iter();
        within
            .filter(|piece| mine(&piece.value))
            .map(|piece| piece.len())
            .sum()
    }

    /// What the caps of the spaces cost.
    pub fn dropped(&self) -> RegionsDropped {
        let mut sum = self.dropped;
        let living = self.spaces.values().map(Regions::dropped);
        living.for_each(|dropped| sum += dropped);
        sum
    }

    /// What the caps of the accounts cost, those of the sums too.
    pub fn accounts_dropped(&self) -> Dropped {
        let mut sum = Dropped::default();
        let ledgers = self.ledgers.values().chain(&self.whole);
        ledgers.for_each(|ledger| sum += ledger.dropped());
        sum
    }

    /// System calls of address spaces beyond the limit.
    pub fn refused(&self) -> u64 {
        self.spaces_refused
    }

    /// The accounts with their kinds.
    pub fn stacks(&self) -> impl Iterator<Item = (RegionKind, StackAccount<'_>)> {
        self.ledgers.iter().flat_map(|(kind, ledger)| {
            let stacks = ledger.stacks(crate::ledger::Rank::Outstanding);
            stacks.into_iter().map(|stack| (*kind, stack))
        })
    }

    /// One call path's account of one kind.
    pub fn stack(&self, kind: RegionKind, space: SpaceId, stack: StackId) -> Option<&Account> {
        self.ledgers.get(&kind)?.stack(space, stack)
    }

    /// Sums of processes, when the heap is not all there is.
    pub fn whole(&self) -> Option<&Ledger> {
        self.whole.as_ref()
    }
}

fn new_regions() -> Regions {
    Regions::new(rustix::param::page_size() as u64)
}

impl Session {
    /// Attaches to what the options ask for besides allocators.
    pub(super) fn attach_memory(&mut self) -> Result<(), SessionError> {
        let probes = self.options.probes;
        if probes.region {
            self.regions.hook = Some(
                self.kernel
                    .attach_regions()
                    .map_err(ProbeError::unsupported("region"))?,
            );
        } else if probes.fault {
            // Without it moved pages are found by the page tables only.
            let _ = self.kernel.attach_regions_cheaply();
        }
        self.attach_faults()?;
        if self.regions.hook == Some(RegionHook::EveryCall) {
            self.notices.push(
                "this kernel does not let its system calls be probed one by one: every system call \
                 of the machine gets some 60 ns slower while regions are traced"
                    .into(),
            );
        }
        if probes.region || probes.fault {
            let costs = calibrate_memory(&mut self.kernel)?;
            (self.costs.region_ns, self.costs.fault_ns) = (costs.region_ns, costs.fault_ns);
        }
        Ok(())
    }

    /// Draws the line (R21): what is mapped now is nobody's.
    pub(super) fn begin_regions(&mut self, tgid: Tgid, space: SpaceId) {
        if self.regions.hook.is_none() {
            return;
        }
        let line_ns = monotonic_ns();
        let Ok(maps) = Maps::read(&self.proc, tgid) else {
            return;
        };
        let heap = maps.mappings.iter().find(|m| m.path_text() == "[heap]");
        let brk_end = match heap {
            Some(heap) => Some(heap.end),
            None => self.start_of_brk(tgid),
        };
        let known = maps.mappings.iter().map(|mapping| {
            let accessible = mapping.permissions.read
                || mapping.permissions.write
                || mapping.permissions.execute;
            (mapping.start, mapping.end, backing(mapping), accessible)
        });
        let mut regions = new_regions();
        regions.begin(line_ns, brk_end, known);
        // Above the limit its calls are refused, and counted.
        if self.regions.spaces.len() < MAX_SPACES {
            self.regions.spaces.insert(space, regions);
        }
    }

    /// Where the heap of a process begins that has none yet.
    fn start_of_brk(&self, tgid: Tgid) -> Option<u64> {
        const FIELD_BEHIND_COMM: usize = 44;
        let stat = fs::read_to_string(self.proc.process(tgid).join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let start: u64 = fields
            .split_ascii_whitespace()
            .nth(FIELD_BEHIND_COMM)?
            .parse()
            .ok()?;
        (start > 0).then_some(start)
    }

    /// Brings the accounts of regions up to date; ages are as of `now_ns`.
    pub(super) fn collect_regions(&mut self, at: Duration, now_ns: u64) {
        self.update_regions(at, now_ns, None);
    }

    /// The last accounts of processes that are gone: their pages cannot be asked for any more.
    pub(super) fn end_memory(&mut self, at: Duration, ended: &HashSet<SpaceId>) {
        self.end_faults(at, ended);
        self.update_regions(at, monotonic_ns(), Some(ended));
    }

    fn update_regions(&mut self, at: Duration, now_ns: u64, ended: Option<&HashSet<SpaceId>>) {
        if self.regions.hook.is_none() {
            if self.options.probes.fault {
                self.collect_whole(at, ended);
            }
            return;
        }
        let mut rows: HashMap<RegionKind, Vec<Row>> = HashMap::new();
        let ages = self.ages(now_ns);
        let Self {
            regions: Accounts {
                spaces, ledgers, ..
            },
            contexts,
            stacks,
            follow,
            ..
        } = self;
        for (space, regions) in spaces
            .iter()
            .filter(|(space, _)| ended.is_none_or(|ended| ended.contains(space)))
        {
            let family = follow.family(*space);
            let survivors = regions.survivors(ages);
            for (key @ (owner, kind), totals) in regions.totals() {
                let Some(stack) = contexts.stack(family, owner, stacks) else {
                    continue;
                };
                let row = row(*space, stack, key, totals, &survivors);
                rows.entry(kind).or_default().push(row);
            }
        }
        for kind in RegionKind::ALL {
            let ledger = ledgers
                .entry(kind)
                .or_insert_with(|| Ledger::new(LedgerOptions::default()));
            let rows = rows.remove(&kind).unwrap_or_default();
            match ended {
                None => ledger.observe(at, rows),
                Some(ended) => ledger.end_all(at, ended, rows),
            }
        }
        for space in ended.into_iter().flatten() {
            if let Some(gone) = self.regions.spaces.remove(space) {
                self.regions.dropped += gone.dropped();
            }
        }
        self.collect_whole(at, ended);
    }

    /// Sums over the probes: the heap, and what of the address space is in use besides.
    fn collect_whole(&mut self, at: Duration, ended: Option<&HashSet<SpaceId>>) {
        let mut sums: HashMap<SpaceId, (Totals, Option<Survivors>)> = HashMap::new();
        let in_use = [RegionKind::Anonymous, RegionKind::Shared];
        let probes = self.options.probes;
        let ledgers = in_use
            .iter()
            .filter_map(|kind| self.regions.ledgers.get(kind));
        // Resident pages are the same memory again: they are the sum only where they are alone.
        let pages = (!probes.heap && !probes.region).then(|| self.faults.ledger());
        for ledger in ledgers.chain([&self.ledger]).chain(pages) {
            for space in ledger.spaces() {
                let account = space.account;
                let (totals, survivors) = sums.entry(space.space).or_default();
                *totals += account.totals();
                if let Some(found) = account.survivors() {
                    *survivors.get_or_insert_default() += found;
                }
            }
        }
        let rows = sums.into_iter().map(|(space, (totals, survivors))| Row {
            space,
            stack: StackId(0),
            context: None,
            totals,
            survivors,
        });
        let whole = self
            .regions
            .whole
            .get_or_insert_with(|| Ledger::new(LedgerOptions::default()));
        match ended {
            None => whole.observe(at, rows),
            Some(ended) => whole.end_all(at, ended, rows),
        }
    }
}

fn row(
    space: SpaceId,
    stack: StackId,
    key: RegionKey,
    totals: Totals,
    survivors: &HashMap<RegionKey, Survivors>,
) -> Row {
    let (owner, _): (Fingerprint, _) = key;
    Row {
        space,
        stack,
        context: Some(owner),
        totals,
        survivors: Some(survivors.get(&key).copied().unwrap_or_default()),
    }
}

fn backing(mapping: &Mapping) -> Backing {
    if mapping.is_file() {
        Backing::File
    } else if mapping.permissions.shared {
        Backing::Shared
    } else {
        Backing::Anonymous
    }
}
