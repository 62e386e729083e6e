//! A malloc+free pair under every tool, in turns.
use std::collections::HashMap;

use anyhow::{Context, Result};

use super::Bench;
use super::table::{Budget, Table};
use super::tools::{Subject, Tool};
use crate::shell::say;

/// Windows of 20 ms of CPU time in a round.
const WINDOWS: usize = 20;

/// The middle of some numbers.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a round measured: nanoseconds a pair.
type Round = HashMap<&'static str, f64>;

pub fn measure(bench: &Bench) -> Result<Table> {
    let mut rounds = Vec::new();
    for number in 1..=bench.rounds {
        say(format!(
            "round {number} of {}: a pair under each tool",
            bench.rounds
        ));
        rounds.push(round(bench)?);
    }
    Ok(table(&rounds))
}

/// Every tool on a program of its own; the programs run their windows in turns, so that whatever
/// the machine does at the time slows all of them.
fn round(bench: &Bench) -> Result<Round> {
    let mut subjects = Vec::new();
    for tool in Tool::ALL {
        let subject =
            Subject::start(bench, tool).with_context(|| format!("starting: {}", tool.name()))?;
        subjects.push((tool, subject, Vec::new()));
    }
    for _ in 0..WINDOWS {
        for (_, subject, windows) in &mut subjects {
            windows.extend(subject.program.pairs(1)?);
        }
    }
    let medians = subjects
        .iter()
        .map(|(tool, _, windows)| (tool.name(), median(windows)));
    Ok(medians.collect())
}

/// The median round, and ratios that are formed within each round.
fn table(rounds: &[Round]) -> Table {
    let of = |tool: Tool| -> Vec<f64> {
        rounds
            .iter()
            .filter_map(|round| round.get(tool.name()).copied())
            .collect()
    };
    let ratio = |a: Tool, b: Tool| {
        let ratios: Vec<f64> = of(a).iter().zip(of(b)).map(|(a, b)| a / b).collect();
        median(&ratios)
    };
    let mut table = Table::new(
        "One malloc+free pair",
        &[
            "what is on the program",
            "ns of CPU time a pair",
            "× floor",
            "× bpftrace",
        ],
    );
    for tool in Tool::ALL {
        table.row(vec![
            tool.name().to_owned(),
            format!("{:.0}", median(&of(tool))),
            format!("{:.3}", ratio(tool, Tool::Floor)),
            format!("{:.3}", ratio(tool, Tool::Bpftrace)),
        ]);
    }
    table.budget(Budget::at_most(
        "exact ÷ floor",
        ratio(Tool::Exact, Tool::Floor),
        1.6,
        "×",
    ));
    table.budget(Budget::at_most(
        "exact ÷ bpftrace",
        ratio(Tool::Exact, Tool::Bpftrace),
        0.2,
        "×",
    ));
    table.budget(Budget::at_most(
        "sampling ÷ floor",
        ratio(Tool::Sampling, Tool::Floor),
        1.15,
        "×",
    ));
    table
}
