//! The shared types as map keys and values.

use memtrace_common::{ContextKey, LiveKey, Sampling, Target, TextTable};

/// A shared type as aya wants it. Only made for the types below.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Plain<T: Shared>(pub T);

/// Types of the ABI: `repr(C)`, padded explicitly, valid for every bit pattern.
///
/// # Safety
/// Implementors are plain data without padding or invalid values.
pub(super) unsafe trait Shared: Copy + 'static {}

// SAFETY: integers only; memtrace-common asserts their sizes, which leaves no room for padding.
unsafe impl Shared for LiveKey {}
// SAFETY: as above.
unsafe impl Shared for ContextKey {}
// SAFETY: as above.
unsafe impl Shared for Target {}
// SAFETY: as above.
unsafe impl Shared for Sampling {}
// SAFETY: as above.
unsafe impl Shared for TextTable {}

// SAFETY: `Shared` demands what `Pod` does.
unsafe impl<T: Shared> aya::Pod for Plain<T> {}
