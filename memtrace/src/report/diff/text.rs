//! A difference for people.

use super::{Amounts, Change, Diff, StackChange};
use crate::report::culprit;
use crate::report::human;
use crate::report::layout::{Page, piece, plain, style};
use crate::report::text::TextOptions;

/// Frames shown of a stack, unless all are asked for.
const FRAMES: usize = 8;

/// Renders; ends in a line end.
#[must_use]
pub fn render(diff: &Diff, options: TextOptions) -> String {
    let mut page = Page::new(options.width, options.color);
    let (before, after) = (&diff.before, &diff.after);
    let side = |side: &super::Side| {
        format!(
            "{} at {} ({} after the start)",
            side.recording,
            side.taken_at,
            human::seconds(side.duration_seconds)
        )
    };
    page.line(&[piece(style::BOLD, "memtrace diff")]);
    page.line(&[plain(format!("  before  {}", side(before)))]);
    page.line(&[plain(format!("  after   {}", side(after)))]);
    page.line(&[plain(format!(
        "  outstanding {} before, {} after",
        human::bytes(before.outstanding_bytes),
        human::bytes(after.outstanding_bytes)
    ))]);
    for side in [before, after] {
        if !side.losses.is_empty() {
            let all: Vec<_> = side
                .losses
                .iter()
                .map(|(k, v)| format!("{k} {v}"))
                .collect();
            let text = format!("  losses in {}: {}", side.recording, all.join(", "));
            page.line(&[piece(style::WARN, text)]);
        }
    }
    page.gap();
    if diff.stacks.is_empty() && diff.not_shown.stacks == 0 {
        page.line(&[piece(style::GOOD, "Nothing changed.")]);
        return page.finish();
    }
    page.line(&[piece(style::BOLD, "By function")]);
    for function in &diff.functions {
        let name = function
            .function
            .clone()
            .unwrap_or_else(|| "[unknown]".to_owned());
        let module = function.module.as_deref().map(culprit::file_name);
        page.line(&[
            plain("  "),
            amount(&function.amounts, function.change),
            plain(format!("  {name}")),
            piece(style::DIM, format!("  {}", module.unwrap_or_default())),
        ]);
    }
    page.gap();
    page.line(&[piece(style::BOLD, "By stack")]);
    for stack in &diff.stacks {
        write_stack(&mut page, stack, options.verbose);
    }
    if diff.not_shown.stacks > 0 {
        page.line(&[piece(
            style::DIM,
            format!(
                "{} more, {} together; --top all shows them",
                human::counted(diff.not_shown.stacks as u64, "stack", "stacks"),
                human::change(diff.not_shown.gained_bytes)
            ),
        )]);
    }
    page.line(&[piece(
        style::DIM,
        match diff.unchanged_stacks {
            1 => "1 stack holds what it held before.".to_owned(),
            many => format!("{many} stacks hold what they held before."),
        },
    )]);
    page.finish()
}

fn write_stack(page: &mut Page, stack: &StackChange, verbose: bool) {
    page.line(&[
        plain(format!("#{} ", stack.rank)),
        amount(&stack.amounts, stack.change),
        plain(format!(
            "  {} to {}, {}",
            human::bytes(stack.amounts.before_bytes),
            human::bytes(stack.amounts.after_bytes),
            human::counted(stack.amounts.after_objects, "object", "objects")
        )),
    ]);
    let own = stack
        .frames
        .iter()
        .filter(|frame| verbose || !frame.allocator);
    let limit = if verbose { usize::MAX } else { FRAMES };
    for frame in own.take(limit) {
        let place = culprit::short_place(frame).unwrap_or_default();
        page.line(&[
            plain(format!("     {}", culprit::name(frame))),
            piece(style::DIM, format!("  {place}")),
        ]);
    }
}

fn amount(amounts: &Amounts, change: Change) -> crate::report::layout::Piece {
    let (word, look) = match change {
        Change::New => ("new", style::BAD),
        Change::Grew => ("grew", style::BAD),
        Change::Shrank => ("shrank", style::GOOD),
        Change::Gone => ("gone", style::GOOD),
    };
    piece(
        look,
        format!("{:>10} {word}", human::change(amounts.gained_bytes)),
    )
}
