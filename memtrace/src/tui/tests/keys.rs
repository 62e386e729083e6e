//! What each key does.

use super::*;
use crate::tui::state::Input;

/// The functions in the list, from the top.
fn names(state: &State) -> Vec<String> {
    let moment = state.shown.as_ref().unwrap();
    let stacks = state.rows.iter().map(|&at| &moment.report.stacks[at]);
    stacks
        .map(|stack| stack.frames[1].function.clone().unwrap())
        .collect()
}

fn figures<T>(state: &State, of: impl Fn(&Stack) -> T) -> Vec<T> {
    let moment = state.shown.as_ref().unwrap();
    let rows = state.rows.iter();
    rows.map(|&at| of(&moment.report.stacks[at])).collect()
}

// Every sort key sorts by what it says, and r reverses.
#[test]
fn sorting() {
    let mut state = showing((80, 24), many(50));
    assert!(figures(&state, |s| s.outstanding_bytes).is_sorted_by(|a, b| a >= b));
    press(&mut state, "g");
    assert!(figures(&state, |s| s.growth_bytes_per_second).is_sorted_by(|a, b| a >= b));
    press(&mut state, "n");
    assert!(figures(&state, |s| s.outstanding_objects).is_sorted_by(|a, b| a >= b));
    press(&mut state, "a");
    let age = |s: &Stack| s.oldest_seconds.unwrap_or(-1.0);
    assert!(figures(&state, age).is_sorted_by(|a, b| a >= b));
    press(&mut state, "r");
    assert!(figures(&state, age).is_sorted_by(|a, b| a <= b));
    assert_eq!(state.rows.len(), 50);
}

// Every word of the filter must be in some frame: function, module or file, in any case.
#[test]
fn filtering() {
    let mut state = showing((80, 24), many(50));
    press(&mut state, "/HANDLER_4");
    assert_eq!(state.rows.len(), 11);
    press(&mut state, "2 WARM.c libcache");
    assert_eq!(names(&state), ["handler_42"]);
    press(&mut state, "<enter>");
    assert_eq!(
        (state.rows.len(), state.filter.as_str()),
        (1, "HANDLER_42 WARM.c libcache")
    );
    press(&mut state, "<esc>");
    assert_eq!(state.rows.len(), 50);
    press(&mut state, "/x<esc>");
    assert_eq!(state.filter, "");
}

// In the filter and in a mark's name q is a letter, and pasted text is never a command.
#[test]
fn typed_text_is_no_command() {
    let mut state = showing((80, 24), many(5));
    assert!(press(&mut state, "/quit?w").is_empty());
    assert_eq!(state.filter, "quit?w");
    let effects = press(&mut state, "<enter>mqw?<enter>");
    assert!(
        matches!(&effects[..], [Effect::Mark(name)] if name == "qw?"),
        "{effects:?}"
    );
    assert!(update(&mut state, Message::Paste("qqq".into())).is_none());
    assert!(matches!(press(&mut state, "q")[..], [Effect::Quit]));
    assert!(matches!(press(&mut state, "/<^c>")[..], [Effect::Quit]));
}

// The selection follows its stack, not its rank; when the stack is gone it stays where it was.
#[test]
fn selection_follows_the_stack() {
    let mut state = showing((80, 24), many(10));
    press(&mut state, "<down><down><down>");
    let selected = state.selected.unwrap();
    assert_eq!(state.selected_row(), Some(3));
    let mut report = many(10);
    report.stacks[3].outstanding_bytes = 1 << 40;
    update(&mut state, Message::Moment(moment(report.clone())));
    assert_eq!(
        (state.selected, state.selected_row()),
        (Some(selected), Some(0))
    );
    press(&mut state, "<down><down>");
    let at = state.rows[2];
    report.stacks.remove(at);
    update(&mut state, Message::Moment(moment(report)));
    assert_eq!(state.selected_row(), Some(2));
}

// Frozen, what comes is kept and not shown; then the newest is.
#[test]
fn freezing() {
    let mut state = showing((80, 24), many(10));
    press(&mut state, "f");
    update(&mut state, Message::Moment(moment(many(20))));
    update(&mut state, Message::Moment(moment(many(30))));
    assert_eq!(state.rows.len(), 10);
    press(&mut state, "f");
    assert_eq!(state.rows.len(), 30);
}

// A mark is asked for by its name, or a number where none was typed; a session that is over takes none.
#[test]
fn asking_for_marks() {
    let mut state = showing((80, 24), many(2));
    for (keys, wanted) in [("m<enter>", "mark 1"), ("m cycle 5 <enter>", "cycle 5")] {
        let effects = press(&mut state, keys);
        assert!(
            matches!(&effects[..], [Effect::Mark(name)] if name == wanted),
            "{effects:?}"
        );
    }
    assert!(press(&mut state, "mx<esc>").is_empty());
    update(&mut state, Message::Ended("over".into()));
    assert!(press(&mut state, "m<enter>").is_empty());
    assert_eq!(state.input, Input::Commands);
}

// What was gained since the last mark, also by a stack that came later.
#[test]
fn marks() {
    let (then, mut report) = (moment(many(2)), many(3));
    report.stacks[0].outstanding_bytes += 4096;
    report.stacks[0].outstanding_objects += 4;
    let shown = marked(&moment(report), "deployed", 9.0, &then);
    let mut state = State::new((80, 24));
    update(&mut state, Message::Moment(Arc::clone(&shown)));
    let since = |at: usize| {
        let stack = &shown.report.stacks[at];
        let (bytes, objects) = (stack.outstanding_bytes, stack.outstanding_objects);
        state.since_mark(shown.stacks[at].key, bytes, objects)
    };
    assert_eq!(since(0), Some((4096, 4)));
    assert_eq!(since(1), Some((0, 0)));
    let new = &shown.report.stacks[2];
    let all = (
        i128::from(new.outstanding_bytes),
        i128::from(new.outstanding_objects),
    );
    assert_eq!(since(2), Some(all));
}

// A process's stacks, and back to the process.
#[test]
fn into_a_process_and_back() {
    let mut state = showing((80, 24), many(30));
    press(&mut state, "<tab><down>");
    let process = state.selected;
    press(&mut state, "<enter>");
    assert_eq!(state.rows.len(), 10);
    let pids = figures(&state, |s| s.pid);
    assert!(pids.iter().all(|pid| *pid == 1235), "{pids:?}");
    press(&mut state, "<esc>");
    assert_eq!((state.selected, state.rows.len()), (process, 3));
    press(&mut state, "<tab><enter>");
    let pids = figures(&state, |s| s.pid);
    assert_eq!(pids.len(), 20);
    assert!(!pids.contains(&1234), "the container has two processes");
    press(&mut state, "<esc><backtab><backtab>");
    assert_eq!(state.rows.len(), 30);
}

// A snapshot is of what is shown, and one at a time.
#[test]
fn snapshots() {
    let mut state = showing((80, 24), many(3));
    press(&mut state, "f");
    update(&mut state, Message::Moment(moment(many(9))));
    let effects = press(&mut state, "ww");
    let [Effect::Write(written)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(written.report.stacks.len(), 3);
    update(&mut state, Message::Written("written to x".into()));
    assert_eq!(state.notice.as_deref(), Some("written to x"));
    assert_eq!(press(&mut state, "w").len(), 1);
}

// A stack that is open and goes away closes.
#[test]
fn open_stack_goes_away() {
    let mut state = showing((80, 24), many(3));
    press(&mut state, "<end><enter>");
    assert!(state.open.is_some());
    update(&mut state, Message::Moment(moment(many(2))));
    assert_eq!(state.open, None);
    assert!(state.notice.is_some());
}

// Keys of the time cursor ask for moments, also while a stack is open; typed into a filter they are letters.
#[test]
fn replaying() {
    let mut state = State::new((80, 24));
    update(
        &mut state,
        Message::Moment(recorded(&moment(many(5)), None, 1.0)),
    );
    let seeks = |state: &mut State, keys: &str| -> Vec<Seek> {
        let effects = press(state, keys).into_iter();
        let seek = |effect| match effect {
            Effect::Seek(seek) => seek,
            other => panic!("{other:?}"),
        };
        effects.map(seek).collect()
    };
    let all = seeks(&mut state, "<left><right>,.[]<home><end> +-f");
    let expected = [
        Seek::Step(-1),
        Seek::Step(1),
        Seek::Tenths(-1),
        Seek::Tenths(1),
        Seek::Mark(-1),
        Seek::Mark(1),
        Seek::First,
        Seek::Last,
        Seek::Toggle,
        Seek::Speed(1),
        Seek::Speed(-1),
        Seek::Toggle,
    ];
    assert_eq!(all, expected);
    assert_eq!(seeks(&mut state, "<enter><right>"), [Seek::Step(1)]);
    assert_eq!(seeks(&mut state, "<esc>/a+<right>"), []);
    assert_eq!(state.filter, "a+");
    assert_eq!(seeks(&mut state, "<esc>m"), []);
    assert!(state.notice.is_some() && state.input == Input::Commands);
    let mut live = showing((80, 24), many(5));
    assert!(press(&mut live, "<left><right><home><end>[]+-").is_empty());
}

// A stack that is open stays so where it does not exist yet: the cursor may come back.
#[test]
fn open_stack_of_another_moment() {
    let mut state = State::new((80, 24));
    let shown = |stacks| Message::Moment(recorded(&moment(many(stacks)), None, 1.0));
    update(&mut state, shown(3));
    press(&mut state, "<down><down><enter>");
    let open = state.open;
    update(&mut state, shown(2));
    assert!(screen(&state).contains("holds nothing"));
    update(&mut state, shown(3));
    assert!(state.open == open && screen(&state).contains("Frames"));
}
