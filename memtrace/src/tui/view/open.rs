//! One stack, opened: figures, history, frames.

use ratatui::text::{Line, Span};

use super::{
    Theme,
    text::{bar, fit_function, signed_bytes, span, spread, verdict_word, wrap},
};
use crate::{
    ledger::Point,
    report::{
        culprit::{culprit, name, place},
        human,
        layout::{shorten_left, width},
        model::{Frame, Stack},
    },
    tui::{moment::Past, state::State},
};

/// Rows of the picture of the past.
const GRAPH_ROWS: usize = 5;
/// Columns it takes at most: wider it tells no more.
const WIDEST: usize = 72;
/// In a body lower than this the picture is lower too.
const LOW_BODY: usize = 17;

/// All lines of the open stack; nothing when it is not in the moment shown.
pub(super) fn lines(
    state: &State,
    theme: Theme,
    columns: usize,
    body: usize,
) -> Vec<Line<'static>> {
    let found = state.shown.as_deref().zip(state.open);
    let Some((stack, past)) = found.and_then(|(moment, key)| moment.stack(moment.find_stack(key)?))
    else {
        let text = "At this moment the stack that is open holds nothing.";
        return vec![Line::default(), Line::from(span(text, theme.dim()))];
    };
    let mut lines = vec![Line::default()];
    lines.extend(wrap(headline(state, stack, past, theme), columns));
    lines.extend(figures(state, stack, past, theme, columns));
    let rows = if body < LOW_BODY { 3 } else { GRAPH_ROWS };
    lines.extend(graph(state, past, theme, columns, rows));
    lines.push(Line::default());
    lines.extend(frames(stack, theme, columns));
    lines
}

fn headline(state: &State, stack: &Stack, past: &Past, theme: Theme) -> Vec<Span<'static>> {
    let frame = culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    let moment = state.shown.as_deref();
    let process = moment.and_then(|moment| moment.process_of(past.key));
    let comm = process.map_or("?", |process| process.comm.as_str());
    vec![
        span(
            frame.map_or_else(|| "[stack unknown]".to_owned(), name),
            theme.bold(),
        ),
        span(format!(" in pid {} ({comm}): ", stack.pid), theme.plain()),
        span(verdict_word(stack.verdict), theme.verdict(stack.verdict)),
        span(
            format!(", {} sure", human::confidence(stack.confidence)),
            theme.plain(),
        ),
    ]
}

fn figures(
    state: &State,
    stack: &Stack,
    past: &Past,
    theme: Theme,
    columns: usize,
) -> Vec<Line<'static>> {
    let mean = |bytes: u64, objects: u64| match bytes.checked_div(objects) {
        Some(each) => format!(", {} each", human::bytes(each)),
        None => String::new(),
    };
    let objects = |number| human::counted(number, "object", "objects");
    let held = |bytes: u64, number: u64| {
        format!(
            "{} in {}{}",
            human::bytes(bytes),
            objects(number),
            mean(bytes, number)
        )
    };
    let mut facts = vec![
        (
            "outstanding",
            held(stack.outstanding_bytes, stack.outstanding_objects),
        ),
        ("growth", human::rate(stack.growth_bytes_per_second)),
    ];
    if let Some(oldest) = stack.oldest_seconds {
        facts.push(("oldest", human::seconds(oldest)));
    }
    let since = state.since_mark(past.key, stack.outstanding_bytes, stack.outstanding_objects);
    if let (Some(mark), Some((bytes, number))) = (state.mark(), since) {
        let sign = match number {
            1.. => "+",
            0 => "",
            _ => "-",
        };
        let text = format!(
            "{}, {sign}{} objects since \"{}\" at {}",
            signed_bytes(bytes),
            human::count(u64::try_from(number.unsigned_abs()).unwrap_or(u64::MAX)),
            mark.name,
            human::seconds(mark.at)
        );
        facts.push(("marked", text));
    }
    facts.push((
        "allocated",
        held(stack.allocated_bytes, stack.allocated_objects),
    ));
    facts.push(("freed", held(stack.freed_bytes, stack.freed_objects)));
    if stack.approximate {
        let text = "part of it may belong to a stack that looks alike";
        facts.push(("note", text.to_owned()));
    }
    if !stack.complete {
        facts.push(("note", "the outermost frames are missing".to_owned()));
    }
    facts
        .into_iter()
        .flat_map(|(label, text)| fact(label, &text, theme, columns))
        .collect()
}

/// Width of the labels of facts, with the space after them.
const LABEL: usize = 12;

fn fact(label: &str, text: &str, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let room = columns.saturating_sub(LABEL).max(1);
    let texts = wrap(vec![span(text, theme.plain())], room);
    let label = |at: usize| if at == 0 { label } else { "" };
    texts
        .into_iter()
        .enumerate()
        .map(|(at, line)| {
            let mut spans = vec![span(format!("{:LABEL$}", label(at)), theme.dim())];
            spans.extend(line.spans);
            Line::from(spans)
        })
        .collect()
}

/// Outstanding bytes over time, with the marks.
fn graph(
    state: &State,
    past: &Past,
    theme: Theme,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    const SCALE: usize = 9;
    let room = columns.saturating_sub(SCALE + 1).min(WIDEST);
    let values = spread(&past.points, room);
    let (Some(first), Some(last)) = (past.points.first(), past.points.last()) else {
        return Vec::new();
    };
    let most = values.iter().copied().max().unwrap_or(0);
    let marked: Vec<usize> = state
        .marks()
        .iter()
        .filter_map(|mark| column_of(mark.at, first, last, values.len()))
        .collect();
    let mut lines = vec![Line::default()];
    for row in (0..rows).rev() {
        let scale = match row {
            0 => "0 B".to_owned(),
            row if row + 1 == rows => human::bytes(most),
            _ => String::new(),
        };
        let mut spans = vec![span(format!("{scale:>SCALE$} "), theme.dim())];
        spans.extend(values.iter().enumerate().map(|(column, value)| {
            match bar(*value, most, row, rows) {
                " " if marked.contains(&column) => Span::styled("┊", theme.warn()),
                bar => Span::styled(bar, theme.graph()),
            }
        }));
        lines.push(Line::from(spans));
    }
    let span_of = human::seconds((last.at - first.at).max(0.0));
    let left = format!("{:SCALE$} -{span_of}", "");
    let gap = (SCALE + 1 + values.len())
        .saturating_sub(width(&left) + 3)
        .max(1);
    lines.push(Line::from(span(
        format!("{left}{:gap$}now", ""),
        theme.dim(),
    )));
    lines
}

/// Where a time is among so many columns from the first to the last point.
fn column_of(at: f64, first: &Point, last: &Point, columns: usize) -> Option<usize> {
    let length = last.at - first.at;
    let share = (at - first.at) / length;
    if columns == 0 || !share.is_finite() || !(0.0..=1.0).contains(&share) {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a screen's columns, between 0 and all of them"
    )]
    let column = (share * columns as f64) as usize;
    Some(column.min(columns - 1))
}

fn frames(stack: &Stack, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let blamed = culprit(&stack.frames);
    let title = "Frames, innermost first";
    let mut lines = vec![Line::from(span(title, theme.title()))];
    for (at, frame) in stack.frames.iter().enumerate() {
        lines.extend(frame_lines(frame, blamed == Some(at), theme, columns));
    }
    lines
}

/// The function and its place on one line where they fit, else on two.
fn frame_lines(frame: &Frame, is_blamed: bool, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let style = match (is_blamed, frame.allocator) {
        (true, _) => theme.bold(),
        (_, true) => theme.dim(),
        _ => theme.plain(),
    };
    let sign = if is_blamed { "→ " } else { "  " };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    let room = columns.saturating_sub(2 + inlined.len());
    let called = fit_function(&name(frame), room);
    let mut first = vec![
        span(sign, theme.bold()),
        span(&called, style),
        span(inlined, theme.dim()),
    ];
    let used = 2 + width(&called) + inlined.len();
    let unnamed = frame.reason.clone().filter(|_| frame.function.is_none());
    let Some(place) = place(frame).or(unnamed) else {
        return vec![Line::from(first)];
    };
    let place = super::text::tidy(&place);
    if used + 2 + width(&place) <= columns {
        first.push(span(format!("  {place}"), theme.dim()));
        return vec![Line::from(first)];
    }
    let place = shorten_left(&place, columns.saturating_sub(6)).into_owned();
    vec![
        Line::from(first),
        Line::from(span(format!("      {place}"), theme.dim())),
    ]
}
