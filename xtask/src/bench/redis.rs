//! redis-server under a load of SET commands.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::child::Running;
use super::pairs::median;
use super::table::Table;
use super::{Bench, tools};
use crate::shell::{capture, say, succeeds};

const REQUESTS: u32 = 100_000;

/// A redis-server of the bench's own: no port, no files.
pub struct Redis {
    server: Running,
    socket: PathBuf,
}

impl Redis {
    /// Listens on a socket of this name.
    pub fn start(bench: &Bench, socket: &str) -> Result<Self> {
        let socket = bench.folder.join(socket);
        let mut command = Command::new("redis-server");
        command
            .current_dir(&bench.folder)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--enable-debug-command",
                "local",
                "--unixsocket",
            ])
            .arg(&socket);
        let server = Running::start(&mut command)?;
        let redis = Self { server, socket };
        let begun = Instant::now();
        while !succeeds(redis.client("redis-cli").arg("ping")) {
            ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "redis-server does not answer"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-s").arg(&self.socket);
        command
    }

    /// SET commands on many keys.
    pub fn load(&self, requests: u32) -> Command {
        let mut command = self.client("redis-benchmark");
        command
            .args(["-t", "set", "-r", "100000", "-d", "64", "--csv"])
            .args(["-n", &requests.to_string()]);
        command
    }

    /// What it answers to a command of redis-cli.
    pub fn say(&self, words: &[&str]) -> Result<String> {
        capture(self.client("redis-cli").args(words))
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Requests a second by the clock, and the server's CPU time a request in microseconds.
    fn serve(&self) -> Result<(f64, f64)> {
        let before = cpu_ns(self.pid())?;
        let output = capture(&mut self.load(REQUESTS))?;
        let spent = cpu_ns(self.pid())? - before;
        let line = output.lines().find(|line| line.starts_with("\"SET\""));
        let rate = line
            .and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok())
            .with_context(|| format!("redis-benchmark said {output}"))?;
        Ok((rate, spent / 1e3 / f64::from(REQUESTS)))
    }
}

/// Nanoseconds of CPU time that the threads of a process have had.
pub fn cpu_ns(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let first = text.split(' ').next().unwrap_or_default();
        sum += first.parse::<f64>().context("schedstat")?;
    }
    Ok(sum)
}

pub fn measure(bench: &Bench) -> Result<Table> {
    let redis = Redis::start(bench, "redis.sock")?;
    let modes: [(&str, Option<&[&str]>); 3] = [
        ("nothing", None),
        ("memtrace, exact", Some(&[])),
        (
            "memtrace, --sample-bytes 512KiB",
            Some(&["--sample-bytes", "512KiB"]),
        ),
    ];
    redis.serve()?;
    let mut rates = [const { Vec::new() }; 3];
    let mut costs = [const { Vec::new() }; 3];
    for number in 1..=bench.rounds {
        say(format!("round {number} of {}: redis-server", bench.rounds));
        for ((_, mode), (rates, costs)) in modes.iter().zip(rates.iter_mut().zip(&mut costs)) {
            let _on = mode
                .map(|extra| tools::memtrace(bench, redis.pid(), extra))
                .transpose()?;
            let (rate, cost) = redis.serve()?;
            rates.push(rate);
            costs.push(cost);
        }
    }
    let mut table = Table::new(
        "redis-server, SET of 64 bytes, 50 clients",
        &[
            "what is on the server",
            "requests a second",
            "µs of its CPU time a request",
        ],
    );
    for ((name, _), (rates, costs)) in modes.iter().zip(rates.iter().zip(&costs)) {
        table.row(vec![
            (*name).to_owned(),
            format!("{:.0}", median(rates)),
            format!("{:.1}", median(costs)),
        ]);
    }
    Ok(table)
}
