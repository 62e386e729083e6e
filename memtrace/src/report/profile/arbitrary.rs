//! Profiles for property tests: any figures, names made to break formats.

use proptest::prelude::*;

use super::{Profile, Series};
use crate::report::{
    fixtures,
    model::{Frame, NotShown, Stack},
};
use crate::{ledger::regions::RegionKind, trend::Verdict};

/// Pieces that mean something in one of the formats.
const HOSTILE: &[&str] = &[
    ";",
    " ",
    "\n",
    "\r",
    "\0",
    "\u{1b}[2J",
    "</script>",
    "<!--",
    "]]>",
    "<b>",
    "&amp;",
    "\"",
    "'",
    "|",
    "`",
    ",",
    " 12",
    " 3.5",
    "# ",
    "\u{2028}",
    "\u{202e}",
    "\u{fffe}",
    "\u{e000}",
    "\u{e001}",
    "=cmd()",
    "\\",
    "{}",
    "_[k]",
    "é",
    "💥",
    "a",
    "main",
    "operator()",
];

/// A name.
pub fn name() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(HOSTILE), 0..6);
    prop_oneof![
        pieces.prop_map(|pieces| pieces.concat()),
        "\\PC{0,12}",
        any::<String>().prop_map(|text| text.chars().take(20).collect()),
    ]
}

/// A frame: named or not, inlined or not, with addresses that are none.
pub fn frame() -> impl Strategy<Value = Frame> {
    let address = prop_oneof![any::<u64>().prop_map(|at| format!("{at:#x}")), name()];
    (
        prop::option::of(name()),
        prop::option::of(name()),
        prop::option::of(any::<u64>().prop_map(|at| format!("{at:#x}"))),
        address,
        prop::option::of((name(), any::<u32>())),
        any::<(bool, bool)>(),
        prop::option::of(prop_oneof!["[0-9a-f]{8}", name()]),
    )
        .prop_map(
            |(function, module, offset, address, place, flags, build_id)| Frame {
                stated: None,
                function,
                module,
                build_id,
                offset,
                address,
                file: place.as_ref().map(|(file, _)| file.clone()),
                line: place.map(|(_, line)| line),
                inlined: flags.0,
                allocator: flags.1,
                reason: None,
            },
        )
}

/// What saw a stack.
fn probe() -> impl Strategy<Value = (&'static str, Option<RegionKind>)> {
    let regions = prop::sample::select(RegionKind::ALL.to_vec());
    prop_oneof![
        3 => Just(("heap", None)),
        1 => regions.prop_map(|kind| ("region", Some(kind))),
        1 => Just(("fault", None)),
    ]
}

/// A stack. Bytes below 2^50, as a machine's memory is: sums do not overflow.
pub fn stack() -> impl Strategy<Value = Stack> {
    let figure = || prop_oneof![Just(0), 1..100_u64, 0..(1_u64 << 50)];
    (
        (figure(), figure(), figure(), figure()),
        1..4_u32,
        any::<f64>(),
        prop::sample::select(vec![Verdict::Growing, Verdict::Steady, Verdict::TooEarly]),
        any::<bool>(),
        (prop::collection::vec(frame(), 0..6), probe()),
    )
        .prop_map(
            |(figures, pid, growth, verdict, complete, (frames, of))| Stack {
                pid,
                probe: of.0,
                kind: of.1,
                outstanding_bytes: figures.0,
                outstanding_objects: figures.1,
                allocated_bytes: figures.2,
                allocated_objects: figures.3,
                growth_bytes_per_second: growth,
                verdict,
                complete,
                frames,
                ..fixtures::stack(1, 0, 0, verdict)
            },
        )
}

/// A report of such stacks.
pub fn report() -> impl Strategy<Value = crate::report::model::Report> {
    let rest = (0..5_usize, 0..(1_u64 << 50), 0..100_u64);
    let probes = prop_oneof![
        Just(vec!["heap"]),
        Just(vec!["fault"]),
        Just(vec!["heap", "region", "fault"])
    ];
    let names = (name(), name(), probes);
    (prop::collection::vec(stack(), 0..8), rest, names).prop_map(
        |(stacks, (hidden, bytes, objects), (comm, target, probes))| {
            let mut report = fixtures::leak();
            report.probes = probes;
            report.stacks = stacks;
            report.target.value = target;
            report.processes[0].pid = 1;
            report.processes[0].comm = comm;
            report.not_shown = if hidden == 0 {
                NotShown::default()
            } else {
                NotShown {
                    stacks: hidden,
                    outstanding_bytes: bytes,
                    outstanding_objects: objects,
                }
            };
            report
        },
    )
}

/// A profile of one moment.
pub fn profile() -> impl Strategy<Value = Profile> {
    report().prop_map(|report| Profile::new(&report, Series::default()))
}
