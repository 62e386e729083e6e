//! What the programs in the kernel take of a hit, apart from the traps.
use std::process::Command;

use anyhow::{Context, Result};

use super::Bench;
use super::child::Talking;
use super::table::Table;
use super::tools;

pub fn measure(bench: &Bench) -> Result<Table> {
    let mut table = Table::new(
        "The programs in the kernel",
        &[
            "program",
            "bytes of instructions",
            "followed by the verifier",
            "runs",
            "ns a run",
        ],
    );
    let mut program = bench.program.start_bare()?;
    for (mode, extra) in [
        ("exact", &[][..]),
        ("sampling", &["--sample-bytes", "512KiB"]),
    ] {
        let memtrace = tools::memtrace(bench, program.pid(), extra)?;
        program.pairs(2)?;
        let pid = memtrace.pid().to_string();
        let mut counting = Talking::start(Command::new(&bench.helper).args(["programs", &pid]))?;
        counting.line()?;
        program.pairs(10)?;
        for line in counting.finish()? {
            let mut words = line.split(' ').map(str::to_owned);
            let name = words.next().context("a program without a name")?;
            let cells: Vec<String> = words.collect();
            // What did not run is only of interest for its size, and that once.
            if mode == "exact" || cells.get(2).is_some_and(|runs| runs != "0") {
                table.row([vec![format!("{name}, {mode}")], cells].concat());
            }
        }
    }
    Ok(table)
}
