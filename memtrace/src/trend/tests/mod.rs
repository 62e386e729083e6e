//! The verdicts, on seeded series with a known truth.

mod figures;
mod live;
mod series;

use super::*;

/// Reports every second, nothing lost.
const QUIET: Options = Options {
    interval_seconds: 1.0,
    losses: Losses {
        forbid: false,
        fraction: 0.0,
        unseen_free_bytes: 0,
        unseen_allocation_bytes: 0,
    },
};

/// A series a second apart.
fn series(n: usize, f: impl Fn(f64) -> f64) -> Vec<Point> {
    let point = |i: usize| Point {
        at: i as f64 + 1.0,
        bytes: f(i as f64) as u64,
    };
    (0..n).map(point).collect()
}

fn leaking(n: usize) -> Vec<Point> {
    series(n, |x| 1e4 * x)
}

fn old(oldest_seconds: f64, old_bytes: u64) -> Survivors {
    Survivors {
        oldest_seconds,
        old_bytes,
        ..Survivors::default()
    }
}

/// Before five intervals nothing is said, but the slope is shown.
#[test]
fn five_intervals_are_needed() {
    for n in 0..6 {
        assert_eq!(judge(&leaking(n), None, &QUIET).verdict, Verdict::TooEarly);
    }
    assert_eq!(
        judge(&leaking(4), None, &QUIET).growth_bytes_per_second,
        1e4
    );
    assert_eq!(judge(&[], None, &QUIET).growth_bytes_per_second, 0.0);
    assert_eq!(judge(&leaking(6), None, &QUIET).verdict, Verdict::Growing);
}

/// Growth whose blocks are all young is no leak; without a walk it is believed a little less.
#[test]
fn survivors_are_asked_for() {
    let points = leaking(30);
    let with = |s: &Survivors| judge(&points, Some(s), &QUIET);
    assert_eq!(with(&old(29.0, 280_000)).verdict, Verdict::Growing);
    assert_ne!(with(&old(0.9, 280_000)).verdict, Verdict::Growing);
    assert_ne!(with(&old(29.0, 50)).verdict, Verdict::Growing);
    let unknown = judge(&points, None, &QUIET);
    assert_eq!(unknown.verdict, Verdict::Growing);
    assert!(unknown.confidence < with(&old(29.0, 280_000)).confidence);
}

/// Losses lower the confidence; a growth that unseen frees could explain, a rest that unseen
/// allocations could hide, and everything when losses are unknown, is withheld.
#[test]
fn losses_withhold_what_they_could_explain() {
    let lossy = |losses| Options { losses, ..QUIET };
    let none = Losses::default();
    let (grown, flat) = (leaking(30), series(30, |_| 1e6));
    let confidence = |fraction| judge(&grown, None, &lossy(Losses { fraction, ..none })).confidence;
    assert!(confidence(0.0) > confidence(0.01) && confidence(0.01) > confidence(0.5));
    assert_eq!(confidence(1.0), 0.0);
    let verdict = |points: &[Point], losses| judge(points, None, &lossy(losses)).verdict;
    let frees = |unseen_free_bytes| Losses {
        unseen_free_bytes,
        ..none
    };
    assert_eq!(verdict(&grown, frees(10_000)), Verdict::Growing);
    assert_eq!(verdict(&grown, frees(300_000)), Verdict::TooEarly);
    assert_eq!(verdict(&flat, frees(300_000)), Verdict::Steady);
    let allocations = |unseen_allocation_bytes| Losses {
        unseen_allocation_bytes,
        ..none
    };
    assert_eq!(verdict(&flat, allocations(100)), Verdict::Steady);
    assert_eq!(verdict(&flat, allocations(300_000)), Verdict::TooEarly);
    assert_eq!(verdict(&grown, allocations(300_000)), Verdict::Growing);
    assert_eq!(
        verdict(
            &flat,
            Losses {
                forbid: true,
                ..none
            }
        ),
        Verdict::TooEarly
    );
}

/// Broken input (times that stand still, go back or are no numbers) is skipped, not trusted.
#[test]
fn broken_points_are_skipped() {
    let mut points = leaking(30);
    for at in [f64::NAN, f64::INFINITY, 3.0, 30.0] {
        points.push(Point {
            at,
            bytes: u64::MAX,
        });
    }
    assert_eq!(
        judge(&points, None, &QUIET),
        judge(&leaking(30), None, &QUIET)
    );
    let huge = judge(
        &series(40, |x| if x > 20.0 { 1.8e19 } else { 0.0 }),
        None,
        &QUIET,
    );
    assert!(huge.growth_bytes_per_second.is_finite() && huge.confidence.is_finite());
}

/// Remaining memory over growth; nothing when nothing grows.
#[test]
fn forecasts() {
    assert_eq!(forecast(1000, 10.0), Some(100.0));
    assert_eq!(forecast(0, 10.0), Some(0.0));
    for growth in [0.0, -1.0, f64::NAN, 1e-320] {
        assert_eq!(forecast(1000, growth), None);
    }
}

/// Growth is in bytes per second whatever the interval; a flat series has none.
#[test]
fn growth_is_per_second() {
    let every = |seconds: f64| {
        let mut points = leaking(40);
        points.iter_mut().for_each(|p| p.at *= seconds);
        judge(&points, None, &QUIET).growth_bytes_per_second
    };
    assert!((every(1.0) - 1e4).abs() < 1.0);
    assert!((every(5.0) - 2e3).abs() < 1.0);
    assert_eq!(
        judge(&series(40, |_| 5e6), None, &QUIET).growth_bytes_per_second,
        0.0
    );
}
