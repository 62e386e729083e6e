//! Reports for tests.

use std::collections::BTreeMap;

use super::model::*;
use crate::{ledger::regions::RegionKind, trend::Verdict};

pub fn frame(function: &str, module: &str, file: Option<(&str, u32)>) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        module: Some(module.to_owned()),
        build_id: Some("8fc1a2".to_owned()),
        offset: Some("0x11a9".to_owned()),
        address: "0x5581d0c011a9".to_owned(),
        file: file.map(|(path, _)| path.to_owned()),
        line: file.map(|(_, line)| line),
        ..Frame::default()
    }
}

pub fn malloc() -> Frame {
    let mut frame = frame("malloc", "/usr/lib/x86_64-linux-gnu/libc.so.6", None);
    frame.offset = Some("0x9a0e4".to_owned());
    frame.allocator = true;
    frame
}

fn start() -> Frame {
    let mut frame = frame(
        "__libc_start_call_main",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        None,
    );
    frame.offset = Some("0x2724a".to_owned());
    frame
}

pub fn stack(rank: usize, bytes: u64, objects: u64, verdict: Verdict) -> Stack {
    Stack {
        owner: Owner::default(),
        rank,
        pid: 1234,
        probe: "heap",
        kind: None,
        outstanding_bytes: bytes,
        outstanding_objects: objects,
        allocated_bytes: bytes + 1000,
        allocated_objects: objects + 10,
        freed_bytes: 1000,
        freed_objects: 10,
        oldest_seconds: Some(12.0),
        growth_bytes_per_second: 0.0,
        verdict,
        confidence: 0.97,
        complete: true,
        approximate: false,
        gained_per_cycle: Vec::new(),
        frames: vec![
            malloc(),
            frame(
                "warm_cache",
                "/srv/libcache.so",
                Some(("/srv/src/cache/warm.c", 77)),
            ),
            frame("main", "/srv/server", Some(("/srv/src/server.c", 201))),
            start(),
        ],
    }
}

pub fn process() -> Process {
    Process {
        pid: 1234,
        comm: "server".to_owned(),
        exe: "/srv/server".to_owned(),
        state: ProcessState::Running,
        processes: 1,
        container: None,
        rss_bytes_at_attach: Some(12_582_912),
        rss_bytes: Some(48_549_888),
        memory_limit_bytes: Some(536_870_912),
        memory_usage_bytes: Some(50_331_648),
        outstanding_bytes: 36_861_018,
        outstanding_objects: 1_410,
        growth_bytes_per_second: 1_258_291.2,
        verdict: Verdict::Growing,
        seconds_to_limit: Some(386.0),
        reconciliation: None,
        grower: None,
        runtime: None,
    }
}

fn report(stacks: Vec<Stack>) -> Report {
    Report {
        schema: SCHEMA,
        tool_version: "0.1.0",
        host: "web-1".to_owned(),
        started_at: "2026-01-02T03:04:05Z".to_owned(),
        taken_at: "2026-01-02T03:04:35.5Z".to_owned(),
        duration_seconds: 30.5,
        gained_since: None,
        intervals: Intervals {
            seconds: 5.0,
            completed: 6,
            needed: 5,
        },
        target: Target {
            kind: "pid",
            value: "1234".to_owned(),
        },
        probes: vec!["heap"],
        filters: Filters::default(),
        overhead: Overhead {
            probe_hits: ProbeHits {
                heap: 152_340,
                region: 0,
                fault: 0,
            },
            nanoseconds_per_hit: 905.2,
            fraction_of_target_cpu: Some(0.031),
            fraction_of_one_core: Some(0.004),
            sample_bytes: 1,
            detached: false,
        },
        losses: BTreeMap::new(),
        notes: BTreeMap::from([("unmatched_frees".to_owned(), 42)]),
        coverage: vec![
            Coverage {
                pid: 1234,
                object: "/usr/lib/x86_64-linux-gnu/libc.so.6".to_owned(),
                family: "glibc".to_owned(),
                functions: ["malloc", "calloc", "realloc", "free"]
                    .map(str::to_owned)
                    .to_vec(),
                missing: vec!["free_sized".to_owned()],
                note: None,
            },
            Coverage {
                pid: 1234,
                object: "/usr/lib/x86_64-linux-gnu/libstdc++.so.6".to_owned(),
                family: "c++".to_owned(),
                functions: ["_Znwm", "_ZdlPv"].map(str::to_owned).to_vec(),
                missing: Vec::new(),
                note: None,
            },
        ],
        processes: vec![process()],
        group_by: GroupBy::Stack,
        groups: Vec::new(),
        stacks,
        not_shown: NotShown::default(),
        marks: Vec::new(),
        cycles: None,
        segments: Vec::new(),
    }
}

/// A leak, a plateau, and stacks below the top.
pub fn leak() -> Report {
    let mut leak = stack(1, 35_756_442, 1_203, Verdict::Growing);
    leak.growth_bytes_per_second = 1_258_291.2;
    leak.confidence = 0.993;
    leak.oldest_seconds = Some(30.1);
    let mut inlined = frame(
        "handle_request",
        "/srv/server",
        Some(("/srv/src/http/request_handling/handle.c", 108)),
    );
    inlined.inlined = true;
    leak.frames = vec![
        malloc(),
        frame("leak_here", "/srv/server", Some(("/srv/src/server.c", 42))),
        inlined,
        frame("main", "/srv/server", Some(("/srv/src/server.c", 201))),
        start(),
    ];
    let mut report = report(vec![leak, stack(2, 1_048_576, 200, Verdict::Plateau)]);
    report.not_shown = NotShown {
        stacks: 3,
        outstanding_bytes: 56_000,
        outstanding_objects: 7,
    };
    report
}

/// One function's memory as three probes see it: 1,500 bytes are in use, 1,400 of them resident.
pub fn three_probes() -> Report {
    let of = |rank, probe, kind, bytes| {
        let mut stack = stack(rank, bytes, 1, Verdict::Steady);
        (stack.probe, stack.kind) = (probe, kind);
        stack
    };
    let mut report = report(vec![
        of(1, "fault", None, 1400),
        of(2, "heap", None, 1000),
        of(3, "region", Some(RegionKind::Anonymous), 500),
        of(4, "region", Some(RegionKind::Reservation), 9000),
        of(5, "region", Some(RegionKind::Allocator), 2000),
    ]);
    report.probes = vec!["heap", "region", "fault"];
    report.processes[0].outstanding_bytes = 1500;
    report
}

/// Two stacks of one function, one of another, in two modules.
pub fn two_callers() -> Report {
    let caller = |rank, bytes, objects, name: &str, oldest| {
        let mut stack = stack(rank, bytes, objects, Verdict::Growing);
        stack.growth_bytes_per_second = 100.0;
        stack.oldest_seconds = Some(oldest);
        stack.frames = vec![
            malloc(),
            frame("leak_here", "/srv/server", Some(("/srv/src/server.c", 42))),
            frame(name, "/srv/server", Some(("/srv/src/server.c", 90))),
        ];
        stack
    };
    report(vec![
        caller(1, 2000, 20, "first_caller", 10.0),
        caller(2, 1000, 10, "second_caller", 20.0),
        stack(3, 500, 5, Verdict::Steady),
    ])
}

/// Names made to break a terminal or a parser.
pub fn hostile() -> Report {
    let mut report = leak();
    report.processes[0].comm = "\x1b]0;owned\x07evil".to_owned();
    report.target.value = "12\n34".to_owned();
    let frames = &mut report.stacks[0].frames;
    frames[1].function = Some("fn\x1b[2J\nINJECTED  all is well\r\u{202e}".to_owned());
    frames[1].file = Some("/srv/\x1b[31m/a\nb.c".to_owned());
    frames[3].function = None;
    frames[3].file = None;
    frames[3].line = None;
    frames[3].module = Some("/tmp/\u{9b}31mlib\tx.so".to_owned());
    frames[3].reason = Some("no symbols\x1b[0m".to_owned());
    report.coverage[0].note = Some("odd\nobject".to_owned());
    report.losses.insert("made_up\x1b[1m".to_owned(), 3);
    report
}
