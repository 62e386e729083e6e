//! Styled text that knows its width: escaping, shortening, wrapping. Pure.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Narrower terminals are treated as this wide.
pub const MIN_WIDTH: usize = 40;
/// Prose is not wider than this on any terminal.
pub const MAX_PROSE: usize = 120;

/// The roles colours are given to.
pub mod style {
    use super::{AnsiColor, Style};

    /// Ordinary text.
    pub const PLAIN: Style = Style::new();
    /// What to look at first.
    pub const BOLD: Style = Style::new().bold();
    /// What to look past.
    pub const DIM: Style = Style::new().dimmed();
    /// A leak, a loss, a failure.
    pub const BAD: Style = AnsiColor::Red.on_default().bold();
    /// A warning.
    pub const WARN: Style = AnsiColor::Yellow.on_default();
    /// All is well.
    pub const GOOD: Style = AnsiColor::Green.on_default();
}

/// Makes a string from a target safe to print: control characters, line breaks and characters
/// that change the direction of text become `\u{…}` or the usual short escapes.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Columns a cleaned text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// Cuts the middle out of a text that is wider than `columns`: the ends of a C++ name tell more
/// than its middle.
#[must_use]
pub fn shorten_middle(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    if columns <= 1 {
        return Cow::Borrowed(if columns == 0 { "" } else { "…" });
    }
    let tail = (columns - 1) / 2;
    let head = columns - 1 - tail;
    Cow::Owned(format!("{}…{}", prefix(text, head), suffix(text, tail)))
}

/// Cuts the start off a path that is wider than `columns`, at a `/` where one is left.
#[must_use]
pub fn shorten_left(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    if columns <= 1 {
        return Cow::Borrowed(if columns == 0 { "" } else { "…" });
    }
    let rest = suffix(text, columns - 1);
    let at_slash = rest
        .find('/')
        .map_or(rest, |at| rest.get(at..).unwrap_or(rest));
    Cow::Owned(format!("…{at_slash}"))
}

fn prefix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    end.map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
}

fn suffix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let start = text.char_indices().rev().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    start.map_or(text, |(at, c)| {
        text.get(at + c.len_utf8()..).unwrap_or(text)
    })
}

/// The page being written: lines of styled pieces.
#[derive(Debug)]
pub struct Page {
    out: String,
    /// The line being written: neighbours of one style are one run.
    row: Vec<(Style, String)>,
    width: usize,
    color: bool,
}

/// Makes text one word: prose does not break it.
#[must_use]
pub fn tight(text: impl AsRef<str>) -> String {
    text.as_ref().replace(' ', NO_BREAK)
}

/// Space where a line must not end; printed as an ordinary one.
const NO_BREAK: &str = "\u{a0}";

/// A piece of text and its look. Pieces are joined as they are: spaces are the caller's.
#[derive(Clone, Debug)]
pub struct Piece {
    text: String,
    style: Style,
}

/// A styled piece; the text is made safe to print.
#[must_use]
pub fn piece(style: Style, text: impl AsRef<str>) -> Piece {
    Piece {
        text: clean(text.as_ref()).into_owned(),
        style,
    }
}

/// An unstyled piece.
#[must_use]
pub fn plain(text: impl AsRef<str>) -> Piece {
    piece(style::PLAIN, text)
}

impl Piece {
    /// Columns it takes.
    #[must_use]
    pub fn width(&self) -> usize {
        width(&self.text)
    }
}

impl Page {
    /// An empty page; `width` is the terminal's.
    #[must_use]
    pub fn new(width: usize, color: bool) -> Self {
        Self {
            out: String::new(),
            row: Vec::new(),
            width: width.max(MIN_WIDTH),
            color,
        }
    }

    /// Usable columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The text written.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    /// An empty line, unless the page is empty or ends in one.
    pub fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// One line as it is: the caller has made it fit.
    pub fn line(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            self.push(piece.style, &piece.text);
        }
        self.end_line();
    }

    /// Prose, wrapped between words; continuation lines begin at column `hang`.
    pub fn prose(&mut self, hang: usize, pieces: &[Piece]) {
        let limit = self.width.min(MAX_PROSE);
        let mut column = 0;
        for word in words(pieces) {
            let bare: usize = word
                .iter()
                .map(|(_, part)| width(part.trim_end_matches(' ')))
                .sum();
            if column > hang && column + bare > limit {
                column = self.continue_at(hang);
            }
            for (style, mut part) in word {
                // A path or a command wider than the line is broken: nothing of it may be lost.
                while width(part.trim_end_matches(' ')) > limit.saturating_sub(column) {
                    let head = prefix(part, limit.saturating_sub(column));
                    if head.is_empty() && column <= hang {
                        break;
                    }
                    self.push(style, head);
                    part = part.get(head.len()..).unwrap_or("");
                    column = self.continue_at(hang);
                }
                self.push(style, part);
                column += width(part);
            }
        }
        self.end_line();
    }

    fn continue_at(&mut self, hang: usize) -> usize {
        self.end_line();
        self.push(style::PLAIN, &" ".repeat(hang));
        hang
    }

    /// Items two spaces apart; an item that does not fit goes to the next line whole.
    pub fn items(&mut self, hang: usize, items: &[Vec<Piece>]) {
        let mut column = 0;
        for (at, item) in items.iter().enumerate() {
            let size: usize = item.iter().map(Piece::width).sum();
            if at > 0 && column + 2 + size > self.width {
                column = self.continue_at(hang);
            } else if at > 0 {
                self.push(style::PLAIN, "  ");
                column += 2;
            }
            for piece in item {
                self.push(piece.style, &piece.text);
            }
            column += size;
        }
        self.end_line();
    }

    /// A label in its own column, then prose beside it.
    pub fn labelled(&mut self, label: Piece, column: usize, pieces: &[Piece]) {
        let gap = column.saturating_sub(label.width()).max(1);
        let mut all = vec![label, plain(" ".repeat(gap))];
        all.extend_from_slice(pieces);
        self.prose(column, &all);
    }

    fn push(&mut self, style: Style, text: &str) {
        let text = text.replace(NO_BREAK, " ");
        match self.row.last_mut() {
            Some((last, run)) if *last == style => run.push_str(&text),
            _ => self.row.push((style, text)),
        }
    }

    fn end_line(&mut self) {
        while let Some((style, mut run)) = self.row.pop() {
            run.truncate(run.trim_end_matches(' ').len());
            if !run.is_empty() {
                self.row.push((style, run));
                break;
            }
        }
        for (style, run) in std::mem::take(&mut self.row) {
            if self.color && style != style::PLAIN && !run.trim().is_empty() {
                self.out.push_str(&format!("{style}{run}{style:#}"));
            } else {
                self.out.push_str(&run);
            }
        }
        self.out.push('\n');
    }
}

/// Parts up to and with a space; a word can span pieces.
fn words(pieces: &[Piece]) -> Vec<Vec<(Style, &str)>> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    for piece in pieces {
        for part in piece.text.split_inclusive(' ') {
            word.push((piece.style, part));
            if part.ends_with(' ') {
                words.push(std::mem::take(&mut word));
            }
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Escapes, line breaks and direction overrides become visible text.
    #[test]
    fn hostile_text_is_escaped() {
        assert_eq!(clean("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(clean("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(clean("überfall<T>"), "überfall<T>");
    }

    // A long name keeps both ends.
    #[test]
    fn names_are_cut_in_the_middle() {
        assert_eq!(
            shorten_middle("std::vector<int>::push_back", 13),
            "std::v…h_back"
        );
        assert_eq!(shorten_middle("short", 13), "short");
    }

    // A long path keeps its end, from a slash on when there is one.
    #[test]
    fn paths_are_cut_on_the_left() {
        assert_eq!(shorten_left("/usr/src/server/main.c:42", 14), "…/main.c:42");
        assert_eq!(
            shorten_left("averyveryverylongname.c:42", 12),
            "…ngname.c:42"
        );
    }

    // Words that do not fit go to the next line, which begins at the hanging column.
    #[test]
    fn prose_hangs() {
        let mut page = Page::new(40, false);
        page.labelled(
            plain("Label"),
            8,
            &[plain("one two three four five six seven eight")],
        );
        insta::assert_snapshot!(page.finish(), @r"
        Label   one two three four five six
                seven eight
        ");
    }

    // A number and its unit stay together; a word wider than the page is broken, not cut.
    #[test]
    fn tight_and_wide_words() {
        let mut page = Page::new(40, false);
        let path = "/usr/lib/x86_64-linux-gnu/some/very/long/path/libexample.so";
        page.prose(
            4,
            &[
                plain("about twenty seven columns and "),
                plain(tight("+1.20 MiB/s")),
            ],
        );
        page.prose(4, &[plain(path)]);
        insta::assert_snapshot!(page.finish(), @r"
        about twenty seven columns and
            +1.20 MiB/s
        /usr/lib/x86_64-linux-gnu/some/very/long
            /path/libexample.so
        ");
    }

    proptest! {
        // Nothing shortened is wider than asked, and cleaning leaves no control character.
        #[test]
        fn shortened_fits(text in "\\PC*", columns in 0_usize..60) {
            prop_assert!(width(&shorten_middle(&text, columns)) <= columns);
            prop_assert!(width(&shorten_left(&text, columns)) <= columns);
        }

        // No line of prose is wider than the page, whatever the words.
        #[test]
        fn prose_fits(text in "[a-zA-Z ü☃]{0,200}", columns in 40_usize..120) {
            let mut page = Page::new(columns, false);
            page.prose(4, &[plain(&text)]);
            for line in page.finish().lines() {
                prop_assert!(width(line) <= columns, "{line:?}");
            }
        }

        // Cleaned text has nothing a terminal would obey.
        #[test]
        fn clean_is_clean(text: String) {
            prop_assert!(!clean(&text).chars().any(is_hostile));
        }
    }
}
