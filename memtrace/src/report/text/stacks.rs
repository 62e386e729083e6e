//! A line a stack and its frames, or a line a group.

use super::{View, names::fit_name, verdict_pieces};
use crate::ledger::regions::RegionKind;
use crate::report::culprit::{culprit, file_name, is_plumbing, name, place, short_place};
use crate::report::group;
use crate::report::human;
use crate::report::layout::{
    Page, Piece, clean, piece, plain, shorten_left, shorten_middle, style, width,
};
use crate::report::model::{Frame, Group, GroupBy, NotShown, Stack};

/// Columns before a frame.
const INDENT: usize = 4;
/// Longer stacks show their ends only, unless verbose.
const LONG: usize = 24;
/// Frames shown of each end of a long stack.
const INNER: usize = 16;
const OUTER: usize = 4;

pub(super) fn write(page: &mut Page, view: &View<'_>) {
    let report = view.report;
    if report.group_by == GroupBy::Stack {
        let holds = |stack: &&Stack| view.verbose || stack.outstanding_objects > 0;
        for stack in report.stacks.iter().filter(holds) {
            page.gap();
            stack_line(page, view, stack);
            frames(page, view, stack);
        }
        let empty = report.stacks.len() - report.stacks.iter().filter(holds).count();
        if empty > 0 {
            page.gap();
            let stacks = human::counted(empty as u64, "stack holds", "stacks hold");
            let text = format!("{stacks} nothing now (-v shows them)");
            page.prose(0, &[piece(style::DIM, text)]);
        }
        remainder(page, view, report.not_shown, "more");
    } else {
        page.gap();
        for row in &report.groups {
            group_line(page, view, row);
        }
        remainder(page, view, group::outside_groups(report), "other");
    }
}

fn amounts(view: &View<'_>, bytes: u64, objects: &str, rate: f64) -> [Vec<Piece>; 2] {
    let sign = if view.report.gained_since.is_some() {
        "+"
    } else {
        ""
    };
    let held = piece(style::BOLD, format!("{sign}{}", view.bytes(bytes)));
    [
        vec![held, plain(format!(" in {objects}"))],
        vec![plain(view.rate(rate))],
    ]
}

fn stack_line(page: &mut Page, view: &View<'_>, stack: &Stack) {
    let [mut held, rate] = amounts(
        view,
        stack.outstanding_bytes,
        &view.counted(stack.probe, stack.outstanding_objects),
        stack.growth_bytes_per_second,
    );
    held.insert(0, piece(style::BOLD, format!("#{:<3}", stack.rank)));
    let mut items = vec![held, rate, verdict_pieces(stack.verdict, stack.confidence)];
    if let Some(age) = stack.oldest_seconds {
        items.push(vec![piece(
            style::DIM,
            format!("oldest {}", human::seconds(age)),
        )]);
    }
    if view.report.processes.len() > 1 {
        items.push(vec![piece(style::DIM, format!("pid {}", stack.pid))]);
    }
    match stack.probe {
        "region" => items.push(vec![piece(style::DIM, kind(stack.kind))]),
        "fault" => items.push(vec![piece(style::DIM, "resident")]),
        _ => {}
    }
    page.items(INDENT, &items);
    if stack.approximate {
        let text = "part of this may belong to a call path that looks alike";
        page.prose(INDENT, &[plain("    "), piece(style::WARN, text)]);
    }
    super::cycles::of_stack(page, INDENT, stack);
    if view.verbose {
        let text = format!(
            "allocated {} in {}, freed {} in {}",
            view.bytes(stack.allocated_bytes),
            view.counted(stack.probe, stack.allocated_objects),
            view.bytes(stack.freed_bytes),
            view.counted(stack.probe, stack.freed_objects),
        );
        page.prose(INDENT, &[plain("    "), piece(style::DIM, text)]);
    }
}

/// What a region is used as, for people.
fn kind(kind: Option<RegionKind>) -> &'static str {
    match kind {
        Some(RegionKind::Shared) => "shared mapping",
        Some(RegionKind::File) => "mapped file",
        Some(RegionKind::Allocator) => "allocator's reserve",
        Some(RegionKind::ThreadStack) => "thread stack",
        Some(RegionKind::Reservation) => "reserved addresses",
        Some(RegionKind::Anonymous) | None => "mapping",
    }
}

/// A frame as a row of two columns.
struct Row {
    name: String,
    mark: String,
    place: String,
    /// For when `place` does not fit and cannot be cut on the left.
    short_place: Option<String>,
    look: anstyle::Style,
}

fn frames(page: &mut Page, view: &View<'_>, stack: &Stack) {
    let rows = rows(view, stack);
    let (names, places) = columns(page.width(), &rows);
    let long = rows.len() > LONG && !view.verbose;
    for (at, row) in rows.iter().enumerate() {
        if long && at == INNER {
            let left_out = rows.len() - INNER - OUTER;
            let text = format!("    … {left_out} more frames (-v shows all)");
            page.line(&[piece(style::DIM, text)]);
        }
        if !long || at < INNER || at >= rows.len() - OUTER {
            row.write(page, names, places);
        }
    }
    if stack.frames.is_empty() {
        page.prose(
            INDENT,
            &[plain("    "), piece(style::WARN, "[the stack was lost]")],
        );
    } else if !stack.complete {
        let text = "… incomplete: the outermost frames are missing";
        page.prose(INDENT, &[plain("    "), piece(style::WARN, text)]);
    }
}

fn rows(view: &View<'_>, stack: &Stack) -> Vec<Row> {
    let named = culprit(&stack.frames);
    let allocators = stack
        .frames
        .iter()
        .take_while(|frame| frame.allocator)
        .count();
    let mut rows: Vec<Row> = Vec::new();
    let mut repeated = 1_usize;
    let mut before: Option<&Frame> = None;
    for (at, frame) in stack.frames.iter().enumerate() {
        // Of the allocator only the function that the program called.
        if at + 1 < allocators && !view.verbose {
            continue;
        }
        let same = before.is_some_and(|other| is_repetition(other, frame));
        before = Some(frame);
        if let (true, false, Some(row)) = (same, view.verbose, rows.last_mut()) {
            repeated += 1;
            row.mark = format!(" (× {repeated}, recursive)");
            continue;
        }
        repeated = 1;
        rows.push(row(view, frame, Some(at) == named));
    }
    rows
}

fn is_repetition(a: &Frame, b: &Frame) -> bool {
    a.function.is_some() && (&a.function, &a.offset, a.line) == (&b.function, &b.offset, b.line)
}

fn row(view: &View<'_>, frame: &Frame, named: bool) -> Row {
    let mut where_it_is = place(frame).unwrap_or_default();
    if let (None, Some(reason)) = (&frame.function, &frame.reason) {
        where_it_is = format!("({reason})");
    }
    if let (true, Some(_), Some(module)) = (view.verbose, &frame.file, &frame.module) {
        where_it_is.push_str(&format!(" in {}", file_name(module)));
    }
    if frame.allocator && !view.verbose {
        where_it_is = frame
            .module
            .as_deref()
            .map(file_name)
            .unwrap_or_default()
            .to_owned();
    }
    let look = match (named, is_plumbing(frame)) {
        (true, _) => style::BOLD,
        (false, true) => style::DIM,
        (false, false) => style::PLAIN,
    };
    let mark = if frame.inlined { " (inlined)" } else { "" };
    Row {
        name: clean(&name(frame)).into_owned(),
        mark: mark.to_owned(),
        place: clean(&where_it_is).into_owned(),
        short_place: short_place(frame)
            .filter(|_| frame.file.is_none())
            .map(|short| clean(&short).into_owned()),
        look,
    }
}

/// Widths of the name's and the place's column: both whole when they fit, else the place gets
/// up to two fifths.
fn columns(page: usize, rows: &[Row]) -> (usize, usize) {
    let room = page.saturating_sub(INDENT + 2);
    let names = rows
        .iter()
        .map(|row| width(&row.name) + width(&row.mark))
        .max()
        .unwrap_or(0);
    let places = rows.iter().map(|row| width(&row.place)).max().unwrap_or(0);
    if names + places <= room {
        return (names, places);
    }
    let places = places.min((room * 2 / 5).max(room.saturating_sub(names)));
    (names.min(room - places), places)
}

impl Row {
    fn write(&self, page: &mut Page, names: usize, places: usize) {
        let name = fit_name(&self.name, names.saturating_sub(width(&self.mark)));
        let used = width(&name) + width(&self.mark);
        let place = match &self.short_place {
            Some(short) if width(&self.place) > places => shorten_middle(short, places),
            _ => shorten_left(&self.place, places),
        };
        page.line(&[
            plain(" ".repeat(INDENT)),
            piece(self.look, &name),
            piece(style::DIM, &self.mark),
            plain(" ".repeat(names.saturating_sub(used) + 2)),
            piece(style::DIM, &place),
        ]);
    }
}

fn group_line(page: &mut Page, view: &View<'_>, row: &Group) {
    let by = view.report.group_by;
    let [held, rate] = amounts(
        view,
        row.outstanding_bytes,
        &view.objects(row.outstanding_objects),
        row.growth_bytes_per_second,
    );
    let mut title = clean(&group::name(row, by)).into_owned();
    if let (GroupBy::Function, Some(_), Some(module)) = (by, &row.name, &row.module) {
        title.push_str(&format!(" ({})", clean(file_name(module))));
    }
    let room = page.width().saturating_sub(INDENT);
    page.line(&[
        piece(style::BOLD, format!("#{:<3}", row.rank)),
        piece(style::BOLD, shorten_middle(&title, room)),
    ]);
    let stacks = human::counted(row.stacks as u64, "stack", "stacks");
    let mut first = vec![plain(" ".repeat(INDENT))];
    first.extend(held);
    let mut items = vec![first, rate, verdict_pieces(row.verdict, row.confidence)];
    items.push(vec![piece(style::DIM, stacks)]);
    if let Some(age) = row.oldest_seconds {
        items.push(vec![piece(
            style::DIM,
            format!("oldest {}", human::seconds(age)),
        )]);
    }
    page.items(INDENT, &items);
}

fn remainder(page: &mut Page, view: &View<'_>, rest: NotShown, which: &str) {
    if rest.stacks == 0 {
        return;
    }
    page.gap();
    let text = format!(
        "Not shown: {} {which} {} with {} in {} (-T all shows all)",
        human::count(rest.stacks as u64),
        if rest.stacks == 1 { "stack" } else { "stacks" },
        view.bytes(rest.outstanding_bytes),
        view.objects(rest.outstanding_objects),
    );
    page.prose(0, &[piece(style::DIM, text)]);
}
