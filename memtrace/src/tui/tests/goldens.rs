//! What the screen looks like.

use insta::assert_snapshot;

use super::*;
use crate::ledger::regions::RegionKind;

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (120, 40);
const PHONE: (u16, u16) = (40, 20);

fn losses() -> Report {
    let mut report = fixtures::leak();
    report.losses.insert("live_full".to_owned(), 120_345);
    report.losses.insert("stack_copies_lost".to_owned(), 7);
    report.overhead.sample_bytes = 524_288;
    report
}

fn empty() -> Report {
    let mut report = fixtures::leak();
    report.stacks.clear();
    report.intervals.completed = 0;
    report
}

// Before the first report, and with nothing outstanding.
#[test]
fn nothing_yet() {
    assert_snapshot!("starting_80", screen(&State::new(SMALL)));
    assert_snapshot!("empty_80", screen(&showing(SMALL, empty())));
    assert_snapshot!("empty_40", screen(&showing(PHONE, empty())));
}

// A leak and a plateau at each size.
#[test]
fn few_stacks() {
    assert_snapshot!("few_80", screen(&showing(SMALL, fixtures::leak())));
    assert_snapshot!("few_120", screen(&showing(LARGE, fixtures::leak())));
    assert_snapshot!("few_40", screen(&showing(PHONE, fixtures::leak())));
}

// More stacks than rows: the selected one is on the screen.
#[test]
fn many_stacks() {
    for (size, name) in [(SMALL, "many_80"), (LARGE, "many_120"), (PHONE, "many_40")] {
        let mut state = showing(size, many(200));
        press(&mut state, "<pgdn><pgdn><down>");
        assert_snapshot!(name, screen(&state));
    }
}

// Losses are in the header wherever there is one.
#[test]
fn with_losses() {
    assert_snapshot!("losses_80", screen(&showing(SMALL, losses())));
    assert_snapshot!("losses_40", screen(&showing(PHONE, losses())));
}

// Frozen with a mark; the report that came meanwhile is not shown.
#[test]
fn frozen() {
    let mut state = State::new(SMALL);
    let shown = moment(fixtures::leak());
    let shown = marked(&shown, "cycle 5", 20.0, &shown);
    update(&mut state, Message::Moment(shown));
    press(&mut state, "f");
    update(&mut state, Message::Moment(moment(many(3))));
    assert_snapshot!("frozen_80", screen(&state));
}

// A filter while it is typed and after it.
#[test]
fn filtered() {
    let mut state = showing(SMALL, many(200));
    press(&mut state, "/handler_12");
    assert_snapshot!("filter_typed_80", screen(&state));
    press(&mut state, "<enter>s");
    assert_snapshot!("filter_kept_80", screen(&state));
    let mut state = showing(PHONE, many(200));
    press(&mut state, "/no such thing");
    assert_snapshot!("filter_nothing_40", screen(&state));
}

// A stack that was opened, with marks in its picture.
#[test]
fn opened() {
    for (size, name) in [(SMALL, "open_80"), (LARGE, "open_120"), (PHONE, "open_40")] {
        let mut state = State::new(size);
        let shown = moment(fixtures::leak());
        let shown = marked(&shown, "deployed", 9.0, &moment(empty()));
        update(&mut state, Message::Moment(shown));
        press(&mut state, "<enter>");
        assert_snapshot!(name, screen(&state));
    }
    let mut state = showing(PHONE, fixtures::leak());
    press(&mut state, "<enter><end>");
    assert_snapshot!("open_end_40", screen(&state));
}

// Help, whole and scrolled.
#[test]
fn help() {
    for (size, name) in [(SMALL, "help_80"), (LARGE, "help_120"), (PHONE, "help_40")] {
        let mut state = showing(size, fixtures::leak());
        press(&mut state, "?<pgdn>");
        assert_snapshot!(name, screen(&state));
    }
}

// Processes and containers, and the stacks of one.
#[test]
fn processes_and_containers() {
    let mut state = showing(SMALL, many(20));
    press(&mut state, "<tab>");
    assert_snapshot!("processes_80", screen(&state));
    press(&mut state, "<tab>");
    assert_snapshot!("containers_80", screen(&state));
    press(&mut state, "<enter>");
    assert_snapshot!("container_stacks_80", screen(&state));
    let mut state = showing(LARGE, many(20));
    press(&mut state, "<tab><down>");
    assert_snapshot!("processes_120", screen(&state));
}

// Names made to break a screen stay in their cells.
#[test]
fn hostile_names() {
    let mut report = fixtures::hostile();
    let wide = "\u{8a18}\u{61b6}\u{4f53}".repeat(40);
    let fickle = "e\u{301}\u{301} \u{1f468}\u{200d}\u{1f469} \u{1f1e9}\u{1f1ea} \u{1100}\u{1161}";
    report.stacks[1].frames[1].function = Some(wide.clone());
    report.stacks[1].frames[2].function = Some(fickle.to_owned());
    report.processes[0].comm.push_str(&wide);
    for (size, name) in [(SMALL, "hostile_80"), (PHONE, "hostile_40")] {
        let mut state = showing(size, report.clone());
        assert_snapshot!(name, screen(&state));
        press(&mut state, "<down><enter>");
        assert_snapshot!(format!("{name}_open"), screen(&state));
    }
}

// Stacks of several probes say which; what is no memory in use comes last, whatever it is sorted by.
#[test]
fn probes() {
    let mut report = fixtures::leak();
    report.probes = vec!["heap", "region", "fault"];
    for (probe, kind) in [
        ("region", Some(RegionKind::Reservation)),
        ("region", Some(RegionKind::Anonymous)),
        ("fault", None),
    ] {
        let rank = report.stacks.len() + 1;
        let mut stack = fixtures::stack(rank, 1 << 30, 1, Verdict::Steady);
        (stack.probe, stack.kind) = (probe, kind);
        report.stacks.push(stack);
    }
    let mut recorded = Moment::clone(&moment(report));
    recorded.is_recording = true;
    let mut state = State::new(SMALL);
    update(&mut state, Message::Moment(Arc::new(recorded)));
    assert_snapshot!("probes_80", screen(&state));
    press(&mut state, "/reservation");
    assert_eq!(state.rows, [2]);
}

// Nothing more comes: why is said, and what is there stays.
#[test]
fn ended() {
    let mut state = showing(SMALL, fixtures::leak());
    let why = "all traced processes have ended".to_owned();
    update(&mut state, Message::Ended(why));
    assert_snapshot!("ended_80", screen(&state));
}

// A screen without room says so, and one line high is no panic.
#[test]
fn tiny() {
    assert_eq!(
        screen(&showing((12, 3), fixtures::leak())),
        "|too small\n|\n|\n"
    );
    for size in [(1, 1), (20, 6), (200, 7), (0, 0)] {
        let state = showing(size, many(30));
        if size != (0, 0) {
            assert_eq!(screen(&state).lines().count(), usize::from(size.1));
        }
    }
}

// Without colours nothing sets one.
#[test]
fn no_color() {
    use ratatui::style::Color;
    let mut state = showing(SMALL, losses());
    press(&mut state, "mx<enter><enter>");
    for keys in ["", "<esc>", "/a", "<enter>?"] {
        press(&mut state, keys);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal
            .draw(|frame| view::draw(frame, &state, Theme::new(false)))
            .unwrap();
        let cells = terminal.backend().buffer().content();
        let colored = cells
            .iter()
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(colored.count(), 0, "after {keys}");
    }
}

// A recording: the timeline with its marks, at each size, played, opened, and its keys in the help.
#[test]
fn replay() {
    let shown = moment(fixtures::leak());
    let shown = marked(&shown, "deployed", 10.5, &moment(empty()));
    for (size, name) in [
        (SMALL, "replay_80"),
        (LARGE, "replay_120"),
        (PHONE, "replay_40"),
        ((40, 12), "replay_40x12"),
    ] {
        let mut state = State::new(size);
        update(&mut state, Message::Moment(recorded(&shown, None, 1.0)));
        assert_snapshot!(name, screen(&state));
    }
    let mut state = State::new(SMALL);
    update(
        &mut state,
        Message::Moment(recorded(&shown, Some(10), 0.43)),
    );
    press(&mut state, "<enter>");
    assert_snapshot!("replay_open_80", screen(&state));
    press(&mut state, "?");
    assert_snapshot!("replay_help_80", screen(&state));
}

// As small as a corner of a screen: a list, an open stack and the help still tell something.
#[test]
fn corner() {
    let mut state = showing((40, 12), fixtures::leak());
    assert_snapshot!("corner_40x12", screen(&state));
    press(&mut state, "<enter>");
    assert_snapshot!("corner_open_40x12", screen(&state));
    press(&mut state, "?");
    assert_snapshot!("corner_help_40x12", screen(&state));
}
