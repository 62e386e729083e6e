//! `memtrace diff`.

use std::path::Path;

use super::symbols::Symbols;
use crate::{
    cli::{
        exit::Exit,
        recordings::{DiffForm, DiffPlan},
        terminal,
    },
    record::{self, Recording, When},
    report::{
        diff::{diff, render},
        flamegraph,
        model::Report,
        profile::{Profile, Series},
        text::TextOptions,
    },
};

/// Compares two moments of recordings.
pub(super) fn compare(plan: &DiffPlan) -> anyhow::Result<Exit> {
    same_mark(plan)?;
    let mut symbols = Symbols::open(plan.debug_dir.as_deref())?;
    let mut read = |path: &Path, when: &When| read(path, when, &mut symbols);
    let (before, after) = (
        read(&plan.before, &plan.from)?,
        read(&plan.after, &plan.to)?,
    );
    let name = |path: &Path| path.display().to_string();
    let mut found = diff((&name(&plan.before), &before), (&name(&plan.after), &after));
    let is_met = plan.fail_on.is_some_and(|fail_on| {
        u64::try_from(found.largest_gain()).is_ok_and(|gained| gained >= fail_on.bytes())
    });
    found.cut(plan.top.limit());
    let options = TextOptions {
        width: terminal::width(),
        color: terminal::color(plan.color),
        verbose: plan.verbose,
    };
    let printed = match plan.form {
        DiffForm::Svg => super::print(|out| {
            let profile = |report| Profile::new(report, Series::default());
            let svg = flamegraph::render_diff(&profile(&before), &profile(&after));
            svg.map(|svg| out.extend_from_slice(&svg))
        })?,
        form => super::print_as(form == DiffForm::Json, &found, || render(&found, options))?,
    };
    Ok(if is_met { Exit::FailOnMet } else { printed })
}

/// A mark that was set several times does not tell two moments apart.
fn same_mark(plan: &DiffPlan) -> anyhow::Result<()> {
    if plan.from != plan.to || plan.before != plan.after || !matches!(plan.from, When::Mark(_)) {
        return Ok(());
    }
    let recording = Recording::open(&plan.before)?;
    let hint = record::repeated(&plan.from, &recording.moments()?);
    hint.map_or(Ok(()), |hint| {
        Err(anyhow::anyhow!(
            "--from and --to are the same moment: {hint}"
        ))
    })
}

fn read(path: &Path, when: &When, symbols: &mut Symbols) -> anyhow::Result<Report> {
    let recording = Recording::open(path)?;
    let moment = recording.find(when)?;
    let mut report = recording.report(&moment, None)?.report;
    let stacks = report.stacks.iter_mut();
    symbols.rename(stacks.map(|stack| &mut stack.frames).collect());
    Ok(report)
}
