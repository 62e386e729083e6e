//! Runs that the kernel left out.
//!
//! A program at a function of the kernel, or at a raw tracepoint, does not run on a CPU where it is
//! under way already. Where the kernel can be preempted it is under way in threads that wait to go on,
//! and the call of another thread goes unseen. At a kprobe or a tracepoint of perf, programs are not
//! interrupted, but do not run while memtrace itself waits on that CPU in the middle of reading a table. The kernel counts
//! these runs, since Linux 5.13 for all to read.

use std::os::fd::{AsFd as _, AsRawFd as _};

use super::{KernelSide, regions, trace_events::TraceEvents};

/// Runs that did not happen, of targets' calls and of those of every other process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// At the system calls that change mappings.
    pub regions: u64,
    /// Where executable files are mapped.
    pub mappings: u64,
    /// At page faults.
    pub faults: u64,
    /// At the starts of processes, their execs and ends.
    pub lives: u64,
}

/// Without those of the kernel's own faults: a program's read that fails is one, in the midst of a run,
/// and nothing is lost by it.
const FAULTS: [&str; 3] = ["page_fault_user", "fault_in_program", "fault_in_function"];
const MAPPINGS: [&str; 3] = ["mmap_file", "file_is_mapped", "sys_enter_mmap"];
const LIVES: [&str; 3] = ["task_newtask", "sched_process_exec", "sched_process_exit"];

impl KernelSide {
    /// Since the start; 0 where the kernel does not tell.
    #[must_use]
    pub fn missed(&self) -> Missed {
        Missed {
            regions: regions::programs()
                .map(|name| self.skipped(name))
                .sum::<u64>()
                + self.events.as_ref().map_or(0, TraceEvents::missed),
            mappings: MAPPINGS.iter().map(|name| self.skipped(name)).sum(),
            faults: FAULTS.iter().map(|name| self.skipped(name)).sum(),
            lives: LIVES.iter().map(|name| self.skipped(name)).sum(),
        }
    }

    /// Runs of a program that were left out.
    fn skipped(&self, name: &str) -> u64 {
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
