//! A live session's memory usage over time, in bounded memory.

use std::collections::BTreeMap;

use super::UsagePoint;
use crate::report::model::Report;

/// Points kept for one process; when there are more, every second one goes.
pub const MAX_USAGE_POINTS: usize = 1024;
/// Processes that are kept; further ones have no past.
const MAX_PROCESSES: usize = 1024;

/// What each process used at each report, thinned evenly when it grows long.
#[derive(Clone, Debug, Default)]
pub struct UsageHistory {
    processes: BTreeMap<u32, Thinned>,
}

#[derive(Clone, Debug, Default)]
struct Thinned {
    points: Vec<UsagePoint>,
    /// Reports until the next one is kept for good.
    skip: u32,
    stride: u32,
    /// The latest, when it is not kept for good.
    latest: Option<UsagePoint>,
}

impl UsageHistory {
    /// Adds what a report says.
    pub fn add(&mut self, report: &Report) {
        for process in &report.processes {
            let full = self.processes.len() >= MAX_PROCESSES;
            if full && !self.processes.contains_key(&process.pid) {
                continue;
            }
            let point = UsagePoint {
                at: report.duration_seconds,
                outstanding_bytes: process.outstanding_bytes,
                rss_bytes: process.rss_bytes,
                usage_bytes: process.memory_usage_bytes,
                limit_bytes: process.memory_limit_bytes,
            };
            self.processes.entry(process.pid).or_default().push(point);
        }
    }

    /// The points by pid, oldest first.
    #[must_use]
    pub fn points(&self) -> BTreeMap<u32, Vec<UsagePoint>> {
        let all = self.processes.iter();
        all.map(|(pid, thinned)| {
            let points = thinned.points.iter().copied().chain(thinned.latest);
            (*pid, points.collect())
        })
        .collect()
    }
}

impl Thinned {
    fn push(&mut self, point: UsagePoint) {
        // Two images of one pid are in one report: the later entry is the one that lives.
        if let Some(last) = self.points.last_mut()
            && last.at >= point.at
        {
            *last = point;
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            self.latest = Some(point);
            return;
        }
        if self.points.len() >= MAX_USAGE_POINTS {
            let mut at = 0;
            self.points.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.stride = self.stride.max(1).saturating_mul(2);
        }
        self.points.push(point);
        self.latest = None;
        self.skip = self.stride.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    // However long it goes on, memory is bounded, times rise, and first and last report stay.
    #[test]
    fn bounded_and_whole() {
        let mut history = UsageHistory::default();
        let mut report = fixtures::leak();
        for second in 1..=10_000_u32 {
            report.duration_seconds = f64::from(second);
            report.processes[0].outstanding_bytes = u64::from(second);
            history.add(&report);
        }
        let points = &history.points()[&1234];
        assert!(points.len() <= MAX_USAGE_POINTS + 1, "{}", points.len());
        assert!(points.len() >= MAX_USAGE_POINTS / 2, "{}", points.len());
        assert!(points.windows(2).all(|two| two[0].at < two[1].at));
        assert_eq!((points[0].at, points[points.len() - 1].at), (1.0, 10_000.0));
        assert!(points.iter().all(|p| p.outstanding_bytes == p.at as u64));
    }
}
