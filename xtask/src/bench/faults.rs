//! `--probe fault` on programs that leak while they work: how much of their growth has a stack, the
//! right one, and how much slower they get.
//!
//! A window is a fixed amount of work. In a round a program runs the same course of windows twice, each
//! time as a new process: once alone, once with memtrace in the middle part. The middle parts are
//! compared: a hash table that doubles or a collector that runs does so in both. The parts before them,
//! alone in both, say how much quicker one process happened to be than the other. Between them is a part
//! that is not compared: the first hits of a call path have its stack copied, and attaching has its price
//! once, not for as long as the program runs.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::child::Talking;
use super::pairs::median;
use super::redis::{Redis, cpu_ns};
use super::table::{Budget, Table};
use super::{Bench, tools};
use crate::shell::{capture, say};

/// Windows in each part of a course.
const WINDOWS: usize = 8;
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
        requests: 30_000,
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
        requests: 1_200,
        expected: &["PyByteArray_Resize", "PyByteArray_FromStringAndSize"],
        start: python,
    },
    Case {
        name: "Node.js, a Buffer kept of each request",
        requests: 2_500,
        expected: &["JS:", "node::Buffer", "v8::ArrayBuffer"],
        start: node,
    },
];

/// A program under work.
enum Subject {
    Talking(Talking),
    Redis(Redis),
}

fn c_program(bench: &Bench) -> Result<Subject> {
    Ok(Subject::Talking(bench.program.start_bare()?))
}

fn redis(bench: &Bench) -> Result<Subject> {
    Ok(Subject::Redis(Redis::start(bench)?))
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
        .args(["--perf-basic-prof", "-e", NODE])
        .stderr(Stdio::null());
    Ok(Subject::Talking(Talking::start(&mut command)?))
}

/// What a window took, in nanoseconds.
#[derive(Clone, Copy)]
struct Window {
    cpu: f64,
    wall: f64,
}

impl Subject {
    fn pid(&self) -> u32 {
        match self {
            Self::Talking(program) => program.pid(),
            Self::Redis(redis) => redis.pid(),
        }
    }

    fn window(&mut self, requests: u32) -> Result<Window> {
        let (cpu, begun) = (cpu_ns(self.pid())?, Instant::now());
        match self {
            Self::Talking(program) => drop(program.ask(&format!("serve {requests}"))?),
            Self::Redis(redis) => {
                capture(&mut redis.reads(requests / 4 * 3))?;
                capture(&mut redis.new_keys(requests / 4))?;
            }
        }
        Ok(Window {
            wall: begun.elapsed().as_nanos() as f64,
            cpu: cpu_ns(self.pid())? - cpu,
        })
    }

    /// The windows of one part, together.
    fn part(&mut self, requests: u32) -> Result<Window> {
        let mut sum = Window {
            cpu: 0.0,
            wall: 0.0,
        };
        for _ in 0..WINDOWS {
            let window = self.window(requests)?;
            sum.cpu += window.cpu;
            sum.wall += window.wall;
        }
        Ok(sum)
    }
}

/// What one round found out about one program.
struct Round {
    /// With memtrace by without, CPU time and time by the clock.
    cpu: f64,
    wall: f64,
    /// Share of CPU time that the probes took, by their number and what one was measured to cost.
    counted: f64,
    faults_a_second: f64,
    grown: f64,
    explained: f64,
    /// The innermost expected function of the stack that holds most; nothing when it has none.
    top: Option<String>,
}

pub fn measure(bench: &Bench) -> Result<Table> {
    let mut rounds: [Vec<Round>; CASES.len()] = [const { Vec::new() }; CASES.len()];
    for number in 1..=bench.rounds {
        for (case, rounds) in CASES.iter().zip(&mut rounds) {
            say(format!(
                "round {number} of {}: faults of {}",
                bench.rounds, case.name
            ));
            let traced_first = number % 2 == 0;
            rounds.push(round(bench, case, traced_first).with_context(|| case.name)?);
        }
    }
    Ok(table(&rounds))
}

/// A program's course, alone or with memtrace in its second part.
struct Course {
    before: Window,
    middle: Window,
    /// Nanoseconds of CPU time from the attach on.
    cpu: f64,
    grown: f64,
    /// memtrace's last report.
    report: Value,
    pid: u32,
}

fn course(bench: &Bench, case: &Case, traced: bool) -> Result<Course> {
    let mut subject = (case.start)(bench)?;
    let pid = subject.pid();
    // For caches, compilers and the allocator's first memory.
    subject.part(case.requests)?;
    let before = subject.part(case.requests)?;
    let file = bench.folder.join("faults.json");
    let output = file.to_string_lossy().into_owned();
    let options = ["--probe", "fault", "--top", "all", "--format", "json"];
    let options = [&options[..], &["--output", &output]].concat();
    let memtrace = traced
        .then(|| tools::memtrace(bench, pid, &options))
        .transpose()?;
    let anonymous_before = anonymous(pid)?;
    let settling = subject.part(case.requests)?;
    let middle = subject.part(case.requests)?;
    let grown = anonymous(pid)? - anonymous_before;
    // The last report is written at its end.
    drop(memtrace);
    let report = if traced { read(&file)? } else { Value::Null };
    Ok(Course {
        before,
        middle,
        cpu: settling.cpu + middle.cpu,
        grown,
        report,
        pid,
    })
}

fn round(bench: &Bench, case: &Case, traced_first: bool) -> Result<Round> {
    let first = course(bench, case, traced_first)?;
    let second = course(bench, case, !traced_first)?;
    let (traced, alone) = if traced_first {
        (first, second)
    } else {
        (second, first)
    };
    let slower = |of: fn(&Window) -> f64| {
        let luck = of(&traced.before) / of(&alone.before);
        of(&traced.middle) / of(&alone.middle) / luck
    };
    let (explained, top) = explained(&traced.report, traced.pid, case);
    let overhead = &traced.report["overhead"];
    let hits = overhead["probe_hits"]["fault"].as_f64().unwrap_or(0.0);
    let cost = hits * overhead["nanoseconds_per_hit"].as_f64().unwrap_or(f64::NAN);
    Ok(Round {
        cpu: slower(|window| window.cpu),
        wall: slower(|window| window.wall),
        counted: cost / traced.cpu * 100.0,
        faults_a_second: hits / (traced.cpu / 1e9),
        grown: traced.grown,
        explained: explained / traced.grown * 100.0,
        top,
    })
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

/// Resident anonymous bytes of a process.
fn anonymous(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.context("no RssAnon")? * 1024.0)
}

fn table(rounds: &[Vec<Round>]) -> Table {
    let mut table = Table::new(
        "Page faults of programs that leak (`--probe fault`)",
        &[
            "program",
            "grew by, MiB",
            "of that has a stack",
            "on top of it",
            "faults a second",
            "CPU time, × without",
            "by hits × cost",
            "wall time, × without",
        ],
    );
    for (case, rounds) in CASES.iter().zip(rounds) {
        let of = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
        let mut tops = rounds.iter().filter_map(|round| round.top.clone());
        let right = tops.clone().count();
        let top = tops
            .next_back()
            .unwrap_or_else(|| "something else".to_owned());
        table.row(vec![
            case.name.to_owned(),
            format!("{:.1}", of(|r| r.grown) / f64::from(1 << 20)),
            format!("{:.1}%", of(|r| r.explained)),
            format!("`{}`", top.replace('|', "/")),
            format!("{:.0}", of(|r| r.faults_a_second)),
            format!("{:.3}", of(|r| r.cpu)),
            format!("+{:.2}%", of(|r| r.counted)),
            format!("{:.3}", of(|r| r.wall)),
        ]);
        let missing = (100.0 - of(|r| r.explained)).max(0.0);
        table.budget(Budget::of(
            case.name,
            "growth without a stack",
            missing,
            5.0,
            "%",
        ));
        let wrong = (rounds.len() - right) as f64;
        table.budget(Budget::of(
            case.name,
            "rounds with another stack on top",
            wrong,
            0.0,
            "",
        ));
        let slower = (of(|r| r.cpu) - 1.0) * 100.0;
        table.budget(Budget::of(case.name, "more CPU time", slower, 1.0, "%"));
    }
    table
}
