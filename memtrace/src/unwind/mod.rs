//! Stack copies to raw stacks: one copy per new context, unwound by the objects' own tables.
//!
//! [`Unwinder`] knows the executable mappings of every traced address space and turns a
//! [`RawStack`] into an [`UnwoundStack`] of raw addresses; [`StackTable`] interns those;
//! [`Unwinder::capture`] ties them to [`ModuleFile`]s while the target lives, for
//! [`crate::symbolize`] to name when somebody will look at them.
//!
//! Your part: open files safely (R28), hand over all executable mappings whenever they change,
//! unwind again when [`Unwinder::unknown_address`] says that they had changed.
//!
//! Not for: reading a live stack, naming anything, 32-bit programs, Go.

mod arch;
mod cfi;
mod code;
mod elf;
mod images;
mod module;
mod rules;
mod space;
mod stack;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod translate;
mod unwinder;

use std::sync::Arc;

pub use cfi::NoCfi;
pub use elf::{Bytes, ElfError, Layout, Section, Segment};
pub use images::{UnwindCounters, UnwindLimits};
pub use module::{DebugLink, Identity, ModuleError, ModuleFile, ModuleStore};
pub use space::{Backing, ModuleMapping};
pub use table::{StackTable, StackTableLimits};
pub use unwinder::{PendingReturn, Unwinder};

/// What the kernel side copied at a probe: registers, and the stack from `sp` upwards.
#[derive(Clone, Copy, Debug)]
pub struct RawStack<'a> {
    /// Instruction pointer, inside the probed function.
    pub ip: u64,
    /// Stack pointer: the address of `bytes[0]`.
    pub sp: u64,
    /// Frame pointer register (rbp, x29).
    pub fp: u64,
    /// Link register on aarch64, 0 elsewhere.
    pub lr: u64,
    /// The copied bytes.
    pub bytes: &'a [u8],
}

/// A stack of code addresses, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnwoundStack {
    /// `frames[0]` is the instruction pointer; the others are return addresses (not yet minus one).
    pub frames: Arc<[u64]>,
    /// Why the outermost frame may not be the thread's first; `None` when it is.
    pub incomplete: Option<Incomplete>,
}

/// Why unwinding ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Incomplete {
    /// The copy ended before the stack did.
    CopyTooShort,
    /// No unwind information covers a frame's address.
    NoUnwindInfo,
    /// The unwind information was broken or led in a circle.
    BadUnwindInfo,
    /// More frames than [`MAX_FRAMES`].
    TooDeep,
}

/// Frames kept of one stack.
pub const MAX_FRAMES: usize = 1024;

/// One frame tied to its object while the target lives, to be named later.
#[derive(Clone, Debug)]
pub struct CapturedFrame {
    /// Address in the process; a return address for all frames but the first.
    pub address: u64,
    /// The object; `None` for code made at run time and for addresses nothing was mapped at.
    pub module: Option<Arc<ModuleFile>>,
    /// Offset of `address` in the object's file.
    pub file_offset: Option<u64>,
}
