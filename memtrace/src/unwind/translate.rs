//! Stacks of one address space as those of another that runs the same program.

use std::sync::Arc;

use super::space::{Backing, Mapped, Space};
use super::{Identity, Unwinder, UnwoundStack};
use crate::id::SpaceId;

/// Where objects are put that would overlap others; no user space has such addresses.
const ELSEWHERE: u64 = 1 << 60;
/// Mappings that one space can be given so.
const MAX_ADDED: usize = 4096;

impl Unwinder {
    /// The stack `stack` of `from` with the addresses that its objects have in `to`. An object that
    /// `to` does not map is added to it. What belongs to no file keeps its address.
    pub fn translate(&mut self, from: SpaceId, to: SpaceId, stack: &UnwoundStack) -> UnwoundStack {
        let frames: Vec<u64> = stack
            .frames
            .iter()
            .enumerate()
            .map(|(index, address)| {
                // A return address can be behind its object.
                let back = u64::from(index > 0);
                let inside = address.wrapping_sub(back);
                self.counterpart(from, to, inside)
                    .map_or(*address, |found| found.wrapping_add(back))
            })
            .collect();
        UnwoundStack {
            frames: frames.into(),
            incomplete: stack.incomplete,
        }
    }

    fn counterpart(&mut self, from: SpaceId, to: SpaceId, address: u64) -> Option<u64> {
        let mapped = self.spaces.get(&from)?.find_ever(address)?;
        let Backing::File(module) = &mapped.backing else {
            return None;
        };
        let (identity, offset) = (module.identity(), mapped.offset(address));
        let target = self.spaces.get(&to)?;
        if let Some(found) = target.address_of(identity, offset) {
            return Some(found);
        }
        let mapped = mapped.clone();
        self.spaces.get_mut(&to)?.add(mapped, MAX_ADDED);
        self.spaces.get(&to)?.address_of(identity, offset)
    }
}

impl Space {
    /// Where this space has an offset of an object.
    fn address_of(&self, identity: Identity, offset: u64) -> Option<u64> {
        self.mapped().find_map(|mapped| {
            let Backing::File(module) = &mapped.backing else {
                return None;
            };
            let inside = offset.checked_sub(mapped.file_offset)?;
            let length = mapped.at.end - mapped.at.start;
            (module.identity() == identity && inside < length).then(|| mapped.at.start + inside)
        })
    }

    /// Adds a mapping of another space, where that has it or elsewhere.
    fn add(&mut self, mut mapped: Mapped, cap: usize) {
        let mut all: Vec<Mapped> = self.live().to_vec();
        if all.len() >= cap {
            return;
        }
        let overlaps = |one: &Mapped| one.at.start < mapped.at.end && mapped.at.start < one.at.end;
        if all.iter().any(overlaps) {
            let last = all.last().map_or(0, |one| one.at.end);
            let start = last.max(ELSEWHERE).next_multiple_of(1 << 32);
            let length = mapped.at.end - mapped.at.start;
            mapped.at = start..start.saturating_add(length);
        }
        all.push(mapped);
        all.sort_by_key(|one| one.at.start);
        self.set_live(Arc::from(all));
    }
}
