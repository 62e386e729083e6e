//! What one page fault takes: without memtrace, with it on another process, and with it on this one.
use anyhow::Result;

use super::interval::median;
use super::processors::Apart;
use super::table::Table;
use super::{Bench, tools};
use crate::shell::say;

/// Windows in each state, of 4,096 faults; those before are not counted.
const WINDOWS: usize = 40;
const SETTLING: usize = 4;

/// Nanoseconds a page fault.
#[derive(Clone, Copy)]
pub struct Touch {
    pub alone: f64,
    /// memtrace is on some other process.
    pub elsewhere: f64,
    /// memtrace is on the process itself.
    pub traced: f64,
}

impl Touch {
    /// What faults cost more while memtrace is on another process; what is less than nothing is noise.
    pub fn passing(self) -> f64 {
        (self.elsewhere - self.alone).max(0.0)
    }
}

/// The three in turns, each the middle over the rounds of the middle of its windows.
pub fn faults(bench: &Bench) -> Result<Touch> {
    let apart = Apart::begin()?;
    let mut program = bench.program.start_bare()?;
    apart.set(program.pid())?;
    let other = bench.program.start_bare()?;
    let mut times = [const { Vec::new() }; 3];
    for number in 1..=bench.rounds {
        say(format!(
            "round {number} of {}: one page fault",
            bench.rounds
        ));
        let on = [None, Some(other.pid()), Some(program.pid())];
        for (pid, times) in on.into_iter().zip(&mut times) {
            let options = ["--probe", "fault"];
            let _memtrace = pid
                .map(|pid| tools::memtrace(bench, pid, &options))
                .transpose()?;
            program.touches(SETTLING)?;
            times.push(median(&program.touches(WINDOWS)?));
        }
    }
    let [alone, elsewhere, traced] = times.map(|times| median(&times));
    Ok(Touch {
        alone,
        elsewhere,
        traced,
    })
}

pub fn measure(bench: &Bench) -> Result<Table> {
    let touch = faults(bench)?;
    let mut table = Table::new(
        "One page fault (`--probe fault`)",
        &["memtrace is", "ns of CPU time a fault", "ns more"],
    );
    let rows = [
        ("not there", touch.alone),
        ("on another process", touch.elsewhere),
        ("on this process", touch.traced),
    ];
    for (state, time) in rows {
        table.row(vec![
            state.to_owned(),
            format!("{time:.0}"),
            format!("{:+.0}", time - touch.alone),
        ]);
    }
    Ok(table)
}
