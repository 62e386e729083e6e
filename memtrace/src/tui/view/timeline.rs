//! The line above the last one in a replay: where in the recording the cursor is.

use ratatui::text::{Line, Span};

use super::{
    NARROW, Theme,
    text::{span, spans_width},
};
use crate::{
    report::human,
    tui::{moment::Moment, replay::Cursor},
};

/// Shorter ones show nothing.
const LEAST: usize = 6;

pub(super) fn line(
    moment: &Moment,
    cursor: &Cursor,
    theme: Theme,
    columns: usize,
) -> Line<'static> {
    let mut left = vec![match cursor.playing {
        Some(speed) => span(format!("play {speed}× "), theme.good()),
        None => span("paused ", theme.warn()),
    }];
    if cursor.read < 1.0 {
        let text = format!("reading the past {} ", human::percent(cursor.read));
        left.push(span(text, theme.dim()));
    }
    let seconds = |seconds: f64| human::seconds(seconds.max(0.0));
    let mut right = format!(" {} of {}", seconds(cursor.seconds), seconds(cursor.last));
    if columns >= NARROW {
        right.push_str(&format!("  {}/{}", cursor.number, cursor.reports));
        right.push_str(&clock(&moment.report.taken_at));
    }
    let right = span(right, theme.plain());
    let used = spans_width(&left) + spans_width(std::slice::from_ref(&right));
    let room = columns.saturating_sub(used);
    let mut spans = left;
    if room >= LEAST {
        spans.extend(bar(cursor, theme, room));
    } else {
        spans.push(Span::raw(" ".repeat(room)));
    }
    spans.push(right);
    Line::from(spans)
}

/// `  03:04:05Z`
fn clock(taken_at: &str) -> String {
    let time = taken_at.split_once('T').map(|(_, time)| time);
    let time: Option<String> = time.map(|time| time.chars().take(8).collect());
    time.map(|time| format!("  {time}Z")).unwrap_or_default()
}

fn bar(cursor: &Cursor, theme: Theme, columns: usize) -> Vec<Span<'static>> {
    let now = cursor.column(cursor.seconds, columns);
    let mut marks = vec![false; columns];
    for at in cursor.marks.iter() {
        if let Some(mark) = marks.get_mut(cursor.column(*at, columns)) {
            *mark = true;
        }
    }
    let cell = |(at, is_mark): (usize, bool)| match (at, is_mark) {
        _ if at == now => Span::styled("●", theme.bold()),
        (_, true) => Span::styled("┊", theme.warn()),
        _ if at < now => Span::styled("━", theme.graph()),
        _ => Span::styled("─", theme.dim()),
    };
    marks.into_iter().enumerate().map(cell).collect()
}
