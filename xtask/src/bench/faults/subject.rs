//! The programs that are measured: each keeps something of every request that it serves.
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::bench::Bench;
use crate::bench::child::Talking;
use crate::bench::redis::{Redis, cpu_ns};
use crate::bench::redis_load::Load;

/// In how many of redis-server's commands a new key is set.
const SET_EVERY: u32 = 8;
/// Answers a line `serve N` with N requests served: each parses a document and keeps some bytes.
const PYTHON: &str = include_str!("leak.py");
const NODE: &str = include_str!("leak.js");

/// A kind of program, and what is asked of it.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Requests in a window.
    pub requests: u32,
    /// Turns after memtrace has come that are not counted: its call paths become known, the first hits of
    /// each being dearer, and it reads the program's files on the other processor.
    pub settling: usize,
    /// Times that memtrace comes to one pair of processes.
    pub blocks: usize,
    /// Functions of which one must be in the stack that holds most.
    pub expected: &'static [&'static str],
    /// Starts one; `number` tells those apart that run at the same time.
    pub start: fn(&Bench, number: usize) -> Result<Subject>,
}

pub const CASES: [Case; 4] = [
    Case {
        name: "a C program, 64 bytes kept of each request",
        requests: 10_000,
        settling: 6,
        blocks: 2,
        expected: &["keep_request"],
        start: c_program,
    },
    Case {
        name: "redis-server, one SET of a new key in eight commands",
        requests: 40_000,
        settling: 6,
        blocks: 4,
        expected: &["readQueryFromClient", "processInputBuffer"],
        start: redis,
    },
    Case {
        name: "Python, a bytearray kept of each request",
        requests: 800,
        settling: 6,
        blocks: 2,
        expected: &["PyByteArray_Resize", "PyByteArray_FromStringAndSize"],
        start: python,
    },
    // A thousand call paths, some of them with versions of a function that is compiled better and better.
    Case {
        name: "Node.js, a Buffer kept of each request",
        requests: 750,
        settling: 80,
        blocks: 1,
        expected: &["JS:", "node::Buffer", "v8::ArrayBuffer"],
        start: node,
    },
];

/// A program under work.
pub enum Subject {
    Talking(Talking),
    Redis(Redis, Load),
}

fn c_program(bench: &Bench, _: usize) -> Result<Subject> {
    Ok(Subject::Talking(bench.program.start_bare()?))
}

fn redis(bench: &Bench, number: usize) -> Result<Subject> {
    let redis = Redis::start(bench, &format!("redis-{number}.sock"))?;
    let load = Load::start(&redis)?;
    Ok(Subject::Redis(redis, load))
}

fn python(_: &Bench, _: usize) -> Result<Subject> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]).stderr(Stdio::null());
    Ok(Subject::Talking(Talking::start(&mut command)?))
}

fn node(bench: &Bench, _: usize) -> Result<Subject> {
    let mut command = Command::new("node");
    command
        // Its perf map and log are written where it runs.
        .current_dir(&bench.folder)
        .args(["--perf-basic-prof", "--expose-gc", "-e", NODE])
        .stderr(Stdio::null());
    Ok(Subject::Talking(Talking::start(&mut command)?))
}

impl Subject {
    pub fn pid(&self) -> u32 {
        match self {
            Self::Talking(program) => program.pid(),
            Self::Redis(redis, _) => redis.pid(),
        }
    }

    /// Nanoseconds of CPU time that one window's work took.
    pub fn window(&mut self, requests: u32) -> Result<f64> {
        let before = cpu_ns(self.pid())?;
        match self {
            Self::Talking(program) => drop(program.ask(&format!("serve {requests}"))?),
            Self::Redis(_, load) => load.serve(requests, SET_EVERY)?,
        }
        Ok(cpu_ns(self.pid())? - before)
    }
}
