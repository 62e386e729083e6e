//! Points as plain numbers, and the robust statistics everything here is made of.

use crate::ledger::Point;

/// A series or a part of it: times in seconds and bytes, equally long, times strictly rising.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) t: Vec<f64>,
    pub(super) y: Vec<f64>,
}

impl View {
    /// Takes what is usable: points whose time is finite and later than the one before.
    pub(super) fn new(points: &[Point]) -> Self {
        let mut view = Self::with_capacity(points.len());
        for point in points {
            if point.at.is_finite() && view.t.last().is_none_or(|last| point.at > *last) {
                view.push(point.at, point.bytes as f64);
            }
        }
        view
    }

    pub(super) fn with_capacity(n: usize) -> Self {
        Self {
            t: Vec::with_capacity(n),
            y: Vec::with_capacity(n),
        }
    }

    fn push(&mut self, t: f64, y: f64) {
        self.t.push(t);
        self.y.push(y);
    }

    pub(super) fn len(&self) -> usize {
        self.y.len()
    }

    /// Seconds from first to last point.
    pub(super) fn span(&self) -> f64 {
        match (self.t.first(), self.t.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0.0,
        }
    }

    /// Part of the span that has passed at point `i`, 0 to 1.
    pub(super) fn fraction(&self, i: usize) -> f64 {
        let first = self.t.first().copied().unwrap_or(0.0);
        let at = self.t.get(i).copied().unwrap_or(first);
        if self.span() > 0.0 {
            (at - first) / self.span()
        } else {
            0.0
        }
    }

    /// Splits into the points before and from `fraction` of the span on.
    pub(super) fn split(&self, fraction: f64) -> (Self, Self) {
        let cut = (0..self.len())
            .find(|&i| self.fraction(i) >= fraction)
            .unwrap_or(self.len());
        self.split_at(cut)
    }

    /// Splits at an index.
    pub(super) fn split_at(&self, cut: usize) -> (Self, Self) {
        let cut = cut.min(self.len());
        let part = |range: std::ops::Range<usize>| Self {
            t: self.t.get(range.clone()).unwrap_or_default().to_vec(),
            y: self.y.get(range).unwrap_or_default().to_vec(),
        };
        (part(0..cut), part(cut..self.len()))
    }

    /// The values in a part of the span, both ends included.
    pub(super) fn between(&self, from: f64, to: f64) -> impl Iterator<Item = f64> {
        let inside = move |i: usize| (from..=to).contains(&self.fraction(i));
        self.y
            .iter()
            .enumerate()
            .filter(move |(i, _)| inside(*i))
            .map(|(_, y)| *y)
    }

    /// At most `max` points, evenly spread: the means over equal stretches of time. Empty stretches
    /// have none. A regular series of at most `max` points stays as it is; of one whose end is
    /// denser than its beginning (a history's), no stretch counts more than another.
    pub(super) fn evened(&self, max: usize) -> Self {
        let max = max.min(self.len());
        let mut thin = Self::with_capacity(max);
        let mut bin = (usize::MAX, 0.0, 0.0, 0.0);
        for (i, (t, y)) in self.t.iter().zip(&self.y).enumerate() {
            let index = ((self.fraction(i) * max as f64) as usize).min(max.saturating_sub(1));
            if index != bin.0 {
                thin.push_mean(bin);
                bin = (index, 0.0, 0.0, 0.0);
            }
            bin = (index, bin.1 + 1.0, bin.2 + t, bin.3 + y);
        }
        thin.push_mean(bin);
        thin
    }

    fn push_mean(&mut self, (_, n, t, y): (usize, f64, f64, f64)) {
        if n > 0.0 {
            self.push(t / n, y / n);
        }
    }
}

/// Arithmetic mean; 0 of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0.0, 0.0), |(n, sum), v| (n + 1.0, sum + v));
    if n > 0.0 { sum / n } else { 0.0 }
}

/// Smallest value; infinity of nothing.
pub(super) fn min(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

/// Largest value; minus infinity of nothing.
pub(super) fn max(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NEG_INFINITY, f64::max)
}

/// Middle value; 0 of nothing. Reorders.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let (below, value, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let value = *value;
    if values_even(below.len(), values.len()) {
        let lower = max(values.iter().take(middle).copied());
        return f64::midpoint(lower, value);
    }
    value
}

fn values_even(below: usize, all: usize) -> bool {
    all == 2 * below
}

/// The deepest fall from any value to a later one.
pub(super) fn drawdown(y: &[f64]) -> f64 {
    let mut peak = f64::NEG_INFINITY;
    y.iter().fold(0.0, |worst: f64, &v| {
        peak = peak.max(v);
        worst.max(peak - v)
    })
}

/// Theil–Sen slope: the median of the slopes of all pairs, at most 48 points' worth.
///
/// 48 points are 1,128 pairs: what keeps a judgement at some ten microseconds.
pub(super) fn theil_sen(view: &View) -> f64 {
    let thin = view.evened(48);
    let mut slopes = Vec::with_capacity(thin.len() * thin.len() / 2);
    for (i, (t0, y0)) in thin.t.iter().zip(&thin.y).enumerate() {
        for (t1, y1) in thin.t.iter().zip(&thin.y).skip(i + 1) {
            slopes.push((y1 - y0) / (t1 - t0));
        }
    }
    median(&mut slopes)
}
