//! Ring buffer bytes to typed events.
//!
//! The kernel side wrote them, but the reader trusts no length: a record that is too short or of
//! an unknown kind is counted and skipped.

use aya::maps::{MapData, RingBuf};
use memtrace_common::{
    CallEvent, ContextHeader, EventHeader, EventKind, FaultEvent, LifecycleEvent, MappingEvent,
    OomEvent, RegionEvent,
};

use crate::{
    id::{Fingerprint, SpaceId, Tgid, Tid},
    unwind::{PendingReturn, RawStack},
};

/// One record.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A call path seen for the first time.
    Context(NewContext<'a>),
    /// A traced process replaced its image.
    Exec {
        /// The process.
        tgid: Tgid,
        /// The address space that ended.
        old: SpaceId,
        /// The one that began.
        new: SpaceId,
    },
    /// A traced process created another, which is traced from its beginning on.
    Fork {
        /// The child.
        tgid: Tgid,
        /// Its address space.
        space: SpaceId,
        /// The parent.
        parent: Tgid,
        /// The parent's address space.
        parent_space: SpaceId,
    },
    /// The last thread of a process ended, or it became a program that is not traced.
    Ended {
        /// The process.
        tgid: Tgid,
        /// Its address space.
        space: SpaceId,
        /// It lives on as another program.
        by_exec: bool,
    },
    /// A process that may have to be traced.
    Candidate {
        /// The process.
        tgid: Tgid,
    },
    /// The thread that a process's probes hang on ended.
    AnchorEnded {
        /// The process.
        tgid: Tgid,
    },
    /// An executable mapping is about to appear.
    Mapping {
        /// The process.
        tgid: Tgid,
        /// Its address space.
        space: SpaceId,
    },
    /// The kernel chose a process to kill.
    Oom(Box<OomEvent>),
    /// A system call changed the mappings.
    Region(RegionEvent),
    /// A page was touched for the first time.
    Fault(FaultEvent),
    /// One call, or a turn in a process's life.
    Call(CallEvent),
}

/// A stack to unwind.
#[derive(Clone, Debug)]
pub struct NewContext<'a> {
    /// The process.
    pub tgid: Tgid,
    /// The thread.
    pub tid: Tid,
    /// Its address space.
    pub space: SpaceId,
    /// The address space that this one was forked from, itself when none: the fingerprint means
    /// the same in all that were.
    pub image: SpaceId,
    /// What the kernel counts under.
    pub fingerprint: Fingerprint,
    /// What it was before widening.
    pub narrow: Fingerprint,
    /// The stack.
    pub stack: RawStack<'a>,
    /// Calls in flight with return probes (R26).
    pub pending: Vec<PendingReturn>,
}

/// Why a record was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its kind demands.
    #[error("a record of {0} bytes is too short")]
    Short(usize),
    /// A kind this build does not know.
    #[error("unknown record kind {0}")]
    UnknownKind(u32),
}

/// Decodes one record.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    let header: EventHeader = read(bytes)?;
    let tgid = Tgid(header.tgid);
    let space = SpaceId(header.space);
    match header.kind {
        kind if kind == EventKind::Context as u32 => decode_context(bytes),
        kind if kind == EventKind::Exec as u32 => {
            let event: LifecycleEvent = read(bytes)?;
            Ok(Event::Exec {
                tgid,
                old: SpaceId(event.other_space),
                new: space,
            })
        }
        kind if kind == EventKind::Fork as u32 => {
            let event: LifecycleEvent = read(bytes)?;
            Ok(Event::Fork {
                tgid,
                space,
                parent: Tgid(event.other_tgid),
                parent_space: SpaceId(event.other_space),
            })
        }
        kind if kind == EventKind::Ended as u32 => {
            let event: LifecycleEvent = read(bytes)?;
            Ok(Event::Ended {
                tgid,
                space,
                by_exec: event.by_exec != 0,
            })
        }
        kind if kind == EventKind::Candidate as u32 => Ok(Event::Candidate { tgid }),
        kind if kind == EventKind::Exit as u32 => {
            let _: LifecycleEvent = read(bytes)?;
            Ok(Event::AnchorEnded { tgid })
        }
        kind if kind == EventKind::Mapping as u32 => {
            let _: MappingEvent = read(bytes)?;
            Ok(Event::Mapping { tgid, space })
        }
        kind if kind == EventKind::Oom as u32 => Ok(Event::Oom(Box::new(read(bytes)?))),
        kind if kind == EventKind::Region as u32 => Ok(Event::Region(read(bytes)?)),
        kind if kind == EventKind::Fault as u32 => Ok(Event::Fault(read(bytes)?)),
        kind if kind == EventKind::Call as u32 => Ok(Event::Call(read(bytes)?)),
        kind => Err(DecodeError::UnknownKind(kind)),
    }
}

fn decode_context(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    let head: ContextHeader = read(bytes)?;
    let start = size_of::<ContextHeader>();
    let stack = bytes
        .get(start..start.saturating_add(head.stack_len as usize))
        .ok_or(DecodeError::Short(bytes.len()))?;
    Ok(Event::Context(NewContext {
        tgid: Tgid(head.header.tgid),
        tid: Tid(head.header.tid),
        space: SpaceId(head.header.space),
        image: SpaceId(head.image),
        fingerprint: Fingerprint(head.fingerprint),
        narrow: Fingerprint(head.narrow),
        stack: RawStack {
            ip: head.ip,
            sp: head.sp,
            fp: head.fp,
            lr: head.lr,
            bytes: stack,
        },
        pending: head
            .pending
            .iter()
            .filter(|[_, original]| *original != 0)
            .map(|[slot_address, original]| PendingReturn {
                slot_address: *slot_address,
                original: *original,
            })
            .collect(),
    }))
}

/// Types of the ABI that may be read from any bytes.
trait Plain: Copy {}
impl Plain for EventHeader {}
impl Plain for ContextHeader {}
impl Plain for LifecycleEvent {}
impl Plain for MappingEvent {}
impl Plain for OomEvent {}
impl Plain for RegionEvent {}
impl Plain for FaultEvent {}
impl Plain for CallEvent {}

fn read<T: Plain>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::Short(bytes.len()));
    }
    // SAFETY: long enough; the types are integers only, for which every bit pattern is valid.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The reading end of the ring buffer.
pub struct Stream {
    ring: RingBuf<MapData>,
    undecodable: u64,
}

impl Stream {
    /// Reads from `ring`.
    #[must_use]
    pub fn new(ring: RingBuf<MapData>) -> Self {
        Self {
            ring,
            undecodable: 0,
        }
    }

    /// Hands every record that is there to `handle`; at most `limit`, so that a flood cannot keep
    /// the caller from its clock. True when there may be more.
    pub fn drain(&mut self, limit: usize, mut handle: impl FnMut(Event<'_>)) -> bool {
        for _ in 0..limit {
            let Some(item) = self.ring.next() else {
                return false;
            };
            match decode(&item) {
                Ok(event) => handle(event),
                Err(_) => self.undecodable += 1,
            }
        }
        true
    }

    /// Records that were not understood.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

impl std::os::fd::AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: the ring buffer owns the descriptor and lives as long as the borrow.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of<T: Plain>(value: &T) -> Vec<u8> {
        // SAFETY: plain data without padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
            .to_vec()
    }

    fn header(kind: EventKind) -> EventHeader {
        EventHeader {
            kind: kind as u32,
            tgid: 7,
            tid: 8,
            pad: 0,
            space: 9,
            time_ns: 10,
        }
    }

    /// A context record gives registers and exactly the bytes of stack it says it has.
    #[test]
    fn context() {
        let head = ContextHeader {
            header: header(EventKind::Context),
            image: 9,
            fingerprint: 1,
            narrow: 2,
            ip: 3,
            sp: 4,
            fp: 5,
            lr: 6,
            stack_len: 3,
            function: 0,
            pending: [[0; 2]; memtrace_common::MAX_CALLS],
        };
        let mut bytes = bytes_of(&head);
        bytes.extend([1, 2, 3, 4, 5]);
        let Ok(Event::Context(context)) = decode(&bytes) else {
            panic!("not a context")
        };
        assert_eq!(context.stack.bytes, [1, 2, 3]);
        assert_eq!(
            (context.tgid, context.stack.sp, context.fingerprint.0),
            (Tgid(7), 4, 1)
        );
    }

    /// A record that claims more stack than it has is refused.
    #[test]
    fn short_context() {
        let head = ContextHeader {
            header: header(EventKind::Context),
            image: 9,
            fingerprint: 1,
            narrow: 2,
            ip: 3,
            sp: 4,
            fp: 5,
            lr: 6,
            stack_len: 30,
            function: 0,
            pending: [[0; 2]; memtrace_common::MAX_CALLS],
        };
        assert!(matches!(
            decode(&bytes_of(&head)),
            Err(DecodeError::Short(_))
        ));
    }

    /// Exec names both address spaces.
    #[test]
    fn exec() {
        let event = LifecycleEvent {
            header: header(EventKind::Exec),
            other_space: 5,
            other_tgid: 0,
            by_exec: 0,
        };
        assert!(matches!(
            decode(&bytes_of(&event)),
            Ok(Event::Exec {
                tgid: Tgid(7),
                old: SpaceId(5),
                new: SpaceId(9)
            })
        ));
    }

    /// Fork names both processes and both address spaces.
    #[test]
    fn fork() {
        let event = LifecycleEvent {
            header: header(EventKind::Fork),
            other_space: 5,
            other_tgid: 6,
            by_exec: 0,
        };
        assert!(matches!(
            decode(&bytes_of(&event)),
            Ok(Event::Fork {
                tgid: Tgid(7),
                space: SpaceId(9),
                parent: Tgid(6),
                parent_space: SpaceId(5)
            })
        ));
    }

    proptest! {
        /// No bytes make the decoder panic.
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
