//! What a handful of noisy figures can say: their middle, and how sure that is.

/// The middle of some figures, and between what their true middle lies in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// The chance that the true middle lies outside.
const OUTSIDE: f64 = 0.05;

impl Interval {
    /// By ranks alone: nothing is supposed about how the figures are spread, except that each is as
    /// likely above the true middle as below it. Fewer than six figures give no bounds (infinite ones).
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let left_out = left_out(sorted.len());
        let low = left_out.and_then(|count| sorted.get(count));
        let high = left_out.and_then(|count| sorted.iter().rev().nth(count));
        Self {
            median: middle(&sorted),
            low: low.copied().unwrap_or(f64::NEG_INFINITY),
            high: high.copied().unwrap_or(f64::INFINITY),
        }
    }

    /// As a slowdown in percent of ratios to what was before.
    pub fn slowdown(self) -> Self {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        Self {
            median: percent(self.median),
            low: percent(self.low),
            high: percent(self.high),
        }
    }
}

/// The middle of sorted figures; of an even number the mean of the two middle ones.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 {
        at(half)
    } else {
        f64::midpoint(at(half.wrapping_sub(1)), at(half))
    }
}

/// The middle of figures in any order.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

/// How many figures at each end lie outside the interval: the most for which the chance that so few
/// of `count` fall to one side of the middle is at most half of [`OUTSIDE`].
fn left_out(count: usize) -> Option<usize> {
    // Chance that exactly `below` figures are below the middle, from 0 on.
    let mut chance = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut sum = 0.0;
    for below in 0..=count {
        sum += chance;
        if sum > OUTSIDE / 2.0 {
            return below.checked_sub(1);
        }
        chance *= (count - below) as f64 / (below + 1) as f64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranks that tables of the sign test name for 95%.
    #[test]
    fn ranks_are_those_of_the_sign_test() {
        for (count, outside) in [(5, None), (6, Some(0)), (9, Some(1)), (20, Some(5))] {
            assert_eq!(left_out(count), outside, "{count} figures");
        }
    }

    /// An outlier moves neither the middle nor the bounds; too few figures have none.
    #[test]
    fn outliers_do_not_count() {
        let mut values: Vec<f64> = (0..20).map(f64::from).collect();
        let calm = Interval::of(&values);
        assert_eq!((calm.median, calm.low, calm.high), (9.5, 5.0, 14.0));
        values[19] = 1e9;
        assert_eq!(Interval::of(&values), calm);
        assert_eq!(Interval::of(&[1.0, 2.0]).high, f64::INFINITY);
        assert!(Interval::of(&[]).median.is_nan());
    }
}
