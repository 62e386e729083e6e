//! Resident memory against the accounts (R24): what the kernel says of each mapping, and whose it is.

use std::{
    collections::{HashMap, HashSet},
    fs,
    time::{Duration, Instant},
};

use super::Session;
use crate::{
    id::{SpaceId, Tgid},
    ledger::{
        reconcile::{Known, Mapped, Part, Reconciliation},
        regions::RegionKind,
    },
    target::{
        runtime::{self, Runtime},
        smaps::{self, Resident},
    },
};

/// Reading what is resident may take this share of the time.
const READ_SHARE: u32 = 50;
/// Threads whose stacks are looked for.
const MAX_THREADS: usize = 4096;
/// Arenas of glibc begin at multiples of this, and are no larger.
const ARENA: u64 = 64 << 20;
/// What the kernel places itself, as it does an arena, lies above. Heaps that a runtime places (Go's
/// from 0xc000000000 on, Java's with compressed pointers) lie below.
const LOWEST_ARENA: u64 = 1 << 40;

/// What is known of one process.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// At the attach.
    pub before: Reconciliation,
    /// At the last look.
    pub now: Reconciliation,
    /// What runs in it, when its memory is managed.
    pub runtime: Option<Runtime>,
    /// Of a Python.
    pub version: Option<(u32, u32)>,
    private_at_attach: u64,
    /// Resident memory where a runtime has its heap, at the attach and at the last look.
    managed: (u64, u64),
}

impl Found {
    /// By how much a runtime's heap grew since the attach.
    pub fn managed_growth(&self) -> i64 {
        let (before, now) = self.managed;
        now.cast_signed().saturating_sub(before.cast_signed())
    }
}

/// Private memory that is neither malloc's nor a thread's stack: there a runtime has its heap.
fn managed(parts: &[Part]) -> u64 {
    let outside = parts.iter().filter(|p| p.mapped == Mapped::Anonymous);
    outside.map(|p| p.rss.saturating_sub(p.allocator)).sum()
}

/// Reconciliations of the session's processes.
#[derive(Debug, Default)]
pub(super) struct Reconciled {
    found: HashMap<SpaceId, Found>,
    /// Addresses that have been in a thread's stack.
    stacks: HashMap<SpaceId, HashSet<u64>>,
    /// Go programs: they map no object that tells.
    go: HashSet<SpaceId>,
    last: Option<(Instant, Duration)>,
}

impl Reconciled {
    /// What is known of an address space.
    pub fn get(&self, space: SpaceId) -> Option<&Found> {
        self.found.get(&space)
    }

    /// The program of this space is written in Go.
    pub fn is_go(&mut self, space: SpaceId) {
        self.go.insert(space);
    }

    /// Whether a mapping that begins there is Go's heap: Go takes the stacks of its threads and
    /// goroutines from it, so that a stack pointer into it does not make it a thread's stack.
    fn is_go_heap(&self, space: SpaceId, start: u64) -> bool {
        start < LOWEST_ARENA && self.go.contains(&space)
    }

    /// The runtime of an address space.
    pub fn runtime(&self, space: SpaceId) -> Option<Runtime> {
        if self.go.contains(&space) {
            return Some(Runtime::Go);
        }
        self.found.get(&space)?.runtime
    }

    /// Forgets an address space.
    pub fn forget(&mut self, space: SpaceId) {
        self.found.remove(&space);
        self.stacks.remove(&space);
        self.go.remove(&space);
    }
}

impl Session {
    /// Looks at a process when tracing begins: what is there is from before.
    pub(super) fn begin_reconciliation(&mut self, tgid: Tgid, space: SpaceId) {
        let Ok(residents) = smaps::read(&self.proc, tgid) else {
            return;
        };
        let parts = self.parts(tgid, space, &residents);
        let private_at_attach = parts
            .iter()
            .filter(|part| matches!(part.mapped, Mapped::Anonymous | Mapped::AllocatorArea))
            .map(|part| part.rss)
            .sum();
        let known = Known {
            heap_outstanding: self.options.probes.heap.then_some(0),
            regions_traced: self.options.probes.region,
            private_at_attach,
        };
        let before = Reconciliation::of(&parts, &known);
        let names = || residents.iter().map(|one| one.mapping.path_text());
        let found = Found {
            before,
            now: before,
            runtime: Runtime::of(names()),
            version: runtime::python_version(names()),
            private_at_attach,
            managed: (managed(&parts), managed(&parts)),
        };
        self.reconciled.found.insert(space, found);
    }

    /// Looks at every process that lives, when that is not too dear; `must` whatever it costs.
    pub(super) fn reconcile(&mut self, must: bool) {
        let due = |(when, took): (Instant, Duration)| when.elapsed() > took * READ_SHARE;
        if !must && !self.reconciled.last.is_none_or(due) {
            return;
        }
        let begun = Instant::now();
        let living: Vec<_> = self
            .traced
            .iter()
            .filter(|t| !t.launching)
            .map(|t| (t.anchor, t.image.space))
            .collect();
        for (anchor, space) in living {
            let Ok(residents) = smaps::read(&self.proc, anchor) else {
                continue;
            };
            if residents.is_empty() {
                continue;
            }
            let parts = self.parts(anchor, space, &residents);
            let accounts = self.ledger.spaces();
            let heap = accounts.iter().find(|account| account.space == space);
            let outstanding = heap.map_or(0, |heap| heap.account.totals().outstanding_bytes());
            let names = || residents.iter().map(|one| one.mapping.path_text());
            let found = self.reconciled.found.entry(space).or_insert_with(|| Found {
                before: Reconciliation::default(),
                now: Reconciliation::default(),
                runtime: None,
                version: None,
                private_at_attach: 0,
                managed: (0, 0),
            });
            let known = Known {
                heap_outstanding: self.options.probes.heap.then_some(outstanding),
                regions_traced: self.options.probes.region,
                private_at_attach: found.private_at_attach,
            };
            found.now = Reconciliation::of(&parts, &known);
            found.managed.1 = managed(&parts);
            found.runtime = found.runtime.or_else(|| Runtime::of(names()));
            let version = || runtime::python_version(names());
            found.version = found.version.or_else(version);
        }
        self.reconciled.last = Some((Instant::now(), begun.elapsed()));
    }

    fn parts(&mut self, tgid: Tgid, space: SpaceId, residents: &[Resident]) -> Vec<Part> {
        let seen = self.stack_pointers(tgid);
        let pointers = self.reconciled.stacks.entry(space).or_default();
        if pointers.len() < MAX_THREADS {
            pointers.extend(seen);
        }
        let pointers: Vec<u64> = pointers.iter().copied().collect();
        residents
            .iter()
            .map(|resident| self.part(space, resident, &pointers))
            .collect()
    }

    fn part(&self, space: SpaceId, resident: &Resident, stacks: &[u64]) -> Part {
        let mapping = &resident.mapping;
        let bytes = |wanted: &[RegionKind]| self.resident_of(space, resident, wanted);
        let holds_stack = stacks
            .iter()
            .any(|sp| (mapping.start..mapping.end).contains(sp))
            || bytes(&[RegionKind::ThreadStack]) > resident.rss / 2;
        let is_stack = holds_stack && !self.reconciled.is_go_heap(space, mapping.start);
        let name = mapping.path_text();
        let mapped = if name == "[stack]" {
            Mapped::Stack
        } else if is_shared_memory(&name, mapping.permissions.shared) {
            Mapped::Shared
        } else if mapping.is_file() {
            Mapped::File
        } else if name == "[heap]" {
            Mapped::AllocatorArea
        } else if is_stack {
            Mapped::Stack
        } else if is_arena(mapping.start, mapping.len()) {
            Mapped::AllocatorArea
        } else {
            Mapped::Anonymous
        };
        Part {
            mapped,
            rss: resident.rss,
            own_regions: bytes(&[RegionKind::Anonymous]),
            allocator: bytes(&[RegionKind::Allocator]),
        }
    }

    /// Resident bytes of regions of some kinds in one mapping. What of a mapping of several regions is
    /// resident is taken to be spread evenly.
    fn resident_of(&self, space: SpaceId, resident: &Resident, wanted: &[RegionKind]) -> u64 {
        let (start, end) = (resident.mapping.start, resident.mapping.end);
        let length = resident.mapping.len();
        let covered = self.regions.bytes_within(space, start, end, wanted);
        if covered >= length {
            return resident.rss;
        }
        (u128::from(resident.rss) * u128::from(covered) / u128::from(length.max(1))) as u64
    }

    /// Stack pointers of threads that sleep in a system call.
    fn stack_pointers(&self, tgid: Tgid) -> Vec<u64> {
        let tasks = self.proc.process(tgid).join("task");
        let Ok(entries) = fs::read_dir(&tasks) else {
            return Vec::new();
        };
        let pointer = |entry: fs::DirEntry| {
            let text = fs::read_to_string(entry.path().join("syscall")).ok()?;
            let mut words = text.split_ascii_whitespace().rev();
            let pointer = words.nth(1)?.strip_prefix("0x")?;
            u64::from_str_radix(pointer, 16).ok()
        };
        let entries = entries.take(MAX_THREADS).flatten();
        entries.filter_map(pointer).collect()
    }
}

fn is_arena(start: u64, length: u64) -> bool {
    start.is_multiple_of(ARENA) && length <= ARENA && start >= LOWEST_ARENA
}

fn is_shared_memory(name: &str, shared: bool) -> bool {
    let without_file = ["/dev/shm/", "/memfd:", "/SYSV", "/dev/zero", "anon_inode:"];
    (shared && name.is_empty()) || without_file.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heaps that a runtime places are not taken for malloc's arenas, however they are aligned.
    #[test]
    fn arenas() {
        assert!(is_arena(0x7f3c_e400_0000, 0x21000));
        assert!(!is_arena(0x7f3c_e400_1000, 0x21000));
        assert!(!is_arena(0xc0_0000_0000, 4 << 20));
        assert!(!is_arena(0x7_0000_0000, 32 << 20));
    }
}
