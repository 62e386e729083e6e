//! `--probe fault` on programs that leak while they work: how much of their growth has a stack, the
//! right one, and how much slower they get.
mod subject;
mod twins;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use self::subject::{CASES, Case};
use self::twins::Twins;
use super::child::Running;
use super::interval::{Interval, median};
use super::processors::Apart;
use super::table::{Budget, Table};
use super::{Bench, tools, touch};
use crate::shell::say;

/// Turns that are counted, with memtrace on one of the twins.
const TURNS: usize = 16;

/// What was seen while memtrace was on one of the twins.
struct Leg {
    /// The first twin's CPU time by the second's.
    quotient: f64,
    /// Share of CPU time that the probes took, by their number and what one was measured to cost.
    counted: f64,
    faults_a_second: f64,
    /// Bytes a second of CPU time.
    growth: f64,
    /// Bytes while it was traced, and those of them with a stack.
    grown: f64,
    explained: f64,
    /// The innermost expected function of the stack that holds most; nothing when it has none.
    top: Option<String>,
}

/// memtrace on the one twin, then on the other.
struct Block {
    legs: [Leg; 2],
}

impl Block {
    /// CPU time with memtrace by that without.
    fn ratio(&self) -> f64 {
        let [first, second] = &self.legs;
        twins::ratio(first.quotient, second.quotient)
    }
}

pub fn measure(bench: &Bench) -> Result<Table> {
    let passing = touch::faults(bench)?.passing();
    let apart = Apart::begin()?;
    let mut blocks: [Vec<Block>; CASES.len()] = [const { Vec::new() }; CASES.len()];
    for number in 1..=bench.rounds {
        let wanted = CASES.iter().zip(&mut blocks);
        for (case, blocks) in wanted.filter(|(case, _)| bench.wants(case.name)) {
            say(format!(
                "round {number} of {}: faults of {}",
                bench.rounds, case.name
            ));
            let round = round(bench, case, &apart).with_context(|| case.name)?;
            blocks.extend(round);
        }
    }
    Ok(table(&blocks, passing))
}

/// One pair of processes and its blocks.
fn round(bench: &Bench, case: &Case, apart: &Apart) -> Result<Vec<Block>> {
    let mut twins = Twins::start(bench, case, apart)?;
    let mut blocks = Vec::new();
    for _ in 0..case.blocks {
        let legs = [
            leg(bench, case, &mut twins, 0)?,
            leg(bench, case, &mut twins, 1)?,
        ];
        let block = Block { legs };
        say(format!("CPU time × {:.4}", block.ratio()));
        blocks.push(block);
    }
    Ok(blocks)
}

/// memtrace on one of the twins while both work in turns.
fn leg(bench: &Bench, case: &Case, twins: &mut Twins, which: usize) -> Result<Leg> {
    let pid = twins.pid(which);
    let file = bench.folder.join("faults.json");
    let memtrace = attach(bench, pid, &file)?;
    let resident = anonymous(pid)?;
    let settling = twins.turns(case.settling)?;
    let turns = twins.turns(TURNS)?;
    let grown = anonymous(pid)? - resident;
    // The last report is written at its end.
    drop(memtrace);

    let all = settling.iter().chain(&turns);
    let cpu: f64 = all.filter_map(|turn| turn.get(which)).sum();
    let report = read(&file)?;
    let (explained, top) = explained(&report, pid, case);
    let overhead = &report["overhead"];
    let hits = overhead["probe_hits"]["fault"].as_f64().unwrap_or(0.0);
    let cost = hits * overhead["nanoseconds_per_hit"].as_f64().unwrap_or(f64::NAN);
    Ok(Leg {
        quotient: twins::quotient(&turns),
        counted: cost / cpu * 100.0,
        faults_a_second: hits / (cpu / 1e9),
        growth: grown / (cpu / 1e9),
        grown,
        explained,
        top,
    })
}

/// memtrace, from its first line on.
fn attach(bench: &Bench, pid: u32, file: &Path) -> Result<Running> {
    let output = file.to_string_lossy();
    let options = ["--probe", "fault", "--top", "all", "--format", "json"];
    tools::memtrace(bench, pid, &[&options[..], &["--output", &output]].concat())
}

/// Bytes of stacks that have a name, and the expected function of the one that holds most.
fn explained(report: &Value, pid: u32, case: &Case) -> (f64, Option<String>) {
    let stacks = report["stacks"].as_array().into_iter().flatten();
    let mine = stacks.filter(|s| s["probe"] == "fault" && s["pid"] == pid);
    let bytes = |stack: &Value| stack["outstanding_bytes"].as_f64().unwrap_or(0.0);
    let names = |stack: &Value| -> Vec<String> {
        let frames = stack["frames"].as_array().into_iter().flatten();
        let names = frames.filter_map(|frame| frame["function"].as_str());
        names.map(str::to_owned).collect()
    };
    let named: Vec<_> = mine.filter(|stack| !names(stack).is_empty()).collect();
    let most = named.iter().max_by(|a, b| bytes(a).total_cmp(&bytes(b)));
    let top = most.and_then(|stack| {
        let expected = |name: &String| case.expected.iter().any(|wanted| name.contains(wanted));
        names(stack).into_iter().find(expected)
    });
    (named.iter().map(|stack| bytes(stack)).sum(), top)
}

fn read(file: &Path) -> Result<Value> {
    let text = std::fs::read(file).with_context(|| format!("{}: no report", file.display()))?;
    serde_json::from_slice(&text).context("memtrace's report")
}

/// Resident anonymous bytes of a process, counted page by page: the figures in its `status` lag behind.
fn anonymous(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.context("no anonymous memory")? * 1024.0)
}

/// `passing`: nanoseconds that a fault of the untraced twin costs more, too.
fn table(blocks: &[Vec<Block>], passing: f64) -> Table {
    let mut table = Table::new(
        "Page faults of programs that leak (`--probe fault`)",
        &[
            "program",
            "grew by, MiB",
            "of that has a stack",
            "on top of it",
            "MiB a second of CPU time",
            "faults a second",
            "CPU time, × without",
            "with a certainty of 95%",
            "by hits × cost",
        ],
    );
    let measured = CASES.iter().zip(blocks);
    for (case, blocks) in measured.filter(|(_, blocks)| !blocks.is_empty()) {
        add(&mut table, case, blocks, passing);
    }
    table
}

fn add(table: &mut Table, case: &Case, blocks: &[Block], passing: f64) {
    const MIB: f64 = (1 << 20) as f64;
    let legs: Vec<&Leg> = blocks.iter().flat_map(|block| &block.legs).collect();
    let all = |value: fn(&Leg) -> f64| -> Vec<f64> { legs.iter().map(|leg| value(leg)).collect() };
    let of = |value: fn(&Leg) -> f64| median(&all(value));
    let sum = |value: fn(&Leg) -> f64| all(value).iter().sum::<f64>();
    let mut tops = legs.iter().filter_map(|leg| leg.top.as_ref());
    let right = tops.clone().count();
    let top = tops.next_back().map_or("something else", String::as_str);
    let explained = sum(|leg| leg.explained) / sum(|leg| leg.grown) * 100.0;
    // The twin without memtrace is slower by that than one on a machine without it.
    let without = 1.0 + passing * of(|leg| leg.faults_a_second) / 1e9;
    let ratios: Vec<f64> = blocks.iter().map(|block| block.ratio() * without).collect();
    let ratio = Interval::of(&ratios);
    table.row(vec![
        case.name.to_owned(),
        format!("{:.1}", sum(|leg| leg.grown) / MIB),
        format!("{explained:.1}%"),
        format!("`{}`", top.replace('|', "/")),
        format!("{:.1}", of(|leg| leg.growth) / MIB),
        format!("{:.0}", of(|leg| leg.faults_a_second)),
        format!("{:.4}", ratio.median),
        format!("{:.4}–{:.4}", ratio.low, ratio.high),
        format!("+{:.2}%", of(|leg| leg.counted)),
    ]);
    let budget = |what, measured, limit, unit| Budget::of(case.name, what, measured, limit, unit);
    let missing = (100.0 - explained).max(0.0);
    table.budget(budget("growth without a stack", missing, 5.0, "%"));
    let wrong = (legs.len() - right) as f64;
    table.budget(budget("times with another stack on top", wrong, 0.0, ""));
    let slower = budget("more CPU time", ratio.slowdown().median, 1.0, "%");
    table.budget(slower.between(ratio.slowdown()));
}
