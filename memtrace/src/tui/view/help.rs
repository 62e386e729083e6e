//! What the keys do and what the signs mean.

use ratatui::text::Line;

use super::{
    Theme,
    text::{span, verdict_mark, verdict_word, wrap},
};
use crate::{trend::Verdict, tui::state::State};

const KEYS: &[(&str, &str)] = &[
    ("↑ ↓ j k", "select a row; PgUp, PgDn, Home, End too"),
    (
        "Enter",
        "open a stack, or the stacks of a process or container",
    ),
    (
        "Esc",
        "one step back: closes, clears the filter, leaves the process",
    ),
    ("Tab", "stacks, processes, containers"),
    (
        "/",
        "filter as you type: function, module, file or probe; every word must match; Enter keeps it, Esc drops it",
    ),
    (
        "o g n a",
        "sort by outstanding bytes, growth, number of objects, age",
    ),
    ("s r", "next sort key; reverse the order"),
    (
        "f",
        "freeze the screen; tracing goes on; f again shows the newest report",
    ),
    (
        "m",
        "mark this moment in the session and its recording, as `memtrace mark` does; what each stack gained since is shown",
    ),
    ("w", "write what is shown to a file, as a JSON report"),
    ("?", "this help"),
    ("q Ctrl-C", "quit; the probes are taken off"),
];

const REPLAY_KEYS: &[(&str, &str)] = &[
    ("← →", "one report back, one on"),
    ("< >", "a tenth of the recording back, on"),
    ("Home End", "the first report, the last one"),
    (
        "[ ]",
        "the mark before, the mark after; growth is shown since the last mark before the cursor",
    ),
    (
        "Space",
        "play, pause; a recording that is still written is followed",
    ),
    ("+ -", "play faster, slower"),
];

const VERDICTS: &[(Verdict, &str)] = &[
    (
        Verdict::Growing,
        "a leak: grows steadily, old blocks survive",
    ),
    (Verdict::Plateau, "grew and stopped, as a cache does"),
    (Verdict::Sawtooth, "comes back down again and again"),
    (Verdict::Spike, "once up and down"),
    (Verdict::Steady, "neither up nor down"),
    (Verdict::Shrinking, "goes down"),
    (
        Verdict::TooEarly,
        "too few intervals, or losses forbid a verdict",
    ),
];

const COLUMNS: &[(&str, &str)] = &[
    (
        "OUTSTANDING",
        "bytes allocated since the attach and not freed",
    ),
    ("AGE", "of the oldest live block"),
    (
        "HISTORY",
        "outstanding bytes since the attach, from nothing to the most",
    ),
    (
        "ALLOCATED BY",
        "the innermost function that is the program's own",
    ),
];

pub(super) fn lines(state: &State, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let is_replay = state.cursor().is_some();
    if is_replay {
        lines.push(Line::from(span("The recording", theme.title())));
        for (key, text) in REPLAY_KEYS {
            lines.extend(entry(key, text, 10, theme, columns));
        }
        lines.push(Line::default());
    }
    lines.push(Line::from(span("Keys", theme.title())));
    let keys = KEYS.iter();
    for (key, text) in keys.filter(|(key, _)| !is_replay || !["f", "m"].contains(key)) {
        lines.extend(entry(key, text, 10, theme, columns));
    }
    lines.push(Line::default());
    lines.push(Line::from(span("Verdicts", theme.title())));
    for (verdict, text) in VERDICTS {
        let label = format!("{} {}", verdict_mark(*verdict), verdict_word(*verdict));
        lines.extend(entry(&label, text, 13, theme, columns));
    }
    lines.push(Line::default());
    lines.push(Line::from(span("Columns", theme.title())));
    for (column, text) in COLUMNS {
        lines.extend(entry(column, text, 14, theme, columns));
    }
    lines
}

fn entry(
    label: &str,
    text: &str,
    indent: usize,
    theme: Theme,
    columns: usize,
) -> Vec<Line<'static>> {
    let room = columns.saturating_sub(indent).max(10);
    wrap(vec![span(text, theme.plain())], room)
        .into_iter()
        .enumerate()
        .map(|(at, line)| {
            let label = if at == 0 { label } else { "" };
            let mut spans = vec![span(format!("{label:indent$}"), theme.bold())];
            spans.extend(line.spans);
            Line::from(spans)
        })
        .collect()
}
