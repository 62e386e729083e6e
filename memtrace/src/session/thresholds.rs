//! When usage crosses a share of the limit. Pure: usage comes in as a value.

/// Usage must fall this many points below a threshold before it can be crossed again: a value that
/// hovers is told once.
const HYSTERESIS: u64 = 5;
/// As many thresholds as anyone can tell apart.
pub const MAX_THRESHOLDS: usize = 16;

/// Shares of a limit in percent, rising, each from 1 to 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds(Vec<u8>);

impl Default for Thresholds {
    fn default() -> Self {
        Self(vec![75, 85, 90])
    }
}

impl Thresholds {
    /// None: nothing is watched.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Sorted, each once; nothing when one is not from 1 to 100 or they are too many.
    #[must_use]
    pub fn new(mut percents: Vec<u8>) -> Option<Self> {
        percents.sort_unstable();
        percents.dedup();
        let good = percents.iter().all(|percent| (1..=100).contains(percent));
        (good && percents.len() <= MAX_THRESHOLDS).then_some(Self(percents))
    }

    /// Rising.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// The thresholds of one limit, with what was crossed already.
#[derive(Clone, Debug)]
pub struct Watch {
    thresholds: Thresholds,
    /// The highest threshold that counts as crossed.
    crossed: Option<u8>,
}

impl Watch {
    /// Nothing is crossed yet.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            crossed: None,
        }
    }

    /// Takes a reading in bytes: the highest threshold that was crossed with it, if any. Crossing
    /// several at once is one event.
    pub fn observe(&mut self, usage: u64, limit: u64) -> Option<u8> {
        // A reading of 75% of the limit reaches the threshold of 75.
        let reaches = |points: u64| {
            u128::from(usage) * 100 >= u128::from(limit) * u128::from(points) && limit > 0
        };
        let highest = |passes: &dyn Fn(u64) -> bool| {
            let all = self.thresholds.0.iter().rev();
            all.copied().find(|percent| passes(u64::from(*percent)))
        };
        let above = highest(&reaches);
        if above > self.crossed {
            self.crossed = above;
            return above;
        }
        // Only what is left far enough can be crossed again.
        let kept = highest(&|points| reaches(points.saturating_sub(HYSTERESIS)));
        self.crossed = self.crossed.min(kept);
        None
    }

    /// Bytes up to the next threshold that can be crossed; nothing above the highest.
    #[must_use]
    pub fn room(&self, usage: u64, limit: u64) -> Option<u64> {
        let next = self
            .thresholds
            .0
            .iter()
            .find(|percent| Some(**percent) > self.crossed)?;
        let at = u128::from(limit) * u128::from(*next) / 100;
        Some(u64::try_from(at).unwrap_or(u64::MAX).saturating_sub(usage))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn watch() -> Watch {
        Watch::new(Thresholds::default())
    }

    /// Each threshold is told once on the way up; several at once are one event.
    #[test]
    fn rising() {
        let mut one = watch();
        let told: Vec<_> = (0..=100).filter_map(|n| one.observe(n, 100)).collect();
        assert_eq!(told, [75, 85, 90]);
        assert_eq!(watch().observe(95, 100), Some(90));
    }

    /// A value that hovers about a threshold is told once; after a real fall it is told again.
    #[test]
    fn hovering() {
        let mut one = watch();
        let told: Vec<_> = [74, 76, 74, 76, 71, 75, 70, 75, 69, 80]
            .into_iter()
            .map(|n| one.observe(n, 100))
            .collect();
        let crossed = Some(75);
        assert_eq!(
            told,
            [
                None, crossed, None, None, None, None, None, None, None, crossed
            ]
        );
    }

    /// Thresholds are validated, sorted and each there once.
    #[test]
    fn validated() {
        assert_eq!(
            Thresholds::new(vec![90, 50, 90]).unwrap().as_slice(),
            [50, 90]
        );
        assert_eq!(Thresholds::new(vec![0]), None);
        assert_eq!(Thresholds::new(vec![101]), None);
        assert_eq!(Thresholds::new((1..=17).collect()), None);
    }

    /// No limit is never met, and the largest numbers do no harm.
    #[test]
    fn extremes() {
        assert_eq!(watch().observe(5, 0), None);
        assert_eq!(watch().observe(u64::MAX, u64::MAX), Some(90));
        assert_eq!(watch().room(0, u64::MAX), Some(u64::MAX / 100 * 75 + 11));
    }

    /// The same with one flag for each threshold.
    fn model(thresholds: &[u8], readings: &[u64]) -> Vec<Option<u8>> {
        let mut armed = vec![true; thresholds.len()];
        let mut told = Vec::new();
        for reading in readings {
            let mut crossed = None;
            for (at, percent) in thresholds.iter().enumerate() {
                let percent_ = u64::from(*percent);
                if *reading >= percent_ && armed[at] {
                    armed[at] = false;
                    crossed = Some(*percent);
                } else if *reading < percent_.saturating_sub(HYSTERESIS) {
                    armed[at] = true;
                }
            }
            told.push(crossed);
        }
        told
    }

    proptest! {
        /// Every series of readings gives what the naive model gives.
        #[test]
        fn as_the_model(
            thresholds in proptest::collection::vec(1_u8..=100, 0..6),
            readings in proptest::collection::vec(0_u64..120, 0..60),
        ) {
            let thresholds = Thresholds::new(thresholds).unwrap();
            let mut watch = Watch::new(thresholds.clone());
            let told: Vec<_> = readings.iter().map(|n| watch.observe(*n, 100)).collect();
            prop_assert_eq!(told, model(thresholds.as_slice(), &readings));
        }
    }
}
