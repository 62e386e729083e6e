//! Runs that the kernel left out.
//!
//! A program at a function of the kernel does not run on a CPU where it is under way already. Where
//! the kernel can be preempted it is under way in threads that wait to go on, and the call of another
//! thread goes unseen. The kernel counts these runs, since Linux 5.13 for all to read.

use std::os::fd::{AsFd as _, AsRawFd as _};

use super::{KernelSide, regions};

/// Runs that did not happen, of targets' calls and of those of every other process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// At the system calls that change mappings.
    pub regions: u64,
    /// Where executable files are mapped.
    pub mappings: u64,
}

impl KernelSide {
    /// Since the start; 0 where the kernel does not tell.
    #[must_use]
    pub fn missed(&self) -> Missed {
        Missed {
            regions: regions::programs().map(|name| self.missed_by(name)).sum(),
            mappings: self.missed_by("mmap_file"),
        }
    }

    fn missed_by(&self, name: &str) -> u64 {
        let Some(Ok(fd)) = self.ebpf.program(name).map(aya::programs::Program::fd) else {
            return 0;
        };
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        std::fs::read_to_string(path).map_or(0, |text| misses(&text))
    }
}

/// From what the kernel tells of a program's descriptor.
fn misses(text: &str) -> u64 {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("recursion_misses:"));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number is found among the other lines; a kernel that does not tell has missed nothing.
    #[test]
    fn misses_are_read() {
        let told =
            "pos:\t0\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t9\n";
        assert_eq!(misses(told), 17);
        assert_eq!(misses("pos:\t0\nprog_type:\t26\nprog_id:\t5\n"), 0);
        assert_eq!(misses("recursion_misses:\tmany\n"), 0);
    }
}
