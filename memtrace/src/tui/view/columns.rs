//! The columns of the list: which there are at a width, and how wide.

use super::Theme;
use crate::tui::state::{Sort, State, Tab};

/// A column of figures before the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// The verdict as one sign.
    Mark,
    /// The verdict as a word.
    Verdict,
    Outstanding,
    Objects,
    Growth,
    Age,
    /// Resident memory of a process.
    Rss,
    /// Gained since the mark.
    Since,
    History,
}

/// Columns from which on there is room for everything.
const WIDE: usize = 110;
/// From which on the past is drawn.
const MIDDLE: usize = 70;

/// What fits into so many columns; the rest is the name's.
pub(super) fn columns(state: &State, width: usize) -> Vec<(Column, usize)> {
    use Column::{Age, Growth, History, Mark, Objects, Outstanding, Rss, Since, Verdict};
    let stacks = state.tab == Tab::Stacks;
    let last = if stacks { Age } else { Rss };
    let last_width = if stacks { 5 } else { 9 };
    let mut columns = if width >= WIDE {
        vec![
            (Verdict, 9),
            (Outstanding, 11),
            (Objects, 9),
            (Growth, 12),
            (last, last_width),
            (History, 20),
        ]
    } else if width >= MIDDLE {
        vec![
            (Mark, 1),
            (Outstanding, 11),
            (Objects, 7),
            (Growth, 11),
            (last, last_width),
            (History, 10),
        ]
    } else if width >= 50 {
        vec![(Mark, 1), (Outstanding, 11), (Growth, 11)]
    } else {
        vec![(Mark, 1), (Outstanding, 8), (Growth, 10)]
    };
    if stacks && state.mark().is_some() {
        let at = columns.iter().position(|(column, _)| *column == Growth);
        let since = (Since, 10);
        match at {
            // Where there is no room for both, it takes the place of growth.
            Some(at) if width < MIDDLE => columns[at] = since,
            Some(at) => columns.insert(at + 1, since),
            None => columns.push(since),
        }
        if width < WIDE {
            columns.retain(|(column, _)| *column != Objects || state.sort == Sort::Objects);
        }
    }
    columns
}

impl Column {
    /// Its name, in at most so many columns.
    pub fn title(self, width: usize) -> &'static str {
        match self {
            Self::Mark => "",
            Self::Verdict => "VERDICT",
            Self::Outstanding if width < 11 => "OUTST.",
            Self::Outstanding => "OUTSTANDING",
            Self::Objects => "OBJECTS",
            Self::Growth => "GROWTH",
            Self::Age => "AGE",
            Self::Rss => "RSS",
            Self::Since => "SINCE MARK",
            Self::History => "HISTORY",
        }
    }

    /// Words and pictures begin on the left, figures end on the right.
    pub fn is_left(self) -> bool {
        matches!(self, Self::Mark | Self::Verdict)
    }

    /// What sorting by it is called.
    pub fn sort(self) -> Option<Sort> {
        match self {
            Self::Outstanding => Some(Sort::Outstanding),
            Self::Objects => Some(Sort::Objects),
            Self::Growth => Some(Sort::Growth),
            Self::Age => Some(Sort::Age),
            _ => None,
        }
    }

    /// The style of its title.
    pub fn style(self, state: &State, theme: Theme) -> ratatui::style::Style {
        if self.sort() == Some(state.sort) {
            theme.sorted()
        } else {
            theme.title()
        }
    }
}
