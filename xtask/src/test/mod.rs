//! `cargo xtask test`: everything that CI runs, step by step, and at the end which step took how
//! long and which failed. A failed step does not keep the later ones from being run.
pub mod crosscheck;
mod layers;
mod noop;
mod packages;
mod steps;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

pub use self::steps::kernel_suites;
use crate::shell::{is_root, say};
use crate::{setup, workspace::Workspace};

#[derive(Args)]
pub struct Options {
    /// Only what needs neither root nor the other architecture: format, lints, layers, unit tests
    #[arg(long)]
    fast: bool,
}

/// One thing that is checked.
struct Step {
    name: &'static str,
    /// Part of `--fast`.
    fast: bool,
    check: fn(&Workspace) -> Result<()>,
}

const fn always(name: &'static str, check: fn(&Workspace) -> Result<()>) -> Step {
    Step {
        name,
        fast: true,
        check,
    }
}

const fn slow(name: &'static str, check: fn(&Workspace) -> Result<()>) -> Step {
    Step {
        name,
        fast: false,
        check,
    }
}

const STEPS: &[Step] = &[
    always("format", steps::format),
    always("layers", layers::run),
    always("lints", steps::lints),
    always("lints of the kernel side", steps::kernel_side_lints),
    slow("dependencies", steps::dependencies),
    always("unit tests", steps::unit_tests),
    slow("packages for the tests", steps::packages),
    slow("release build", steps::release_build),
    slow("tests on the real kernel", steps::kernel_tests),
    slow("nothing rebuilt", noop::run),
    slow("aarch64", steps::other_architecture),
    slow("docs", steps::docs),
];

/// What became of a step.
struct Outcome {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

/// Runs the steps; an error when one failed.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !options.fast {
        check_privilege()?;
    }
    setup::run(workspace)?;
    let steps = STEPS.iter().filter(|step| step.fast || !options.fast);
    let outcomes: Vec<Outcome> = steps.map(|step| run_step(workspace, step)).collect();
    summarize(&outcomes)?;
    if kernel_tests_skipped() {
        say("passed WITHOUT the tests on the real kernel");
    }
    Ok(())
}

/// The tests on the real kernel attach probes: better told at once than after ten minutes.
fn check_privilege() -> Result<()> {
    if kernel_tests_skipped() {
        say("WARNING: MEMTRACE_SKIP_KERNEL_TESTS=1, so nothing is tested on a real kernel");
        return Ok(());
    }
    if is_root() {
        return Ok(());
    }
    bail!(
        "the tests on the real kernel need root: run `sudo -E env \"PATH=$PATH\" cargo xtask \
         test`, or `cargo xtask test --fast` for the rest, or set MEMTRACE_SKIP_KERNEL_TESTS=1 to \
         leave them out"
    )
}

fn kernel_tests_skipped() -> bool {
    std::env::var_os("MEMTRACE_SKIP_KERNEL_TESTS").is_some_and(|value| value == "1")
}

fn run_step(workspace: &Workspace, step: &Step) -> Outcome {
    eprintln!("\n== {}", step.name);
    let start = Instant::now();
    let result = (step.check)(workspace);
    if let Err(error) = &result {
        eprintln!("!! {}: {error:#}", step.name);
    }
    Outcome {
        name: step.name,
        took: start.elapsed(),
        result,
    }
}

fn summarize(outcomes: &[Outcome]) -> Result<()> {
    eprintln!("\n== summary");
    for outcome in outcomes {
        let word = if outcome.result.is_ok() {
            "ok"
        } else {
            "FAILED"
        };
        let seconds = outcome.took.as_secs_f64();
        eprintln!("{word:>7} {seconds:>7.1} s  {}", outcome.name);
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err());
    let names: Vec<&str> = failed.map(|outcome| outcome.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", names.join(", "))
}
