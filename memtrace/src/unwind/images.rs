//! The unwind tables of all objects, one copy for all processes, loaded when first needed, capped.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::arch::Framehop;
use super::cfi::{Cfi, NoCfi};
use super::module::{Identity, ModuleFile};
use super::rules::{Rule, Rules};

/// Rules remembered by address; 16 bytes each, all dropped when full.
const MAX_RULES: usize = 32_768;
/// Objects that nothing maps any more and that are kept for the next process; each holds a file
/// open.
const MAX_UNUSED: usize = 64;

/// An object known to the unwinder. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ImageId(u32);

impl ImageId {
    /// Where framehop believes the object to be. Every object has 4 GiB of its own, whatever the
    /// addresses in its processes are, so that rules are shared between processes.
    fn base(self) -> u64 {
        u64::from(self.0) << 32
    }
}

/// What the unwind tables take and where they failed; every count is since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnwindCounters {
    /// Objects whose tables were read.
    pub objects_loaded: u64,
    /// Objects that have no unwind tables.
    pub objects_without_tables: u64,
    /// Objects that are no 64-bit ELF files of this machine, or are broken.
    pub objects_unusable: u64,
    /// Objects whose tables are larger than the cap for one object.
    pub objects_too_large: u64,
    /// Tables dropped to stay under the cap for all; they are read again when needed.
    pub tables_evicted: u64,
    /// Objects whose tables made the parser panic; they are not used again.
    pub objects_panicked: u64,
    /// Mappings left out because an address space has too many.
    pub mappings_dropped: u64,
    /// Bytes of unwind tables held now.
    pub table_bytes: u64,
}

/// Caps on what unwind tables may take.
#[derive(Clone, Copy, Debug)]
pub struct UnwindLimits {
    /// Bytes of all objects' tables together; the least recently used go first.
    pub table_bytes: u64,
    /// Bytes of one object's tables; a larger object is walked by frame pointers.
    pub object_bytes: u64,
}

impl Default for UnwindLimits {
    /// 32 MiB for all, 24 MiB for one: node has 5 MiB, Chromium about 20.
    fn default() -> Self {
        Self {
            table_bytes: 32 << 20,
            object_bytes: 24 << 20,
        }
    }
}

enum Tables {
    NotRead,
    Ready(Arc<Cfi>),
    None(NoCfi),
    Panicked,
}

struct Image {
    module: Arc<ModuleFile>,
    tables: Tables,
    last_used: u64,
}

/// All objects.
#[derive(Default)]
pub(super) struct Images {
    images: HashMap<ImageId, Image>,
    by_identity: HashMap<Identity, ImageId>,
    rules_by_address: HashMap<(ImageId, u32), Rule>,
    pub framehop: Framehop,
    pub rules: Rules,
    pub counters: UnwindCounters,
    limits: UnwindLimits,
    next_id: u32,
    clock: u64,
    sweep_at: usize,
}

impl Images {
    pub fn new(limits: UnwindLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The object's id; reads nothing yet.
    pub fn id_of(&mut self, module: &Arc<ModuleFile>) -> ImageId {
        if let Some(id) = self.by_identity.get(&module.identity()) {
            return *id;
        }
        // The upper half of the address space stays out of framehop's sums. Two thousand million
        // objects are not met in a session.
        self.next_id = (self.next_id + 1) & 0x7fff_ffff;
        let id = ImageId(self.next_id);
        self.by_identity.insert(module.identity(), id);
        let image = Image {
            module: Arc::clone(module),
            tables: Tables::NotRead,
            last_used: 0,
        };
        self.images.insert(id, image);
        id
    }

    /// The object's tables, read now if they were not; `None` when it has none.
    pub fn cfi(&mut self, id: ImageId) -> Option<Arc<Cfi>> {
        self.clock += 1;
        let clock = self.clock;
        let image = self.images.get_mut(&id)?;
        image.last_used = clock;
        match &image.tables {
            Tables::Ready(cfi) => return Some(Arc::clone(cfi)),
            Tables::None(_) | Tables::Panicked => return None,
            Tables::NotRead => {}
        }
        let module = Arc::clone(&image.module);
        // Until the tables are read well, a panic in their parser leaves the object marked.
        image.tables = Tables::Panicked;
        let loaded = Cfi::load(
            &module,
            self.limits.object_bytes.min(self.limits.table_bytes),
        );
        let tables = match loaded {
            Ok(cfi) => {
                self.make_room(cfi.size());
                self.counters.objects_loaded += 1;
                self.counters.table_bytes += cfi.size();
                self.give_to_framehop(id, &cfi);
                Tables::Ready(Arc::new(cfi))
            }
            Err(reason) => {
                match reason {
                    NoCfi::Absent => self.counters.objects_without_tables += 1,
                    NoCfi::NotUsable => self.counters.objects_unusable += 1,
                    NoCfi::TooLarge => self.counters.objects_too_large += 1,
                }
                Tables::None(reason)
            }
        };
        let image = self.images.get_mut(&id)?;
        image.tables = tables;
        match &image.tables {
            Tables::Ready(cfi) => Some(Arc::clone(cfi)),
            _ => None,
        }
    }

    /// Why an object has no tables; `None` when it has, or they were not needed yet.
    pub fn missing(&self, module: &ModuleFile) -> Option<NoCfi> {
        match self
            .images
            .get(self.by_identity.get(&module.identity())?)?
            .tables
        {
            Tables::None(reason) => Some(reason),
            Tables::Panicked => Some(NoCfi::NotUsable),
            _ => None,
        }
    }

    /// The rule at a stated address, remembered.
    pub fn rule(&mut self, id: ImageId, cfi: &Cfi, stated: u64) -> Rule {
        let Some(relative) = relative(cfi, stated) else {
            return Rule::Uncovered;
        };
        if let Some(rule) = self.rules_by_address.get(&(id, relative)) {
            return *rule;
        }
        let rule = self.rules.classify(cfi, stated);
        if self.rules_by_address.len() >= MAX_RULES {
            self.rules_by_address = HashMap::new();
        }
        self.rules_by_address.insert((id, relative), rule);
        rule
    }

    /// Where framehop has a stated address.
    pub fn code(id: ImageId, cfi: &Cfi, stated: u64) -> u64 {
        id.base() + relative(cfi, stated).map_or(0, u64::from)
    }

    fn give_to_framehop(&mut self, id: ImageId, cfi: &Cfi) {
        let Some(tables) = &cfi.eh else { return };
        let sections = framehop::ExplicitModuleSectionInfo {
            base_svma: cfi.span.start,
            text_svma: tables.bases.eh_frame.text.map(|at| at..at),
            got_svma: tables.bases.eh_frame.data.map(|at| at..at),
            eh_frame_svma: Some(tables.eh_frame_at.clone()),
            eh_frame: Some(Arc::clone(&tables.eh_frame)),
            eh_frame_hdr_svma: Some(tables.header_at.clone()),
            eh_frame_hdr: Some(Arc::clone(&tables.header)),
            ..Default::default()
        };
        let end = id.base() + (cfi.span.end - cfi.span.start);
        let at = id.base()..end;
        self.framehop.add(framehop::Module::new(
            String::new(),
            at,
            id.base(),
            sections,
        ));
    }

    /// Drops the least recently used tables until `more` bytes fit.
    fn make_room(&mut self, more: u64) {
        while self.counters.table_bytes + more > self.limits.table_bytes {
            let ready = self
                .images
                .iter()
                .filter(|(_, i)| matches!(i.tables, Tables::Ready(_)));
            let Some(oldest) = ready.min_by_key(|(_, i)| i.last_used).map(|(id, _)| *id) else {
                return;
            };
            self.drop_tables(oldest);
            self.counters.tables_evicted += 1;
        }
    }

    fn drop_tables(&mut self, id: ImageId) {
        let Some(image) = self.images.get_mut(&id) else {
            return;
        };
        if let Tables::Ready(cfi) = &image.tables {
            self.counters.table_bytes = self.counters.table_bytes.saturating_sub(cfi.size());
            image.tables = Tables::NotRead;
            self.framehop.remove(id.base());
        }
    }

    /// Never uses this object's tables again: they made the parser panic.
    pub fn condemn(&mut self, id: ImageId) {
        self.drop_tables(id);
        if let Some(image) = self.images.get_mut(&id) {
            image.tables = Tables::Panicked;
            self.counters.objects_panicked += 1;
        }
        self.rules = Rules::default();
        self.framehop.forget();
    }

    /// Whether it is time to look for objects that nothing maps any more.
    pub fn is_crowded(&self) -> bool {
        self.images.len() > self.sweep_at.max(2 * MAX_UNUSED)
    }

    /// Forgets objects that no address space maps, keeping some for the next process.
    pub fn sweep(&mut self, used: &HashSet<ImageId>) {
        let mut unused: Vec<_> = self
            .images
            .iter()
            .filter(|(id, _)| !used.contains(id))
            .map(|(id, image)| (image.last_used, *id))
            .collect();
        let surplus = unused.len().saturating_sub(MAX_UNUSED);
        unused.sort_unstable();
        for (_, id) in unused.into_iter().take(surplus) {
            self.drop_tables(id);
            if let Some(image) = self.images.remove(&id) {
                self.by_identity.remove(&image.module.identity());
            }
        }
        if surplus > 0 {
            self.images.shrink_to_fit();
            self.by_identity.shrink_to_fit();
        }
        self.sweep_at = 2 * self.images.len();
    }
}

fn relative(cfi: &Cfi, stated: u64) -> Option<u32> {
    u32::try_from(stated.checked_sub(cfi.span.start)?).ok()
}
