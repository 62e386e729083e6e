//! The first lines: what is traced, its memory, what tracing costs and loses, who leads.

use ratatui::text::{Line, Span};

use super::{
    NARROW, Theme, header_height,
    text::{count, ends, fit, fit_function, span, spans_width, verdict_word, whole},
};
use crate::{
    report::{
        culprit::{culprit, name, short_place},
        human,
        model::{Process, ProcessState, Report, Stack},
    },
    trend::Verdict,
    tui::state::State,
};

pub(super) fn lines(state: &State, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let condition = condition(state, theme);
    let room = columns.saturating_sub(spans_width(&condition) + 1);
    let mut lines = vec![ends(whole(title(state, theme), room), condition, columns)];
    if let Some(moment) = &state.shown {
        let report = &moment.report;
        let mut losses = losses(report, theme);
        let cost = cost(report, theme);
        if columns < NARROW {
            let memory = whole(memory(report, theme), columns);
            lines.push(ends(memory, Vec::new(), columns));
            losses.extend(cost);
            lines.push(ends(losses, Vec::new(), columns));
            lines.push(ends(leader(report, theme, columns), Vec::new(), columns));
        } else {
            // What stands on the right is never cut.
            lines.push(ends(memory(report, theme), losses, columns));
            lines.push(ends(leader(report, theme, columns), cost, columns));
        }
    }
    lines.resize(header_height(state), Line::default());
    lines
}

fn title(state: &State, theme: Theme) -> Vec<Span<'static>> {
    let mut spans = vec![span("memtrace top", theme.bold())];
    if let Some(moment) = &state.shown {
        let report = &moment.report;
        let time = human::seconds(report.duration_seconds);
        if let Some(cursor) = &moment.cursor {
            spans.push(span(format!("  {}", cursor.file), theme.plain()));
        }
        spans.push(span(format!("  {}", target(report)), theme.plain()));
        spans.push(span(format!("  {time}"), theme.dim()));
    }
    spans
}

/// `pid 1234 (server)`, `3 processes of pid 1,2,3`.
fn target(report: &Report) -> String {
    let target = &report.target;
    match report.processes.as_slice() {
        [one] if target.kind == "pid" => format!("pid {} ({})", one.pid, one.comm),
        [_] | [] => format!("{} {}", target.kind, target.value),
        many => format!("{} {}, {} processes", target.kind, target.value, many.len()),
    }
}

fn condition(state: &State, theme: Theme) -> Vec<Span<'static>> {
    let condition = if state.is_frozen {
        span(" FROZEN ", theme.selected())
    } else if state.cursor().is_some() {
        span("replay", theme.good())
    } else if state.ended.is_some() {
        span("ended", theme.warn())
    } else if state.shown.is_none() {
        span("starting", theme.dim())
    } else {
        span("live", theme.good())
    };
    let newest = state.newest.as_deref();
    if newest.is_some_and(|moment| moment.is_recording) {
        return vec![span("recording ", theme.bad()), condition];
    }
    vec![condition]
}

/// Resident memory from the attach to now, and the limit with the time until it is met.
fn memory(report: &Report, theme: Theme) -> Vec<Span<'static>> {
    let processes = &report.processes;
    let total = |of: fn(&Process) -> Option<u64>| {
        let known = processes.iter().filter_map(of);
        known.reduce(u64::saturating_add).map(human::bytes)
    };
    let dash = || "?".to_owned();
    let then = total(|process| process.rss_bytes_at_attach).unwrap_or_else(dash);
    let now = total(|process| process.rss_bytes).unwrap_or_else(dash);
    let mut spans = vec![
        span("RSS ", theme.dim()),
        span(format!("{then} → {now}"), theme.plain()),
    ];
    if processes
        .iter()
        .any(|one| one.state == ProcessState::OomKilled)
    {
        spans.push(span("  OOM-KILLED", theme.bad()));
    }
    let soonest = processes
        .iter()
        .filter_map(|process| process.seconds_to_limit)
        .min_by(f64::total_cmp);
    let limit = processes
        .iter()
        .filter_map(|process| process.memory_limit_bytes)
        .min();
    if let Some(limit) = limit {
        spans.push(span("  limit ", theme.dim()));
        spans.push(span(human::bytes(limit), theme.plain()));
    }
    if let Some(seconds) = soonest {
        let what = if limit.is_some() { "" } else { "  memory full" };
        spans.push(span(
            format!("{what} in {}", human::seconds(seconds)),
            theme.warn(),
        ));
    }
    spans
}

fn cost(report: &Report, theme: Theme) -> Vec<Span<'static>> {
    let overhead = &report.overhead;
    let share = overhead
        .fraction_of_target_cpu
        .map_or_else(|| "?".to_owned(), human::percent);
    let mut spans = vec![
        span("  cost ", theme.dim()),
        span(format!("{share} CPU"), theme.plain()),
    ];
    if overhead.sample_bytes > 1 {
        let every = human::bytes(overhead.sample_bytes);
        spans.push(span(format!(" ~1 in {every}"), theme.warn()));
    }
    if overhead.detached {
        spans.push(span(" DETACHED", theme.bad()));
    }
    spans
}

/// The largest loss by name, and how many other kinds there are.
fn losses(report: &Report, theme: Theme) -> Vec<Span<'static>> {
    let losses = report.losses.iter().filter(|(_, count)| **count > 0);
    let mut spans = vec![span("losses ", theme.dim())];
    match losses.clone().max_by_key(|(_, count)| **count) {
        None => spans.push(span("none", theme.good())),
        Some((name, lost)) => {
            let name = fit(name, 24);
            let more = match losses.count() {
                0 | 1 => String::new(),
                kinds => format!(" +{}", kinds - 1),
            };
            let text = format!("{} {name}{more}", count(*lost));
            spans.push(span(text, theme.bad()));
        }
    }
    spans
}

/// The verdict on the stack that grows fastest, else what can be said of all.
fn leader(report: &Report, theme: Theme, columns: usize) -> Vec<Span<'static>> {
    let growing = report
        .stacks
        .iter()
        .filter(|one| one.verdict == Verdict::Growing);
    let fastest = growing.clone().max_by(|a, b| {
        let rate = |stack: &Stack| stack.growth_bytes_per_second;
        rate(a).total_cmp(&rate(b))
    });
    if let Some(stack) = fastest {
        let mut spans = leading_stack(stack, theme, columns);
        if let Some(more @ 1..) = growing.count().checked_sub(1) {
            let more = human::counted(more as u64, "more grows", "more grow");
            spans.push(span(format!(", {more}"), theme.warn()));
        }
        return spans;
    }
    let (done, needed) = (report.intervals.completed, report.intervals.needed);
    if done < needed {
        let each = human::seconds(report.intervals.seconds);
        return vec![
            span("Too early to say", theme.bold()),
            span(
                format!(": {done} of {needed} intervals of {each}"),
                theme.plain(),
            ),
        ];
    }
    let grows = report
        .processes
        .iter()
        .find(|process| process.verdict == Verdict::Growing);
    match grows {
        Some(process) => vec![span(
            format!("pid {} grows, but no stack can be blamed yet", process.pid),
            theme.warn(),
        )],
        None => undecided(report, theme),
    }
}

fn undecided(report: &Report, theme: Theme) -> Vec<Span<'static>> {
    let stacks = report.stacks.iter();
    let gained = stacks
        .filter(|one| one.verdict == Verdict::TooEarly && one.growth_bytes_per_second > 0.0)
        .count();
    if gained == 0 {
        return vec![span("No stack is growing", theme.good())];
    }
    let why = if report.losses.is_empty() {
        "too short or unsteady for a verdict"
    } else {
        "the losses could explain that"
    };
    let stacks = human::counted(gained as u64, "stack gained", "stacks gained");
    vec![
        span("Undecided", theme.bold()),
        span(format!(": {stacks}, {why}"), theme.plain()),
    ]
}

fn leading_stack(stack: &Stack, theme: Theme, columns: usize) -> Vec<Span<'static>> {
    let frame = culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    let place = frame.and_then(short_place);
    let mut spans = vec![
        span(verdict_word(Verdict::Growing), theme.bad()),
        Span::raw(" "),
        span(
            frame.map_or_else(
                || "[stack unknown]".to_owned(),
                |frame| fit_function(&name(frame), columns / 2),
            ),
            theme.bold(),
        ),
    ];
    if let Some(place) = place.filter(|_| columns >= NARROW) {
        spans.push(span(format!(" ({place})"), theme.plain()));
    }
    let rest = format!(
        " {}, {} sure",
        human::rate(stack.growth_bytes_per_second),
        human::confidence(stack.confidence)
    );
    spans.push(span(rest, theme.plain()));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    // One more grows, two more grow.
    #[test]
    fn counts_the_others() {
        let mut report = fixtures::two_callers();
        let text = |report: &Report| -> String {
            let spans = leader(report, Theme::new(false), 80);
            spans.iter().map(|span| span.content.as_ref()).collect()
        };
        assert!(
            text(&report).ends_with(", 1 more grows"),
            "{}",
            text(&report)
        );
        let another = report.stacks[0].clone();
        report.stacks.push(another);
        assert!(
            text(&report).ends_with(", 2 more grow"),
            "{}",
            text(&report)
        );
    }
}
