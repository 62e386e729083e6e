//! An hour of a busy target in a recording: its size, and what writing and reading it take.
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::pairs::median;
use super::table::{Budget, Table};
use crate::shell::{capture, say};

const MIB: f64 = (1 << 20) as f64;
/// Seconds between reports, as the helper records them.
const INTERVAL: f64 = 5.0;

pub fn measure(bench: &Bench) -> Result<Table> {
    let file = bench.folder.join("hour.memtrace");
    let mut table = Table::new(
        "A recording: an hour of 10,000 call paths, a tenth of them busy, a report every 5 s",
        &["what", "measured"],
    );
    let (mut means, mut peaks) = (Vec::new(), Vec::new());
    for number in 1..=bench.rounds {
        say(format!(
            "round {number} of {}: an hour recorded",
            bench.rounds
        ));
        let _ = fs::remove_file(&file);
        let said = capture(Command::new(&bench.helper).arg("recording").arg(&file))?;
        let mut times = said.split_whitespace().map(str::parse::<f64>);
        let mut next = || times.next().context("two times");
        means.push(next()??);
        peaks.push(next()??);
    }
    let size = fs::metadata(&file)?.len() as f64 / MIB;
    let share = median(&means) / (INTERVAL * 1e9) * 100.0;
    let mut row = |what: &str, figure: String| table.row(vec![what.to_owned(), figure]);
    row("size of the file", format!("{size:.1} MiB"));
    row(
        "CPU time of recording, share of a core",
        format!("{share:.2}%"),
    );
    row(
        "CPU time of the dearest interval",
        format!("{:.0} ms", median(&peaks) / 1e6),
    );
    let path = file.to_string_lossy();
    let mut slowest: f64 = 0.0;
    for (what, arguments) in [
        ("`report`, the last moment", &[][..]),
        ("`report --at 30m`", &["--at", "30m"]),
        (
            "`report --from 10m --to 50m`",
            &["--from", "10m", "--to", "50m"],
        ),
        (
            "`report --format json --top all`",
            &["--format", "json", "--top", "all"],
        ),
    ] {
        let seconds = (0..bench.rounds)
            .map(|_| time(bench, &path, arguments))
            .collect::<Result<Vec<_>>>()?;
        let seconds = median(&seconds);
        slowest = slowest.max(seconds);
        row(what, format!("{:.0} ms", seconds * 1e3));
    }
    fs::remove_file(&file)?;
    table.budget(Budget::at_most("an hour recorded", size, 50.0, "MiB"));
    table.budget(Budget::at_most("recording", share, 1.0, "% of a core"));
    table.budget(Budget::at_most("the slowest report", slowest, 1.0, "s"));
    Ok(table)
}

/// Seconds that a report takes.
fn time(bench: &Bench, file: &str, arguments: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    let status = Command::new(&bench.memtrace)
        .args(["report", file])
        .args(arguments)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "memtrace report {file} failed");
    Ok(begun.elapsed().as_secs_f64())
}
