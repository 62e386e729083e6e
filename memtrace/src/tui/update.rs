//! How a message changes the state, and what it asks for. Pure.

use std::sync::Arc;

use super::{
    moment::Moment,
    replay::Seek,
    rows,
    state::{Input, MAX_INPUT, Scope, Sort, State, Tab},
    view,
};

/// A key, whatever the terminal sent for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyPress {
    Char(char),
    /// With the control key.
    Control(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Key(KeyPress),
    /// Text put in at once; never a command.
    Paste(String),
    Moment(Arc<Moment>),
    Resize(u16, u16),
    Notice(String),
    /// A snapshot was written, or why not.
    Written(String),
    /// Nothing more will come.
    Ended(String),
}

/// What is to be done outside.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Quit,
    /// Write this to a file.
    Write(Arc<Moment>),
    /// Name this moment.
    Mark(String),
    /// Go to another moment of the recording.
    Seek(Seek),
}

/// Takes a message.
pub(super) fn update(state: &mut State, message: Message) -> Option<Effect> {
    let effect = match message {
        Message::Key(key) => {
            state.notice = None;
            press(state, key)
        }
        Message::Paste(text) => {
            text.chars().for_each(|c| type_in(state, c));
            None
        }
        Message::Moment(moment) => {
            state.newest = Some(Arc::clone(&moment));
            if !state.is_frozen {
                state.shown = Some(moment);
            }
            None
        }
        Message::Resize(columns, rows) => {
            state.size = (columns, rows);
            None
        }
        Message::Notice(text) => {
            state.notice = Some(text);
            None
        }
        Message::Written(text) => {
            state.is_writing = false;
            state.notice = Some(text);
            None
        }
        Message::Ended(why) => {
            state.ended = Some(why);
            None
        }
    };
    settle(state);
    effect
}

fn press(state: &mut State, key: KeyPress) -> Option<Effect> {
    if key == KeyPress::Control('c') {
        return Some(Effect::Quit);
    }
    if state.help.is_some() {
        help(state, key)
    } else if state.input != Input::Commands {
        edit(state, key)
    } else {
        command(state, key)
    }
}

fn help(state: &mut State, key: KeyPress) -> Option<Effect> {
    let page = page(state);
    let at = state.help.unwrap_or(0);
    state.help = match key {
        KeyPress::Char('q' | '?') | KeyPress::Escape | KeyPress::Enter => None,
        key => Some(scrolled(at, key, page)),
    };
    None
}

/// Where a text scrolls to; [`settle`] keeps it inside.
fn scrolled(at: usize, key: KeyPress, page: usize) -> usize {
    match key {
        KeyPress::Up | KeyPress::Char('k') => at.saturating_sub(1),
        KeyPress::Down | KeyPress::Char('j') => at.saturating_add(1),
        KeyPress::PageUp => at.saturating_sub(page),
        KeyPress::PageDown | KeyPress::Char(' ') => at.saturating_add(page),
        KeyPress::Home => 0,
        KeyPress::End => usize::MAX,
        _ => at,
    }
}

fn edit(state: &mut State, key: KeyPress) -> Option<Effect> {
    match key {
        KeyPress::Char(c) => type_in(state, c),
        KeyPress::Backspace => {
            if let Some(text) = text(state) {
                text.pop();
            }
        }
        KeyPress::Control('u') => {
            if let Some(text) = text(state) {
                text.clear();
            }
        }
        KeyPress::Enter => {
            if let Input::Mark(name) = std::mem::take(&mut state.input) {
                return Some(mark(state, &name));
            }
        }
        KeyPress::Escape => {
            let typed = std::mem::take(&mut state.input);
            if typed == Input::Filter {
                state.filter.clear();
            }
        }
        // The list stays in reach while the filter is typed.
        KeyPress::Up | KeyPress::Down | KeyPress::PageUp | KeyPress::PageDown
            if state.input == Input::Filter =>
        {
            select(state, key);
        }
        _ => {}
    }
    None
}

/// The text being typed.
fn text(state: &mut State) -> Option<&mut String> {
    match &mut state.input {
        Input::Commands => None,
        Input::Filter => Some(&mut state.filter),
        Input::Mark(name) => Some(name),
    }
}

fn type_in(state: &mut State, c: char) {
    let Some(text) = text(state) else { return };
    if !c.is_control() && text.chars().count() < MAX_INPUT {
        text.push(c);
    }
}

fn command(state: &mut State, key: KeyPress) -> Option<Effect> {
    if state.cursor().is_some()
        && let Some(seek) = seek(key)
    {
        return Some(Effect::Seek(seek));
    }
    match key {
        KeyPress::Char('q') => return Some(Effect::Quit),
        KeyPress::Char('?') => state.help = Some(0),
        KeyPress::Char('f') => freeze(state),
        KeyPress::Char('m') => begin_mark(state),
        KeyPress::Char('w') => return write(state),
        KeyPress::Escape | KeyPress::Backspace => back(state),
        key if state.open.is_some() => {
            state.open_scroll = scrolled(state.open_scroll, key, page(state));
        }
        key => list(state, key),
    }
    None
}

/// What a key does to the time cursor of a recording.
fn seek(key: KeyPress) -> Option<Seek> {
    Some(match key {
        KeyPress::Left => Seek::Step(-1),
        KeyPress::Right => Seek::Step(1),
        KeyPress::Char('<' | ',') => Seek::Tenths(-1),
        KeyPress::Char('>' | '.') => Seek::Tenths(1),
        KeyPress::Char('[') => Seek::Mark(-1),
        KeyPress::Char(']') => Seek::Mark(1),
        KeyPress::Home => Seek::First,
        KeyPress::End => Seek::Last,
        KeyPress::Char(' ' | 'f') => Seek::Toggle,
        KeyPress::Char('+' | '=') => Seek::Speed(1),
        KeyPress::Char('-') => Seek::Speed(-1),
        _ => return None,
    })
}

/// Keys of the list.
fn list(state: &mut State, key: KeyPress) {
    match key {
        KeyPress::Char('/') => state.input = Input::Filter,
        KeyPress::Char('o') => sort(state, Sort::Outstanding),
        KeyPress::Char('g') => sort(state, Sort::Growth),
        KeyPress::Char('n') => sort(state, Sort::Objects),
        KeyPress::Char('a') => sort(state, Sort::Age),
        KeyPress::Char('s') => {
            let at = Sort::ALL.iter().position(|sort| *sort == state.sort);
            let next = at.map_or(0, |at| (at + 1) % Sort::ALL.len());
            let next = Sort::ALL.get(next).copied().unwrap_or_default();
            sort(state, next);
        }
        KeyPress::Char('r') => state.is_reversed = !state.is_reversed,
        KeyPress::Tab => tab(state, 1),
        KeyPress::BackTab => tab(state, 2),
        KeyPress::Enter => open(state),
        key => select(state, key),
    }
}

fn sort(state: &mut State, sort: Sort) {
    state.sort = sort;
    state.is_reversed = false;
    // What comes to the top is what was asked for.
    state.selected = None;
}

/// Goes on by `step` tabs; containers are one only when there are some.
fn tab(state: &mut State, step: usize) {
    let shown = state.shown.as_deref();
    let has_containers = shown.is_some_and(|moment| {
        let mut processes = moment.report.processes.iter();
        processes.any(|process| process.container.is_some())
    });
    let tabs: &[Tab] = if has_containers {
        &[Tab::Stacks, Tab::Processes, Tab::Containers]
    } else {
        &[Tab::Stacks, Tab::Processes]
    };
    let at = tabs.iter().position(|tab| *tab == state.tab).unwrap_or(0);
    let step = if step == 1 { 1 } else { tabs.len() - 1 };
    state.tab = tabs
        .get((at + step) % tabs.len())
        .copied()
        .unwrap_or_default();
    state.scope = None;
    state.selected = None;
    state.filter.clear();
}

/// Opens the selected row.
fn open(state: &mut State) {
    let (Some(key), Some(moment)) = (state.selected, state.shown.clone()) else {
        return;
    };
    let name = match state.tab {
        Tab::Stacks => {
            state.open = Some(key);
            state.open_scroll = 0;
            return;
        }
        Tab::Processes => moment
            .process_of(key)
            .map(|process| format!("{} ({})", process.pid, process.comm)),
        Tab::Containers => {
            let rows = moment.containers();
            let row = rows.into_iter().find(|row| row.key == key);
            row.map(|row| row.name)
        }
    };
    let Some(name) = name else { return };
    state.scope = Some(Scope {
        key,
        name,
        from: state.tab,
    });
    state.tab = Tab::Stacks;
    state.selected = None;
    state.filter.clear();
}

/// One step out: of the stack, the filter, the process.
fn back(state: &mut State) {
    if state.open.take().is_some() {
        return;
    }
    if !state.filter.is_empty() {
        state.filter.clear();
    } else if let Some(scope) = state.scope.take() {
        state.tab = scope.from;
        state.selected = Some(scope.key);
    }
}

/// Moves the selection.
fn select(state: &mut State, key: KeyPress) {
    let Some(last) = state.rows.len().checked_sub(1) else {
        return;
    };
    let at = state.selected_row().unwrap_or(0);
    let row = scrolled(at, key, page(state)).min(last);
    choose(state, row);
}

fn choose(state: &mut State, row: usize) {
    let keys = state
        .shown
        .as_deref()
        .map(|moment| rows::keys(moment, state.tab));
    state.selected = state.rows.get(row).and_then(|&at| keys?.get(at).copied());
}

fn freeze(state: &mut State) {
    state.is_frozen = !state.is_frozen;
    if !state.is_frozen {
        state.shown.clone_from(&state.newest);
    }
}

fn begin_mark(state: &mut State) {
    if state.cursor().is_some() {
        let text = "marks are set while tracing; here [ and ] go to those that were";
        state.notice = Some(text.to_owned());
    } else if state.ended.is_some() {
        state.notice = Some("nothing is traced any more: this moment cannot be marked".to_owned());
    } else if state.shown.is_some() {
        state.input = Input::Mark(String::new());
    }
}

/// The mark's name as typed; one with a number where nothing was.
fn mark(state: &State, name: &str) -> Effect {
    Effect::Mark(match name.trim() {
        "" => format!("mark {}", state.marks().len() + 1),
        name => name.to_owned(),
    })
}

fn write(state: &mut State) -> Option<Effect> {
    let moment = state.shown.clone()?;
    if std::mem::replace(&mut state.is_writing, true) {
        return None;
    }
    Some(Effect::Write(moment))
}

/// Rows that a page key moves by.
fn page(state: &State) -> usize {
    view::body_height(state).saturating_sub(1).max(1)
}

/// Makes the state whole again: the rows are those of what is shown, the selection is one of
/// them, nothing is scrolled past its end.
fn settle(state: &mut State) {
    state.rows = rows::rows(state);
    if state.selected_row().is_none() {
        // A row that is gone leaves the selection where it was on the screen.
        let row = state.selected.map_or(0, |_| state.row);
        choose(state, row.min(state.rows.len().saturating_sub(1)));
    }
    state.row = state.selected_row().unwrap_or(0);
    // In a recording it may be there again at the next moment.
    let live = state
        .shown
        .as_deref()
        .filter(|moment| moment.cursor.is_none());
    let open = state.open.zip(live);
    if open.is_some_and(|(key, moment)| moment.find_stack(key).is_none()) {
        state.open = None;
        state.notice = Some("the stack that was open is not among those shown any more".into());
    }
    let height = view::list_height(state).max(1);
    let least = (state.row + 1).saturating_sub(height);
    let most = state.row.min(state.rows.len().saturating_sub(height));
    state.first = state.first.min(most).max(least);
    state.open_scroll = state.open_scroll.min(view::open_end(state));
    state.help = state.help.map(|at| at.min(view::help_end(state)));
}
