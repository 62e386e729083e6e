//! Arguments of `top`, and the plan they make.

use std::num::NonZeroUsize;

use clap::Args;

use super::args::{FormatArg, GroupByArg, TraceArgs};
use super::check::Checked;
use super::plan::{Plan, TopPlan};
use super::targets::TargetArgs;
use super::usage::UsageError;
use super::values::Top;
use crate::report::output::Destination;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// What to trace.
    #[command(flatten)]
    pub target: TargetArgs,

    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Stacks that are named and kept unless --top says otherwise: more than anybody scrolls through.
const STACKS: NonZeroUsize = match NonZeroUsize::new(500) {
    Some(stacks) => stacks,
    None => NonZeroUsize::MIN,
};

impl TopArgs {
    pub(super) fn plan(self) -> Checked<Plan> {
        if let Some(option) = self.about_reports() {
            return Err(UsageError::NotOnAScreen(option));
        }
        let target = self.target.plan()?;
        let mut trace = self.trace;
        trace.top = trace.top.or(Some(Top::First(STACKS)));
        let trace = trace.trace(target)?;
        let snapshot = match &trace.output.destination {
            Destination::Replace(path) | Destination::Append(path) => Some(path.clone()),
            Destination::Stdout => None,
        };
        Ok(Plan::Top(Box::new(TopPlan { trace, snapshot })))
    }

    /// The first option given that is about printed reports and what CI makes of them.
    fn about_reports(&self) -> Option<&'static str> {
        let (output, gate) = (&self.trace.output, &self.trace.gate);
        [
            ("format", output.format != FormatArg::Text),
            ("group-by", self.trace.group_by != GroupByArg::Stack),
            ("fail-on", gate.fail_on.is_some()),
            ("baseline", gate.baseline.is_some()),
            ("suppressions", gate.suppressions.is_some()),
            ("junit", gate.junit.is_some()),
            ("summary", gate.summary.is_some()),
            ("quiet", output.quiet),
            ("verbose", output.verbose),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }
}
