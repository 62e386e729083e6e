//! `--debug-dir` of what reads recordings.

use std::path::Path;

use crate::{
    report::model::Frame,
    symbolize::{DebugDir, DebugDirError},
};

/// Better names, where a folder with them was given.
#[derive(Default)]
pub(super) struct Symbols(Option<DebugDir>);

impl Symbols {
    pub fn open(folder: Option<&Path>) -> Result<Self, DebugDirError> {
        folder.map(DebugDir::open).transpose().map(Self)
    }

    /// Names the frames of stacks again; what does not fit is told on standard error.
    pub fn rename(&mut self, mut stacks: Vec<&mut Vec<Frame>>) {
        let Some(folder) = &mut self.0 else { return };
        for line in folder.rename(&mut stacks) {
            eprintln!("memtrace: {line}");
        }
    }
}
