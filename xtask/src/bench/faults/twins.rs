//! What memtrace costs a program, told by two of its kind.
//!
//! A process differs from the next by more than what is to be shown (addresses, heaps and hash seeds fall out
//! differently), and the machine from one moment to the next by even more. So two processes of one program do
//! the same work in turns, window by window on one processor, and what counts is the one's time by the other's:
//! both saw the same moment. memtrace is first on the one and then on the other; in the quotient of the two
//! comparisons what the processes differ by falls out, as does that work becomes dearer while they grow.
use anyhow::Result;

use super::subject::{Case, Subject};
use crate::bench::Bench;
use crate::bench::interval::median;
use crate::bench::processors::Apart;

/// Turns that are not counted after the start: caches, compilers, the allocator's first memory.
const WARMING: usize = 16;

/// Two processes of one program.
pub struct Twins {
    requests: u32,
    both: [Subject; 2],
}

/// The times of one turn: nanoseconds of CPU time of each.
pub type Turn = [f64; 2];

impl Twins {
    pub fn start(bench: &Bench, case: &Case, apart: &Apart) -> Result<Self> {
        let both = [(case.start)(bench, 0)?, (case.start)(bench, 1)?];
        for subject in &both {
            apart.set(subject.pid())?;
        }
        let mut twins = Self {
            requests: case.requests,
            both,
        };
        twins.turns(WARMING)?;
        Ok(twins)
    }

    pub fn pid(&self, which: usize) -> u32 {
        self.both[which].pid()
    }

    /// Windows of both; who begins changes from turn to turn.
    pub fn turns(&mut self, count: usize) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        for number in 0..count {
            let mut turn = [0.0; 2];
            for which in [number % 2, (number + 1) % 2] {
                turn[which] = self.both[which].window(self.requests)?;
            }
            turns.push(turn);
        }
        Ok(turns)
    }
}

/// The first one's time by the second's: the middle of some turns.
pub fn quotient(turns: &[Turn]) -> f64 {
    let quotients: Vec<f64> = turns.iter().map(|[first, second]| first / second).collect();
    median(&quotients)
}

/// CPU time with memtrace by that without, of the quotients with it on the first and on the second.
pub fn ratio(on_first: f64, on_second: f64) -> f64 {
    (on_first / on_second).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the twins differ by, what slows both, and a turn in which one was disturbed do not count.
    #[test]
    fn only_what_follows_memtrace_counts() {
        // The second twin is slower by 30%, memtrace costs 10%, and the machine gets slower by half.
        let moments = [1.0, 1.1, 1.2, 1.5, 1.4];
        let mut on_first: Vec<Turn> = moments.iter().map(|m| [1.1 * m, 1.3 * m]).collect();
        let on_second: Vec<Turn> = moments
            .iter()
            .map(|m| [1.5 * m, 1.5 * 1.3 * 1.1 * m])
            .collect();
        on_first[2][0] *= 8.0;
        let ratio = ratio(quotient(&on_first), quotient(&on_second));
        assert!((ratio - 1.1).abs() < 1e-12, "{ratio}");
    }
}
