//! What a series that does not grow is: steady, plateau, sawtooth, spike, shrinking, or not told
//! yet.

use super::Verdict;
use super::series::{View, max, mean, median, min};

/// A movement from one turning point to the next, in bytes; up is positive.
type Swing = f64;

/// Names the shape, with a confidence of 0 to 1.
///
/// What was allocated between the attach and the first report is no growth (R21), so the rise from
/// the first point is left out: unless it begins at nothing and goes again, which is a spike.
pub(super) fn shape(view: &View) -> (Verdict, f64) {
    if view.y.first().is_some_and(|y| *y <= 0.0) {
        let whole = movements(view);
        if whole.0 == Verdict::Spike {
            return whole;
        }
    }
    movements(&view.split_at(1).1)
}

fn movements(view: &View) -> (Verdict, f64) {
    let top = max(view.y.iter().copied());
    let range = top - min(view.y.iter().copied());
    if range <= STEADY * top {
        return (Verdict::Steady, 0.95);
    }
    let swings = swings(&view.y, (STEADY * top).max(0.4 * range));
    match *swings.as_slice() {
        [] => (Verdict::Steady, 0.8),
        [up] if up > 0.0 => levelled_off(view),
        [_] => (Verdict::Shrinking, 0.85),
        [up, down] if up > 0.0 => up_and_down(view, up, down),
        [_, _] => (Verdict::Sawtooth, 0.6),
        _ => (Verdict::Sawtooth, 0.9),
    }
}

/// Movements within this part of the highest value are nothing.
const STEADY: f64 = 0.2;

/// The large movements: each at least `threshold`, alternating in direction.
fn swings(y: &[f64], threshold: f64) -> Vec<Swing> {
    let Some(&first) = y.first() else {
        return Vec::new();
    };
    let (mut low, mut high) = (first, first);
    let mut turns: Vec<f64> = Vec::new();
    let mut rising = None;
    for &v in y {
        match rising {
            Some(true) if v > high => high = v,
            Some(false) if v < low => low = v,
            Some(true) | None if high - v >= threshold => {
                turns.push(high);
                (rising, low) = (Some(false), v);
            }
            Some(false) | None if v - low >= threshold => {
                turns.push(low);
                (rising, high) = (Some(true), v);
            }
            None => (low, high) = (low.min(v), high.max(v)),
            Some(_) => {}
        }
    }
    turns.extend(rising.map(|up| if up { high } else { low }));
    turns
        .windows(2)
        .filter_map(|w| Some(w.get(1)? - w.first()?))
        .collect()
}

/// One rise that stayed: a plateau once the last quarter adds next to nothing to it.
fn levelled_off(view: &View) -> (Verdict, f64) {
    let level = |from, to| median(&mut view.between(from, to).collect::<Vec<_>>());
    let start = min(view.between(0.0, 0.25));
    let end = level(0.8, 1.0);
    if end - level(0.5, 0.75) <= LEVEL * (end - start) {
        (Verdict::Plateau, 0.9)
    } else {
        (Verdict::TooEarly, 0.5)
    }
}

/// Part of the whole rise that may still happen in the last quarter of a plateau.
const LEVEL: f64 = 0.12;

/// One rise and one fall: a spike when most of it is gone again.
fn up_and_down(view: &View, up: Swing, down: Swing) -> (Verdict, f64) {
    if -down >= 0.6 * up {
        let half_way = max(view.y.iter().copied()) - 0.5 * up;
        let above = mean(view.y.iter().map(|y| f64::from(u8::from(*y > half_way))));
        (Verdict::Spike, 0.9 - 0.4 * above)
    } else {
        (Verdict::Plateau, 0.6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Swings: small movements are ignored, large ones alternate and carry their full height.
    #[test]
    fn swings_alternate() {
        let y = [0.0, 1.0, 0.5, 10.0, 9.5, 12.0, 2.0, 3.0, 1.0, 6.0];
        assert_eq!(swings(&y, 3.0), [12.0, -11.0, 5.0]);
        assert_eq!(swings(&y, 100.0), Vec::<f64>::new());
        assert_eq!(swings(&[5.0, 4.0, 0.0], 2.0), [-5.0]);
    }
}
