//! The tools that are compared, each put on the program and taken off again.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::child::{Running, Talking};
use crate::shell::{copy, create_dir};

const SCRIPT: &str = include_str!("memleak.bt");
const HEAPTRACK: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";
/// bpftrace does not say when its probes are on: the program gets slower. This much.
const FELT: f64 = 20.0;
const FELT_DEADLINE: Duration = Duration::from_secs(30);

/// What is on the program while it is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    Bare,
    /// Empty probes at the places where memtrace has its own.
    Floor,
    Exact,
    Sampling,
    Bpftrace,
    Heaptrack,
    Massif,
}

impl Tool {
    /// In the order of a round.
    pub const ALL: [Self; 7] = [
        Self::Bare,
        Self::Floor,
        Self::Exact,
        Self::Sampling,
        Self::Bpftrace,
        Self::Heaptrack,
        Self::Massif,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "nothing",
            Self::Floor => "floor: empty probes at memtrace's places",
            Self::Exact => "memtrace, exact",
            Self::Sampling => "memtrace, --sample-bytes 512KiB",
            Self::Bpftrace => "bpftrace script, sizes and stacks of live blocks",
            Self::Heaptrack => "heaptrack (LD_PRELOAD, starts with the program)",
            Self::Massif => "valgrind massif (starts with the program)",
        }
    }
}

/// memtrace on a process, from its first line on. The report every 5 s goes nowhere.
pub fn memtrace(bench: &Bench, pid: u32, extra: &[&str]) -> Result<Running> {
    let mut command = Command::new(&bench.memtrace);
    command.args(["--pid", &pid.to_string()]).args(extra);
    Running::until_stderr(&mut command, "tracing")
}

/// A program of its own with a tool on it.
pub struct Subject {
    // The tool goes first.
    _tool: Option<On>,
    pub program: Talking,
}

/// What keeps a tool on; it goes off with it. The empty probes end when their input does.
enum On {
    Running { _child: Running },
    Talking { _child: Talking },
}

impl Subject {
    /// Starts the program with a C library of its own and puts the tool on it. With a shared
    /// library the tools' probes would stand in one place, and each would pay for all.
    pub fn start(bench: &Bench, tool: Tool) -> Result<Self> {
        let libc = own_libc(bench, tool)?;
        let mut program = bench.program.start(|path| {
            let mut command = with_tool(bench, tool, path);
            command.env("LD_LIBRARY_PATH", &libc);
            command
        })?;
        // Its answer says that the loader is done.
        program.pairs(1)?;
        let running = |child| Some(On::Running { _child: child });
        let on = match tool {
            Tool::Bare | Tool::Heaptrack | Tool::Massif => None,
            Tool::Floor => {
                let pid = program.pid().to_string();
                let mut floor = Talking::start(Command::new(&bench.helper).args(["floor", &pid]))?;
                floor.line()?;
                Some(On::Talking { _child: floor })
            }
            Tool::Exact => running(memtrace(bench, program.pid(), &[])?),
            Tool::Sampling => running(memtrace(
                bench,
                program.pid(),
                &["--sample-bytes", "512KiB"],
            )?),
            Tool::Bpftrace => running(bpftrace(bench, &libc, &mut program)?),
        };
        // For caches and new contexts.
        program.pairs(2)?;
        Ok(Self { _tool: on, program })
    }
}

/// The program under those tools that start it.
fn with_tool(bench: &Bench, tool: Tool, program: &Path) -> Command {
    match tool {
        Tool::Heaptrack => {
            let mut command = Command::new(program);
            command
                .env("LD_PRELOAD", HEAPTRACK)
                .env("DUMP_HEAPTRACK_OUTPUT", bench.folder.join("heaptrack.out"));
            command
        }
        Tool::Massif => {
            let output = bench.folder.join("massif.out");
            let mut command = Command::new("valgrind");
            command
                .args(["-q", "--tool=massif"])
                .arg(format!("--massif-out-file={}", output.display()))
                .arg(program);
            command
        }
        _ => Command::new(program),
    }
}

/// A folder with a copy of the C library.
fn own_libc(bench: &Bench, tool: Tool) -> Result<PathBuf> {
    let folder = bench.folder.join(format!("{tool:?}"));
    create_dir(&folder)?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let libc = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.ends_with("/libc.so.6"))
        .context("xtask itself maps no libc.so.6")?;
    copy(Path::new(libc), &folder.join("libc.so.6"))?;
    Ok(folder)
}

fn bpftrace(bench: &Bench, libc: &Path, program: &mut Talking) -> Result<Running> {
    let before = program.pairs(1)?.first().copied().unwrap_or_default();
    let libc = libc.join("libc.so.6");
    let script = bench.folder.join("memleak.bt");
    fs::write(&script, SCRIPT.replace("LIBC", &libc.to_string_lossy()))?;
    let mut command = Command::new("bpftrace");
    command
        .env("BPFTRACE_MAP_KEYS_MAX", (1 << 20).to_string())
        .args(["-p", &program.pid().to_string()])
        .arg(&script);
    let running = Running::start(&mut command)?;
    let deadline = Instant::now() + FELT_DEADLINE;
    while program.pairs(1)?.first().copied().unwrap_or_default() < before * FELT {
        ensure!(
            Instant::now() < deadline,
            "bpftrace put no probes on in {FELT_DEADLINE:?}"
        );
    }
    Ok(running)
}
