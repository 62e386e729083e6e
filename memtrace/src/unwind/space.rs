//! Executable mappings of one address space: which object a code address is in.

use std::ops::Range;
use std::sync::Arc;

use super::images::ImageId;
use super::module::ModuleFile;

/// Mappings kept of one address space; beyond that the last ones are left out.
pub(super) const MAX_MAPPINGS: usize = 65_536;
/// Mappings remembered after they were unmapped, for stacks that still point into them.
const MAX_RETIRED: usize = 1024;

/// What an executable mapping holds.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Code of an object.
    File(Arc<ModuleFile>),
    /// Code made at run time: no unwind information, walked by frame pointers.
    Anonymous,
    /// The kernel's `[uprobes]` mapping: what a pending return probe puts in a return address's place.
    Trampolines,
}

/// One executable mapping, as `/proc/PID/maps` shows it.
#[derive(Clone, Debug)]
pub struct ModuleMapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset in the file of `start`; 0 for mappings without a file.
    pub file_offset: u64,
    /// What is mapped.
    pub backing: Backing,
}

/// A mapping with what the unwinder knows of its object.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    pub at: Range<u64>,
    pub file_offset: u64,
    pub backing: Backing,
    /// The object's tables; `None` without a file.
    pub image: Option<ImageId>,
    /// Stated address of `at.start`.
    pub stated: u64,
}

impl Mapped {
    pub fn new(mapping: &ModuleMapping, image: Option<ImageId>) -> Self {
        let stated = match &mapping.backing {
            Backing::File(module) => module.layout().ok().and_then(|layout| {
                let len = mapping.end.saturating_sub(mapping.start);
                layout.address_of_range(mapping.file_offset, len)
            }),
            _ => None,
        };
        Self {
            at: mapping.start..mapping.end,
            file_offset: mapping.file_offset,
            backing: mapping.backing.clone(),
            image: image.filter(|_| stated.is_some()),
            stated: stated.unwrap_or(0),
        }
    }

    /// The address that the object states for a mapped one.
    pub fn stated(&self, address: u64) -> u64 {
        self.stated
            .wrapping_add(address.wrapping_sub(self.at.start))
    }

    /// The offset in the file of a mapped address.
    pub fn offset(&self, address: u64) -> u64 {
        self.file_offset
            .wrapping_add(address.wrapping_sub(self.at.start))
    }
}

/// The mappings of an address space; cheap to copy for a fork.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// Sorted, without overlaps.
    live: Arc<[Mapped]>,
    /// Unmapped since, not overlapped by anything live when they went.
    retired: Vec<Mapped>,
    highest: u64,
}

impl Space {
    /// Takes a new list; mappings that are gone are remembered for naming.
    pub fn update(&mut self, mut new: Vec<Mapped>) {
        new.retain(|m| m.at.start < m.at.end);
        new.sort_by_key(|m| m.at.start);
        // Two mappings never overlap in the kernel, but the list can be torn: the first one stays.
        let mut end = 0;
        new.retain(|m| {
            let keep = m.at.start >= end;
            end = end.max(m.at.end);
            keep
        });
        let overlaps = |old: &Mapped| {
            let after = new.partition_point(|m| m.at.start < old.at.end);
            after
                .checked_sub(1)
                .and_then(|i| new.get(i))
                .is_some_and(|m| m.at.end > old.at.start)
        };
        self.retired.extend(self.live.iter().cloned());
        self.retired
            .retain(|old| !overlaps(old) && matches!(old.backing, Backing::File(_)));
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..surplus);
        self.retired.shrink_to_fit();
        self.highest = new.last().map_or(0, |m| m.at.end);
        self.live = new.into();
    }

    /// The mapping that holds an address now.
    pub fn find(&self, address: u64) -> Option<&Mapped> {
        let after = self.live.partition_point(|m| m.at.start <= address);
        let mapping = self.live.get(after.checked_sub(1)?)?;
        (address < mapping.at.end).then_some(mapping)
    }

    /// The mapping that holds an address now, else the one that held it last.
    pub fn find_ever(&self, address: u64) -> Option<&Mapped> {
        self.find(address)
            .or_else(|| self.retired.iter().rev().find(|m| m.at.contains(&address)))
    }

    /// What is mapped now, then what was.
    pub fn mapped(&self) -> impl Iterator<Item = &Mapped> {
        self.live.iter().chain(&self.retired)
    }

    /// What is mapped now.
    pub fn live(&self) -> &[Mapped] {
        &self.live
    }

    /// Replaces what is mapped: sorted, without overlaps.
    pub fn set_live(&mut self, live: Arc<[Mapped]>) {
        self.live = live;
    }

    /// The highest address of code.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// All mappings whose objects may be asked for.
    pub fn images(&self) -> impl Iterator<Item = ImageId> + '_ {
        self.live
            .iter()
            .chain(&self.retired)
            .filter_map(|m| m.image)
    }
}
