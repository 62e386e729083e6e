//! Whatever comes in whatever order: nothing panics, and the state stays whole.

use proptest::prelude::*;

use super::*;

fn key() -> impl Strategy<Value = KeyPress> {
    prop_oneof![
        6 => prop::sample::select("ogansrfmw/?jk q\u{8a18}".chars().collect::<Vec<_>>())
            .prop_map(KeyPress::Char),
        1 => any::<char>().prop_map(KeyPress::Char),
        6 => prop::sample::select(vec![
            KeyPress::Enter,
            KeyPress::Escape,
            KeyPress::Tab,
            KeyPress::BackTab,
            KeyPress::Backspace,
            KeyPress::Up,
            KeyPress::Down,
            KeyPress::PageUp,
            KeyPress::PageDown,
            KeyPress::Home,
            KeyPress::Left,
            KeyPress::Right,
            KeyPress::End,
            KeyPress::Control('u'),
        ]),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        20 => key().prop_map(Message::Key),
        3 => (0..40_usize, any::<u64>()).prop_map(|(stacks, order)| {
            let mut report = many(stacks);
            report.duration_seconds = (order % 1000) as f64;
            if !report.stacks.is_empty() {
                let middle = order as usize % report.stacks.len();
                report.stacks.rotate_left(middle);
            }
            let shown = moment(report);
            Message::Moment(match order % 5 {
                0 => recorded(&shown, None, 0.5),
                _ => shown,
            })
        }),
        2 => (0..150_u16, 0..60_u16).prop_map(|(x, y)| Message::Resize(x, y)),
        1 => ".*".prop_map(Message::Paste),
        1 => Just(Message::Written("done".into())),
        1 => Just(Message::Ended("over".into())),
        1 => ".*".prop_map(Message::Notice),
    ]
}

fn check(state: &State) -> Result<(), TestCaseError> {
    let rows = state.rows.len();
    if let Some(at) = state.selected_row() {
        prop_assert_eq!(at, state.row);
        let height = view::list_height(state).max(1);
        prop_assert!(
            state.first <= at && at < state.first + height,
            "off the screen"
        );
    } else {
        prop_assert_eq!(rows, 0, "rows, and none is selected");
    }
    prop_assert!(state.first <= rows);
    prop_assert!(state.filter.chars().count() <= crate::tui::state::MAX_INPUT);
    if let Some(key) = state.open {
        let shown = state.shown.as_ref().unwrap();
        prop_assert!(shown.find_stack(key).is_some() || shown.cursor.is_some());
    }
    if !state.is_frozen {
        prop_assert_eq!(
            state.shown.as_ref().map(Arc::as_ptr),
            state.newest.as_ref().map(Arc::as_ptr)
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    // Random messages never panic, the selection stays valid and on the screen, and every state
    // can be drawn.
    #[test]
    fn any_messages(messages in prop::collection::vec(message(), 1..50)) {
        let mut state = State::new((80, 24));
        for message in messages {
            update(&mut state, message);
            check(&state)?;
            if state.size.0 > 0 && state.size.1 > 0 {
                let text = screen(&state);
                prop_assert_eq!(text.lines().count(), usize::from(state.size.1));
                prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
            }
        }
    }

    // The rows are exactly those that the filter lets through.
    #[test]
    fn filter_is_exact(stacks in 0..60_usize, number in 0..70_usize) {
        let mut state = showing((80, 24), many(stacks));
        press(&mut state, &format!("/handler_{number}"));
        let wanted = format!("handler_{number}");
        let expected = (0..stacks)
            .filter(|n| format!("handler_{n}").contains(&wanted))
            .count();
        prop_assert_eq!(state.rows.len(), expected);
    }
}
