//! Does it grow? Every guard between a rising line and the word "growing".

use super::line::{Bend, Fit, bend};
use super::series::{View, drawdown, max, mean, min, theil_sen};

/// What a growing view shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// Bytes per second, robust.
    pub(super) slope: f64,
    /// Bytes gained over the view.
    pub(super) rise: f64,
    /// How far the evidence is beyond what is asked for; above 1.
    pub(super) strength: f64,
    /// Points in the view.
    pub(super) points: usize,
}

/// Fewest points: five intervals.
pub(super) const MIN_POINTS: usize = 6;
/// Fewest points for the tail of a longer series.
const MIN_TAIL_POINTS: usize = 8;
/// Points judged at most; a longer view is thinned to means. Bounds the cost of a judgement.
pub(super) const MAX_VIEW_POINTS: usize = 96;
/// Where the tails begin that are judged when the whole does not grow.
const TAILS: [f64; 4] = [0.25, 0.5, 0.75, 0.875];
/// Points of the tail that is judged besides.
const RECENT_POINTS: usize = 60;

/// Looks at the whole series, then at shorter and shorter tails of it.
///
/// A tail counts in two cases. It outgrows everything before it (the leak began late). Or it is
/// at least half of the series and provably straight (the leak was behind a warm-up): the tail of
/// a warm-up that levels off is never both.
pub(super) fn growing(view: &View) -> Option<Growth> {
    let whole = Candidate::new(view);
    if let Some(growth) = whole.as_ref().and_then(|c| c.growth(c.bends_down())) {
        return Some(growth);
    }
    tails(view).find_map(|(from, before, tail)| {
        if highest(&tail) <= highest(&before) {
            return None;
        }
        let candidate = Candidate::new(&tail).filter(|c| c.view.len() >= MIN_TAIL_POINTS)?;
        let outgrows = outgrows(&before, &tail, from) && !candidate.bends_down();
        let straight = from <= 0.5
            && drawdown(&view.y) <= 0.5 * candidate.rise
            && candidate.provably_straight();
        candidate.growth(!(outgrows || straight))
    })
}

/// The tails to judge: where each begins, what was before, and the tail itself.
///
/// The last is what a [`crate::ledger::History`] holds without thinning, if that is less than
/// the others: a leak that began minutes ago shows in a session of days.
fn tails(view: &View) -> impl Iterator<Item = (f64, View, View)> {
    let parts = TAILS.iter().map(|&from| {
        let (before, tail) = view.split(from);
        (from, before, tail)
    });
    let cut = view.len().saturating_sub(RECENT_POINTS);
    let from = view.fraction(cut);
    let recent = (from > TAILS[TAILS.len() - 1]).then(|| {
        let (before, tail) = view.split_at(cut);
        (from, before, tail)
    });
    parts.chain(recent)
}

fn highest(view: &View) -> f64 {
    max(view.y.iter().copied())
}

/// Whether the tail rises so far above all that was before it that no curve which only ever grows
/// less and less could: by the whole range before it, scaled to the tail's length, and some more.
fn outgrows(before: &View, tail: &View, from: f64) -> bool {
    let top = highest(before);
    let range = top - min(before.y.iter().copied());
    let above = mean(tail.between(0.67, 1.0)) - top;
    above > (1.2 * (1.0 - from) / from).max(0.5) * range
}

/// A view with its line.
struct Candidate {
    view: View,
    t: f64,
    rise: f64,
    bend: Bend,
}

impl Candidate {
    fn new(view: &View) -> Option<Self> {
        let view = view.evened(MAX_VIEW_POINTS);
        let line = Fit::line(&view);
        if view.len() < MIN_POINTS || line.slope <= 0.0 {
            return None;
        }
        let (t, rise) = (line.t_statistic(), line.slope * view.span());
        let bend = bend(&view, &line);
        Some(Self {
            view,
            t,
            rise,
            bend,
        })
    }

    fn growth(&self, bent: bool) -> Option<Growth> {
        let strength = self.t / critical(self.view.len());
        if bent || strength < 1.0 || !self.keeps_what_it_gains(strength) {
            return None;
        }
        let slope = theil_sen(&self.view);
        let slope = if slope > 0.0 {
            slope
        } else {
            self.rise / self.view.span()
        };
        Some(Growth {
            slope,
            rise: self.rise,
            strength,
            points: self.view.len(),
        })
    }

    /// Rising troughs and rising peaks, and no fall that outweighs the gain.
    fn keeps_what_it_gains(&self, strength: f64) -> bool {
        let view = &self.view;
        let low = |from, to| min(view.between(from, to));
        let high = |from, to| max(view.between(from, to));
        let margin = 0.05 * self.rise;
        let third = 1.0 / 3.0;
        let troughs = low(third, 1.0) >= low(0.0, third) - margin
            && low(2.0 * third, 1.0) > low(0.0, 2.0 * third) + margin;
        let peaks = high(2.0 * third, 1.0) > high(0.0, 2.0 * third) - margin
            && high(third, 1.0) > high(0.0, third) + margin;
        let ends = mean(view.between(0.75, 1.0)) - mean(view.between(0.0, 0.25));
        troughs
            && peaks
            && ends > 0.5 * self.rise
            && drawdown(&view.y) <= deepest_fall(strength) * self.rise
    }

    /// Growing less and less, visibly.
    fn bends_down(&self) -> bool {
        self.bend.z > BEND_Z && self.bend.late_over_early < 0.65
    }

    /// Straight, with evidence that would have shown a bend.
    fn provably_straight(&self) -> bool {
        let bends = self.bend.z > BEND_Z && self.bend.late_over_early < 0.85;
        self.t > 60.0 && !bends
    }
}

/// A bend must be this many standard errors better than a straight line to be believed.
const BEND_Z: f64 = 3.2;

/// The deepest fall allowed, as a part of the gain: the surer the slope, the deeper.
///
/// Barely sure slopes with deep falls are what noise that wanders makes; a collector's sawtooth
/// on top of a leak falls deep around a sure slope.
fn deepest_fall(strength: f64) -> f64 {
    (0.6 + 0.3 * strength).min(1.2)
}

/// How many standard errors the slope must be above zero.
///
/// Far above the textbook's values: with few points the spread itself is badly known, noise that
/// wanders looks like a trend, and thousands of stacks are judged again and again.
fn critical(points: usize) -> f64 {
    let n = points as f64;
    (4.3 + 6000.0 / (n * n)).clamp(6.0, 25.0)
}
