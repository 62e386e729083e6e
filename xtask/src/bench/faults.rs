//! `--probe fault` on programs that leak while they work: how much of their growth has a stack, the
//! right one, and how much slower they get.
//!
//! Two processes of one program differ by more than what is to be shown: addresses, heaps and hash seeds
//! fall out differently. So a process is compared with itself. A window is a fixed amount of work, with
//! one whole round of the program's garbage collector where it has one. A block is windows alone, memtrace
//! comes, windows with it, it goes, windows alone again: what becomes dearer as the program grows falls
//! out. The first windows after a change are not counted: attaching has its price once, not for as long as
//! the program runs. Each block gives one ratio of CPU times, of medians, so that a window in which the
//! machine was elsewhere does not count; the blocks' ratios give a middle and an interval for it. The
//! program has a processor of its own, where there are two.
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::child::{Running, Talking};
use super::interval::{Interval, median};
use super::processors::Apart;
use super::redis::{Redis, cpu_ns};
use super::redis_load::Load;
use super::table::{Budget, Table};
use super::{Bench, tools};
use crate::shell::say;

/// Blocks of one process; a round starts a new one.
const BLOCKS: usize = 4;
/// Windows alone before memtrace comes, and again after it has gone; twice as many with it.
const WINDOWS: usize = 3;
/// Windows that are not counted: after the start (caches, compilers, the allocator's first memory), and
/// after memtrace has come or gone (stacks are copied, the first hits of each look at more of it).
const WARMING: usize = 12;
const SETTLING: usize = 4;
/// In how many of redis-server's commands a new key is set.
const SET_EVERY: u32 = 4;
/// Answers a line `serve N` with N requests served: each parses a document and keeps some bytes.
const PYTHON: &str = include_str!("leak.py");
const NODE: &str = include_str!("leak.js");

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Requests in a window.
    requests: u32,
    /// Functions of which one must be in the stack that holds most.
    expected: &'static [&'static str],
    start: fn(&Bench) -> Result<Subject>,
}

const CASES: [Case; 4] = [
    Case {
        name: "a C program, 64 bytes kept of each request",
        requests: 20_000,
        expected: &["keep_request"],
        start: c_program,
    },
    Case {
        name: "redis-server, one SET of a new key in four commands",
        requests: 60_000,
        expected: &["readQueryFromClient", "processInputBuffer"],
        start: redis,
    },
    Case {
        name: "Python, a bytearray kept of each request",
        requests: 1_600,
        expected: &["PyByteArray_Resize", "PyByteArray_FromStringAndSize"],
        start: python,
    },
    Case {
        name: "Node.js, a Buffer kept of each request",
        requests: 1_500,
        expected: &["JS:", "node::Buffer", "v8::ArrayBuffer"],
        start: node,
    },
];

/// A program under work.
enum Subject {
    Talking(Talking),
    Redis(Redis, Load),
}

fn c_program(bench: &Bench) -> Result<Subject> {
    Ok(Subject::Talking(bench.program.start_bare()?))
}

fn redis(bench: &Bench) -> Result<Subject> {
    let redis = Redis::start(bench)?;
    let load = Load::start(&redis)?;
    Ok(Subject::Redis(redis, load))
}

fn python(_: &Bench) -> Result<Subject> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]).stderr(Stdio::null());
    Ok(Subject::Talking(Talking::start(&mut command)?))
}

fn node(bench: &Bench) -> Result<Subject> {
    let mut command = Command::new("node");
    command
        // Its perf map and log are written where it runs.
        .current_dir(&bench.folder)
        .args(["--perf-basic-prof", "--expose-gc", "-e", NODE])
        .stderr(Stdio::null());
    Ok(Subject::Talking(Talking::start(&mut command)?))
}

impl Subject {
    fn pid(&self) -> u32 {
        match self {
            Self::Talking(program) => program.pid(),
            Self::Redis(redis, _) => redis.pid(),
        }
    }

    /// Nanoseconds of CPU time that one window's work took.
    fn window(&mut self, requests: u32) -> Result<f64> {
        let before = cpu_ns(self.pid())?;
        match self {
            Self::Talking(program) => drop(program.ask(&format!("serve {requests}"))?),
            Self::Redis(_, load) => load.serve(requests, SET_EVERY)?,
        }
        Ok(cpu_ns(self.pid())? - before)
    }

    fn windows(&mut self, requests: u32, count: usize) -> Result<Vec<f64>> {
        (0..count).map(|_| self.window(requests)).collect()
    }
}

/// What one block found out about one program.
struct Block {
    /// CPU time with memtrace by that without.
    ratio: f64,
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

pub fn measure(bench: &Bench) -> Result<Table> {
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
    Ok(table(&blocks))
}

/// One process and its blocks.
fn round(bench: &Bench, case: &Case, apart: &Apart) -> Result<Vec<Block>> {
    let mut subject = (case.start)(bench)?;
    apart.set(subject.pid())?;
    subject.windows(case.requests, WARMING)?;
    let mut blocks = Vec::new();
    for _ in 0..BLOCKS {
        let block = block(bench, case, &mut subject)?;
        say(format!("CPU time × {:.4}", block.ratio));
        blocks.push(block);
    }
    Ok(blocks)
}

fn block(bench: &Bench, case: &Case, subject: &mut Subject) -> Result<Block> {
    let pid = subject.pid();
    let mut alone = subject.windows(case.requests, WINDOWS)?;
    let file = bench.folder.join("faults.json");
    let memtrace = attach(bench, pid, &file)?;
    let resident = anonymous(pid)?;
    let settling = subject.windows(case.requests, SETTLING)?;
    let traced = subject.windows(case.requests, 2 * WINDOWS)?;
    let grown = anonymous(pid)? - resident;
    // The last report is written at its end.
    drop(memtrace);
    subject.windows(case.requests, SETTLING)?;
    alone.extend(subject.windows(case.requests, WINDOWS)?);

    let cpu: f64 = settling.iter().chain(&traced).sum();
    let report = read(&file)?;
    let (explained, top) = explained(&report, pid, case);
    let overhead = &report["overhead"];
    let hits = overhead["probe_hits"]["fault"].as_f64().unwrap_or(0.0);
    let cost = hits * overhead["nanoseconds_per_hit"].as_f64().unwrap_or(f64::NAN);
    Ok(Block {
        ratio: median(&traced) / median(&alone),
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

fn table(blocks: &[Vec<Block>]) -> Table {
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
        add(&mut table, case, blocks);
    }
    table
}

fn add(table: &mut Table, case: &Case, blocks: &[Block]) {
    const MIB: f64 = (1 << 20) as f64;
    let all = |value: fn(&Block) -> f64| -> Vec<f64> { blocks.iter().map(value).collect() };
    let of = |value: fn(&Block) -> f64| median(&all(value));
    let sum = |value: fn(&Block) -> f64| all(value).iter().sum::<f64>();
    let mut tops = blocks.iter().filter_map(|block| block.top.as_ref());
    let right = tops.clone().count();
    let top = tops.next_back().map_or("something else", String::as_str);
    let explained = sum(|block| block.explained) / sum(|block| block.grown) * 100.0;
    let ratio = Interval::of(&all(|block| block.ratio));
    table.row(vec![
        case.name.to_owned(),
        format!("{:.1}", sum(|block| block.grown) / MIB),
        format!("{explained:.1}%"),
        format!("`{}`", top.replace('|', "/")),
        format!("{:.1}", of(|block| block.growth) / MIB),
        format!("{:.0}", of(|block| block.faults_a_second)),
        format!("{:.4}", ratio.median),
        format!("{:.4}–{:.4}", ratio.low, ratio.high),
        format!("+{:.2}%", of(|block| block.counted)),
    ]);
    let budget = |what, measured, limit, unit| Budget::of(case.name, what, measured, limit, unit);
    let missing = (100.0 - explained).max(0.0);
    table.budget(budget("growth without a stack", missing, 5.0, "%"));
    let wrong = (blocks.len() - right) as f64;
    table.budget(budget("blocks with another stack on top", wrong, 0.0, ""));
    let slower = budget("more CPU time", ratio.slowdown().median, 1.0, "%");
    table.budget(slower.between(ratio.slowdown()));
}
