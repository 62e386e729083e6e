//! Recordings against a naive model, and files that are not what they should be.

mod files;
mod incidents;
mod moments;
mod names;
mod retention;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::report::fixtures;
use crate::report::model::{NotShown, Report, Stack};
use crate::trend::Verdict;

/// One report as it was made, with all its stacks.
#[derive(Clone, Debug)]
struct Made {
    at: Duration,
    observed: Vec<Observed>,
    report: Report,
    mark: Option<String>,
}

/// The report that live reporting would make of `observed`.
fn live(observed: &[Observed], top: usize, second: u32) -> Report {
    let mut report = fixtures::leak();
    report.duration_seconds = f64::from(second) + 0.1;
    report.taken_at = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60);
    report.processes[0].outstanding_bytes = u64::from(second / 3) * 1000;
    report.processes[0].growth_bytes_per_second = 1.0 / f64::from(second + 3);
    let mut judged: Vec<_> = observed.iter().filter(|o| o.judged).collect();
    judged.sort_by_key(|o| {
        let held = o
            .account
            .allocated_bytes
            .saturating_sub(o.account.freed_bytes);
        (
            o.account.verdict != Verdict::Growing,
            std::cmp::Reverse(held),
            o.key.space,
            o.key.stack,
        )
    });
    let shown: Vec<Stack> = (1..)
        .zip(judged.iter().take(top))
        .map(|(rank, o)| Stack {
            rank,
            frames: frames(o.key.stack),
            ..o.account.clone()
        })
        .collect();
    let below = || {
        let rest = observed.iter().filter(|o| !o.judged);
        judged.iter().skip(top).copied().chain(rest)
    };
    report.not_shown = NotShown {
        stacks: below().count(),
        outstanding_bytes: below().map(|o| o.account.outstanding_bytes).sum(),
        outstanding_objects: below().map(|o| o.account.outstanding_objects).sum(),
    };
    report.stacks = shown;
    report
}

fn frames(stack: u32) -> Vec<crate::report::model::Frame> {
    let mut inner = fixtures::frame(
        &format!("function_{stack}"),
        "/srv/server",
        Some(("/srv/a.c", stack)),
    );
    inner.address = format!("{:#x}", u64::MAX - u64::from(stack));
    let mut unknown = fixtures::frame("", "/srv/lib.so", None);
    unknown.function = None;
    unknown.reason = Some("no symbols".to_owned());
    vec![fixtures::malloc(), inner, unknown]
}

fn account() -> impl Strategy<Value = (Stack, bool)> {
    let verdicts = prop_oneof![
        Just(Verdict::Growing),
        Just(Verdict::Steady),
        Just(Verdict::TooEarly),
    ];
    let age = proptest::option::of(0..100_000_u32);
    (
        0..3_u64,
        0..2_u64,
        any::<bool>(),
        verdicts,
        age,
        0..=100_u32,
        any::<bool>(),
    )
        .prop_map(|(kept, freed, older, verdict, age, confidence, judged)| {
            let mut stack = fixtures::stack(0, kept * 100, kept, verdict);
            stack.allocated_bytes = (kept + freed) * 100;
            stack.allocated_objects = kept + freed;
            stack.freed_bytes = freed * 100;
            stack.freed_objects = freed;
            if older {
                stack.outstanding_bytes /= 2;
            }
            stack.oldest_seconds = age.map(|ms| f64::from(ms) / 1000.0);
            stack.growth_bytes_per_second = f64::from(confidence) / 7.0;
            stack.confidence = (f64::from(confidence)).round() / 100.0;
            stack.complete = judged;
            stack.approximate = older;
            stack.frames.clear();
            (stack, judged)
        })
}

fn observed((stack, (mut account, judged)): (u32, (Stack, bool))) -> Observed {
    if !judged {
        // Only judged stacks are shown; of the others a recording keeps the sums.
        account.verdict = Verdict::TooEarly;
    }
    Observed {
        key: StackKey {
            space: 7,
            stack,
            probe: "heap",
            kind: None,
        },
        account,
        judged,
    }
}

fn series() -> impl Strategy<Value = Vec<Made>> {
    let interval = (
        proptest::collection::btree_map(0..6_u32, account(), 0..6),
        any::<bool>(),
        proptest::option::weighted(0.2, "[a-c]"),
    );
    proptest::collection::vec(interval, 1..20).prop_map(|intervals| {
        let mut made: Vec<Made> = Vec::new();
        for (second, (stacks, same, mark)) in (1..).zip(intervals) {
            let observed = match made.last().filter(|_| same) {
                Some(before) => before.observed.clone(),
                None => stacks.into_iter().map(observed).collect(),
            };
            made.push(Made {
                at: Duration::from_secs(u64::from(second)),
                report: live(&observed, 3, second),
                observed,
                mark,
            });
        }
        made
    })
}

fn write(recorder: &mut Writer, made: &Made) {
    let wanted = recorder.wants_names(&made.observed);
    let frames = wanted
        .into_iter()
        .map(|at| (at, frames(made.observed[at].key.stack)))
        .collect();
    let marks: Vec<String> = made.mark.iter().cloned().collect();
    let mut report = made.report.clone();
    recorder
        .interval(
            &mut report,
            Interval {
                at: made.at,
                spaces: &[7],
                observed: &made.observed,
                frames,
                marks: &marks,
            },
        )
        .unwrap();
    assert_eq!(
        json(&report),
        json(&made.report),
        "the report is given back"
    );
}

fn record(path: &Path, series: &[Made]) -> Writer {
    let mut recorder = Writer::create(path, Retention::default()).unwrap();
    for made in series {
        write(&mut recorder, made);
    }
    recorder
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whatever happens to stacks, every moment reads back as it was reported, byte for byte; also
    // while the recording is written.
    #[test]
    fn every_moment_reads_back(series in series()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let recorder = record(&path, &series);
        for ended in [false, true] {
            let recording = Recording::open(&path).unwrap();
            prop_assert_eq!(recording.is_whole().unwrap(), false);
            for made in &series {
                let moment = recording.find(&When::After(made.at)).unwrap();
                let read = recording.report(&moment, Some(3)).unwrap();
                prop_assert_eq!(json(&read.report), json(&made.report));
                prop_assert_eq!(moment.marks.first(), made.mark.as_ref());
            }
            if ended { break }
        }
        recorder.finish("2026-01-02T04:00:00Z").unwrap();
        prop_assert!(Recording::open(&path).unwrap().is_whole().unwrap());
        prop_assert!(!directory.path().join("r-wal").exists());
    }
}

fn one_leak(seconds: u64, from: u64) -> Vec<Made> {
    let interval = |second: u64| {
        let mut stack = fixtures::stack(0, second * 1000, second, Verdict::Growing);
        stack.allocated_bytes = second * 1000;
        stack.allocated_objects = second;
        stack.freed_bytes = 0;
        stack.freed_objects = 0;
        stack.frames.clear();
        let observed = vec![observed((1, (stack, true)))];
        Made {
            at: Duration::from_secs(second),
            report: live(&observed, 3, u32::try_from(second).unwrap()),
            observed,
            mark: second
                .is_multiple_of(600)
                .then(|| format!("minute {}", second / 60)),
        }
    };
    (from..from + seconds).map(interval).collect()
}
