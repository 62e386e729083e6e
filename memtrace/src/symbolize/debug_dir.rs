//! Names applied later: frames that were named on another machine are named again from files with
//! symbols that somebody has in a folder.
//!
//! A file is used when its build id is that of the recorded object; of an object without a build
//! id when it has the checksum that the object's debug link stated. Everything else with such a name
//! is told and left alone: the symbols of another build are worse than none.

mod index;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::trim::mark_allocators;
use super::{StackToName, Symbolizer, printable};
use crate::report::model::{DebugLink, Frame, Stated};
use crate::unwind::{CapturedFrame, ModuleFile};

use index::{Found, Index};

/// Reading large debug files takes its time; what is not named by then keeps the names it has.
const DEADLINE: Duration = Duration::from_secs(120);
/// Lines about files that do not fit; the others are counted.
const MAX_TOLD: usize = 10;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DebugDirError {
    /// It cannot be looked into.
    #[error("cannot look into --debug-dir {}: {source}", path.display())]
    Open {
        /// As the user named it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error(
        "--debug-dir {} is not a folder: name the one that holds the debug files", .0.display()
    )]
    NotAFolder(PathBuf),
}

/// An object as frames know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Object {
    path: String,
    build_id: Option<String>,
    link: Option<DebugLink>,
}

/// A folder with symbols.
pub struct DebugDir {
    path: PathBuf,
    symbolizer: Symbolizer,
    files: HashMap<Object, Option<Arc<ModuleFile>>>,
    told: HashSet<String>,
    /// Whether any file belongs to any object.
    is_used: bool,
}

impl DebugDir {
    /// Opens a folder; its files are looked at when they are asked for.
    ///
    /// # Errors
    /// When it is no folder.
    pub fn open(path: &Path) -> Result<Self, DebugDirError> {
        let meta = std::fs::metadata(path).map_err(|source| DebugDirError::Open {
            path: path.to_owned(),
            source,
        })?;
        if !meta.is_dir() {
            return Err(DebugDirError::NotAFolder(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            symbolizer: Symbolizer::new(),
            files: HashMap::new(),
            told: HashSet::new(),
            is_used: false,
        })
    }

    /// Names stacks again where the folder knows more than they do; what to tell about its files, each
    /// once.
    pub fn rename(&mut self, stacks: &mut [&mut Vec<Frame>]) -> Vec<String> {
        let mut lines = self.look_for(stacks.iter().flat_map(|frames| frames.iter()));
        let physical: Vec<Vec<&[Frame]>> = stacks.iter().map(|frames| calls(frames)).collect();
        let captured: Vec<Vec<CapturedFrame>> = physical
            .iter()
            .map(|calls| calls.iter().map(|call| self.captured(call)).collect())
            .collect();
        let requests: Vec<_> = captured
            .iter()
            .map(|frames| StackToName { frames, jit: None })
            .collect();
        let late = self.symbolizer.counters().late;
        let named = self.symbolizer.symbolize(&requests, DEADLINE);
        if self.symbolizer.counters().late > late {
            lines.push(format!(
                "reading the symbols in {} takes too long: not every frame is named from them",
                self.path.display()
            ));
        }
        let renamed: Vec<_> = physical
            .iter()
            .zip(&captured)
            .zip(&named)
            .map(|((old, captured), new)| merged(old, captured, &calls(new)))
            .collect();
        for (frames, new) in stacks.iter_mut().zip(renamed) {
            **frames = new;
        }
        lines.retain(|line| self.told.insert(line.clone()));
        lines
    }

    /// Finds the files of objects that were not asked for before.
    fn look_for<'a>(&mut self, frames: impl Iterator<Item = &'a Frame>) -> Vec<String> {
        let mut wanted = BTreeSet::new();
        for frame in frames {
            if let Some(object) = object_of(frame)
                && !self.files.contains_key(&object)
            {
                wanted.insert(object);
            }
        }
        if wanted.is_empty() {
            return Vec::new();
        }
        let objects: Vec<Object> = wanted.into_iter().collect();
        let index = Index::search(&self.path, &objects);
        let mut lines = Vec::new();
        if index.is_cut {
            lines.push(format!(
                "{} holds more files than are looked at: name a folder nearer to the debug files",
                self.path.display()
            ));
        }
        let mut misfits = 0;
        for object in objects {
            let (file, other) = match index.of(&object) {
                Found::Belongs(file) => (Some(file), None),
                Found::Misfit(why) => (None, Some(why)),
                Found::Nothing => (None, None),
            };
            self.is_used |= file.is_some();
            self.files.insert(object, file);
            misfits += usize::from(other.is_some());
            lines.extend(other.filter(|_| misfits <= MAX_TOLD));
        }
        if misfits > MAX_TOLD {
            lines.push(format!("and {} more like these", misfits - MAX_TOLD));
        }
        if !self.is_used && misfits == 0 {
            lines.push(format!(
                "no file in {} belongs to an object on these stacks: they keep the names they have",
                self.path.display()
            ));
        }
        lines
    }

    /// The call as the symbolizer wants it: without an object when nothing is known of it.
    fn captured(&self, call: &[Frame]) -> CapturedFrame {
        let unknown = CapturedFrame {
            address: 0,
            module: None,
            file_offset: None,
        };
        let Some(frame) = call.last() else {
            return unknown;
        };
        let file = object_of(frame).and_then(|object| self.files.get(&object)?.clone());
        let (Some(_), Some(stated)) = (&file, &frame.stated) else {
            return unknown;
        };
        CapturedFrame {
            address: stated.address,
            module: file,
            file_offset: Some(stated.address),
        }
    }
}

/// The object a frame is in, when it can be found again.
fn object_of(frame: &Frame) -> Option<Object> {
    let Stated { link, .. } = frame.stated.as_ref()?;
    Some(Object {
        path: frame.module.clone()?,
        build_id: frame.build_id.clone(),
        link: link.clone(),
    })
}

/// Frames parted into calls: what is inlined, then the function it is inlined into.
fn calls(frames: &[Frame]) -> Vec<&[Frame]> {
    frames.split_inclusive(|frame| !frame.inlined).collect()
}

/// The old stack with those calls renamed that the new names say more of.
fn merged(old: &[&[Frame]], captured: &[CapturedFrame], new: &[&[Frame]]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut was_allocator = Vec::new();
    for (at, before) in old.iter().enumerate() {
        let is_known = captured.get(at).is_some_and(|frame| frame.module.is_some());
        let better = new.get(at).filter(|new| is_known && says_more(new, before));
        let Some((better, place)) = better.zip(before.last()) else {
            frames.extend_from_slice(before);
            was_allocator.extend(before.iter().map(|frame| frame.allocator));
            continue;
        };
        let is_allocator = before.iter().any(|frame| frame.allocator);
        frames.extend(better.iter().map(|name| Frame {
            function: name.function.clone(),
            file: name.file.clone(),
            line: name.line,
            inlined: name.inlined,
            reason: None,
            ..place.clone()
        }));
        was_allocator.extend(better.iter().map(|_| is_allocator));
    }
    mark_allocators(&mut frames);
    for (frame, was) in frames.iter_mut().zip(was_allocator) {
        frame.allocator |= was;
    }
    frames
}

/// A name where there was none, or a line where there was none.
fn says_more(new: &[Frame], old: &[Frame]) -> bool {
    let has_name = |frames: &[Frame]| frames.last().is_some_and(|f| f.function.is_some());
    let has_line = |frames: &[Frame]| frames.iter().any(|f| f.line.is_some());
    has_name(new) && (!has_name(old) || (has_line(new) && !has_line(old)))
}

/// What a person calls a file.
fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

#[cfg(test)]
mod tests;
