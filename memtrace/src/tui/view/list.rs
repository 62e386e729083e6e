//! The list: what it is, the names of its columns, its rows.

use ratatui::text::{Line, Span};

use super::{
    Theme,
    columns::{Column, columns},
    list_height,
    text::{
        age, count, cut, ends, fit_function, left, or_dash, right, signed_bytes, span, spans_width,
        sparkline, verdict_mark, verdict_word, whole,
    },
};
use crate::{
    ledger::{Point, regions::RegionKind},
    report::{
        culprit::{culprit, name, short_place},
        human,
        model::{Process, ProcessState, Stack},
    },
    trend::Verdict,
    tui::{
        moment::{ContainerRow, Key, Moment, container_name},
        rows::{Figures, figures, process_figures},
        state::{Input, State, Tab},
    },
};

/// One row, whatever it is of.
struct Row {
    key: Key,
    verdict: Verdict,
    figures: Figures,
    rss: Option<u64>,
    points: Vec<Point>,
    name: Vec<Span<'static>>,
}

pub(super) fn lines(state: &State, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let Some(moment) = &state.shown else {
        return vec![
            Line::default(),
            Line::from(span("waiting for the first report …", theme.dim())),
        ];
    };
    let columns = columns(state, width);
    let mut lines = vec![
        ends(
            about(state, moment, theme),
            vec![span(order(state), theme.dim())],
            width,
        ),
        titles(state, &columns, theme, width),
    ];
    let containers = match state.tab {
        Tab::Containers => moment.containers(),
        _ => Vec::new(),
    };
    let figures: usize = columns.iter().map(|(_, wide)| wide + 1).sum();
    let room = width.saturating_sub(figures);
    let shown = state.rows.iter().skip(state.first).take(list_height(state));
    for &at in shown {
        let row = match state.tab {
            Tab::Stacks => stack_row(moment, at, theme, room),
            Tab::Processes => process_row(moment, at, theme),
            Tab::Containers => containers
                .get(at)
                .map(|row| container_row(moment, row, theme)),
        };
        let Some(row) = row else { continue };
        lines.push(row_line(state, row, &columns, theme, width));
    }
    if state.rows.is_empty() {
        lines.push(Line::from(span(nothing(state), theme.dim())));
    }
    lines
}

/// ` Stacks 12 of 200  Processes 1 `, the filter, what was opened.
fn about(state: &State, moment: &Moment, theme: Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let containers = moment.containers().len();
    let tabs = [
        (Tab::Stacks, "Stacks", moment.report.stacks.len()),
        (Tab::Processes, "Processes", moment.report.processes.len()),
        (Tab::Containers, "Containers", containers),
    ];
    for (tab, word, all) in tabs {
        if tab == Tab::Containers && all == 0 {
            continue;
        }
        if tab != state.tab {
            spans.push(span(format!("{word}  "), theme.dim()));
            continue;
        }
        let text = if state.rows.len() == all {
            format!("{word} {all}")
        } else {
            format!("{word} {} of {all}", state.rows.len())
        };
        spans.push(span(text, theme.bold()));
        spans.push(Span::raw("  "));
    }
    if let Some(scope) = &state.scope {
        spans.push(span(format!("in {}  ", scope.name), theme.warn()));
    }
    if !state.filter.is_empty() && state.input != Input::Filter {
        spans.push(span(format!("/{}", state.filter), theme.warn()));
    }
    spans
}

fn order(state: &State) -> String {
    let arrow = if state.is_reversed { "▲" } else { "▼" };
    format!("{}{arrow}", state.sort.word())
}

fn nothing(state: &State) -> &'static str {
    match state.tab {
        _ if !state.filter.is_empty() => "  nothing matches the filter (Esc clears it)",
        Tab::Stacks => "  nothing is outstanding of what was allocated since tracing began",
        Tab::Processes | Tab::Containers => "  nothing is traced",
    }
}

fn titles(state: &State, columns: &[(Column, usize)], theme: Theme, width: usize) -> Line<'static> {
    let mut spans = Vec::new();
    for &(column, wide) in columns {
        let title = column.title(wide);
        let text = if column.is_left() {
            left(title, wide)
        } else {
            right(title, wide)
        };
        spans.push(span(text, column.style(state, theme)));
        spans.push(span(" ", theme.title()));
    }
    let name = match state.tab {
        Tab::Stacks => "ALLOCATED BY",
        Tab::Processes => "PROCESS",
        Tab::Containers => "CONTAINER",
    };
    let rest = width.saturating_sub(spans_width(&spans));
    spans.push(span(left(name, rest), theme.title()));
    Line::from(cut(spans, width))
}

fn row_line(
    state: &State,
    row: Row,
    columns: &[(Column, usize)],
    theme: Theme,
    width: usize,
) -> Line<'static> {
    let mut spans = Vec::new();
    for &(column, wide) in columns {
        let text = cell(state, &row, column, wide);
        let text = if column.is_left() {
            left(&text, wide)
        } else {
            right(&text, wide)
        };
        let style = match column {
            Column::Mark | Column::Verdict => theme.verdict(row.verdict),
            Column::Growth if row.verdict == Verdict::Growing => theme.bad(),
            Column::History => theme.graph(),
            _ => theme.plain(),
        };
        spans.push(Span::styled(text, style));
        spans.push(Span::raw(" "));
    }
    let is_selected = state.selected == Some(row.key);
    spans.extend(row.name);
    let mut spans = cut(spans, width);
    if is_selected {
        let gap = width.saturating_sub(spans_width(&spans));
        spans.push(Span::raw(" ".repeat(gap)));
        for span in &mut spans {
            span.style = theme.selected();
        }
    }
    Line::from(spans)
}

fn cell(state: &State, row: &Row, column: Column, wide: usize) -> String {
    let figures = &row.figures;
    match column {
        Column::Mark => verdict_mark(row.verdict).to_owned(),
        Column::Verdict => verdict_word(row.verdict).to_owned(),
        Column::Outstanding => human::bytes(figures.outstanding),
        Column::Objects => count(figures.objects),
        Column::Growth => growth(figures.growth, wide),
        Column::Age => or_dash(figures.age.map(age)).into_owned(),
        Column::Rss => or_dash(row.rss.map(human::bytes)).into_owned(),
        Column::Since => {
            let since = state.since_mark(row.key, figures.outstanding, figures.objects);
            or_dash(since.map(|(bytes, _)| signed_bytes(bytes))).into_owned()
        }
        Column::History => sparkline(&row.points, wide),
    }
}

/// Without the space before the unit where it would not fit.
fn growth(rate: f64, wide: usize) -> String {
    let text = human::rate(rate);
    if text.len() > wide {
        text.replace(' ', "")
    } else {
        text
    }
}

fn stack_row(moment: &Moment, at: usize, theme: Theme, room: usize) -> Option<Row> {
    let (stack, past) = moment.stack(at)?;
    Some(Row {
        key: past.key,
        verdict: stack.verdict,
        figures: figures(stack),
        rss: None,
        points: past.points.clone(),
        name: stack_name(moment, stack, theme, room),
    })
}

/// The function to blame and where it is; the process and the probe where there are several.
fn stack_name(moment: &Moment, stack: &Stack, theme: Theme, room: usize) -> Vec<Span<'static>> {
    let frame = culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    let mut spans = Vec::new();
    if moment.report.processes.len() > 1 {
        spans.push(span(format!("{} ", stack.pid), theme.dim()));
    }
    if stack.probe != "heap" {
        let kind = stack.kind.map_or(stack.probe, RegionKind::name);
        spans.push(span(format!("{kind} "), theme.dim()));
    }
    let called = frame.map_or_else(|| "[stack unknown]".to_owned(), name);
    let left = room.saturating_sub(spans_width(&spans));
    spans.push(span(fit_function(&called, left), theme.bold()));
    if let Some(place) = frame.and_then(short_place) {
        spans.push(span(format!("  {place}"), theme.dim()));
    }
    whole(spans, room)
}

fn process_row(moment: &Moment, at: usize, theme: Theme) -> Option<Row> {
    let (process, past) = moment.process(at)?;
    let mut name = vec![span(format!("{} ", process.pid), theme.plain())];
    let state = match process.state {
        ProcessState::Running => None,
        ProcessState::Exited => Some("exited"),
        ProcessState::Exec => Some("replaced by exec"),
        ProcessState::OomKilled => Some("OOM-killed"),
    };
    name.extend(state.map(|state| span(format!("{state} "), theme.warn())));
    name.push(span(&process.comm, theme.bold()));
    if process.container.is_some() {
        name.push(span(format!("  {}", container_name(process)), theme.dim()));
    }
    Some(Row {
        key: past.key,
        verdict: process.verdict,
        figures: process_figures(&[process]),
        rss: process.rss_bytes,
        points: past.points.clone(),
        name,
    })
}

fn container_row(moment: &Moment, row: &ContainerRow<'_>, theme: Theme) -> Row {
    let members: Vec<&Process> = row.members.iter().map(|(_, process)| *process).collect();
    let largest = members
        .iter()
        .max_by_key(|process| process.outstanding_bytes);
    let grows = members.iter().any(|one| one.verdict == Verdict::Growing);
    let processes = human::counted(members.len() as u64, "process", "processes");
    Row {
        key: row.key,
        verdict: if grows {
            Verdict::Growing
        } else {
            largest.map_or(Verdict::TooEarly, |process| process.verdict)
        },
        figures: process_figures(&members),
        rss: members
            .iter()
            .filter_map(|process| process.rss_bytes)
            .reduce(u64::saturating_add),
        points: moment.container_points(row),
        name: vec![
            span(&row.name, theme.bold()),
            span(format!("  {processes}"), theme.dim()),
        ],
    }
}
