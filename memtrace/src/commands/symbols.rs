//! `--debug-dir` of what reads recordings.

use std::path::Path;

use crate::{
    report::model::Stack,
    symbolize::{DebugDir, DebugDirError},
};

/// Better names, where a folder with them was given.
#[derive(Default)]
pub(super) struct Symbols(Option<DebugDir>);

impl Symbols {
    pub fn open(folder: Option<&Path>) -> Result<Self, DebugDirError> {
        folder.map(DebugDir::open).transpose().map(Self)
    }

    /// Names stacks again; what does not fit is told on standard error.
    pub fn rename(&mut self, stacks: &mut [Stack]) {
        let Some(folder) = &mut self.0 else { return };
        let mut frames: Vec<_> = stacks.iter_mut().map(|stack| &mut stack.frames).collect();
        for line in folder.rename(&mut frames) {
            eprintln!("memtrace: {line}");
        }
    }
}
