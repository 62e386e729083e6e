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
}

impl MarkArgs {
    pub(super) fn plan(self) -> Result<Plan, UsageError> {
        let name = check_name(self.name.as_bytes()).map_err(UsageError::Mark)?;
        Ok(Plan::Mark(name.to_owned()))
    }
}
