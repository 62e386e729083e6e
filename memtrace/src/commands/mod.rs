//! The subcommands: wiring only.

mod diff;
mod doctor;
mod events;
mod gate;
mod incidents;
mod libraries;
mod mark;
mod replay;
mod report;
mod root;
mod sink;
mod symbols;
mod top;
mod trace;

use std::io::{self, Write as _};

use serde::Serialize;

use crate::{
    cli::{self, exit::Exit, plan::Plan},
    report::json::{self, is_closed_pipe},
};

/// Carries a plan out; errors are one line on standard error.
pub fn run(plan: Plan) -> Exit {
    let done = match plan {
        Plan::Trace(plan) => trace::trace(&plan),
        Plan::Top(plan) => top::top(&plan),
        Plan::Replay(plan) => replay::replay(&plan),
        Plan::Events(plan) => events::events(&plan),
        Plan::Report(plan) => report::report(&plan),
        Plan::Diff(plan) => diff::compare(&plan),
        Plan::Incidents(plan) => incidents::incidents(&plan),
        Plan::Mark(plan) => mark::mark(&plan),
        Plan::Doctor(plan) => doctor::doctor(&plan),
        Plan::Completions(shell) => print(|out| cli::completions(shell, out)),
        Plan::Man(subcommand) => print(|out| cli::man(subcommand.as_deref(), out)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("memtrace: {}", message(&error));
        Exit::Failed
    })
}

/// Prints to standard output; a reader that has gone is no error.
fn print(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    write(&mut text)?;
    match io::stdout().lock().write_all(&text) {
        Err(error) if !is_closed_pipe(&error) => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

/// Prints as JSON, or as text for people.
fn print_as<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce() -> String,
) -> anyhow::Result<Exit> {
    print(|out| {
        if json {
            return json::pretty(value, out);
        }
        out.extend_from_slice(text().as_bytes());
        Ok(())
    })
}

/// The error with its causes in one line; a cause that the text before it quotes is not repeated.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::message;

    /// A cause that is quoted already is not said twice; another is.
    #[test]
    fn causes_are_said_once() {
        let inner = anyhow::anyhow!("no such file");
        let quoted = inner.context("cannot run x: no such file");
        assert_eq!(message(&quoted), "cannot run x: no such file");
        let plain = anyhow::anyhow!("no such file").context("cannot run x");
        assert_eq!(message(&plain), "cannot run x: no such file");
    }
}
