//! Arguments of `mark`.

use clap::Args;

use super::plan::Plan;
use super::usage::UsageError;
use crate::session::marks::check_name;

/// Arguments of `mark`.
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// What this moment is called, such as "cycle 5"; at most 200 bytes
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only in the session of this memtrace; without it in every one that runs
    ///
    /// The pid of memtrace itself, not of what it traces: `$!` of a shell that started it in the background
    /// (not that of sudo).
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub session: Option<u32>,
}

/// Name a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkPlan {
    /// What it is called.
    pub name: String,
    /// The pid of the memtrace that is told; all when none is named.
    pub session: Option<u32>,
}

impl MarkArgs {
    pub(super) fn plan(self) -> Result<Plan, UsageError> {
        let name = check_name(self.name.as_bytes()).map_err(UsageError::Mark)?;
        Ok(Plan::Mark(MarkPlan {
            name: name.to_owned(),
            session: self.session,
        }))
    }
}
