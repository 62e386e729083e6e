//! Memory of the kernel's tables and of the collector, and what a target at rest costs.
use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::child::Talking;
use super::redis::cpu_ns;
use super::table::{Budget, Table};
use super::{Bench, tools};
use crate::shell::say;

const MIB: f64 = (1 << 20) as f64;
const BLOCKS: u32 = 1_000_000;
const PATHS: u32 = 1_000;
const REST: Duration = Duration::from_secs(10);
/// Two reports at the default interval: what comes after them is rest.
const SETTLED: Duration = Duration::from_secs(11);
/// Two reports: the collector has unwound and named everything it will show.
const REPORTS: Duration = Duration::from_millis(2500);

pub fn measure(bench: &Bench) -> Result<Table> {
    let mut table = Table::new("Memory, and a target at rest", &["what", "measured"]);
    let mut row = |what: String, figure: String| table.row(vec![what, figure]);
    let (tables, attached) = tables_of_a_million(bench)?;
    row(
        "kernel memory of the maps after the attach".into(),
        format!("{attached:.1} MiB"),
    );
    row(
        format!("the same with {BLOCKS} live blocks"),
        format!("{tables:.1} MiB"),
    );
    let (resident, peak, share) = collector(bench)?;
    row(
        format!("collector, resident with {PATHS} contexts"),
        format!("{resident:.1} MiB"),
    );
    row(
        "collector, resident at its peak".into(),
        format!("{peak:.1} MiB"),
    );
    row(
        format!(
            "collector, share of a core over {} s at rest",
            REST.as_secs()
        ),
        format!("{share:.3}%"),
    );
    table.budget(Budget::at_most(
        "a million live blocks",
        tables,
        120.0,
        "MiB",
    ));
    table.budget(Budget::at_most(
        "collector with 1,000 contexts",
        peak,
        80.0,
        "MiB",
    ));
    table.budget(Budget::at_most(
        "collector at rest",
        share,
        1.0,
        "% of a core",
    ));
    Ok(table)
}

/// MiB of maps with a million blocks, and before the first.
fn tables_of_a_million(bench: &Bench) -> Result<(f64, f64)> {
    say(format!("{BLOCKS} live blocks"));
    let mut program = bench.program.start_bare()?;
    let memtrace = tools::memtrace(bench, program.pid(), &[])?;
    let attached = map_bytes(memtrace.pid())? / MIB;
    program.ask(&format!("hold {BLOCKS}"))?;
    Ok((map_bytes(memtrace.pid())? / MIB, attached))
}

/// MiB resident after reports on many contexts, at the peak, and percent of a core at rest.
fn collector(bench: &Bench) -> Result<(f64, f64, f64)> {
    say(format!("{PATHS} contexts, then rest"));
    let mut program: Talking = bench.program.start_bare()?;
    let memtrace = tools::memtrace(bench, program.pid(), &["--interval", "1s", "--top", "100"])?;
    for _ in 0..3 {
        program.ask(&format!("paths {PATHS}"))?;
    }
    sleep(REPORTS);
    let pid = memtrace.pid();
    let (resident, peak) = (status_mib(pid, "VmRSS:")?, status_mib(pid, "VmHWM:")?);
    drop(memtrace);
    // As it is run by default.
    let memtrace = tools::memtrace(bench, program.pid(), &[])?;
    program.ask(&format!("paths {PATHS}"))?;
    sleep(SETTLED);
    let (before, begun) = (cpu_ns(memtrace.pid())?, Instant::now());
    sleep(REST);
    let spent = cpu_ns(memtrace.pid())? - before;
    let share = spent / begun.elapsed().as_nanos() as f64 * 100.0;
    Ok((resident, peak, share))
}

/// A line of /proc/PID/status in MiB.
fn status_mib(pid: u32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no {name} of process {pid}"))? / 1024.0)
}

/// Bytes of the maps that a process holds, as the kernel accounts for them.
fn map_bytes(pid: u32) -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        // Several descriptors can be of one map.
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum::<u64>() as f64)
}
