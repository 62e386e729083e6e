//! What tracing costs the targets, and the brake.

use std::time::Duration;

use memtrace_common::Counter;

use crate::probe::{Counters, HitCosts, StackCosts};

/// Hits of each kind since the attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Runs of entry programs.
    pub entries: u64,
    /// Runs of the return program.
    pub returns: u64,
    /// Runs on return instructions, of functions that can throw.
    pub stepped_returns: u64,
    /// Runs of free programs.
    pub frees: u64,
    /// System calls that change mappings.
    pub regions: u64,
    /// Page faults.
    pub faults: u64,
    /// Windows of stack that they hashed beyond the first.
    pub windows: u64,
    /// Those of them all whose stack was copied.
    pub copies: u64,
}

impl Hits {
    /// From the kernel's counters.
    #[must_use]
    pub fn of(counters: &Counters) -> Self {
        Self {
            entries: counters.get(Counter::EntryHits),
            returns: counters.get(Counter::ReturnHits),
            stepped_returns: counters.get(Counter::SteppedReturnHits),
            frees: counters.get(Counter::FreeHits),
            regions: counters.get(Counter::RegionHits),
            faults: counters.get(Counter::FaultHits),
            windows: counters.get(Counter::MoreWindows),
            copies: counters.get(Counter::StackCopies),
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.heap() + self.regions + self.faults
    }

    /// Those of allocators.
    #[must_use]
    pub fn heap(self) -> u64 {
        self.entries + self.returns + self.stepped_returns + self.frees
    }

    fn since(self, before: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(before.entries),
            returns: self.returns.saturating_sub(before.returns),
            stepped_returns: self.stepped_returns.saturating_sub(before.stepped_returns),
            frees: self.frees.saturating_sub(before.frees),
            regions: self.regions.saturating_sub(before.regions),
            faults: self.faults.saturating_sub(before.faults),
            windows: self.windows.saturating_sub(before.windows),
            copies: self.copies.saturating_sub(before.copies),
        }
    }
}

/// How the probes that matter are placed; decides which measured cost applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placements {
    /// A common allocation function is probed on an instruction that must be single-stepped.
    pub stepped_entry: bool,
    /// The same of a free function.
    pub stepped_free: bool,
}

/// Cost of hits, from counts and the calibration.
#[derive(Clone, Copy, Debug, Default)]
pub struct CostModel {
    /// Measured costs when every block is recorded.
    pub exact: HitCosts,
    /// Measured costs when few are.
    pub sampled: HitCosts,
    /// Which of the two applies.
    pub sampling: bool,
    /// Placement of the probes.
    pub placements: Placements,
    /// Measured cost of a system call that changes mappings.
    pub region_ns: f64,
    /// Measured cost of a page fault.
    pub fault_ns: f64,
    /// What hits cost more that look at more of the stack.
    pub stacks: StackCosts,
}

impl CostModel {
    fn costs(&self) -> HitCosts {
        if self.sampling {
            self.sampled
        } else {
            self.exact
        }
    }

    /// Nanoseconds these hits took. A pair costs as much as its entry: a return without an entry
    /// does not happen, an entry without a return (recursion beyond the kernel's limit) is rare.
    /// Where the return instruction is probed, two traps take the place of a pair.
    #[must_use]
    pub fn nanoseconds(&self, hits: Hits) -> f64 {
        let pair = if self.placements.stepped_entry {
            self.costs().stepped_pair_ns
        } else {
            self.costs().emulated_pair_ns
        };
        let free = if self.placements.stepped_free {
            self.costs().stepped_free_ns
        } else {
            self.costs().emulated_free_ns
        };
        let apart = hits.stepped_returns.min(hits.entries);
        let apart_ns = self.costs().emulated_free_ns + self.costs().stepped_free_ns;
        let heap = (hits.entries - apart) as f64 * pair
            + apart as f64 * apart_ns
            + hits.frees as f64 * free;
        let memory = hits.regions as f64 * self.region_ns + hits.faults as f64 * self.fault_ns;
        let stacks =
            hits.windows as f64 * self.stacks.window_ns + hits.copies as f64 * self.stacks.copy_ns;
        heap + memory + stacks
    }

    /// Average over the hits there were; of an even mix before the first.
    #[must_use]
    pub fn nanoseconds_per_hit(&self, hits: Hits) -> f64 {
        let hits = if hits.total() == 0 {
            Hits {
                entries: 1,
                returns: 1,
                frees: 1,
                ..Hits::default()
            }
        } else {
            hits
        };
        self.nanoseconds(hits) / hits.total() as f64
    }
}

/// Overhead per interval, and the decision of the brake.
#[derive(Debug, Default)]
pub struct Meter {
    before: Option<(Hits, u64, Duration)>,
    /// Share of one processor spent in probes in the last interval.
    pub core: Option<f64>,
    /// Share of the targets' CPU time spent in probes in the last interval.
    pub fraction: Option<f64>,
}

/// What the brake wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brake {
    /// Go on.
    Release,
    /// Sample with this mean distance in bytes.
    Sample(u64),
    /// Even sampling is too dear: take the probes off.
    Detach,
}

/// First step when exact tracing is too dear, and the last before giving up.
const FIRST_SAMPLE: u64 = 64 << 10;
const LAST_SAMPLE: u64 = 16 << 20;

impl Meter {
    /// A target comes in with what it used before.
    pub fn begin(&mut self, cpu_ns: u64) {
        self.before.get_or_insert_default().1 += cpu_ns;
    }

    /// Takes the figures of a report: hits, the targets' CPU time and the time so far.
    pub fn measure(&mut self, model: &CostModel, hits: Hits, cpu_ns: u64, at: Duration) {
        let (hits_before, cpu_before, at_before) = self.before.unwrap_or_default();
        let since = hits.since(hits_before);
        let spent = model.nanoseconds(since);
        // CPU time is counted in clock ticks: never more than all of it.
        let share = |of: f64| (spent / of).min(1.0);
        if cpu_ns > cpu_before {
            self.fraction = Some(share((cpu_ns - cpu_before) as f64));
        } else if since.total() == 0 {
            self.fraction = Some(0.0);
        } else {
            // Less than a tick, or the end of a process that nobody could read: these hits count
            // with the next interval, the last known share stands.
            return;
        }
        if at > at_before {
            self.core = Some(share((at - at_before).as_nanos() as f64));
        }
        self.before = Some((hits, cpu_ns, at));
    }

    /// What to do about `limit` at the present sampling distance.
    #[must_use]
    pub fn brake(&self, limit: f64, sample_bytes: u64) -> Brake {
        match self.fraction {
            Some(fraction) if fraction > limit => match sample_bytes {
                0..FIRST_SAMPLE => Brake::Sample(FIRST_SAMPLE),
                FIRST_SAMPLE..LAST_SAMPLE => {
                    Brake::Sample(sample_bytes.saturating_mul(8).min(LAST_SAMPLE))
                }
                _ => Brake::Detach,
            },
            _ => Brake::Release,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: HitCosts = HitCosts {
        emulated_pair_ns: 1000.0,
        emulated_free_ns: 500.0,
        stepped_pair_ns: 10_000.0,
        stepped_free_ns: 9000.0,
    };
    const MODEL: CostModel = CostModel {
        exact: COSTS,
        sampled: HitCosts {
            emulated_pair_ns: 500.0,
            ..COSTS
        },
        sampling: false,
        placements: Placements {
            stepped_entry: false,
            stepped_free: true,
        },
        region_ns: 0.0,
        fault_ns: 0.0,
        stacks: StackCosts {
            window_ns: 125.0,
            copy_ns: 30_000.0,
        },
    };
    const SECOND: Duration = Duration::from_secs(1);

    /// Cost is counted per kind and placement, over what was hit since the last report.
    #[test]
    fn fraction_of_cpu() {
        let mut meter = Meter::default();
        meter.begin(0);
        assert_eq!(meter.fraction, None);
        let hits = Hits {
            entries: 1000,
            returns: 1000,
            frees: 1000,
            ..Hits::default()
        };
        meter.measure(&MODEL, hits, 100_000_000, SECOND);
        assert_eq!(meter.fraction, Some(0.1));
        meter.measure(&MODEL, hits, 200_000_000, 2 * SECOND);
        assert_eq!(meter.fraction, Some(0.0));
    }

    /// When few blocks are recorded, hits are cheaper, and the brake must see that.
    #[test]
    fn sampling_is_cheaper() {
        let hits = Hits {
            entries: 1000,
            returns: 1000,
            ..Hits::default()
        };
        let sampled = CostModel {
            sampling: true,
            ..MODEL
        };
        assert_eq!(sampled.nanoseconds(hits) * 2.0, MODEL.nanoseconds(hits));
    }

    /// A hit that needs more windows, and one whose stack is copied, cost what they cost: faults of
    /// a Node.js program took six times what was said of them.
    #[test]
    fn deep_stacks_are_dearer() {
        let faults = |windows, copies| Hits {
            faults: 1000,
            windows,
            copies,
            ..Hits::default()
        };
        let model = CostModel {
            fault_ns: 400.0,
            ..MODEL
        };
        assert_eq!(model.nanoseconds(faults(0, 0)), 400_000.0);
        assert_eq!(model.nanoseconds(faults(16_000, 2)), 2_460_000.0);
        assert_eq!(model.nanoseconds_per_hit(faults(16_000, 2)), 2460.0);
    }

    /// The first report has a share too, of what was used since the attach; hits within one clock
    /// tick are not free of charge, they count with the next one.
    #[test]
    fn first_and_short_intervals() {
        let hits = |n| Hits {
            entries: n,
            returns: n,
            frees: n,
            ..Hits::default()
        };
        let mut meter = Meter::default();
        meter.begin(7_000_000_000);
        meter.begin(1_000_000_000);
        meter.measure(&MODEL, hits(1000), 8_100_000_000, SECOND);
        assert_eq!(meter.fraction, Some(0.1));
        meter.measure(&MODEL, hits(2000), 8_100_000_000, 2 * SECOND);
        assert_eq!(meter.fraction, Some(0.1));
        meter.measure(&MODEL, hits(2000), 8_120_000_000, 3 * SECOND);
        assert_eq!(meter.fraction, Some(0.5));
    }

    /// The brake samples first, ever more coarsely, and detaches last.
    #[test]
    fn brake_escalates() {
        let mut meter = Meter::default();
        assert_eq!(meter.brake(0.05, 1), Brake::Release);
        meter.fraction = Some(0.5);
        let mut steps = Vec::new();
        let mut sample = 1;
        while let Brake::Sample(next) = meter.brake(0.05, sample) {
            assert!(next > sample);
            sample = next;
            steps.push(next);
        }
        assert_eq!(meter.brake(0.05, sample), Brake::Detach);
        assert!(steps.len() > 2);
        assert_eq!(meter.brake(0.6, 1), Brake::Release);
    }
}
