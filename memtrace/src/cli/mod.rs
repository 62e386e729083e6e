//! The command line: arguments as typed → a validated [`Plan`].
//!
//! [`args`] is what can be typed, [`plan`] what it means; nothing behind this module sees an
//! argument that makes no sense. Help, manual pages and completions come from [`args`] alone.
pub mod args;
mod check;
pub mod events;
pub mod exit;
mod help;
pub mod incidents;
pub mod mark;
pub mod plan;
pub mod recordings;
pub mod targets;
pub mod terminal;
pub mod top;
pub mod units;
pub mod usage;
pub mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

pub use exit::Exit;
pub use plan::{DoctorPlan, Plan, TracePlan};

/// There is nothing to do but to print this and end.
#[derive(Debug)]
pub struct Stop {
    /// With ANSI styles; [`Stop::print`] drops them where they do not belong.
    pub text: String,
    /// Help and version go to standard output, complaints to standard error.
    pub to_stdout: bool,
    /// How to end.
    pub exit: Exit,
}

impl Stop {
    /// Prints it. A closed pipe is no failure.
    pub fn print(&self) -> Exit {
        let done = if self.to_stdout {
            anstream::stdout().lock().write_all(self.text.as_bytes())
        } else {
            anstream::stderr().lock().write_all(self.text.as_bytes())
        };
        match done {
            Err(error) if !crate::report::json::is_closed_pipe(&error) => Exit::Failed,
            _ => self.exit,
        }
    }
}

/// Reads the command line, the program's name included.
///
/// # Errors
/// [`Stop`] for help, version and wrong usage.
pub fn parse<I, T>(arguments: I) -> Result<Plan, Stop>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    if arguments.len() <= 1 {
        return Err(usage(&usage::UsageError::Nothing));
    }
    let cli = args::Cli::try_parse_from(&arguments).map_err(|error| stop(error, &arguments))?;
    let plan = cli.plan().map_err(|error| usage(&error))?;
    if let Plan::Trace(plan) = &plan {
        terminal::check(&plan.output).map_err(|error| usage(&error))?;
    }
    Ok(plan)
}

fn usage(error: &usage::UsageError) -> Stop {
    let text = match error {
        usage::UsageError::Nothing => error.to_string(),
        _ => {
            let error = clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n"));
            format!(
                "{}\nFor more information, try '--help'.\n",
                error.render().ansi()
            )
        }
    };
    Stop {
        text,
        to_stdout: false,
        exit: Exit::Usage,
    }
}

fn stop(mut error: clap::Error, arguments: &[OsString]) -> Stop {
    let to_stdout = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if let Some(tip) = tip(&error, arguments) {
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
    }
    let exit = if to_stdout { Exit::Done } else { Exit::Usage };
    Stop {
        text: error.render().ansi().to_string(),
        to_stdout,
        exit,
    }
}

/// What was probably meant, where clap cannot know it.
fn tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let word = arguments.get(1)?.to_str()?;
    let run = arguments.iter().any(|part| part == "run");
    match error.kind() {
        ErrorKind::ArgumentConflict if run => {
            let text = "options stand after `run`: memtrace run [OPTIONS] -- CMD; \
                        --pid is for processes that run already";
            Some(text.to_owned())
        }
        ErrorKind::UnknownArgument if word == "run" => {
            let unknown = error
                .get(ContextKind::InvalidArg)
                .map(ToString::to_string)?;
            let is_pid = unknown.starts_with("-p") || unknown == "--pid";
            is_pid.then(|| "`run` starts a program; --pid is for one that runs already".to_owned())
        }
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument => {
            if values::pid(word).is_ok() {
                return Some(format!("to trace process {word}: memtrace --pid {word}"));
            }
            (word.contains('/') || word == "--").then(|| {
                let words = arguments.iter().skip(1).filter(|part| *part != "--");
                let words: Vec<_> = words.map(|part| part.to_string_lossy()).collect();
                format!(
                    "to start and trace a program: memtrace run -- {}",
                    words.join(" ")
                )
            })
        }
        _ => None,
    }
}

/// Writes a shell's completion script.
///
/// # Errors
/// What the writer returns.
pub fn completions(shell: clap_complete::Shell, out: &mut impl Write) -> io::Result<()> {
    // clap_complete panics on a failed write: let it write to memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::Cli::command(), "memtrace", &mut script);
    out.write_all(&script)
}

/// Writes a manual page: memtrace's own, or a subcommand's.
///
/// # Errors
/// What the writer returns; [`io::ErrorKind::NotFound`] for a command there is not.
pub fn man(subcommand: Option<&str>, out: &mut impl Write) -> io::Result<()> {
    let mut command = args::Cli::command();
    command.build();
    let Some(name) = subcommand else {
        return clap_mangen::Man::new(command).render(out);
    };
    let page = command
        .find_subcommand(name)
        .ok_or(io::ErrorKind::NotFound)?
        .clone();
    clap_mangen::Man::new(page)
        .title(format!("memtrace-{name}"))
        .render(out)
}
