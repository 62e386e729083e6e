//! Re-reading a process's mappings: modules to unwind, the text table, new allocators.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
};

use memtrace_common::NO_SLOT;

use super::{Session, SessionError};
use crate::{
    id::{SpaceId, Tgid},
    symbolize::find_debug_file,
    target::{
        maps::{Mapping, Maps},
        open, text,
    },
    unwind::{Backing, ModuleMapping},
};

/// The kernel's page with the return probes' trampoline.
pub(super) const TRAMPOLINES: &str = "[uprobes]";
const VDSO: &str = "[vdso]";
/// The vdso has a few pages; more is not believed.
const MAX_VDSO: u64 = 1 << 20;

impl Session {
    /// Reads the mappings of a process if they changed; a process that is gone is no error here.
    pub(super) fn refresh(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        let Some(index) = self.traced.iter().position(|t| t.tgid == tgid) else {
            return Ok(());
        };
        let Some(traced) = self.traced.get(index) else {
            return Ok(());
        };
        let (slot, space, seen) = (traced.text_slot, traced.image.space, traced.mappings_seen);
        let (anchor, family) = (traced.anchor, traced.image.family);
        // Before the mappings: one that appears in between leaves the table distrusted.
        let generation = match slot {
            NO_SLOT => 0,
            slot => self.kernel.text_generation(slot)?,
        };
        let maps = Maps::read(&self.proc, anchor);
        let known = self.unwinder.knows(space);
        if self.memory_is_gone(anchor) {
            if family != space {
                // What it was forked with stands.
                return Ok(());
            }
            // It is ending, and what was read of it may be a part only.
            return self.recall(tgid);
        }
        let Ok(maps) = maps else {
            return Ok(());
        };
        if maps.mappings.is_empty() {
            // Ended, but for its parent: what was known of it stays.
            return Ok(());
        }
        if slot != NO_SLOT {
            let mappings = self.follow.with_others(family, &maps.mappings);
            let table = text::build(mappings, generation);
            self.kernel.set_text(slot, &table.table)?;
        }
        if let Some(traced) = self.traced.get_mut(index) {
            traced.generation_seen = generation;
        }
        let digest = digest(&maps);
        if digest == seen {
            return Ok(());
        }
        let modules = self.modules_of(anchor, &maps);
        if self.memory_is_gone(anchor) {
            // Files that could not be opened any more must not replace those that could.
            if !known {
                self.set_modules(tgid, space, modules);
            }
            return self.recall(tgid);
        }
        self.set_modules(tgid, space, modules);
        let discovery = self.discoverer.discover_in(anchor, &maps);
        self.attach_discovered(tgid, &discovery)?;
        if let Some(traced) = self.traced.get_mut(index) {
            traced.mappings_seen = digest;
        }
        Ok(())
    }

    /// Tells the unwinder what an address space holds.
    pub(super) fn set_modules(&mut self, tgid: Tgid, space: SpaceId, modules: Vec<ModuleMapping>) {
        self.unwinder.update_modules(space, &modules);
        if let Some(traced) = self.traced.iter_mut().find(|t| t.tgid == tgid) {
            traced.modules = modules;
        }
    }

    /// Whether a thread has given its memory up, which it does when it ends.
    fn memory_is_gone(&self, tid: Tgid) -> bool {
        let mut byte = [0];
        let read = File::open(self.proc.process(tid).join("maps"))
            .and_then(|mut file| file.read(&mut byte));
        !matches!(read, Ok(1))
    }

    /// The executable mappings with what is behind them, opened while the process lives.
    fn modules_of(&mut self, tgid: Tgid, maps: &Maps) -> Vec<ModuleMapping> {
        let root = std::fs::File::open(self.proc.process_root(tgid)).ok();
        let mut modules = Vec::new();
        for mapping in maps.mappings.iter().filter(|m| m.permissions.execute) {
            let Some(backing) = self.backing(tgid, mapping) else {
                continue;
            };
            if let (Backing::File(module), Some(root)) = (&backing, &root) {
                find_debug_file(root.as_fd(), module);
            }
            modules.push(ModuleMapping {
                start: mapping.start,
                end: mapping.end,
                file_offset: if mapping.is_file() { mapping.offset } else { 0 },
                backing,
            });
        }
        modules
    }

    fn backing(&mut self, tgid: Tgid, mapping: &Mapping) -> Option<Backing> {
        let path = mapping.path_text();
        if path == TRAMPOLINES {
            return Some(Backing::Trampolines);
        }
        if path == VDSO {
            let bytes = self.vdso(tgid, mapping)?;
            return Some(Backing::File(self.modules.intern_bytes(VDSO, bytes)));
        }
        if !mapping.is_file() {
            return Some(Backing::Anonymous);
        }
        let opened = open::mapped(&self.proc, tgid, mapping).ok();
        let module = opened.and_then(|file| self.modules.intern(path, file).ok());
        // A file that cannot be opened has addresses all the same.
        Some(module.map_or(Backing::Anonymous, Backing::File))
    }

    fn vdso(&self, tgid: Tgid, mapping: &Mapping) -> Option<Vec<u8>> {
        let length = usize::try_from(mapping.len().min(MAX_VDSO)).ok()?;
        let mut bytes = vec![0; length];
        let memory = std::fs::File::open(self.proc.process(tgid).join("mem")).ok()?;
        memory.read_exact_at(&mut bytes, mapping.start).ok()?;
        Some(bytes)
    }
}

/// Changes when an executable mapping does.
fn digest(maps: &Maps) -> u64 {
    let mut hasher = DefaultHasher::new();
    for mapping in maps.mappings.iter().filter(|m| m.permissions.execute) {
        (
            mapping.start,
            mapping.end,
            mapping.offset,
            mapping.inode,
            &mapping.path,
        )
            .hash(&mut hasher);
    }
    // Never the value that stands for "not seen yet".
    hasher.finish() | 1
}
