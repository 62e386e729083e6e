//! The screen as a user sees it, and what random keys do to it.

mod goldens;
mod keys;
mod random;

use std::sync::Arc;

use ratatui::{Terminal, backend::TestBackend, style::Modifier};

use super::{
    moment::{Key, Moment, Past},
    replay::{Cursor, Seek},
    state::State,
    update::{Effect, KeyPress, Message, update},
    view::{self, Theme},
};
use crate::{
    ledger::Point,
    report::{
        fixtures,
        model::{Container, Report, Stack},
    },
    trend::Verdict,
};

/// A moment of a report: every series rises to what is outstanding in its time.
fn moment(report: Report) -> Arc<Moment> {
    let seconds = report.duration_seconds;
    let rising = |to: u64| -> Vec<Point> {
        let step = |n: u64| Point {
            at: seconds * n as f64 / 12.0,
            bytes: to / 12 * n,
        };
        (0..=12).map(step).collect()
    };
    let spaces = |pid: u32| u64::from(pid) << 8;
    let stacks = report.stacks.iter().enumerate().map(|(at, stack)| Past {
        key: Key::of_stack(
            spaces(stack.pid),
            identity(stack).unwrap_or(at as u64),
            stack,
        ),
        points: rising(stack.outstanding_bytes),
    });
    let processes = report.processes.iter().map(|process| Past {
        key: Key::of_process(spaces(process.pid)),
        points: rising(process.outstanding_bytes),
    });
    let (stacks, processes) = (stacks.collect(), processes.collect());
    Arc::new(Moment {
        report,
        stacks,
        processes,
        marks: Vec::new(),
        is_recording: false,
        cursor: None,
    })
}

/// The same moment as the third of five of a recording, with marks at its start and later.
fn recorded(moment: &Moment, playing: Option<u32>, read: f64) -> Arc<Moment> {
    let mut moment = moment.clone();
    moment.cursor = Some(Cursor {
        file: "leak.memtrace".to_owned(),
        number: 3,
        reports: 5,
        seconds: 30.5,
        first: 10.5,
        last: 50.5,
        playing,
        speed: 10,
        marks: Arc::new([10.5, 40.5]),
        read,
    });
    Arc::new(moment)
}

/// The same moment with a mark that was set `seconds` after the start, when all was `held`.
fn marked(moment: &Moment, name: &str, seconds: f64, held: &Moment) -> Arc<Moment> {
    let mut moment = moment.clone();
    let mut mark = held.mark(name.to_owned());
    mark.at = seconds;
    moment.marks.push(Arc::new(mark));
    Arc::new(moment)
}

/// Stacks of [`many`] carry their identity in a name, so that another order is another moment of
/// the same stacks.
fn identity(stack: &Stack) -> Option<u64> {
    let function = stack.frames.get(1)?.function.as_deref()?;
    function.strip_prefix("handler_")?.parse().ok()
}

/// So many stacks, of all verdicts, in three processes, two of them in one container.
fn many(stacks: usize) -> Report {
    const VERDICTS: [Verdict; 7] = [
        Verdict::Growing,
        Verdict::Plateau,
        Verdict::Sawtooth,
        Verdict::Spike,
        Verdict::Steady,
        Verdict::Shrinking,
        Verdict::TooEarly,
    ];
    let mut report = fixtures::leak();
    report.stacks = (0..stacks)
        .map(|n| {
            let bytes = 1_u64 << (30 - n % 28);
            let mut stack = fixtures::stack(n + 1, bytes, n as u64 * 37 + 1, VERDICTS[n % 7]);
            stack.pid = 1234 + (n % 3) as u32;
            stack.growth_bytes_per_second = (n * 7919 % 100_000) as f64 - 20_000.0;
            stack.oldest_seconds = (!n.is_multiple_of(5)).then_some(n as f64 * 61.0);
            stack.frames[1].function = Some(format!("handler_{n}"));
            stack
        })
        .collect();
    let first = report.processes[0].clone();
    report.target.value = "1234,1235,1236".to_owned();
    report.processes = (0..3)
        .map(|n| {
            let mut process = first.clone();
            process.pid = 1234 + n;
            process.comm = format!("worker-{n}");
            process.outstanding_bytes >>= n;
            process.container = (n > 0).then(|| Container {
                runtime: "containerd".to_owned(),
                id: "4f".repeat(32),
                name: Some("api".to_owned()),
                pod: Some("shop-7d9".to_owned()),
                namespace: Some("prod".to_owned()),
                ..Container::default()
            });
            process
        })
        .collect();
    report
}

/// A screen of this size that shows this.
fn showing(size: (u16, u16), report: Report) -> State {
    let mut state = State::new(size);
    update(&mut state, Message::Moment(moment(report)));
    state
}

/// Presses keys: a character each, others in angle brackets.
fn press(state: &mut State, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        let named = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let key = match named {
            Some((name, after)) => {
                rest = after;
                match name {
                    "enter" => KeyPress::Enter,
                    "esc" => KeyPress::Escape,
                    "tab" => KeyPress::Tab,
                    "backtab" => KeyPress::BackTab,
                    "back" => KeyPress::Backspace,
                    "up" => KeyPress::Up,
                    "left" => KeyPress::Left,
                    "right" => KeyPress::Right,
                    "down" => KeyPress::Down,
                    "pgup" => KeyPress::PageUp,
                    "pgdn" => KeyPress::PageDown,
                    "home" => KeyPress::Home,
                    "end" => KeyPress::End,
                    "^c" => KeyPress::Control('c'),
                    "^u" => KeyPress::Control('u'),
                    other => panic!("no key {other}"),
                }
            }
            None => {
                rest = &rest[c.len_utf8()..];
                KeyPress::Char(c)
            }
        };
        effects.extend(update(state, Message::Key(key)));
    }
    effects
}

/// The screen as text; the reversed row begins with `>`, and no line is wider than the screen.
fn screen(state: &State) -> String {
    let (columns, rows) = state.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| view::draw(frame, state, Theme::new(true)))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..rows {
        let mut line = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(unicode_width::UnicodeWidthStr::width(symbol).max(1)).unwrap();
        }
        let reversed = buffer[(0, y)].modifier.contains(Modifier::REVERSED);
        text.push(if reversed { '>' } else { '|' });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
