//! Tests of unwinding: this process's own stacks, programs that copy theirs, and hostile bytes.

mod hostile;
mod own_stack;
// On aarch64 the link register is replaced, not a word of the stack; not tested there yet.
#[cfg(target_arch = "x86_64")]
mod pending;
pub(crate) mod program;
mod programs;
mod sharing;
pub(crate) mod support;
