//! The command line program: parse, run, exit code.

use std::process::ExitCode;

use memtrace::{cli, commands};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(plan) => commands::run(plan).into(),
        Err(stop) => stop.print().into(),
    }
}
