//! The copied bytes of a stack, read by address.

use std::cell::Cell;

use super::{Incomplete, RawStack};

/// Frames beyond the copy are looked for this far; farther away an address is not of this stack.
const PLAUSIBLE_STACK: u64 = 1 << 30;

/// Reads a copy and remembers where a read failed.
pub(super) struct StackCopy<'a> {
    sp: u64,
    bytes: &'a [u8],
    missed: Cell<u64>,
    /// Where the stack walked at present begins; another one's after a signal frame.
    base: Cell<u64>,
}

impl<'a> StackCopy<'a> {
    pub fn new(raw: &RawStack<'a>) -> Self {
        Self {
            sp: raw.sp,
            bytes: raw.bytes,
            missed: Cell::new(raw.sp),
            base: Cell::new(raw.sp),
        }
    }

    /// The word at an address.
    pub fn read(&self, address: u64) -> Result<u64, ()> {
        let at = address
            .checked_sub(self.sp)
            .and_then(|at| usize::try_from(at).ok());
        let word = at.and_then(|at| self.bytes.get(at..)?.first_chunk::<8>());
        word.map(|word| u64::from_le_bytes(*word))
            .ok_or_else(|| self.missed.set(address))
    }

    /// What the last failed read means.
    pub fn why(&self) -> Incomplete {
        if self.could_hold(self.missed.get()) {
            Incomplete::CopyTooShort
        } else {
            Incomplete::BadUnwindInfo
        }
    }

    /// Whether an address is on this stack, as far as its distance tells; it may be beyond the copy.
    pub fn could_hold(&self, address: u64) -> bool {
        address
            .checked_sub(self.base.get())
            .is_some_and(|at| at < PLAUSIBLE_STACK)
    }

    /// The frames to come are at another stack pointer, which need not be above the last.
    pub fn goes_on_at(&self, sp: u64) {
        self.base.set(sp);
    }
}
