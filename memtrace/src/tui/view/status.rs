//! The last line: what is being typed, what was said, else which keys there are.

use ratatui::text::{Line, Span};

use super::{
    Theme,
    text::{cut, ends, span},
};
use crate::{
    report::layout::{shorten_left, width},
    tui::state::{Input, State},
};

pub(super) fn line(state: &State, theme: Theme, columns: usize) -> Line<'static> {
    if state.help.is_some() {
        return keys(&["Esc close", "↑↓ scroll"], theme, columns);
    }
    match &state.input {
        Input::Filter => prompt("/", &state.filter, "Enter keeps, Esc drops", theme, columns),
        Input::Mark(name) => prompt("mark: ", name, "Enter marks, Esc not", theme, columns),
        Input::Commands => said(state, theme, columns),
    }
}

/// The end of what is typed stays visible.
fn prompt(label: &str, typed: &str, hint: &str, theme: Theme, columns: usize) -> Line<'static> {
    let hint = if columns < super::NARROW { "" } else { hint };
    let room = columns.saturating_sub(label.len() + hint.len() + 3);
    let typed = span(typed, theme.plain());
    let typed = shorten_left(&typed.content, room).into_owned();
    ends(
        vec![
            span(label, theme.warn()),
            Span::raw(typed),
            Span::styled(" ", theme.selected()),
        ],
        vec![span(hint, theme.dim())],
        columns,
    )
}

fn said(state: &State, theme: Theme, columns: usize) -> Line<'static> {
    if let Some(notice) = &state.notice {
        return Line::from(cut(vec![span(notice, theme.warn())], columns));
    }
    if let Some(why) = &state.ended {
        let text = format!("{why}; q quits");
        return Line::from(cut(vec![span(text, theme.warn())], columns));
    }
    if state.cursor().is_some() {
        let back = if state.open.is_some() {
            "Esc back"
        } else {
            "Enter open"
        };
        let hints = [
            "? help",
            "←→ time",
            "Space play",
            "q quit",
            back,
            "[] marks",
            "/ filter",
            "s sort",
            "Tab next",
        ];
        return keys(&hints, theme, columns);
    }
    if state.open.is_some() {
        let hints = [
            "Esc back",
            "↑↓ scroll",
            "f freeze",
            "w write",
            "? help",
            "q quit",
        ];
        return keys(&hints, theme, columns);
    }
    let freeze = if state.is_frozen {
        "f go on"
    } else {
        "f freeze"
    };
    let hints = [
        "? help",
        "q quit",
        "Enter open",
        "/ filter",
        "s sort",
        "Tab next",
        freeze,
        "m mark",
        "w write",
    ];
    keys(&hints, theme, columns)
}

/// As many as fit, whole.
fn keys(hints: &[&str], theme: Theme, columns: usize) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for hint in hints {
        used += width(hint) + 2;
        if used > columns + 2 {
            break;
        }
        let (key, what) = hint.split_once(' ').unwrap_or((hint, ""));
        spans.push(span(key, theme.bold()));
        spans.push(span(format!(" {what}  "), theme.dim()));
    }
    Line::from(spans)
}
