//! Exit codes: a contract with scripts.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

/// How memtrace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// 0: done; a closed pipe too.
    Done,
    /// 1: it failed, and one line said why.
    Failed,
    /// 2: it was called wrongly.
    Usage,
    /// 3: `--fail-on` was met.
    FailOnMet,
    /// The status of the program that `run` started, when that is not 0.
    Program(u8),
}

impl Exit {
    /// How `run` ends: with the program's own status (128 + signal), and only when that is 0
    /// with 3 for a met `--fail-on`.
    pub fn of_run(status: ExitStatus, fail_on_met: bool) -> Self {
        // A status that is neither an end nor a signal (stopped) does not come from a wait for
        // an end; 1 rather than a success nobody saw.
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(1);
        match u8::try_from(code) {
            Ok(0) if fail_on_met => Self::FailOnMet,
            Ok(0) => Self::Done,
            Ok(code) => Self::Program(code),
            Err(_) => Self::Failed,
        }
    }

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::FailOnMet => 3,
            Self::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(raw: i32, fail_on_met: bool) -> u8 {
        Exit::of_run(ExitStatus::from_raw(raw), fail_on_met).code()
    }

    // The program's status comes first, then --fail-on.
    #[test]
    fn program_status_wins() {
        assert_eq!(run(0, false), 0);
        assert_eq!(run(0, true), 3);
        assert_eq!(run(42 << 8, true), 42);
        assert_eq!(run(9, true), 137);
        assert_eq!(run(139, false), 139, "a signal with a core dump");
    }
}
