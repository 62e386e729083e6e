//! `cargo xtask bench`: what tracing costs, measured on this machine in one run, against the
//! budgets that memtrace promises to keep.
mod attach;
mod child;
mod faults;
mod interval;
mod machine;
mod memory;
mod page;
mod pairs;
mod processors;
mod programs;
mod recording;
mod redis;
mod redis_load;
mod table;
mod tools;
mod touch;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::child::Program;
use self::table::Table;
use crate::shell::{self, cargo, create_dir, is_root, say};
use crate::{apt, build, workspace::Workspace};

/// Where `--markdown` writes.
const PAGE: &str = "docs/src/performance.md";

#[derive(Args)]
pub struct Options {
    /// Times that everything is measured in turn; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these measurements
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Of `faults`, only programs whose name contains this
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Also put the tables into docs/src/performance.md, in the place of those that are there
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A malloc+free pair under every tool
    Pairs,
    /// Time and size of the programs in the kernel
    Programs,
    /// redis-server under load
    Redis,
    /// Time to the first event
    Attach,
    /// Memory of the kernel's tables and of the collector, and what a resting target costs
    Memory,
    /// One page fault: without memtrace, with it on another process, with it on this one
    Touch,
    /// Page faults of programs that leak: what has a stack, and what it costs
    Faults,
    /// An hour of a busy target in a recording: its size, and what writing and reading it take
    Recording,
}

impl Part {
    /// As `--only` and the page name it.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What the measurements need.
struct Bench {
    rounds: usize,
    memtrace: PathBuf,
    helper: PathBuf,
    /// The C program that is traced.
    program: Program,
    /// What the names of the programs that are wanted contain.
    wanted: Option<String>,
    /// For scripts and what other tools write.
    folder: PathBuf,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_none_or(|wanted| name.contains(wanted))
    }
}

type Measure = fn(&Bench) -> Result<Table>;

/// Measures, prints, and complains when a budget is not kept.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !is_root() {
        bail!("tracing needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask bench`");
    }
    let bench = prepare(workspace, options)?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut tables = Vec::new();
    let parts: [(Part, Measure); 8] = [
        (Part::Pairs, pairs::measure),
        (Part::Programs, programs::measure),
        (Part::Redis, redis::measure),
        (Part::Attach, attach::measure),
        (Part::Memory, memory::measure),
        (Part::Touch, touch::measure),
        (Part::Faults, faults::measure),
        (Part::Recording, recording::measure),
    ];
    for (part, measure) in parts {
        if wanted(part) {
            let table = measure(&bench)?;
            println!("{}", table.text());
            tables.push((part.name(), table));
        }
    }
    if options.markdown {
        page::update(&workspace.root.join(PAGE), &machine::describe(), &tables)?;
        say(format!("written to {PAGE}"));
    }
    let missed = tables.iter().flat_map(|(_, table)| table.missed());
    let missed: Vec<String> = missed.collect();
    if missed.is_empty() {
        return Ok(());
    }
    bail!("budgets not kept: {}", missed.join("; "))
}

fn prepare(workspace: &Workspace, options: &Options) -> Result<Bench> {
    apt::ensure(
        &[
            "gcc",
            "libc6-dev",
            "bpftrace",
            "heaptrack",
            "valgrind",
            "redis-server",
            "redis-tools",
            "python3",
            "nodejs",
        ],
        "the bench's program and what memtrace is compared with",
    )?;
    let memtrace = build::release(workspace)?;
    shell::run(cargo(workspace).args([
        "build",
        "--release",
        "--package",
        "memtrace",
        "--example",
        "bench_helper",
    ]))?;
    let folder = workspace.target.join("bench");
    create_dir(&folder)?;
    let program = folder.join("bench_loop");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-g", "-fomit-frame-pointer", "-o"])
        .arg(&program)
        .arg(workspace.root.join("tests/programs/bench_loop.c"));
    shell::run(&mut cc)?;
    Ok(Bench {
        rounds: options.rounds.max(1),
        memtrace,
        helper: workspace.target.join("release/examples/bench_helper"),
        program: Program(program),
        wanted: options.program.clone(),
        folder,
    })
}
