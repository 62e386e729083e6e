//! From a process to a plan: which functions of which files get a probe, and where.

mod plan;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::family::{self, CustomFunctions, Family, FoundFunction};
use super::maps::{Mapping, Maps};
use super::object::{Machine, Object, ObjectError, ObjectId};
use super::open;
use super::placement::Placement;
use super::process::{ProcFs, ProcessError};
use crate::id::Tgid;

/// Files looked at for one process.
const OBJECTS_CAP: usize = 4096;
/// Analysed files remembered.
const CACHE_CAP: usize = 2048;

/// One function with its probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedProbe {
    /// The function.
    pub found: FoundFunction,
    /// Where its probe goes, and how the arguments stand there ([`Placement::function`]).
    pub placement: Placement,
    /// True when the function also needs a probe at its return.
    pub needs_return: bool,
    /// File offsets of its return instructions, where these are probed in the place of the return
    /// (see `target::returns`); else empty.
    pub returns: Vec<u64>,
    /// Names of functions that do nothing but jump here with the same arguments: they need no
    /// probe of their own, every call of theirs is seen here, with the same stack.
    pub also: Vec<String>,
}

impl PlannedProbe {
    /// Every function that this probe covers.
    pub fn covered(&self) -> impl Iterator<Item = &str> {
        self.found
            .names
            .iter()
            .chain(&self.also)
            .map(String::as_str)
    }

    /// Offset in the file at which the probe is attached.
    #[must_use]
    pub fn file_offset(&self) -> u64 {
        self.found.file_offset.saturating_add(self.placement.offset)
    }
}

/// A file with allocators in it. The same for every process that maps it.
#[derive(Debug)]
pub struct Analysis {
    /// The file.
    pub object: Arc<Object>,
    /// Whose allocators.
    pub families: Vec<Family>,
    /// Their functions, by rising file offset.
    pub functions: Vec<PlannedProbe>,
    /// Functions such allocators usually have and these do not.
    pub missing: Vec<String>,
    /// Anything a person should know.
    pub note: Option<String>,
}

impl Analysis {
    /// The families in one word: `glibc`, `musl+jemalloc`.
    #[must_use]
    pub fn family_text(&self) -> String {
        let names: Vec<&str> = self.families.iter().map(|f| f.name()).collect();
        names.join("+")
    }
}

/// A file with allocators, in one process.
#[derive(Clone, Debug)]
pub struct DiscoveredObject {
    /// What it holds.
    pub analysis: Arc<Analysis>,
    /// Its executable mappings.
    pub mappings: Vec<Mapping>,
    /// Path as this process sees it.
    pub path: String,
}

impl DiscoveredObject {
    /// Address in the process of a file offset, when that is mapped executable.
    #[must_use]
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.mappings.iter().find_map(|m| {
            let inside = file_offset.checked_sub(m.offset)?;
            if inside < m.len() {
                Some(m.start + inside)
            } else {
                None
            }
        })
    }
}

/// A file that was looked at and holds nothing to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    /// Path as the process sees it.
    pub path: String,
    /// Why there is nothing: it could not be opened, it is no ELF file; none when it simply has no
    /// allocator.
    pub problem: Option<String>,
}

/// What was found in a process.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Files with allocators, by rising address.
    pub objects: Vec<DiscoveredObject>,
    /// The other files.
    pub searched: Vec<Searched>,
    /// Things to know about the process, for people.
    pub notes: Vec<String>,
    /// It is a Go program.
    pub go: bool,
}

impl Discovery {
    /// True when no function was found: nothing can be traced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(|o| o.analysis.functions.is_empty())
    }
}

/// Finds allocators, remembering the files it has seen: a second process of the same program, or
/// the same process after it loaded a library, costs only what is new.
#[derive(Debug, Default)]
pub struct Discoverer {
    proc: ProcFs,
    custom: CustomFunctions,
    cache: HashMap<CacheKey, Cached>,
}

/// A file's identity and what changes when its contents do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CacheKey(ObjectId, u64, i64, i64);

impl CacheKey {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self(
            ObjectId::of(file)?,
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec(),
        ))
    }
}

#[derive(Clone, Debug)]
enum Cached {
    Found(Arc<Analysis>),
    Nothing {
        problem: Option<String>,
        go: bool,
        interpreter: bool,
    },
}

impl Discoverer {
    /// A discoverer that reads processes from `proc` and also looks for the user's functions.
    #[must_use]
    pub fn new(proc: ProcFs, custom: CustomFunctions) -> Self {
        Self {
            proc,
            custom,
            cache: HashMap::new(),
        }
    }

    /// Where it reads processes.
    #[must_use]
    pub fn proc(&self) -> &ProcFs {
        &self.proc
    }

    /// Reads the mappings of a process and plans probes for every file in them.
    pub fn discover(&mut self, tgid: Tgid) -> Result<Discovery, ProcessError> {
        let maps = Maps::read(&self.proc, tgid)?;
        if maps.mappings.is_empty() {
            // A kernel thread, or a process that is just ending.
            return Err(ProcessError::NoMemory { tgid });
        }
        Ok(self.discover_in(tgid, &maps))
    }

    /// Plans probes for the files in mappings that were read before.
    pub fn discover_in(&mut self, tgid: Tgid, maps: &Maps) -> Discovery {
        let program = open::regular(&self.proc.process(tgid).join("exe"))
            .ok()
            .and_then(|file| CacheKey::of(&file).ok());
        let mut discovery = Discovery::default();
        let mut by_file: HashMap<CacheKey, usize> = HashMap::new();
        let mut program_seen = None;
        for mappings in executable_files(maps) {
            if discovery.objects.len() + discovery.searched.len() >= OBJECTS_CAP {
                discovery.notes.push(format!(
                    "more than {OBJECTS_CAP} files with code are mapped: the rest is not searched"
                ));
                break;
            }
            let Some(first) = mappings.first() else {
                continue;
            };
            let path = first.path_text();
            let (file, key) = match self.open(tgid, first) {
                Ok(opened) => opened,
                Err(problem) => {
                    discovery.searched.push(Searched {
                        path,
                        problem: Some(problem),
                    });
                    continue;
                }
            };
            // One file under two names, or two links.
            if let Some(object) = by_file
                .get(&key)
                .and_then(|i| discovery.objects.get_mut(*i))
            {
                object.mappings.extend(mappings);
                continue;
            }
            let result = self.analyse(file, key, &first.path);
            if program == Some(key) {
                program_seen = Some(result.clone());
            }
            match result {
                Cached::Found(analysis) => {
                    by_file.insert(key, discovery.objects.len());
                    discovery.objects.push(DiscoveredObject {
                        analysis,
                        mappings,
                        path,
                    });
                }
                Cached::Nothing { problem, .. } => {
                    discovery.searched.push(Searched { path, problem });
                }
            }
        }
        self.note(&mut discovery, program_seen.as_ref());
        discovery
    }

    /// The file behind a mapping, or why it cannot be had.
    fn open(&self, tgid: Tgid, mapping: &Mapping) -> Result<(File, CacheKey), String> {
        let file = open::mapped(&self.proc, tgid, mapping).map_err(|e| e.to_string())?;
        let key = CacheKey::of(&file).map_err(|e| format!("{}: {e}", mapping.path_text()))?;
        Ok((file, key))
    }

    /// Plans probes for a file that no process maps yet; nothing when it has no allocator.
    pub fn discover_file(&mut self, path: &Path) -> Option<Arc<Analysis>> {
        let file = open::regular(path).ok()?;
        let key = CacheKey::of(&file).ok()?;
        match self.analyse(file, key, path) {
            Cached::Found(analysis) => Some(analysis),
            Cached::Nothing { .. } => None,
        }
    }

    fn analyse(&mut self, file: File, key: CacheKey, path: &Path) -> Cached {
        if let Some(known) = self.cache.get(&key) {
            return known.clone();
        }
        let result = match Object::from_file(file, path.to_path_buf()) {
            Ok(object) => examine(object, &self.custom),
            // A font or a database can be mapped executable: no reason for a message.
            Err(ObjectError::NotElf { .. }) => Cached::Nothing {
                problem: None,
                go: false,
                interpreter: true,
            },
            Err(error) => Cached::Nothing {
                problem: Some(error.to_string()),
                go: false,
                interpreter: true,
            },
        };
        if self.cache.len() >= CACHE_CAP {
            self.forget();
        }
        self.cache.insert(key, result.clone());
        result
    }

    /// Forgets files that nobody uses any more.
    pub fn forget(&mut self) {
        self.cache
            .retain(|_, c| matches!(c, Cached::Found(a) if Arc::strong_count(a) > 1));
    }

    /// Says what a person must know when things are not as usual.
    fn note(&self, discovery: &mut Discovery, program: Option<&Cached>) {
        let (go, interpreter, stripped) = match program {
            Some(Cached::Nothing {
                go, interpreter, ..
            }) => (*go, *interpreter, true),
            Some(Cached::Found(a)) => (a.object.is_go(), a.object.has_interpreter(), false),
            None => (false, true, false),
        };
        discovery.go = go;
        if go {
            discovery.notes.push(
                "a Go program: Go's own heap cannot be traced (return probes would crash it), only \
                 what shared C libraries allocate in it; use Go's own profiler, `go tool pprof`"
                    .to_owned(),
            );
        } else if discovery.is_empty() && !interpreter && stripped {
            discovery.notes.push(
                "a static program without symbols: its malloc cannot be found by name; keep the \
                 symbols when building it (strip -d does)"
                    .to_owned(),
            );
        } else if discovery.is_empty() {
            discovery.notes.push(format!(
                "no allocator found in {} files with code; name the program's own with --alloc-fn \
                 and --free-fn, or --prefix",
                discovery.objects.len() + discovery.searched.len()
            ));
        }
        let found = |name: &str| {
            discovery
                .objects
                .iter()
                .flat_map(|o| &o.analysis.functions)
                .any(|p| p.covered().any(|n| n == name))
        };
        let lost: Vec<&str> = self.custom.names().filter(|n| !found(n)).collect();
        if !lost.is_empty() {
            discovery.notes.push(format!(
                "not found in any file of the process: {} (give names as `nm` prints them; \
                 libraries loaded later are searched too)",
                lost.join(", ")
            ));
        }
    }
}

/// Whether an object is to be searched when only those whose paths end so are asked for; none
/// asked for: all.
#[must_use]
pub fn is_wanted(objects: &[PathBuf], path: &str) -> bool {
    let path = Path::new(path);
    objects.is_empty() || objects.iter().any(|wanted| path.ends_with(wanted))
}

/// Executable file mappings, those of one file together, by rising address of the first.
fn executable_files(maps: &Maps) -> Vec<Vec<Mapping>> {
    let mut order: Vec<Vec<Mapping>> = Vec::new();
    let mut index = BTreeMap::new();
    for mapping in maps
        .mappings
        .iter()
        .filter(|m| m.permissions.execute && m.is_file())
    {
        let key = (
            mapping.device,
            mapping.inode,
            mapping.path.clone(),
            mapping.deleted,
        );
        let at = *index.entry(key).or_insert(order.len());
        match order.get_mut(at) {
            Some(group) => group.push(mapping.clone()),
            None => order.push(vec![mapping.clone()]),
        }
    }
    order
}

/// Searches one object and places its probes.
fn examine(object: Object, custom: &CustomFunctions) -> Cached {
    let go = object.is_go();
    let interpreter = object.has_interpreter();
    let nothing = |problem| Cached::Nothing {
        problem,
        go,
        interpreter,
    };
    if Machine::host() != Some(object.machine()) {
        let path = object.path_text();
        return nothing(Some(format!(
            "{path} is for another machine than this one; not probed"
        )));
    }
    let allocators = match family::find(&object, custom) {
        Ok(allocators) => allocators,
        Err(error) => return nothing(Some(error.to_string())),
    };
    if allocators.functions.is_empty() {
        return nothing(allocators.notes.first().cloned());
    }
    if go {
        // The C functions of a cgo program share the text with Go code, whose stacks move.
        return nothing(Some(format!(
            "{} is a Go program: no probe is placed in its text (R25)",
            object.path_text()
        )));
    }
    Cached::Found(Arc::new(plan::plan(object, allocators)))
}

#[cfg(test)]
mod tests;
