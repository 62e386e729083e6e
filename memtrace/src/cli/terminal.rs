//! What standard output is: a terminal, how wide, with colours?

use std::io::{self, IsTerminal};

use super::plan::{ColorWhen, Format, OutputPlan, Verbosity};
use super::usage::UsageError;
use crate::report::output::Destination;
use crate::report::text::TextOptions;

/// Columns where there is no terminal to ask.
const DEFAULT_WIDTH: usize = 80;

/// Refuses to write to a terminal what it cannot show.
///
/// # Errors
/// [`UsageError::BinaryToTerminal`].
pub fn check(output: &OutputPlan) -> Result<(), UsageError> {
    match output.format {
        Format::Profile(form)
            if form.is_binary()
                && output.destination == Destination::Stdout
                && io::stdout().is_terminal() =>
        {
            Err(UsageError::BinaryToTerminal(form.name()))
        }
        _ => Ok(()),
    }
}

/// How text reports should look at their destination.
#[must_use]
pub fn text_options(output: &OutputPlan) -> TextOptions {
    let verbose = output.verbosity == Verbosity::Verbose;
    match output.destination {
        Destination::Stdout => TextOptions {
            width: width(),
            color: color(output.color),
            verbose,
        },
        Destination::Replace(_) | Destination::Append(_) => TextOptions {
            width: DEFAULT_WIDTH,
            color: output.color == ColorWhen::Always,
            verbose,
        },
    }
}

/// Whether to colour standard output: `auto` asks the terminal, NO_COLOR, CLICOLOR and TERM.
#[must_use]
pub fn color(when: ColorWhen) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => {
            anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
        }
    }
}

/// Columns of standard output, 80 when it is no terminal.
#[must_use]
pub fn width() -> usize {
    let out = io::stdout();
    if !out.is_terminal() {
        return DEFAULT_WIDTH;
    }
    match rustix::termios::tcgetwinsize(&out) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => DEFAULT_WIDTH,
    }
}
