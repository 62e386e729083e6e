//! What the kernel sends, handed to the parts that keep it.

use memtrace_common::{CallEvent, OomEvent, WIDE_BYTES};

use super::{
    Session, SessionError,
    contexts::{Advice, Contexts},
    late::{Late, MAX_LATE},
};
use crate::{
    id::{SpaceId, Tgid},
    ledger::regions::Change,
    stream::{Event, NewContext},
    unwind::{StackTable, Unwinder},
};

/// What happened to a process, in its order.
enum Life {
    Exec(Tgid, SpaceId, SpaceId),
    AnchorEnded(Tgid),
    Forked(Tgid, SpaceId, SpaceId),
    Ended(Tgid, SpaceId, bool),
    Candidate(Tgid),
}

impl Life {
    fn of(event: &Event<'_>) -> Option<Self> {
        match event {
            Event::Exec { tgid, old, new } => Some(Self::Exec(*tgid, *old, *new)),
            Event::AnchorEnded { tgid } => Some(Self::AnchorEnded(*tgid)),
            Event::Fork {
                tgid,
                space,
                parent_space,
                ..
            } => Some(Self::Forked(*tgid, *space, *parent_space)),
            Event::Ended {
                tgid,
                space,
                by_exec,
            } => Some(Self::Ended(*tgid, *space, *by_exec)),
            Event::Candidate { tgid } => Some(Self::Candidate(*tgid)),
            Event::Context(_)
            | Event::Mapping { .. }
            | Event::Region(_)
            | Event::Fault(_)
            | Event::Call(_)
            | Event::Oom(_) => None,
        }
    }
}

/// What has to wait until the ring buffer is put down: it needs the whole session.
#[derive(Default)]
struct Left {
    lives: Vec<Life>,
    late: Vec<Late>,
    advices: Vec<Advice>,
    kills: Vec<OomEvent>,
    calls: Vec<CallEvent>,
}

impl Session {
    /// Handles what is in the ring buffer; true when there may be more.
    pub(super) fn handle_events(&mut self) -> Result<bool, SessionError> {
        if self.calls_wait_to_be_taken() {
            return Ok(false);
        }
        let mut left = Left::default();
        let more = self.drain(&mut left);
        self.take_calls(left.calls);
        for kill in left.kills {
            self.oom_kill(&kill);
        }
        for life in left.lives {
            self.live(life)?;
        }
        left.advices.extend(self.unwind_late(left.late)?);
        self.tie_calls(true);
        for advice in left.advices {
            if let Advice::SetWide(fingerprint, mode) = advice {
                self.kernel.set_wide(fingerprint, mode)?;
            }
        }
        Ok(more)
    }

    /// Hands each record to the part that keeps it.
    fn drain(&mut self, left: &mut Left) -> bool {
        let Self {
            stream,
            unwinder,
            stacks,
            contexts,
            traced,
            regions,
            faults,
            options,
            ..
        } = self;
        let probes = options.probes;
        // Few at a time: each may be a stack to keep or to unwind, and the clock must go on.
        stream.drain(MAX_LATE, |event| match event {
            Event::Context(context) => take_context(&context, unwinder, stacks, contexts, left),
            Event::Mapping { tgid, .. } => {
                for process in traced.iter_mut().filter(|t| t.tgid == tgid) {
                    process.mapping_announced();
                }
            }
            Event::Region(event) => {
                let Some(change) = Change::of(&event) else {
                    return;
                };
                let space = SpaceId(event.header.space);
                if probes.region {
                    regions.take(space, &change);
                }
                if probes.fault {
                    faults.change(space, &change);
                }
            }
            Event::Fault(event) => faults.take(&event),
            Event::Oom(kill) => left.kills.push(*kill),
            Event::Call(call) => left.calls.push(call),
            event => {
                if let Event::Fork {
                    space,
                    parent_space,
                    ..
                } = event
                {
                    unwinder.fork_space(parent_space, space);
                    // The child begins with its parent's mappings and pages, nobody's (R13).
                    regions.fork(parent_space, space);
                    faults.fork(parent_space, space);
                }
                left.lives.extend(Life::of(&event));
            }
        })
    }

    fn live(&mut self, life: Life) -> Result<(), SessionError> {
        match life {
            Life::Exec(tgid, old, new) => self.exec(tgid, old, new)?,
            Life::AnchorEnded(tgid) => self.anchor_ended(tgid)?,
            Life::Forked(child, space, parent) => self.forked(child, space, parent),
            Life::Ended(tgid, space, by_exec) => self.ended(tgid, space, by_exec),
            Life::Candidate(tgid) => self.consider(tgid)?,
        }
        Ok(())
    }
}

/// Unwinds a new stack, or keeps it where the mappings it leads through have to be read first.
fn take_context(
    context: &NewContext<'_>,
    unwinder: &mut Unwinder,
    stacks: &mut StackTable,
    contexts: &mut Contexts,
    left: &mut Left,
) {
    let family = context.image;
    if family != context.space && !unwinder.knows(context.space) {
        unwinder.fork_space(family, context.space);
    }
    let unwound = unwinder.unwind_with_pending(context.space, &context.stack, &context.pending);
    if !unwinder.knows(context.space) || unwinder.unknown_address().is_some() {
        left.late.push(Late::new(context));
        return;
    }
    let Some(stack) = stacks.intern(&unwound) else {
        return;
    };
    let (fingerprint, narrow) = (context.fingerprint, context.narrow);
    if unwinder.depth() > WIDE_BYTES as u64 {
        contexts.mark_deep(family, fingerprint);
    }
    left.advices
        .push(contexts.learn(family, fingerprint, narrow, stack));
}
