//! `memtrace report`.

use super::{gate, symbols::Symbols};
use crate::{
    cli::{
        exit::Exit,
        plan::{OutputPlan, Verbosity},
        recordings::{ReportPlan, Span},
        terminal,
    },
    record::{self, Moment, Read, Recording, When},
    report::{
        group,
        model::{GroupBy, Report},
        output::Delivery,
        profile::{Events, Moment as Held, Series, UsageHistory},
        reporter::Reporter,
    },
};

/// Reads a recording and reports.
pub(super) fn report(plan: &ReportPlan) -> anyhow::Result<Exit> {
    plan.output.destination.check()?;
    let judge = gate::load(&plan.gate)?;
    let judges = judge.is_set() || plan.gate.summary.is_some();
    let mut symbols = Symbols::open(plan.debug_dir.as_deref())?;
    let recording = Recording::open(&plan.file)?;
    let mut reporter = Reporter::new(
        plan.output.form(terminal::text_options(&plan.output)),
        plan.output.destination.clone(),
    );
    let grouped = plan.group_by != GroupBy::Stack;
    let top = plan.top.limit();
    let mut outcome = None;
    let spans = spans(&recording, plan)?;
    let last = spans.len().saturating_sub(1);
    for (at, span) in spans.into_iter().enumerate() {
        // As live: the last report counts, with all of its stacks.
        let is_judged = judges && at == last;
        let whole = grouped || is_judged;
        let stacks = if whole { None } else { top };
        let mut read = match &span {
            (None, to) => recording.report(to, stacks)?,
            (Some(from), to) => recording.window(from, to, stacks)?,
        };
        symbols.rename(read.stacks_mut());
        read.rename();
        if is_judged {
            outcome = Some((judge.judge(&read.report), read.report.clone()));
        }
        if whole {
            group::apply(&mut read.report, plan.group_by, top);
            read.stacks.truncate(read.report.stacks.len());
        }
        let series = if reporter.wants_series() {
            series(&recording, &read, (span.0.as_ref(), &span.1))?
        } else {
            Series::default()
        };
        if reporter.report_with(&read.report, series)? == Delivery::ReaderGone {
            break;
        }
    }
    let Some((outcome, report)) = outcome else {
        return Ok(Exit::Done);
    };
    let quiet = plan.output.verbosity == Verbosity::Quiet;
    gate::deliver(&plan.gate, &outcome, &report, quiet)?;
    Ok(if outcome.failed() {
        Exit::FailOnMet
    } else {
        Exit::Done
    })
}

/// What to show: one moment or window, or, as lines of a table, every moment.
fn spans(
    recording: &Recording,
    plan: &ReportPlan,
) -> anyhow::Result<Vec<(Option<Moment>, Moment)>> {
    let every = is_appended(&plan.output);
    let (from, to) = match &plan.span {
        Span::At(None) if every => (When::Start, When::End),
        Span::At(when) => {
            let when = when.as_ref().unwrap_or(&When::End);
            return Ok(vec![(None, recording.find(when)?)]);
        }
        Span::Between(from, to) => (from.clone(), to.clone()),
    };
    let (from, to) = (recording.find(&from)?, recording.find(&to)?);
    if every {
        let moments = recording.moments()?.into_iter();
        let within = moments.filter(|m| (from.at_ms..=to.at_ms).contains(&m.at_ms));
        return Ok(within.map(|moment| (None, moment)).collect());
    }
    if from.at_ms >= to.at_ms {
        let moments = recording.moments()?;
        let mut hints = [&plan.span].into_iter().flat_map(|span| match span {
            Span::Between(from, to) => [
                record::repeated(from, &moments),
                record::repeated(to, &moments),
            ],
            Span::At(_) => [None, None],
        });
        let hint = hints.find_map(|hint| hint).map(|hint| format!(" ({hint})"));
        anyhow::bail!(
            "--from is at {} and --to at {}: nothing lies between them{}",
            from.taken_at,
            to.taken_at,
            hint.unwrap_or_default()
        );
    }
    Ok(vec![(Some(from), to)])
}

fn is_appended(output: &OutputPlan) -> bool {
    use crate::cli::plan::Format;
    match output.format {
        Format::Text | Format::Json => false,
        Format::Ndjson => true,
        Format::Profile(form) => form.is_appended(),
    }
}

/// The past of a report, for formats that show it. That of a window begins with it: its stacks are
/// what was gained since.
fn series(
    recording: &Recording,
    read: &Read,
    (from, until): (Option<&Moment>, &Moment),
) -> anyhow::Result<Series> {
    let mut usage = UsageHistory::default();
    let mut events = Events::default();
    let (mut from_seconds, mut end) = (0.0, f64::INFINITY);
    for moment in recording.moments()? {
        if moment.at_ms > until.at_ms {
            break;
        }
        let mut report: Report = recording.without_stacks(&moment)?;
        end = report.duration_seconds;
        for name in &moment.marks {
            events.mark(end, name);
        }
        match from {
            Some(from) if moment.at_ms < from.at_ms => continue,
            Some(from) if moment.at_ms == from.at_ms => from_seconds = end,
            _ => {}
        }
        report.duration_seconds -= from_seconds;
        usage.add(&report);
    }
    for (name, bytes) in recording.thresholds()? {
        events.threshold(&name, bytes);
    }
    for numbered in recording.incidents()? {
        events.incident(&numbered.incident);
    }
    let histories = recording.histories(&read.stacks, until)?;
    let histories = histories.into_iter();
    Ok(Series {
        usage: usage.points(),
        stacks: histories.map(|past| since(past, from_seconds)).collect(),
        events: events.between(from_seconds, end),
        from_seconds,
    })
}

/// A stack's past from a moment on, as what was gained since.
fn since(past: Vec<(f64, u64)>, from_seconds: f64) -> Vec<Held> {
    // Figures are as of when the tables were read, a moment before a report was taken.
    let from = if from_seconds > 0.0 {
        from_seconds
    } else {
        -1.0
    };
    let (before, after): (Vec<_>, Vec<_>) = past.into_iter().partition(|(at, _)| *at <= from);
    let base = before.last().map_or(0, |(_, bytes)| *bytes);
    let start = (from > 0.0 && !before.is_empty()).then_some((from_seconds, base));
    start
        .into_iter()
        .chain(after)
        .map(|(at, bytes)| Held {
            at: at - from_seconds,
            outstanding_bytes: bytes.saturating_sub(base),
            outstanding_objects: None,
        })
        .collect()
}
