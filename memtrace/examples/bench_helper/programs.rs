//! Sizes of a process's BPF programs, and the time a run of each takes.

use std::{collections::BTreeMap, fs};

use aya::{programs::loaded_programs, sys};

/// Runs and the nanoseconds they took, by program id.
type Runs = BTreeMap<u32, (u64, u64)>;

/// Prints a line a program that ran: name, bytes for the verifier, instructions it followed,
/// runs, nanoseconds a run.
pub fn run(pid: u32) -> anyhow::Result<()> {
    let _counting = sys::enable_stats(sys::Stats::RunTime)?;
    let before = runs(pid)?;
    super::until_told()?;
    let after = runs(pid)?;
    for program in loaded_programs() {
        let program = program?;
        let Some((count, ns)) = after.get(&program.id()) else {
            continue;
        };
        let (count_before, ns_before) = before.get(&program.id()).copied().unwrap_or_default();
        let count = count - count_before;
        println!(
            "{} {} {} {} {:.1}",
            program.name_as_str().unwrap_or("?"),
            program.size_translated().unwrap_or(0),
            program.verified_instruction_count().unwrap_or(0),
            count,
            (ns - ns_before) as f64 / count.max(1) as f64,
        );
    }
    Ok(())
}

fn runs(pid: u32) -> anyhow::Result<Runs> {
    let mut runs = Runs::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(count), Some(ns)) =
            (field("prog_id:"), field("run_cnt:"), field("run_time_ns:"))
        {
            runs.insert(u32::try_from(id)?, (count, ns));
        }
    }
    Ok(runs)
}
