//! Programs of each kind as they look live: a report a second, judged at every one.

use super::series::Random;
use super::*;

/// The judgements from the 6th to the 60th report; every block is as old as the program.
fn watch(mut next: impl FnMut(&mut Random, f64) -> f64) -> Vec<Judgement> {
    let mut random = Random(77);
    let mut points = Vec::new();
    let mut judgements = Vec::new();
    for i in 0..60 {
        let bytes = next(&mut random, f64::from(i)).max(0.0) as u64;
        points.push(Point {
            at: f64::from(i) + 1.0,
            bytes,
        });
        if points.len() >= 6 {
            judgements.push(judge(&points, Some(&old(f64::from(i), bytes)), &QUIET));
        }
    }
    judgements
}

/// The verdicts between two reports (counted from 1).
fn verdicts(judgements: &[Judgement], from: usize, to: usize) -> Vec<Verdict> {
    let mut seen: Vec<_> = judgements[from - 6..=to - 6]
        .iter()
        .map(|j| j.verdict)
        .collect();
    seen.dedup();
    seen
}

/// 100 blocks a second with a little jitter: growing from the fifth interval on, by the right
/// amount, and ever surer.
#[test]
fn steady_leak() {
    let seen = watch(|random, x| (x + 1.0) * 10_000.0 + 200.0 * random.normal());
    assert_eq!(verdicts(&seen, 6, 60), [Verdict::Growing]);
    assert!(
        seen.iter()
            .skip(4)
            .all(|j| (j.growth_bytes_per_second / 1e4 - 1.0).abs() < 0.02)
    );
    assert!(seen[0].confidence < 0.75 && seen[54].confidence > 0.95);
}

/// One block every other second is found after some, and stays found.
#[test]
fn slow_staircase_leak() {
    let seen = watch(|random, x| 4096.0 * (x * 0.5 + random.unit() * 0.9).floor());
    assert_eq!(verdicts(&seen, 20, 60), [Verdict::Growing]);
}

/// A leak under a collector's sawtooth.
#[test]
fn leak_with_sawtooth() {
    let seen = watch(|_, x| 5e4 * x + 1e6 * (x / 7.3).fract());
    assert_eq!(verdicts(&seen, 40, 60), [Verdict::Growing]);
}

/// A leak that begins in the middle, and one that stops there.
#[test]
fn leak_begins_or_stops() {
    let seen = watch(|random, x| 1e6 + 1e4 * (x - 30.0).max(0.0) + 1e3 * random.normal());
    assert_eq!(verdicts(&seen, 6, 30), [Verdict::Steady]);
    assert_eq!(verdicts(&seen, 40, 60), [Verdict::Growing]);
    let seen = watch(|random, x| 1e6 + 1e4 * x.min(30.0) + 1e3 * random.normal());
    assert_eq!(verdicts(&seen, 15, 30), [Verdict::Growing]);
    assert_eq!(verdicts(&seen, 50, 60), [Verdict::Plateau]);
}

/// A leak behind a warm-up twenty times its size.
#[test]
fn leak_after_warm_up() {
    let seen = watch(|_, x| 1e7 * (x / 3.0).min(1.0) + 1e4 * x);
    assert!(
        verdicts(&seen, 45, 60) == [Verdict::Growing],
        "{:?}",
        verdicts(&seen, 6, 60)
    );
}

/// Churn around a level is steady, and its growth is nothing.
#[test]
fn churn() {
    let seen = watch(|random, x| {
        if x == 0.0 {
            0.0
        } else {
            1e6 * (1.0 + 0.02 * random.normal())
        }
    });
    assert_eq!(verdicts(&seen, 6, 60), [Verdict::Steady]);
    assert!(seen.iter().all(|j| j.growth_bytes_per_second == 0.0));
    let seen = watch(|random, _| 1e6 * random.unit());
    assert_eq!(verdicts(&seen, 15, 60), [Verdict::Sawtooth]);
}

/// A stack that first appears with a spike is a spike, though its history begins with nothing.
#[test]
fn spike_of_a_new_stack() {
    let seen = watch(|_, x| if (1.0..4.0).contains(&x) { 2e7 } else { 0.0 });
    assert_eq!(verdicts(&seen, 10, 60), [Verdict::Spike]);
}

/// A cache that fills in 5 of 20 seconds, and one that fills in 20 of 60, stop growing soon after
/// they are full.
#[test]
fn filling_cache() {
    let seen = watch(|_, x| (x + 1.0).min(5.0) * 1e6);
    assert_eq!(verdicts(&seen, 7, 60), [Verdict::Plateau]);
    assert_eq!(seen[20 - 6].growth_bytes_per_second, 0.0);
    let seen = watch(|_, x| (x + 1.0).min(20.0) * 1e6);
    assert_eq!(verdicts(&seen, 30, 60), [Verdict::Plateau]);
}

/// A warm-up that visibly slows down is not growing, and a plateau in the end.
#[test]
fn warm_up() {
    for tau in [5.0, 10.0, 15.0, 20.0] {
        let seen = watch(|_, x| 1e6 * (1.0 - (-(x + 1.0) / tau).exp()));
        assert!(
            !verdicts(&seen, 20, 60).contains(&Verdict::Growing),
            "{tau}"
        );
        assert_eq!(seen[54].verdict, Verdict::Plateau, "{tau}");
    }
}

/// Growth like a logarithm or a square root slows down: no leak.
#[test]
fn slowing_growth() {
    let seen = watch(|_, x| 1e6 * (x + 1.0).ln());
    assert!(!verdicts(&seen, 6, 60).contains(&Verdict::Growing));
    let seen = watch(|_, x| 1e6 * (x + 1.0).sqrt());
    assert!(!verdicts(&seen, 6, 60).contains(&Verdict::Growing));
}

/// A collector's sawtooth, once two falls were seen.
#[test]
fn sawtooth() {
    for period in [3.3, 6.3, 10.0, 17.0, 25.0] {
        let seen = watch(|_, x| 1e5 + 1e6 * (x / period).fract());
        let after = (2.0 * period) as usize + 3;
        assert_eq!(
            verdicts(&seen, after.max(12), 60),
            [Verdict::Sawtooth],
            "{period}"
        );
    }
}

/// Once up and down.
#[test]
fn spike() {
    let seen = watch(|_, x| if (20.0..23.0).contains(&x) { 5e6 } else { 1e6 });
    assert_eq!(verdicts(&seen, 6, 20), [Verdict::Steady]);
    assert_eq!(verdicts(&seen, 24, 60), [Verdict::Spike]);
}

/// Down by steps or by a slope; one block that stays; nothing at all.
#[test]
fn the_rest() {
    assert_eq!(
        verdicts(&watch(|_, x| 5e6 - 5e4 * x), 8, 60),
        [Verdict::Shrinking]
    );
    let fallen = watch(|_, x| if x > 30.0 { 1e6 } else { 5e6 });
    assert_eq!(verdicts(&fallen, 35, 60), [Verdict::Shrinking]);
    let once = watch(|_, x| if x >= 20.0 { 5e6 } else { 0.0 });
    assert_eq!(verdicts(&once, 40, 60), [Verdict::Plateau]);
    assert_eq!(verdicts(&watch(|_, _| 0.0), 6, 60), [Verdict::Steady]);
    assert_eq!(verdicts(&watch(|_, _| 5e6), 6, 60), [Verdict::Steady]);
}
