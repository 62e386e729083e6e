//! What is on the screen. Pure: [`super::update`] changes it, [`super::view`] draws it.

use std::sync::Arc;

use super::{
    moment::{Key, Mark, Moment},
    replay::Cursor,
    rows,
};

/// Longest filter and name of a mark, in characters.
pub(super) const MAX_INPUT: usize = 120;

/// What the rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Stacks,
    Processes,
    Containers,
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Outstanding,
    Growth,
    Objects,
    Age,
}

impl Sort {
    /// The order in which `s` goes through them.
    pub const ALL: [Self; 4] = [Self::Outstanding, Self::Growth, Self::Objects, Self::Age];

    pub fn word(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::Growth => "growth",
            Self::Objects => "objects",
            Self::Age => "age",
        }
    }
}

/// Where typed characters go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Input {
    /// Each is a command.
    #[default]
    Commands,
    /// Into the filter.
    Filter,
    /// Into the name of a mark.
    Mark(String),
}

/// Which rows belong to what was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// Of the process or container.
    pub key: Key,
    /// What it is called.
    pub name: String,
    /// Where it was opened.
    pub from: Tab,
}

/// Everything on the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Columns and rows.
    pub size: (u16, u16),
    /// The moment shown.
    pub shown: Option<Arc<Moment>>,
    /// The newest one; another than the shown one while frozen.
    pub newest: Option<Arc<Moment>>,
    pub is_frozen: bool,
    /// Why nothing more will come.
    pub ended: Option<String>,
    pub tab: Tab,
    pub sort: Sort,
    pub is_reversed: bool,
    pub filter: String,
    pub input: Input,
    pub scope: Option<Scope>,
    /// The rows, as places in the report's list of what the tab is about.
    pub rows: Vec<usize>,
    /// The first row on the screen.
    pub first: usize,
    pub selected: Option<Key>,
    /// Where the selected row was when it was last there.
    pub row: usize,
    /// The stack that is open.
    pub open: Option<Key>,
    /// The first line of the open stack that is on the screen.
    pub open_scroll: usize,
    /// The first line of the help that is on the screen; nothing while it is closed.
    pub help: Option<usize>,
    /// What to tell the user, until the next key.
    pub notice: Option<String>,
    /// A snapshot is on its way to its file.
    pub is_writing: bool,
}

impl State {
    /// An empty screen of this size.
    pub fn new(size: (u16, u16)) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Where the selected row is among the rows.
    pub fn selected_row(&self) -> Option<usize> {
        let moment = self.shown.as_deref()?;
        let key = self.selected?;
        let keys = rows::keys(moment, self.tab);
        self.rows
            .iter()
            .position(|&at| keys.get(at).copied() == Some(key))
    }

    /// Where in a recording the moment shown is; nothing when it is live.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.shown.as_deref()?.cursor.as_ref()
    }

    /// What was marked until the moment shown.
    pub fn marks(&self) -> &[Arc<Mark>] {
        let shown = self.shown.as_deref();
        shown
            .map(|moment| moment.marks.as_slice())
            .unwrap_or_default()
    }

    /// The mark that growth is shown since: the last one.
    pub fn mark(&self) -> Option<&Mark> {
        self.marks().last().map(Arc::as_ref)
    }

    /// Bytes and objects that a stack gained since [`State::mark`]. A stack that came later had
    /// nothing then.
    pub fn since_mark(&self, key: Key, bytes: u64, objects: u64) -> Option<(i128, i128)> {
        let mark = self.mark()?;
        let (then, then_objects) = mark.stacks.get(&key).copied().unwrap_or_default();
        Some((
            i128::from(bytes) - i128::from(then),
            i128::from(objects) - i128::from(then_objects),
        ))
    }
}
