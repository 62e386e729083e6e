//! The target figures: false alarms, detection, cost.

use super::series::{CALM, LEAKS, Random, calm, leak, points};
use super::*;
use crate::ledger::History;

/// `base` decides how large the movements are against the level: all of it, or a tenth.
fn judged(y: &[f64], random: &mut Random) -> Judgement {
    let base = random.pick(&[5e6, 1e7, 1e8]);
    judge(&points(y, base, 1e6, 1.0), None, &QUIET)
}

/// Series without a leak that are called growing, as (kind, intervals, seed).
fn false_alarms(seeds: std::ops::Range<u64>, lengths: &[usize]) -> Vec<(&'static str, usize, u64)> {
    let mut alarms = Vec::new();
    for seed in seeds {
        let mut random = Random(seed);
        let kind = CALM[seed as usize % CALM.len()];
        let n = random.pick(lengths);
        let y = calm(&mut random, kind, n);
        if judged(&y, &mut random).verdict == Verdict::Growing {
            alarms.push((kind, n, seed));
        }
    }
    alarms
}

/// No false `growing` in 1,000 seeded series without a leak.
#[test]
fn no_false_alarm_in_a_thousand() {
    assert_eq!(false_alarms(0..1000, &[20, 40, 60, 120, 240]), []);
}

/// At most one in 2,000 over more of them, short ones too. (35 of 100,000 when tried.)
#[test]
fn few_false_alarms_in_many() {
    let alarms = false_alarms(1000..41_000, &[15, 20, 30, 40, 60, 120, 240]);
    assert!(alarms.len() <= 20, "{alarms:?}");
}

/// At least 99% of 1,000 leaks are found that gain 1.05 to 100 times the noise's own spread over
/// the window (late ones 2.5 times at least), at 60 intervals or more.
#[test]
fn leaks_are_found() {
    let mut missed = Vec::new();
    for seed in 0..1000 {
        let mut random = Random(seed);
        let kind = LEAKS[seed as usize % LEAKS.len()];
        let n = random.pick(&[60, 120, 240]);
        let y = leak(&mut random, kind, n);
        if judged(&y, &mut random).verdict != Verdict::Growing {
            missed.push((kind, n, seed));
        }
    }
    println!("{} of 1,000 leaks missed: {missed:?}", missed.len());
    assert!(missed.len() <= 10, "{missed:?}");
}

/// Through a history of 160 points, sessions of 10,000 reports give the same answers.
#[test]
fn thinned_histories_keep_the_verdict() {
    let through_history = |y: &[f64]| {
        let mut history = History::new(160);
        points(y, 1e7, 1e6, 1.0)
            .into_iter()
            .for_each(|p| history.push(p));
        judge(&history.points(), None, &QUIET).verdict
    };
    for seed in 0..5 {
        let mut random = Random(seed);
        for kind in CALM {
            let verdict = through_history(&calm(&mut random, kind, 10_000));
            assert_ne!(verdict, Verdict::Growing, "{kind} {seed}");
        }
        for kind in LEAKS {
            let verdict = through_history(&leak(&mut random, kind, 10_000));
            assert_eq!(verdict, Verdict::Growing, "{kind} {seed}");
        }
    }
}

/// A leak that begins after 20,000 quiet reports is found within 60 more.
#[test]
fn a_late_leak_in_a_long_session_is_found() {
    let mut random = Random(3);
    let mut history = History::new(160);
    for i in 0..20_060 {
        let x = f64::from(i);
        let bytes = 1e7 + 1e5 * random.normal() + 2e4 * (x - 20_000.0).max(0.0);
        history.push(Point {
            at: x,
            bytes: bytes as u64,
        });
    }
    assert_eq!(
        judge(&history.points(), None, &QUIET).verdict,
        Verdict::Growing
    );
}
