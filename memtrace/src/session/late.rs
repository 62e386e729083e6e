//! Stacks that lead through code that memtrace has not read the mappings of yet.
//!
//! The event that announces a mapping and the stack of its first call come close behind one
//! another: such a stack is kept until the mappings were read again, and unwound then.

use memtrace_common::WIDE_BYTES;

use std::collections::HashSet;

use super::{Session, SessionError, contexts::Advice};
use crate::{
    id::{Fingerprint, SpaceId, Tgid},
    stream::NewContext,
    unwind::{PendingReturn, RawStack, Unwinder},
};

/// Stacks kept at once, 32 KiB each. No more events are taken from the ring buffer before they are
/// unwound: a program that `run` starts sends hundreds before its mappings were read.
pub(super) const MAX_LATE: usize = 64;

/// A stack copy that outlives its record.
pub(super) struct Late {
    tgid: Tgid,
    space: SpaceId,
    family: SpaceId,
    fingerprint: Fingerprint,
    narrow: Fingerprint,
    registers: [u64; 4],
    bytes: Vec<u8>,
    pending: Vec<PendingReturn>,
}

impl Late {
    pub fn new(context: &NewContext<'_>) -> Self {
        let stack = &context.stack;
        Self {
            tgid: context.tgid,
            space: context.space,
            family: context.image,
            fingerprint: context.fingerprint,
            narrow: context.narrow,
            registers: [stack.ip, stack.sp, stack.fp, stack.lr],
            bytes: stack.bytes.to_vec(),
            pending: context.pending.clone(),
        }
    }

    fn stack(&self) -> RawStack<'_> {
        let [ip, sp, fp, lr] = self.registers;
        RawStack {
            ip,
            sp,
            fp,
            lr,
            bytes: &self.bytes,
        }
    }
}

impl Session {
    /// Reads the mappings of an address space's process, if that is traced.
    fn refresh_space(&mut self, space: SpaceId) -> Result<(), SessionError> {
        let process = self.traced.iter().find(|t| t.image.space == space);
        process
            .map(|t| t.tgid)
            .map_or(Ok(()), |tgid| self.refresh(tgid))
    }

    /// Reads the mappings of their processes and unwinds them, however that ends this time.
    pub(super) fn unwind_late(&mut self, late: Vec<Late>) -> Result<Vec<Advice>, SessionError> {
        let processes: HashSet<_> = late.iter().map(|late| late.tgid).collect();
        for tgid in processes {
            self.refresh(tgid)?;
        }
        let mut advices = Vec::new();
        let mut families = HashSet::new();
        for late in late {
            if !self.unwinder.knows(late.space) {
                self.unwinder.fork_space(late.family, late.space);
            }
            let unwind = |unwinder: &mut Unwinder| {
                unwinder.unwind_with_pending(late.space, &late.stack(), &late.pending)
            };
            let mut unwound = unwind(&mut self.unwinder);
            if late.family != late.space && self.unwinder.unknown_address().is_some() {
                // It has ended, and was forked before its parent's mappings were read to the end.
                if families.insert(late.family) {
                    self.refresh_space(late.family)?;
                }
                self.unwinder.fork_space(late.family, late.space);
                unwound = unwind(&mut self.unwinder);
            }
            if let Some(stack) = self.stacks.intern(&unwound) {
                let (fingerprint, narrow) = (late.fingerprint, late.narrow);
                if self.unwinder.depth() > WIDE_BYTES as u64 {
                    self.contexts.mark_deep(late.family, fingerprint);
                }
                advices.push(self.contexts.learn(late.family, fingerprint, narrow, stack));
            }
        }
        Ok(advices)
    }
}
