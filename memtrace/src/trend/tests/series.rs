//! Seeded series with a known truth.

use crate::ledger::Point;

/// splitmix64: small, fixed, and the same on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn range(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }

    /// Roughly normal, spread 1: the sum of twelve.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

pub(super) fn spread(y: &[f64]) -> f64 {
    let top = y.iter().copied().fold(f64::MIN, f64::max);
    top - y.iter().copied().fold(f64::MAX, f64::min)
}

/// Independent noise of spread 1 (standard deviation).
pub(super) fn white(random: &mut Random, n: usize) -> Vec<f64> {
    (0..n).map(|_| random.normal()).collect()
}

/// Noise that wanders: each point keeps `phi` of the one before.
pub(super) fn ar1(random: &mut Random, n: usize, phi: f64) -> Vec<f64> {
    let mut v = random.normal() / (1.0 - phi * phi).sqrt();
    (0..n)
        .map(|_| {
            v = phi * v + random.normal();
            v
        })
        .collect()
}

/// A random walk between two walls.
pub(super) fn bounded_walk(random: &mut Random, n: usize) -> Vec<f64> {
    let wall = (n as f64).sqrt() * random.range(0.15, 0.4);
    let mut v = random.range(-wall, wall);
    (0..n)
        .map(|_| {
            v += random.normal();
            if v.abs() > wall {
                v = (2.0 * wall - v.abs()).max(0.0) * v.signum();
            }
            v
        })
        .collect()
}

/// A collector's sawtooth between 0 and 1.
pub(super) fn sawtooth(n: usize, period: f64, phase: f64) -> Vec<f64> {
    (0..n)
        .map(|i| (i as f64 / period + phase).fract())
        .collect()
}

/// `base + scale * y` as points one `interval` apart; never below zero.
pub(super) fn points(y: &[f64], base: f64, scale: f64, interval: f64) -> Vec<Point> {
    let value = |v: &f64| (base + scale * v).max(0.0).round() as u64;
    y.iter()
        .enumerate()
        .map(|(i, v)| Point {
            at: interval * (i + 1) as f64,
            bytes: value(v),
        })
        .collect()
}

fn add(a: &mut [f64], b: &[f64], scale: f64) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += scale * b);
}

/// Kinds of series without a leak.
pub(super) const CALM: [&str; 9] = [
    "white", "ar1", "walk", "warm-up", "cache", "sawtooth", "spike", "wave", "steps",
];

/// A series without a leak, in arbitrary units between about 0 and 10.
pub(super) fn calm(random: &mut Random, kind: &str, n: usize) -> Vec<f64> {
    let x = |i: usize| i as f64 / (n - 1) as f64;
    let noise_share = random.pick(&[0.0, 0.005, 0.02, 0.05]);
    let mut y = match kind {
        "white" => return white(random, n),
        "ar1" => {
            let phi = random.pick(&[0.3, 0.6, 0.8, 0.9]);
            return ar1(random, n, phi);
        }
        "walk" => return bounded_walk(random, n),
        // The time constant is at most half of what was seen.
        "warm-up" => {
            let tau = random.pick(&[0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]);
            (0..n)
                .map(|i| 1.0 - (-x(i) / tau).exp())
                .collect::<Vec<_>>()
        }
        "cache" => {
            let full = random.range(0.05, 0.7);
            (0..n).map(|i| (x(i) / full).min(1.0)).collect()
        }
        // From two intervals to just under the window.
        "sawtooth" => {
            let period = 2.0 * (0.48 * n as f64).powf(random.unit());
            sawtooth(n, period, random.unit())
        }
        "spike" => {
            let (at, width) = (random.unit(), random.range(0.5 / n as f64, 0.15));
            (0..n)
                .map(|i| f64::from(u8::from((x(i) - at).abs() <= width)))
                .collect()
        }
        // One period at least.
        "wave" => {
            let (periods, phase) = (random.range(1.0, 8.0), random.unit());
            (0..n)
                .map(|i| (std::f64::consts::TAU * (periods * x(i) + phase)).sin())
                .collect()
        }
        // Level changes both ways.
        _ => {
            let every = random.range(0.04, 0.15);
            let levels: Vec<f64> = (0..32).map(|_| random.unit()).collect();
            (0..n).map(|i| levels[(x(i) / every) as usize]).collect()
        }
    };
    add(&mut y, &white(random, n), noise_share);
    y
}

/// Kinds of leaks.
pub(super) const LEAKS: [&str; 6] = [
    "in white noise",
    "in ar1 noise",
    "with sawtooth",
    "staircase",
    "after warm-up",
    "late",
];

/// A leak that gains 1 or more over the window, in noise whose own spread is at most 1.
pub(super) fn leak(random: &mut Random, kind: &str, n: usize) -> Vec<f64> {
    let x = |i: usize| i as f64 / (n - 1) as f64;
    let gain = random.pick(&[1.05, 1.5, 2.0, 4.0, 10.0, 100.0]);
    let mut y: Vec<f64> = (0..n).map(|i| gain * x(i)).collect();
    let noise = match kind {
        "in white noise" => white(random, n),
        "in ar1 noise" => ar1(random, n, 0.5),
        "with sawtooth" => {
            let period = random.range(2.0, n as f64 / 4.0);
            let mut saw = sawtooth(n, period, random.unit());
            add(&mut saw, &white(random, n), 0.02);
            saw
        }
        "staircase" => {
            let steps = random.range(5.0, 20.0);
            y = (0..n)
                .map(|i| gain * (x(i) * steps).floor() / steps)
                .collect();
            add(&mut y, &white(random, n), 0.002 * gain);
            return y;
        }
        // The warm-up is five times what leaks after it.
        "after warm-up" => {
            y.iter_mut()
                .enumerate()
                .for_each(|(i, y)| *y += 5.0 * gain * (1.0 - (-x(i) / 0.03).exp()));
            add(&mut y, &white(random, n), 0.003 * gain);
            return y;
        }
        _ => {
            let from = random.range(0.2, 0.6);
            y = (0..n)
                .map(|i| 6.0 * gain * (x(i) - from).max(0.0))
                .collect();
            white(random, n)
        }
    };
    add(&mut y, &noise, 1.0 / spread(&noise));
    y
}
