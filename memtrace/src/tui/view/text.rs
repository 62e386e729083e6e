//! Text from outside made safe for cells, figures made short, and pictures of series.

use std::borrow::Cow;

use ratatui::{
    style::Style,
    text::{Line, Span},
};
use unicode_width::UnicodeWidthChar as _;

use crate::{
    ledger::Point,
    report::{
        human,
        layout::{clean, shorten_middle, width},
        text::names::fit_name,
    },
    trend::Verdict,
};

/// Longest text of one cell: nothing on a screen is longer.
const MAX_CHARACTERS: usize = 2000;

/// Makes text safe for a cell: nothing that controls the terminal, and nothing whose width
/// terminals disagree about (combining marks, joined emoji, flags, conjoining letters), so that
/// what stands to the right of it stays where it is.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_CHARACTERS));
    for c in clean(text).chars().take(MAX_CHARACTERS) {
        match c.width() {
            Some(1 | 2) if !is_fickle(c) => out.push(c),
            Some(0) => {}
            _ => out.push('?'),
        }
    }
    out
}

/// Characters that change with their neighbours.
fn is_fickle(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{1f1e6}'..='\u{1f1ff}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// A span of text from wherever.
pub(super) fn span(text: impl AsRef<str>, style: Style) -> Span<'static> {
    Span::styled(tidy(text.as_ref()), style)
}

/// Tidied, and its middle cut out where it is wider than this.
pub(super) fn fit(text: &str, columns: usize) -> String {
    shorten_middle(&tidy(text), columns).into_owned()
}

/// A function's name, tidied; where it is too wide its parameters go first.
pub(super) fn fit_function(name: &str, columns: usize) -> String {
    fit_name(&tidy(name), columns).into_owned()
}

/// To the left, in a column of this width.
pub(super) fn left(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let gap = columns.saturating_sub(width(&text));
    format!("{text}{:gap$}", "")
}

/// To the right, in a column of this width.
pub(super) fn right(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let gap = columns.saturating_sub(width(&text));
    format!("{:gap$}{text}", "")
}

/// Columns that spans take.
pub(super) fn spans_width(spans: &[Span<'_>]) -> usize {
    spans.iter().map(|span| width(&span.content)).sum()
}

/// Two ends of one line; what is on the right stays, what is on the left is cut.
pub(super) fn ends(
    left: Vec<Span<'static>>,
    right: Vec<Span<'static>>,
    columns: usize,
) -> Line<'static> {
    let mut line = cut(left, columns.saturating_sub(spans_width(&right) + 1));
    let gap = columns.saturating_sub(spans_width(&line) + spans_width(&right));
    line.push(Span::raw(" ".repeat(gap)));
    line.extend(right);
    Line::from(line)
}

/// The spans that fit, the last of them shortened.
pub(super) fn cut(spans: Vec<Span<'static>>, columns: usize) -> Vec<Span<'static>> {
    let mut room = columns;
    let mut out = Vec::with_capacity(spans.len());
    for span in spans {
        let taken = width(&span.content);
        if taken > room {
            let text = shorten_middle(&span.content, room).into_owned();
            out.push(Span::styled(text, span.style));
            break;
        }
        room -= taken;
        out.push(span);
    }
    out
}

/// The spans that fit whole, and the first of all, which [`cut`] shortens.
pub(super) fn whole(mut spans: Vec<Span<'static>>, columns: usize) -> Vec<Span<'static>> {
    let mut used = 0;
    let fits = spans.iter().take_while(|span| {
        used += width(&span.content);
        used <= columns
    });
    let fitting = fits.count().max(1);
    spans.truncate(fitting);
    spans
}

/// Pieces of prose in lines of at most this width, parted at spaces between the pieces' words.
pub(super) fn wrap(pieces: Vec<Span<'static>>, columns: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut row: Vec<Span<'static>> = Vec::new();
    for piece in pieces {
        for word in piece.content.split_inclusive(' ') {
            let used = spans_width(&row);
            if used > 0 && used + width(word.trim_end()) > columns {
                lines.push(Line::from(std::mem::take(&mut row)));
            }
            row.push(Span::styled(fit_word(word, columns), piece.style));
        }
    }
    if !row.is_empty() {
        lines.push(Line::from(row));
    }
    lines
}

fn fit_word(word: &str, columns: usize) -> String {
    if width(word.trim_end()) > columns {
        shorten_middle(word.trim_end(), columns).into_owned()
    } else {
        word.to_owned()
    }
}

/// `1,203`, and from eight characters on `12.0M`.
pub(super) fn count(number: u64) -> String {
    let whole = human::count(number);
    if whole.len() < 8 {
        return whole;
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = number as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 9.995 {
        format!("{value:.2}{unit}")
    } else if value < 99.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

/// `12s`, `6m`, `3h`, `12d`: whole units, rounded down.
pub(super) fn age(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    let (size, unit) = match seconds {
        s if s < 60.0 => (1.0, "s"),
        s if s < 3600.0 => (60.0, "m"),
        s if s < 86_400.0 => (3600.0, "h"),
        _ => (86_400.0, "d"),
    };
    format!("{:.0}{unit}", (seconds / size).floor())
}

/// `+1.20 MiB`, `-300 B`, `0 B`.
pub(super) fn signed_bytes(bytes: i128) -> String {
    let size = u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX);
    let sign = match bytes {
        1.. => "+",
        0 => "",
        _ => "-",
    };
    format!("{sign}{}", human::bytes(size))
}

/// One column that stands for a verdict.
pub(super) fn verdict_mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Growing => "▲",
        Verdict::Plateau => "▔",
        Verdict::Sawtooth => "≈",
        Verdict::Spike => "∧",
        Verdict::Steady => "─",
        Verdict::Shrinking => "▼",
        Verdict::TooEarly => "·",
    }
}

/// The word of a verdict.
pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Growing => "GROWING",
        Verdict::Plateau => "plateau",
        Verdict::Sawtooth => "sawtooth",
        Verdict::Spike => "spike",
        Verdict::Steady => "steady",
        Verdict::Shrinking => "shrinking",
        Verdict::TooEarly => "too early",
    }
}

/// A series in at most `columns` columns: as it is where it has no more points than that.
pub(super) fn sampled(points: &[Point], columns: usize) -> Vec<u64> {
    if points.len() <= columns {
        return points.iter().map(|point| point.bytes).collect();
    }
    spread(points, columns)
}

/// A series at `columns` evenly spaced times between its ends.
pub(super) fn spread(points: &[Point], columns: usize) -> Vec<u64> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    let mut rest = points.iter().peekable();
    let mut held = first.bytes;
    (1..=columns)
        .map(|column| {
            #[expect(clippy::cast_precision_loss, reason = "columns of a screen")]
            let share = column as f64 / columns as f64;
            let end = if column == columns {
                f64::INFINITY
            } else {
                first.at + (last.at - first.at) * share
            };
            // The highest of what falls into one column: a spike does not hide between two.
            let mut highest = None;
            while let Some(point) = rest.next_if(|point| point.at <= end) {
                held = point.bytes;
                highest = highest.max(Some(held));
            }
            highest.unwrap_or(held)
        })
        .collect()
}

/// The steps of a bar, an eighth each.
const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// One cell of a bar of `value` out of `most`, in row `row` of `rows` from the bottom.
pub(super) fn bar(value: u64, most: u64, row: usize, rows: usize) -> &'static str {
    if most == 0 || value == 0 {
        return EIGHTHS[0];
    }
    let steps = rows as u128 * 8;
    // At least one step: something is not nothing.
    let filled = (u128::from(value.min(most)) * steps / u128::from(most)).max(1);
    let here = filled.saturating_sub(row as u128 * 8).min(8);
    usize::try_from(here)
        .ok()
        .and_then(|at| EIGHTHS.get(at))
        .copied()
        .unwrap_or(" ")
}

/// A line of bars, to the right in its column.
pub(super) fn sparkline(points: &[Point], columns: usize) -> String {
    let values = sampled(points, columns);
    let most = values.iter().copied().max().unwrap_or(0);
    let bars: String = values.iter().map(|value| bar(*value, most, 0, 1)).collect();
    let gap = columns.saturating_sub(values.len());
    format!("{:gap$}{bars}", "")
}

/// Borrowed or not, the text.
pub(super) fn or_dash(text: Option<String>) -> Cow<'static, str> {
    text.map_or(Cow::Borrowed("-"), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(values: &[u64]) -> Vec<Point> {
        let point = |(at, &bytes): (usize, &u64)| Point {
            at: at as f64,
            bytes,
        };
        values.iter().enumerate().map(point).collect()
    }

    // A spike between two columns is seen, and the last value is the last column's.
    #[test]
    fn spikes_do_not_hide() {
        let mut values = vec![1; 1000];
        values[777] = 50;
        let sampled = sampled(&series(&values), 10);
        assert_eq!(sampled, [1, 1, 1, 1, 1, 1, 1, 50, 1, 1]);
    }

    // Bars: nothing is empty, something is at least a line, the most is full.
    #[test]
    fn bars_of_a_series() {
        assert_eq!(sparkline(&series(&[0, 1, 500, 1000]), 6), "   ▁▄█");
        assert_eq!(sparkline(&[], 3), "   ");
        assert_eq!(bar(u64::MAX, u64::MAX, 4, 5), "█");
        assert_eq!((bar(1, u64::MAX, 0, 5), bar(1, u64::MAX, 1, 5)), ("▁", " "));
    }

    // Figures in few columns.
    #[test]
    fn short_figures() {
        assert_eq!(
            ["12s", "59m", "3h", "12d"],
            [12.9, 3599.0, 10_900.0, 1e6 + 4e4].map(age)
        );
        assert_eq!(age(f64::NAN), "?");
        assert_eq!(
            ["999,999", "1.20M", "18.4E"],
            [999_999, 1_200_345, u64::MAX].map(count)
        );
        assert_eq!(
            ["+1.00 KiB", "-5 B", "0 B"],
            [1024, -5, 0].map(signed_bytes)
        );
    }

    proptest! {
        // No text from outside is wider than its column, or controls anything.
        #[test]
        fn cells_keep_their_width(text in ".*", columns in 0..40_usize) {
            for cell in [left(&text, columns), right(&text, columns)] {
                prop_assert_eq!(width(&cell), columns, "{:?}", cell);
                prop_assert!(!cell.chars().any(char::is_control));
            }
        }

        // The highest value is in the picture, however few columns it has.
        #[test]
        fn the_most_is_kept(values in prop::collection::vec(any::<u64>(), 1..300), columns in 1..40_usize) {
            let sampled = sampled(&series(&values), columns);
            prop_assert!(sampled.len() <= columns);
            prop_assert_eq!(sampled.iter().max(), values.iter().max());
            prop_assert_eq!(sampled.last().is_some(), true);
        }
    }
}
