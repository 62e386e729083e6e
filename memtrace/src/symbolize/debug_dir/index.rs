//! Which files of a folder belong to which objects.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::debug_file::checksum;
use super::{Object, printable, shown};
use crate::unwind::{Bytes, Layout, ModuleFile};

/// Files that are looked at; a distribution's whole /usr/lib/debug has some ten thousand.
const MAX_FILES: usize = 50_000;
/// Folders below the one that was named.
const MAX_DEPTH: usize = 16;
/// Files whose name fits and whose content does not, for each object.
const MAX_MISFITS: usize = 4;

/// What was found for an object.
pub(super) enum Found {
    /// Its file.
    Belongs(Arc<ModuleFile>),
    /// One with its name, and why it is not used.
    Misfit(String),
    /// Nothing.
    Nothing,
}

/// The files that may belong to the objects asked for.
pub(super) struct Index {
    by_id: HashMap<String, Candidate>,
    by_checksum: HashMap<u32, Candidate>,
    misfits: HashMap<String, Vec<Misfit>>,
    /// There were too many files.
    pub is_cut: bool,
}

/// A file with symbols; DWARF is better than symbols alone.
struct Candidate {
    module: Arc<ModuleFile>,
    rank: u8,
}

/// A file with an object's name.
struct Misfit {
    path: PathBuf,
    build_id: Option<String>,
}

/// What is looked for.
struct Wanted<'a> {
    ids: HashSet<&'a str>,
    checksums: HashSet<u32>,
    /// Names that the files of the objects may have.
    names: HashSet<String>,
}

impl Index {
    /// Looks where debug files by build id are, then at every file.
    pub fn search(folder: &Path, objects: &[Object]) -> Self {
        let wanted = Wanted {
            ids: objects
                .iter()
                .filter_map(|o| o.build_id.as_deref())
                .collect(),
            checksums: objects
                .iter()
                .filter_map(|o| o.link.as_ref())
                .map(|l| l.checksum)
                .collect(),
            names: objects.iter().flat_map(names).collect(),
        };
        let mut index = Self {
            by_id: HashMap::new(),
            by_checksum: HashMap::new(),
            misfits: HashMap::new(),
            is_cut: false,
        };
        for id in &wanted.ids {
            for path in by_build_id(folder, id) {
                index.look_at(&path, &wanted);
            }
        }
        let is_found = |object: &Object| {
            let file = object
                .build_id
                .as_deref()
                .and_then(|id| index.by_id.get(id));
            file.is_some_and(|file| file.rank == BEST)
        };
        if !objects.iter().all(is_found) {
            index.walk(folder, &wanted);
        }
        index
    }

    /// What there is of an object.
    pub fn of(&self, object: &Object) -> Found {
        let file = match (&object.build_id, &object.link) {
            (Some(id), _) => self.by_id.get(id),
            (None, Some(link)) => self.by_checksum.get(&link.checksum),
            (None, None) => None,
        };
        if let Some(file) = file {
            return Found::Belongs(Arc::clone(&file.module));
        }
        let by_id = object.build_id.iter().flat_map(|id| by_id_name(id));
        let misfit = names(object)
            .chain(by_id)
            .find_map(|name| self.misfits.get(&name)?.first());
        match misfit {
            Some(misfit) => Found::Misfit(misfit.line(object)),
            None => Found::Nothing,
        }
    }

    /// Every file below the folder; links to folders are not followed.
    fn walk(&mut self, folder: &Path, wanted: &Wanted<'_>) {
        let mut folders = vec![(folder.to_owned(), 0)];
        let mut files = 0;
        while let Some((folder, depth)) = folders.pop() {
            // One that cannot be read holds nothing that could be used.
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                files += 1;
                if files > MAX_FILES {
                    self.is_cut = true;
                    return;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        // Those that are wanted of it were looked at by name.
                        if depth < MAX_DEPTH && entry.file_name() != ".build-id" {
                            folders.push((entry.path(), depth + 1));
                        }
                    }
                    Ok(_) => self.look_at(&entry.path(), wanted),
                    Err(_) => {}
                }
            }
        }
    }

    fn look_at(&mut self, path: &Path, wanted: &Wanted<'_>) {
        let Some(file) = open(path) else { return };
        let Ok(module) = ModuleFile::of_addresses(shown(path), file) else {
            return;
        };
        let Ok(layout) = module.layout() else { return };
        let (id, rank) = (layout.build_id.clone(), rank(layout, module.bytes()));
        let candidate = |module| Candidate { module, rank };
        if let Some(id) = &id
            && wanted.ids.contains(id.as_str())
        {
            if self.by_id.get(id).is_none_or(|known| known.rank < rank) {
                self.by_id.insert(id.clone(), candidate(module));
            }
            return;
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| {
            wanted.names.contains(name)
                || wanted
                    .ids
                    .iter()
                    .any(|id| by_id_name(id).any(|n| n == *name))
        }) else {
            return;
        };
        // Only files that links name are read whole.
        if !wanted.checksums.is_empty()
            && let Some(sum) = checksum(module.bytes())
            && wanted.checksums.contains(&sum)
        {
            self.by_checksum.insert(sum, candidate(module));
            return;
        }
        let misfits = self.misfits.entry(name).or_default();
        if misfits.len() < MAX_MISFITS {
            misfits.push(Misfit {
                path: path.to_owned(),
                build_id: id,
            });
        }
    }
}

impl Misfit {
    fn line(&self, object: &Object) -> String {
        let (file, name) = (shown(&self.path), printable(&object.path));
        match (&self.build_id, &object.build_id, &object.link) {
            (Some(found), Some(wanted), _) => format!(
                "{file} is of another build than the recorded {name} and is not used: its build id is \
                 {found}, the recorded one {wanted}"
            ),
            (None, Some(wanted), _) => format!(
                "{file} has no build id and is not used: it cannot be told to belong to the recorded \
                 {name}, whose build id is {wanted}"
            ),
            (_, None, Some(_)) => format!(
                "{file} is not used: it has not the checksum that the debug link of the recorded \
                 {name} states"
            ),
            (_, None, None) => format!(
                "{file} is not used: the recorded {name} has neither a build id nor a debug link, so \
                 no file can be told to belong to it"
            ),
        }
    }
}

const BEST: u8 = 2;

/// 2 with DWARF, 1 with symbols, else 0.
fn rank(layout: &Layout, bytes: &Bytes) -> u8 {
    let sections = layout.sections(bytes);
    let has = |names: &[&[u8]]| sections.iter().any(|s| names.contains(&s.name.as_slice()));
    if has(&[b".debug_info", b".zdebug_info"]) {
        BEST
    } else {
        u8::from(has(&[b".symtab"]))
    }
}

/// A regular file; links are followed, nothing blocks.
fn open(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// `.build-id/xx/yyyy.debug`, and the object itself, which some distributions link there.
fn by_build_id(folder: &Path, id: &str) -> Vec<PathBuf> {
    let Some((first, rest)) = id.split_at_checked(2) else {
        return Vec::new();
    };
    // Of a recording: it must not lead anywhere else.
    if !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Vec::new();
    }
    let below = folder.join(".build-id").join(first);
    let inside = folder.join(first);
    [below, inside]
        .iter()
        .flat_map(|at| [at.join(format!("{rest}.debug")), at.join(rest)])
        .collect()
}

fn by_id_name(id: &str) -> impl Iterator<Item = String> {
    let rest = id.split_at_checked(2).map(|(_, rest)| rest);
    rest.into_iter().map(|rest| format!("{rest}.debug"))
}

/// Names that an object's file with symbols may have.
fn names(object: &Object) -> impl Iterator<Item = String> {
    let name = object.path.rsplit('/').next().unwrap_or_default();
    let usual = [name.to_owned(), format!("{name}.debug")];
    usual
        .into_iter()
        .chain(object.link.as_ref().map(|link| link.name.clone()))
        .filter(|name| !name.is_empty())
}
