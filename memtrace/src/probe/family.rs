//! Maps and tracepoints for processes that become targets by themselves.

use std::{collections::HashSet, path::Path};

use memtrace_common::{
    Context, ContextKey, LiveKey, LiveValue, TEXT_SLOTS, Target, TextTable,
    events::CGROUP_ATTACH_PID_OFFSET,
};

use super::{
    KernelSide, ProbeError,
    batch::{self, Walk},
    handle::{is_no_such_key, map_fd},
    tracefs,
};
use crate::id::{SpaceId, Tgid};

impl KernelSide {
    /// Is told of processes that are put into a cgroup. Nothing where the kernel has no such event,
    /// or writes it otherwise: they are found at the next report then.
    pub fn watch_cgroups(&mut self) -> Option<()> {
        let known = tracefs::has_field(
            Path::new("/"),
            "cgroup/cgroup_attach_task",
            "pid",
            CGROUP_ATTACH_PID_OFFSET,
        );
        known
            .then(|| self.attach_tracepoint("cgroup", "cgroup_attach_task").ok())
            .flatten()
    }

    /// Gives the processes of an image a text table.
    pub fn set_slot(&mut self, image: SpaceId, slot: u32) -> Result<(), ProbeError> {
        if self.slots.get(&image.0, 0).ok() != Some(slot) {
            self.distrust(slot)?;
        }
        self.slots
            .insert(image.0, slot, 0)
            .map_err(ProbeError::map("SLOTS"))
    }

    /// Nobody has written the slot's table for who has it now: it is empty or another image's, and of the
    /// present generation as likely as not. Believed, it would make one call path of all.
    pub fn distrust(&mut self, slot: u32) -> Result<(), ProbeError> {
        let table = Box::new(TextTable {
            generation: self.text_generation(slot)?.wrapping_sub(1),
            shift: 0,
            tags: [0; TEXT_SLOTS],
        });
        self.set_text(slot, &table)
    }

    /// Forgets images that no process runs any more.
    pub fn forget_images(&mut self, images: &HashSet<SpaceId>) -> Result<(), ProbeError> {
        for image in images {
            if let Err(error) = self.slots.remove(&image.0)
                && !is_no_such_key(&error)
            {
                return Err(ProbeError::map("SLOTS")(error));
            }
        }
        let fd = map_fd(&self.known)?;
        let error = |e| ProbeError::system("emptying KNOWN", e);
        let mut keys = Vec::new();
        let mut walk = Walk::<ContextKey, u64>::new(fd, 1024);
        while let Some(entries) = walk.next_batch().map_err(error)? {
            keys.extend(
                entries
                    .map(|(key, _)| key)
                    .filter(|key| images.contains(&SpaceId(key.space))),
            );
        }
        batch::delete(fd, &keys).map_err(error)
    }

    /// Visits the contexts of address spaces that have ended, and removes them.
    pub fn take_contexts(
        &mut self,
        spaces: &HashSet<SpaceId>,
        mut visit: impl FnMut(ContextKey, Context),
    ) -> Result<(), ProbeError> {
        let mut keys = Vec::new();
        self.walk_contexts(|key, context| {
            if spaces.contains(&SpaceId(key.space)) {
                keys.push(key);
                visit(key, context);
            }
        })?;
        self.remove_contexts(&keys)
    }

    /// Removes the blocks of address spaces that have ended.
    pub fn forget_blocks(&mut self, spaces: &HashSet<SpaceId>) -> Result<(), ProbeError> {
        let fd = map_fd(&self.live)?;
        let error = |e| ProbeError::system("emptying LIVE", e);
        let mut keys = Vec::new();
        let mut walk = Walk::<LiveKey, LiveValue>::new(fd, 4096);
        while let Some(entries) = walk.next_batch().map_err(error)? {
            keys.extend(
                entries
                    .map(|(key, _)| key)
                    .filter(|key| spaces.contains(&SpaceId(key.space))),
            );
        }
        batch::delete(fd, &keys).map_err(error)
    }

    /// Visits every target.
    pub fn walk_targets(&self, mut visit: impl FnMut(Tgid, Target)) -> Result<(), ProbeError> {
        // One that goes while the table is walked is no error.
        for (tgid, target) in self.targets.iter().flatten() {
            visit(Tgid(tgid), target.0);
        }
        Ok(())
    }
}
