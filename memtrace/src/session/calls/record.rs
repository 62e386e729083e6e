//! A record of the kernel's as an event.

use jiff::Timestamp;
use memtrace_common::{
    CallEvent, Function, RegionCall,
    events::{IN_ALLOCATOR, LIFE_EXEC, LIFE_EXIT, LIFE_FORK, OLD_KNOWN, OTHER_PROBES},
};

use crate::{
    report::event::{Address, Event, Kind, Outcome, protection},
    target::printable,
};

const MAP_ANONYMOUS: u64 = 0x20;
const CLONE_VM: u64 = 0x100;

/// The event of a record, without what the process has to tell; nothing for what this build does
/// not know.
pub(super) fn event(call: &CallEvent, time: Timestamp) -> Option<Event> {
    let kind = kind(call.what)?;
    let header = &call.header;
    let comm = call.comm.split(|byte| *byte == 0).next();
    let comm = printable(comm.unwrap_or_default());
    let mut event = Event::new(time, kind, [header.tgid, header.tid], comm);
    if kind.is_heap() {
        heap(call, &mut event);
    } else if kind.is_region() {
        region(call, &mut event);
    } else if kind == Kind::Fork {
        let [child, flags, ..] = call.values;
        event.child_pid = u32::try_from(child).ok();
        event.shares_memory = flags & CLONE_VM != 0;
    }
    Some(event)
}

fn kind(what: u32) -> Option<Kind> {
    const REALLOC: [u32; 3] = [
        Function::Realloc as u32,
        Function::ReallocArray as u32,
        Function::Xallocx as u32,
    ];
    const FIRST_FREE: u32 = Function::Free0 as u32;
    const LAST_FREE: u32 = Function::Free5 as u32;
    const LAST_ALLOC: u32 = Function::Xallocx as u32;
    Some(match what {
        LIFE_FORK => Kind::Fork,
        LIFE_EXEC => Kind::Exec,
        LIFE_EXIT => Kind::Exit,
        FIRST_FREE..=LAST_FREE => Kind::Free,
        what if REALLOC.contains(&what) => Kind::Realloc,
        0..=LAST_ALLOC => Kind::Alloc,
        what => match RegionCall::of(what.checked_sub(OTHER_PROBES)?)? {
            RegionCall::Mmap => Kind::Mmap,
            RegionCall::Munmap => Kind::Munmap,
            RegionCall::Mremap => Kind::Mremap,
            RegionCall::Brk => Kind::Brk,
            RegionCall::Madvise => Kind::Madvise,
            RegionCall::Mprotect => Kind::Mprotect,
        },
    })
}

fn address(value: u64) -> Option<Address> {
    (value != 0).then_some(Address(value))
}

fn heap(call: &CallEvent, event: &mut Event) {
    let [size, old, old_size, born_ns, _] = call.values;
    if call.flags & OLD_KNOWN != 0 {
        let age_ns = call.header.time_ns.saturating_sub(born_ns);
        event.old_size = Some(old_size);
        event.age_seconds = Some(age_ns as f64 / 1e9);
    }
    if event.kind == Kind::Free {
        event.address = address(old);
        event.size = event.old_size.take();
        return;
    }
    event.size = Some(size);
    event.address = address(call.result);
    event.old_address = address(old);
    event.result = Some(match (event.address, event.kind) {
        (Some(_), _) => Outcome::Done,
        (None, Kind::Realloc) if size == 0 && old != 0 => Outcome::Freed,
        (None, _) => Outcome::Failed,
    });
}

fn region(call: &CallEvent, event: &mut Event) {
    let [first, second, third, fourth, fifth] = call.values;
    let outcome = Outcome::of_result(call.result);
    let made = address(call.result).filter(|_| !outcome.is_failure());
    event.by_allocator = call.flags & IN_ALLOCATOR != 0;
    event.result = Some(outcome);
    event.size = Some(second);
    event.address = address(first);
    match event.kind {
        Kind::Mmap => {
            event.address = made;
            event.protection = Some(protection(third));
            event.flags = Some(Address(fourth));
            // The lower half is the descriptor.
            event.fd = (fourth & MAP_ANONYMOUS == 0).then_some((fifth as u32).cast_signed());
        }
        Kind::Mremap => {
            (event.old_address, event.old_size) = (address(first), Some(second));
            event.size = Some(third);
            event.address = made;
            event.flags = Some(Address(fourth));
        }
        Kind::Brk => {
            event.old_address = address(first);
            event.size = None;
            event.address = address(call.result);
            if first != 0 && call.result < first {
                // The end stays where it is, which is what is returned.
                event.result = Some(Outcome::Refused(libc::ENOMEM));
            }
        }
        Kind::Madvise => event.advice = Some(third),
        Kind::Mprotect => event.protection = Some(protection(third)),
        _ => {}
    }
}
