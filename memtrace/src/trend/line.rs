//! The straight line through a series, how sure its slope is, and whether the line bends down.

use super::series::View;

/// Two numbers that may differ by rounding only.
const BYTE_NOISE: f64 = 0.5;

/// A least-squares line (or bent line, see [`Shape`]) through a view.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    /// Bytes per second for a straight line; bytes per unit of the shape else.
    pub(super) slope: f64,
    /// What the fit leaves unexplained, point by point.
    residuals: Vec<f64>,
    /// Sum of squares of those.
    rss: f64,
    /// Spread of the regressor: sum of squared distances from its mean.
    sxx: f64,
}

impl Fit {
    /// The straight line.
    pub(super) fn line(view: &View) -> Self {
        Self::of(&view.t, &view.y)
    }

    fn of(x: &[f64], y: &[f64]) -> Self {
        let n = y.len().max(1) as f64;
        let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
        let (mut sxx, mut sxy) = (0.0, 0.0);
        for (x, y) in x.iter().zip(y) {
            sxx += (x - mx) * (x - mx);
            sxy += (x - mx) * (y - my);
        }
        let slope = if sxx > 0.0 { sxy / sxx } else { 0.0 };
        let residuals: Vec<f64> = x
            .iter()
            .zip(y)
            .map(|(x, y)| (y - my) - slope * (x - mx))
            .collect();
        let rss = residuals.iter().map(|r| r * r).sum();
        Self {
            slope,
            residuals,
            rss,
            sxx,
        }
    }

    /// Long-run variance of the residuals: what neighbours have in common counts in full.
    ///
    /// Newey–West with a quarter of the series as bandwidth. A sawtooth of which at least four
    /// periods were seen cancels out; noise that wanders (AR(1)) is inflated.
    fn long_run_variance(&self, parameters: usize) -> f64 {
        let n = self.residuals.len();
        let df = n.saturating_sub(parameters).max(1) as f64;
        if self.rss <= 0.0 {
            return BYTE_NOISE * BYTE_NOISE;
        }
        let bandwidth = (n / 4).max(1);
        let inflation: f64 = (1..=bandwidth)
            .map(|lag| {
                let weight = 1.0 - lag as f64 / (bandwidth + 1) as f64;
                2.0 * weight * self.autocorrelation(lag)
            })
            .sum();
        // Residuals of a fit to few points look less related than they are, the more so the more
        // they are: noise that wanders with 0.9 of the last value kept shows a third of its true
        // inflation in 60 points. The exponent was measured to make up for it.
        let inflation = (1.0 + inflation).max(1.0).powf(1.5);
        (self.rss / df * inflation).max(BYTE_NOISE * BYTE_NOISE)
    }

    fn autocorrelation(&self, lag: usize) -> f64 {
        let pairs = self.residuals.iter().zip(self.residuals.iter().skip(lag));
        pairs.map(|(a, b)| a * b).sum::<f64>() / self.rss
    }

    /// The slope in units of its own standard error.
    pub(super) fn t_statistic(&self) -> f64 {
        if self.sxx <= 0.0 {
            return 0.0;
        }
        self.slope / (self.long_run_variance(2) / self.sxx).sqrt()
    }
}

/// Ways to grow less and less, as functions of the elapsed part of the view.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Straight up to a moment, flat after it: a cache that fills.
    Hinge(f64),
    /// `1 − exp(−r·x)`: a warm-up whose time constant is 1/r of the view.
    Saturation(f64),
}

impl Shape {
    const ALL: [Self; 15] = [
        Self::Hinge(0.1),
        Self::Hinge(0.2),
        Self::Hinge(0.3),
        Self::Hinge(0.4),
        Self::Hinge(0.5),
        Self::Hinge(0.6),
        Self::Hinge(0.7),
        Self::Hinge(0.8),
        Self::Hinge(0.9),
        Self::Saturation(0.9),
        Self::Saturation(1.5),
        Self::Saturation(2.5),
        Self::Saturation(4.0),
        Self::Saturation(8.0),
        Self::Saturation(16.0),
    ];

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Hinge(end) => x.min(end),
            Self::Saturation(rate) => 1.0 - (-rate * x).exp(),
        }
    }

    fn late_over_early(self) -> f64 {
        (self.at(1.0) - self.at(2.0 / 3.0)) / (self.at(1.0 / 3.0) - self.at(0.0))
    }
}

/// How a view bends down, by the best of [`Shape`]'s fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bend {
    /// How much better than the straight line: the square root of a likelihood ratio, in the
    /// manner of a z value; 0 when the straight line is as good.
    pub(super) z: f64,
    /// Rate in the last third over the rate in the first.
    pub(super) late_over_early: f64,
}

/// Fits every way to grow less and less, and compares the best with the straight line.
///
/// The noise is judged by the better fit's residuals, with what neighbours have in common.
pub(super) fn bend(view: &View, line: &Fit) -> Bend {
    let elapsed: Vec<f64> = (0..view.len()).map(|i| view.fraction(i)).collect();
    let mut regressor = vec![0.0; elapsed.len()];
    let mut best: Option<(Fit, Shape)> = None;
    for shape in Shape::ALL {
        for (r, x) in regressor.iter_mut().zip(&elapsed) {
            *r = shape.at(*x);
        }
        let fit = Fit::of(&regressor, &view.y);
        if fit.slope > 0.0 && best.as_ref().is_none_or(|(b, _)| fit.rss < b.rss) {
            best = Some((fit, shape));
        }
    }
    match best {
        Some((best, shape)) if best.rss < line.rss => Bend {
            z: ((line.rss - best.rss) / best.long_run_variance(3)).sqrt(),
            late_over_early: shape.late_over_early(),
        },
        _ => Bend {
            z: 0.0,
            late_over_early: 1.0,
        },
    }
}
