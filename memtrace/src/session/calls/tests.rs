use memtrace_common::{
    EventHeader, EventKind, RegionCall,
    events::{IN_ALLOCATOR, LIFE_FORK, OLD_KNOWN, OTHER_PROBES},
};

use super::*;
use crate::report::event::{Address, Outcome};

fn record(what: u32, flags: u32, result: u64, values: [u64; 5]) -> CallEvent {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"a\nb\xff");
    CallEvent {
        header: EventHeader {
            kind: EventKind::Call as u32,
            tgid: 7,
            tid: 8,
            pad: 0,
            space: 9,
            time_ns: 3_000,
        },
        what,
        flags,
        lost: 0,
        comm,
        context: 0,
        ip: 0,
        result,
        values,
    }
}

fn event(what: u32, flags: u32, result: u64, values: [u64; 5]) -> Event {
    record::event(&record(what, flags, result, values), Timestamp::UNIX_EPOCH).unwrap()
}

fn calls() -> Calls {
    Calls {
        with_paths: false,
        waiting: Vec::new(),
        first_untied: 0,
        probed: Probed::default(),
        functions: HashMap::new(),
        paths: HashMap::new(),
        lost_before: 5,
        lost: 0,
        epoch_ns: 0,
    }
}

// Allocator calls: what was asked for, what came of it, and what is known of the old block.
#[test]
fn heap() {
    let done = event(Function::Calloc as u32, 0, 0x10, [15, 0, 99, 99, 0]);
    assert_eq!((done.kind, done.size), (Kind::Alloc, Some(15)));
    assert_eq!(done.address, Some(Address(0x10)));
    assert_eq!((done.old_size, done.age_seconds), (None, None));
    assert_eq!((done.pid, done.tid), (7, 8));
    assert_eq!(done.comm, "a\\nb\u{fffd}");
    let failed = event(Function::PosixMemalign as u32, 0, 0, [15, 0, 0, 0, 0]);
    assert_eq!(
        (failed.address, failed.result),
        (None, Some(Outcome::Failed))
    );
    let moved = event(
        Function::Realloc as u32,
        OLD_KNOWN,
        0x20,
        [40, 0x10, 15, 1_000, 0],
    );
    assert_eq!(moved.kind, Kind::Realloc);
    assert_eq!(
        (moved.old_address, moved.old_size),
        (Some(Address(0x10)), Some(15))
    );
    assert_eq!(moved.age_seconds, Some(2e-6));
    let gone = event(
        Function::Realloc as u32,
        OLD_KNOWN,
        0,
        [0, 0x10, 15, 1_000, 0],
    );
    assert_eq!(gone.result, Some(Outcome::Freed));
    let kept = event(
        Function::Realloc as u32,
        OLD_KNOWN,
        0,
        [40, 0x10, 15, 1_000, 0],
    );
    assert_eq!(kept.result, Some(Outcome::Failed));
    let free = event(
        Function::Free5 as u32,
        OLD_KNOWN,
        0,
        [0, 0x10, 15, 1_000, 0],
    );
    assert_eq!((free.kind, free.size), (Kind::Free, Some(15)));
    assert_eq!((free.address, free.old_size), (Some(Address(0x10)), None));
    let unknown = event(Function::Free0 as u32, 0, 0, [0, 0x10, 0, 0, 0]);
    assert_eq!((unknown.size, unknown.age_seconds), (None, None));
}

// System calls: errors by name, files by descriptor, a brk that the kernel refused by its result.
#[test]
fn regions() {
    let of = |call: RegionCall, flags, result: i64, values| {
        event(
            OTHER_PROBES + call as u32,
            flags,
            result.cast_unsigned(),
            values,
        )
    };
    let mapped = of(
        RegionCall::Mmap,
        IN_ALLOCATOR,
        0x1000,
        [0, 64, 3, 0x22, u64::MAX],
    );
    assert_eq!((mapped.kind, mapped.by_allocator), (Kind::Mmap, true));
    assert_eq!((mapped.protection, mapped.fd), (Some("rw-"), None));
    let file = of(
        RegionCall::Mmap,
        0,
        -12,
        [0, 64, 1, 1, 0xffff_ffff_0000_0003],
    );
    assert_eq!((file.fd, file.address), (Some(3), None));
    assert_eq!(file.result, Some(Outcome::Refused(12)));
    let refused = of(RegionCall::Brk, 0, 0x1000, [0x2000, 0, 0, 0, 0]);
    assert_eq!(refused.result, Some(Outcome::Refused(12)));
    assert_eq!(
        (refused.address, refused.size),
        (Some(Address(0x1000)), None)
    );
    let asked = of(RegionCall::Brk, 0, 0x1000, [0; 5]);
    assert_eq!(asked.result, Some(Outcome::Done));
}

// A record of a later build's is left out, not guessed at.
#[test]
fn unknown_records() {
    for what in [
        22,
        50,
        OTHER_PROBES,
        OTHER_PROBES + 9,
        LIFE,
        LIFE + 9,
        u32::MAX,
    ] {
        let call = record(what, 0, 0, [0; 5]);
        assert!(
            record::event(&call, Timestamp::UNIX_EPOCH).is_none(),
            "{what}"
        );
    }
}

// Losses are told where they are: between the record before and the one that knows of more.
#[test]
fn losses_in_their_place() {
    let mut calls = calls();
    let mut send = |lost| {
        let mut call = record(LIFE_FORK, 0, 0, [1, 0, 0, 0, 0]);
        call.lost = lost;
        calls.take(&call);
    };
    // Five were lost before the session began; of two processors one can be behind.
    for lost in [5, 7, 6, 7, 10] {
        send(lost);
    }
    let told: Vec<u64> = calls
        .waiting
        .iter()
        .map(|one| match &one.line {
            Line::Lost(lost) => lost.events,
            Line::Event(_) => 0,
        })
        .collect();
    assert_eq!(told, [0, 2, 0, 0, 0, 3, 0]);
    assert_eq!(calls.lost, 5);
}

// One name in question needs no look at the process; several are told apart by their place.
#[test]
fn names_by_place() {
    let mut probed = Probed::default();
    let mut add = |function, inode, offset, name: &str| {
        let name = name.into();
        probed.add(
            function,
            Probe {
                inode,
                offset,
                name,
            },
        );
    };
    add(Function::Size0, 1, 0x1_0040, "malloc");
    add(Function::Size0, 1, 0x1_0040, "malloc");
    add(Function::Free0, 1, 0x2_0040, "free");
    add(Function::Size0, 2, 0x7_0080, "je_malloc");
    add(Function::Size0, 3, 0x9_0080, "tc_malloc");
    let find = |ip, function: Function, place| probed.find((ip, function as u32), || place);
    let name = |found: Option<Arc<str>>| found.map(|name| name.to_string());
    assert_eq!(
        name(find(0x7f00_0040, Function::Size0, None)).as_deref(),
        Some("malloc")
    );
    assert_eq!(
        name(find(0x7f00_0040, Function::Free0, None)).as_deref(),
        Some("free")
    );
    assert_eq!(name(find(0x7f00_0080, Function::Size0, None)), None);
    let there = Some((3, 0x9_0080));
    assert_eq!(
        name(find(0x7f00_0080, Function::Size0, there)).as_deref(),
        Some("tc_malloc")
    );
    assert_eq!(name(find(0x7f00_0100, Function::Size0, there)), None);
}
