//! How long it takes from starting memtrace to its first event, and from Ctrl-C to its end.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, MapData, loaded_maps};

const DEADLINE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(1);

/// Prints three numbers: milliseconds to the line that says it traces, to the first block, and from
/// SIGINT to the end of the process.
pub fn run(pid: u32, memtrace: &str) -> anyhow::Result<()> {
    let known: HashSet<u32> = live_tables().collect();
    let start = Instant::now();
    let mut child = Command::new(memtrace)
        .args(["--pid", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{memtrace} cannot be started"))?;
    let times = watch(&mut child, &known, start);
    let memtrace = rustix::process::Pid::from_child(&child);
    let told = Instant::now();
    rustix::process::kill_process(memtrace, rustix::process::Signal::INT)?;
    child.wait()?;
    let end = told.elapsed();
    let (line, block) = times?;
    println!(
        "{:.1} {:.1} {:.1}",
        line.as_secs_f64() * 1e3,
        block.as_secs_f64() * 1e3,
        end.as_secs_f64() * 1e3
    );
    Ok(())
}

fn watch(
    child: &mut Child,
    known: &HashSet<u32>,
    start: Instant,
) -> anyhow::Result<(Duration, Duration)> {
    let stderr = child.stderr.take().context("no stderr")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("tracing") {
                // The receiver may have given up.
                let _ = sender.send(start.elapsed());
            } else {
                eprintln!("{line}");
            }
        }
    });
    let block = first_block(known, start)?;
    let line = receiver.recv_timeout(DEADLINE).context("no first line")?;
    Ok((line, block))
}

fn first_block(known: &HashSet<u32>, start: Instant) -> anyhow::Result<Duration> {
    let mut table = None;
    loop {
        ensure!(start.elapsed() < DEADLINE, "no block in {DEADLINE:?}");
        if table.is_none() {
            table = live_tables().find(|id| !known.contains(id));
        }
        if let Some(id) = table
            && has_entry(id)?
        {
            return Ok(start.elapsed());
        }
        thread::sleep(STEP);
    }
}

/// Ids of the live tables there are.
fn live_tables() -> impl Iterator<Item = u32> {
    loaded_maps()
        .flatten()
        .filter(|map| map.name_as_str() == Some("LIVE"))
        .map(|map| map.id())
}

/// Whether the table holds anything but the blocks of memtrace's own calibration, whose address
/// space is 1.
fn has_entry(id: u32) -> anyhow::Result<bool> {
    let map = aya::maps::Map::from_map_data(MapData::from_id(id)?)?;
    let table: HashMap<_, [u64; 2], [u64; 3]> = HashMap::try_from(map)?;
    Ok(table.keys().flatten().any(|[space, _address]| space != 1))
}
