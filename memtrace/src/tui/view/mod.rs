//! Draws a state: lines of styled text, as many as the screen has. Pure.

mod columns;
mod header;
mod help;
mod list;
mod open;
mod status;
mod text;
mod theme;
mod timeline;

use ratatui::{Frame, buffer::Buffer, layout::Rect, text::Line};

use super::state::State;
pub(super) use theme::Theme;

/// Below this nothing can be told.
const LEAST: (u16, u16) = (20, 6);
/// Narrower screens get fewer columns and a line more of header.
pub(super) const NARROW: usize = 60;
/// Lower ones one line of header.
const LOW: usize = 14;
/// Lines of a list above its rows: what it is, and the names of its columns.
const LIST_HEAD: usize = 2;

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    let lines = lines(state, theme);
    put(frame.buffer_mut(), area, &lines);
}

fn put(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    for (y, line) in area.rows().zip(lines) {
        buffer.set_style(y, line.style);
        buffer.set_line(y.x, y.y, line, y.width);
    }
}

/// The lines of the screen, from the top.
fn lines(state: &State, theme: Theme) -> Vec<Line<'static>> {
    let (columns, rows) = (width(state), usize::from(state.size.1));
    if state.size.0 < LEAST.0 || state.size.1 < LEAST.1 {
        return vec![Line::from("too small")];
    }
    let mut lines = header::lines(state, theme, columns);
    let body = body_height(state);
    if let Some(at) = state.help {
        lines.extend(window(help::lines(state, theme, columns), at, body));
    } else if state.open.is_some() {
        let open = open::lines(state, theme, columns, body);
        lines.extend(window(open, state.open_scroll, body));
    } else {
        lines.extend(list::lines(state, theme, columns));
    }
    lines.truncate(rows - 1);
    lines.resize(rows - 1, Line::default());
    if let (Some(moment), Some(cursor)) = (state.shown.as_deref(), state.cursor()) {
        lines.truncate(rows - 2);
        lines.push(timeline::line(moment, cursor, theme, columns));
    }
    lines.push(status::line(state, theme, columns));
    lines
}

fn window(lines: Vec<Line<'static>>, first: usize, height: usize) -> Vec<Line<'static>> {
    lines.into_iter().skip(first).take(height).collect()
}

fn width(state: &State) -> usize {
    usize::from(state.size.0)
}

fn header_height(state: &State) -> usize {
    if usize::from(state.size.1) < LOW {
        1
    } else if width(state) < NARROW {
        4
    } else {
        3
    }
}

/// Lines between the header and the last line.
pub(super) fn body_height(state: &State) -> usize {
    let timeline = usize::from(state.cursor().is_some());
    usize::from(state.size.1).saturating_sub(header_height(state) + timeline + 1)
}

/// Rows of the list that are on the screen.
pub(super) fn list_height(state: &State) -> usize {
    body_height(state).saturating_sub(LIST_HEAD)
}

/// How far the open stack can be scrolled.
pub(super) fn open_end(state: &State) -> usize {
    if state.open.is_none() {
        return 0;
    }
    let body = body_height(state);
    let lines = open::lines(state, Theme::PLAIN, width(state), body);
    lines.len().saturating_sub(body)
}

/// How far the help can be scrolled.
pub(super) fn help_end(state: &State) -> usize {
    let lines = help::lines(state, Theme::PLAIN, width(state)).len();
    lines.saturating_sub(body_height(state))
}
