//! Time series to verdict. Pure: no I/O, no clock.
//!
//! [`judge`] takes the history of outstanding bytes of one stack or process and says what it does
//! (R23). It decides by what the series *keeps*: a leak's slope is significant even when
//! neighbouring points share their noise, its troughs and peaks rise, no fall outweighs the gain,
//! it does not bend down like a warm-up or stop like a cache that is full, and blocks older than an
//! interval are behind it.
//!
//! What no test can tell from the data: a warm-up or a cache that has not begun to slow down, a
//! sawtooth or a daily wave of which less than one whole period has been seen. They are leaks
//! until they turn. So the time traced must be longer than the target's slowest rhythm, and
//! confidence starts low and rises with the number of intervals. A vector that doubles is a
//! plateau for most of the time between two doublings.
//!
//! Measured on seeded series (`tests/figures.rs`): of 100,000 without a leak (15 to 240 intervals;
//! noise that wanders, warm-ups, caches, sawtooth, spikes, waves, level changes) 35 are called
//! growing. A leak in white noise is found in 99 of 100 cases when it gains, in units of the
//! noise's peak-to-peak spread over the window: 1 in 120 intervals, 1.5 in 60, 2 in 40, 3 in 30, 6
//! in 20, 10 in 15, 20 in 6 to 10. Noise that wanders (AR(1), half of each value kept) asks for
//! twice the intervals. Real leaks of steady programs are far above that.

mod growth;
mod line;
mod series;
mod shape;
#[cfg(test)]
mod tests;

use crate::ledger::{Point, Survivors};

use growth::Growth;
use line::Fit;
use series::{View, max, min, theil_sen};

/// The verdicts of a report (see the reference).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Grows, and the data can carry that word.
    Growing,
    /// Grew and stopped.
    Plateau,
    /// Goes up and comes back down, again and again.
    Sawtooth,
    /// Once up and down.
    Spike,
    /// Neither.
    Steady,
    /// Goes down.
    Shrinking,
    /// Not enough intervals yet, or the losses forbid a verdict.
    TooEarly,
}

/// What [`judge`] must know besides the series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Seconds between reports: survivors must be older than this for `growing`.
    pub interval_seconds: f64,
    /// What was lost while the series was taken.
    pub losses: Losses,
}

/// Losses as far as they bear on one series (R12). The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Losses of unknown size and kind: no verdict is given.
    pub forbid: bool,
    /// Share of the calls that went unrecorded, 0 to 1. Lowers the confidence only.
    pub fraction: f64,
    /// Bytes that unseen frees may have left in the account (at most): they could explain a growth
    /// up to this.
    pub unseen_free_bytes: u64,
    /// Bytes of allocations that went unrecorded (at most): they could hide a growth up to this.
    pub unseen_allocation_bytes: u64,
}

/// What [`judge`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// 0 to 1; falls with losses, rises with the number of intervals.
    pub confidence: f64,
    /// Robust slope over the part of the series the verdict rests on; 0 when it is flat.
    pub growth_bytes_per_second: f64,
}

/// Judges a series of outstanding bytes, oldest point first.
///
/// Points may be spaced unevenly (see [`crate::ledger::History`]); those that go back in time are
/// skipped. Without survivors (no walk of the live table yet) their condition is not asked
/// for and the confidence is lower. Deterministic; some tens of microseconds for 256 points.
#[must_use]
pub fn judge(points: &[Point], survivors: Option<&Survivors>, options: &Options) -> Judgement {
    let view = View::new(points);
    if view.len() < growth::MIN_POINTS || options.losses.forbid {
        return Judgement {
            verdict: Verdict::TooEarly,
            confidence: 0.0,
            growth_bytes_per_second: if view.len() < 2 {
                0.0
            } else {
                theil_sen(&view)
            },
        };
    }
    let growth = growth::growing(&view).filter(|g| outlived(survivors, g, options));
    let judgement = match growth {
        Some(growth) => grown(&growth, survivors),
        None => not_grown(&view),
    };
    with_losses(judgement, &view, growth.as_ref(), &options.losses)
}

/// Seconds until `limit_remaining_bytes` are used up; `None` when nothing grows.
#[must_use]
pub fn forecast(limit_remaining_bytes: u64, growth_bytes_per_second: f64) -> Option<f64> {
    let seconds = limit_remaining_bytes as f64 / growth_bytes_per_second;
    (growth_bytes_per_second > 0.0 && seconds.is_finite()).then_some(seconds)
}

/// Whether blocks older than one interval are behind the growth: a quarter of it at least.
///
/// A leak's blocks are all old but the last interval's. A collector whose rhythm is nearly the
/// report's makes a slow ramp out of blocks that are all young.
fn outlived(survivors: Option<&Survivors>, growth: &Growth, options: &Options) -> bool {
    survivors.is_none_or(|s| {
        s.oldest_seconds > options.interval_seconds && s.old_bytes as f64 >= 0.25 * growth.rise
    })
}

fn grown(growth: &Growth, survivors: Option<&Survivors>) -> Judgement {
    let evidence = 1.0 - 0.3 / growth.strength;
    let witnesses = if survivors.is_some() { 1.0 } else { 0.85 };
    Judgement {
        verdict: Verdict::Growing,
        confidence: evidence * patience(growth.points) * witnesses,
        growth_bytes_per_second: growth.slope,
    }
}

/// Below 1 while there are few points: a warm-up that has not slowed down yet looks like a leak.
fn patience(points: usize) -> f64 {
    1.0 - 2.0 / (points.max(3) as f64)
}

fn not_grown(view: &View) -> Judgement {
    let even = view.evened(growth::MAX_VIEW_POINTS);
    let line = Fit::line(&even);
    let top = max(view.y.iter().copied());
    let falls = line.t_statistic() < -SURE_FALL && -line.slope * view.span() > 0.05 * top;
    let (verdict, confidence) = if falls {
        (Verdict::Shrinking, 0.9)
    } else {
        shape::shape(view)
    };
    Judgement {
        verdict,
        confidence: confidence * patience(view.len()),
        growth_bytes_per_second: match verdict {
            Verdict::Plateau => visible_slope(&recent(&even, 0.67, 3)),
            _ => visible_slope(&recent(&even, 0.5, growth::MIN_POINTS)),
        },
    }
}

/// The view from a part of its span on, but at least the last `points`.
fn recent(view: &View, from: f64, points: usize) -> View {
    let (before, _) = view.split(from);
    view.split_at(before.len().min(view.len().saturating_sub(points)))
        .1
}

/// Standard errors below zero that make a fall.
const SURE_FALL: f64 = 6.0;

/// The robust slope of a view; 0 when it is within the view's own noise.
fn visible_slope(view: &View) -> f64 {
    if Fit::line(view).t_statistic().abs() < 3.0 {
        0.0
    } else {
        theil_sen(view)
    }
}

/// Withholds what the losses could explain, and lowers the confidence of the rest.
fn with_losses(
    judgement: Judgement,
    view: &View,
    growth: Option<&Growth>,
    losses: &Losses,
) -> Judgement {
    let top = max(view.y.iter().copied());
    let range = top - min(view.y.iter().copied());
    let explained = match growth {
        Some(growth) => losses.unseen_free_bytes as f64 >= 0.5 * growth.rise,
        None => {
            let hidden = losses.unseen_allocation_bytes as f64;
            hidden > 0.0 && hidden >= (0.1 * range).max(0.01 * top)
        }
    };
    let kept = (1.0 - losses.fraction.clamp(0.0, 1.0)).powi(2);
    Judgement {
        verdict: if explained {
            Verdict::TooEarly
        } else {
            judgement.verdict
        },
        confidence: if explained {
            0.0
        } else {
            judgement.confidence * kept
        },
        ..judgement
    }
}
