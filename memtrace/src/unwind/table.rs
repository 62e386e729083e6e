//! Interned stacks.

use std::collections::HashMap;

use crate::id::StackId;

use super::UnwoundStack;

/// Caps of a [`StackTable`].
#[derive(Clone, Copy, Debug)]
pub struct StackTableLimits {
    /// Stacks.
    pub stacks: usize,
    /// Frames of all stacks together, eight bytes each.
    pub frames: usize,
}

impl Default for StackTableLimits {
    /// 65,536 stacks and 1 Mi frames, at most 16 MiB. A thousand contexts take half a MiB.
    fn default() -> Self {
        Self {
            stacks: 65_536,
            frames: 1 << 20,
        }
    }
}

/// Every distinct stack once, under a small id.
///
/// Ids are not reused within four thousand million stacks. When the table is full nothing goes by
/// itself (the ledger's accounts hang on the ids): new stacks are refused and counted until
/// [`Self::retain`] makes room.
#[derive(Debug, Default)]
pub struct StackTable {
    by_stack: HashMap<UnwoundStack, StackId>,
    by_id: HashMap<StackId, UnwoundStack>,
    limits: StackTableLimits,
    frames: usize,
    next: u32,
    refused: u64,
}

impl StackTable {
    /// An empty table.
    pub fn new(limits: StackTableLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The stack's id; `None` when it is new and the table is full, which is counted.
    pub fn intern(&mut self, stack: &UnwoundStack) -> Option<StackId> {
        if let Some(id) = self.by_stack.get(stack) {
            return Some(*id);
        }
        let frames = self.frames + stack.frames.len();
        if self.by_id.len() >= self.limits.stacks || frames > self.limits.frames {
            self.refused += 1;
            return None;
        }
        let id = self.free_id()?;
        self.frames = frames;
        self.by_stack.insert(stack.clone(), id);
        self.by_id.insert(id, stack.clone());
        Some(id)
    }

    /// The next id that no stack has; after a wrap the old ones still held are skipped.
    fn free_id(&mut self) -> Option<StackId> {
        for _ in 0..=self.by_id.len() {
            let id = StackId(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.by_id.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// The stack of an id.
    pub fn get(&self, id: StackId) -> Option<&UnwoundStack> {
        self.by_id.get(&id)
    }

    /// Keeps only the stacks that are still wanted and gives the memory of the others back.
    pub fn retain(&mut self, mut wanted: impl FnMut(StackId) -> bool) {
        self.by_id.retain(|id, _| wanted(*id));
        let by_id = &self.by_id;
        self.by_stack.retain(|_, id| by_id.contains_key(id));
        self.frames = self.by_id.values().map(|s| s.frames.len()).sum();
        self.by_id.shrink_to_fit();
        self.by_stack.shrink_to_fit();
    }

    /// Whether half of the room is taken.
    pub fn is_crowded(&self) -> bool {
        self.by_id.len() * 2 > self.limits.stacks || self.frames * 2 > self.limits.frames
    }

    /// Stacks held.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True without stacks.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Frames held, of all stacks.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Stacks refused because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
