//! What `cargo xtask bench` needs of the kernel and xtask cannot do itself. An example and no
//! command, so that it is not shipped.
//!
//! ```text
//! bench_helper floor PID          empty probes where memtrace would put its own, until stdin ends
//! bench_helper programs PID       the BPF programs that a process holds, and what a run of each
//!                                 takes, counted from now until stdin ends
//! bench_helper attach-time PID MEMTRACE
//!                                 starts memtrace on a process that allocates; milliseconds to
//!                                 its first line and to the first block in its live table
//! bench_helper recording FILE     records an hour of a busy target that is made up; nanoseconds of
//!                                 CPU time of a mean interval and of the dearest
//! ```
mod attach_time;
mod floor;
mod programs;
mod recording;

use std::io::Read as _;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // As memtrace itself does, before there is a thread.
    memtrace::probe::provide_tracefs()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["floor", pid] => floor::run(number(pid)?),
        ["programs", pid] => programs::run(number(pid)?),
        ["attach-time", pid, memtrace] => attach_time::run(number(pid)?, memtrace),
        ["recording", file] => recording::run(file),
        _ => bail!("this is a part of `cargo xtask bench`: run that"),
    }
}

fn number(text: &str) -> anyhow::Result<u32> {
    text.parse().with_context(|| format!("no pid: {text}"))
}

/// Says that the work has begun, then waits until the caller has seen enough.
fn until_told() -> anyhow::Result<()> {
    println!("ready");
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .map(drop)
        .context("stdin")
}
