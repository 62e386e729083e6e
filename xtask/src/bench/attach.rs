//! From starting memtrace to its first event, and from Ctrl-C to its end, on a redis-server that
//! works.
use std::process::Command;

use anyhow::{Context, Result};

use super::Bench;
use super::child::Running;
use super::pairs::median;
use super::redis::Redis;
use super::table::{Budget, Table};
use crate::shell::{capture, say};

/// The report is printed before it. The kernel takes trace events off one after the other and waits some 90 ms
/// for each; redis-server has twenty, of two allocators.
const END_MS: f64 = 3_000.0;
/// More than the server answers while it is measured.
const ENDLESS: u32 = 100_000_000;

pub fn measure(bench: &Bench) -> Result<Table> {
    let redis = Redis::start(bench, "redis.sock")?;
    let _load = Running::start(&mut redis.load(ENDLESS))?;
    let (mut lines, mut blocks, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=bench.rounds {
        say(format!("round {number} of {}: attach", bench.rounds));
        let output = capture(
            Command::new(&bench.helper)
                .args(["attach-time", &redis.pid().to_string()])
                .arg(&bench.memtrace),
        )?;
        let mut times = output.split_whitespace().map(str::parse);
        let mut next = || times.next().context("three times");
        lines.push(next()??);
        blocks.push(next()??);
        ends.push(next()??);
    }
    let mut table = Table::new(
        "Attach to redis-server and leave it, under load",
        &["time", "ms, median", "ms, fastest"],
    );
    let fastest = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    for (what, values) in [
        ("from the start to the first block in the table", &blocks),
        ("from the start to `memtrace: tracing`", &lines),
        ("from Ctrl-C to the end", &ends),
    ] {
        table.row(vec![
            what.to_owned(),
            format!("{:.0}", median(values)),
            format!("{:.0}", fastest(values)),
        ]);
    }
    table.budget(Budget::at_most(
        "attach to first event",
        median(&blocks),
        500.0,
        "ms",
    ));
    table.budget(Budget::at_most(
        "from Ctrl-C to the end",
        median(&ends),
        END_MS,
        "ms",
    ));
    Ok(table)
}
