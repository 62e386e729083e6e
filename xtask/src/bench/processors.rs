//! The measured program on a processor, everything else of the bench on the others.
use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps the bench and what it starts off one processor. Where there is only one, nothing is kept apart.
pub struct Apart {
    /// What the bench could run on before.
    all: CpuSet,
    kept: Option<usize>,
}

impl Apart {
    pub fn begin() -> Result<Self> {
        let all = sched_getaffinity(None).context("no processors")?;
        let mut others = all;
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu));
        let kept = last.filter(|_| all.count() > 1);
        if let Some(cpu) = kept {
            others.unset(cpu);
            sched_setaffinity(None, &others).context("the bench cannot leave a processor")?;
        }
        Ok(Self { all, kept })
    }

    /// Puts a process, with the threads that it has, on the processor that is kept.
    pub fn set(&self, pid: u32) -> Result<()> {
        let Some(cpu) = self.kept else {
            return Ok(());
        };
        let mut only = CpuSet::new();
        only.set(cpu);
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = task?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let task = number.and_then(Pid::from_raw);
            sched_setaffinity(task, &only)
                .with_context(|| format!("pid {pid} cannot have a processor of its own"))?;
        }
        Ok(())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // What is measured next runs on fewer processors then, no worse.
        let _ = sched_setaffinity(None, &self.all);
    }
}
