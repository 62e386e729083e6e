//! What resident memory grew by, of live programs (R24): the part that grew, by about how much, and the
//! function behind it.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use memtrace_tests::{Process, Program, Target, Tracer, memtrace, require_kernel};

const MIB: u64 = 1 << 20;

/// Each mode of `grow` with the part that grows by it, and bounds in MiB.
const MODES: [(&str, &str, u64, u64); 5] = [
    ("heap", "heap_outstanding", 22, 26),
    ("fragment", "heap_retained", 24, 40),
    ("mapping", "regions", 22, 26),
    ("stacks", "stack", 28, 40),
    ("shared", "shared", 22, 26),
];

#[track_caller]
fn assert_grew(process: &Process, part: &str, least: u64, most: u64) {
    let grower = process.grower.as_ref().expect("something grew");
    let (bytes, rss) = (grower.bytes, grower.rss_bytes);
    assert_eq!(grower.share, part, "{grower:?}");
    assert!((least * MIB..=most * MIB).contains(&bytes), "{grower:?}");
    assert!(rss >= least * MIB, "{grower:?}");
    let parts = process.reconciliation.as_ref().expect("was looked at");
    let sum: u64 = parts
        .iter()
        .filter(|(name, _)| *name != "rss")
        .filter_map(|(_, bytes)| *bytes)
        .sum();
    assert_eq!(Some(sum), parts["rss"], "{parts:?}");
}

/// Blocks, fragmentation, mappings, thread stacks and shared memory: each is the largest grower of its
/// own process, by about what was touched, and the parts add up to what is resident.
#[test]
fn each_part_is_named() {
    require_kernel!();
    let program = Program::c("grow").build();
    let mut targets: Vec<_> = MODES
        .iter()
        .map(|(mode, ..)| Target::spawn(&program, &[mode]))
        .collect();
    let pids: Vec<_> = targets.iter().map(|t| t.pid().to_string()).collect();
    let mut options = vec!["--probe", "heap,region"];
    for pid in &pids[1..] {
        options.extend(["--pid", pid]);
    }
    let mut tracer = Tracer::attach_with(targets[0].pid(), &options);
    for target in &mut targets {
        target.go();
    }
    for target in &mut targets {
        target.truth();
    }
    let report = tracer.finish();
    for (target, (_, part, least, most)) in targets.into_iter().zip(MODES) {
        assert_grew(report.process(target.pid()), part, least, most);
        target.assert_unharmed();
    }
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

/// The text report of a process says it in a sentence, with the function that holds the blocks.
#[test]
fn in_a_sentence() {
    require_kernel!();
    let program = Program::c("grow").build();
    let expected = [
        ("heap", "outstanding in the heap, most at keep_blocks"),
        ("fragment", "live bytes do not:"),
    ];
    let mut all: Vec<_> = expected
        .iter()
        .map(|(mode, words)| {
            let target = Target::spawn(&program, &[mode]);
            let pid = target.pid().to_string();
            let mut tracer = Tracer::start(&mut memtrace(&["--pid", &pid]));
            tracer.wait_attached();
            (target, tracer, words)
        })
        .collect();
    for (target, ..) in &mut all {
        target.go();
    }
    for (mut target, mut tracer, words) in all {
        target.truth();
        tracer.signal(libc::SIGINT);
        let ended = tracer.wait();
        ended.assert_code(0);
        // Lines are broken where the page ends.
        let words_of: Vec<_> = ended.stdout.split_whitespace().collect();
        let text = words_of.join(" ");
        let sentence = text.split("RSS grew ").last().unwrap_or_default();
        let sentence = sentence.get(..120).unwrap_or(sentence);
        assert!(sentence.contains(*words), "{}", ended.stdout);
        target.assert_unharmed();
    }
}
