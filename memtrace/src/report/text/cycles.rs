//! What happened between marks: the whole, a line a cycle, and what grows in every one.

use super::View;
use super::facts::LABEL;
use crate::report::cycles::{Cycle, Cycles, Statistics};
use crate::report::human;
use crate::report::layout::{
    Page, Piece, clean, piece, plain, shorten_middle, style, tight, width,
};
use crate::report::model::Stack;

/// Cycles shown one by one, the latest.
const SHOWN: usize = 8;
/// Functions that grow in every cycle.
const MAX_FUNCTIONS: usize = 5;
/// Columns of a mark's name at most.
const NAME: usize = 20;

pub(super) fn write(page: &mut Page, view: &View<'_>) {
    let Some(cycles) = &view.report.cycles else {
        return;
    };
    page.gap();
    whole(page, view, cycles);
    table(page, view, cycles);
    growing(page, view, cycles);
}

fn label(page: &mut Page, name: &str, text: &str) {
    page.labelled(piece(style::DIM, name), LABEL, &[plain(text)]);
}

/// All completed cycles together.
fn whole(page: &mut Page, view: &View<'_>, cycles: &Cycles) {
    let count = human::counted(cycles.completed as u64, "cycle", "cycles");
    let Some(total) = &cycles.total else {
        let text = format!("none is over yet, {}", cycles.marks());
        label(page, "Cycles", &text);
        return;
    };
    let average = tight(human::seconds(total.seconds / cycles.completed as f64));
    let text = format!("{count} {}, {average} each on average", cycles.marks());
    label(page, "Cycles", &text);
    let traced = range(&total.outstanding, |bytes| view.bytes(bytes));
    label(page, "  traced", &traced);
    let exact = |bytes| tight(human::bytes(bytes));
    if let Some(rss) = &total.rss {
        label(page, "  RSS", &range(rss, exact));
    }
    if let Some(usage) = &total.usage {
        label(page, "  usage", &range(usage, exact));
    }
    if let Some(bytes) = total.limit_bytes {
        label(page, "  limit", &limit_of(bytes, cycles));
    }
}

fn range(amount: &Statistics, bytes: impl Fn(u64) -> String) -> String {
    let grew = match amount.growth_bytes {
        0 => "did not grow".to_owned(),
        1.. => format!("grew {}", bytes(amount.growth_bytes.unsigned_abs())),
        _ => format!("shrank by {}", bytes(amount.growth_bytes.unsigned_abs())),
    };
    format!(
        "{} to {}, average {}, {grew}",
        bytes(amount.minimum_bytes),
        bytes(amount.maximum_bytes),
        bytes(amount.average_bytes),
    )
}

/// The limit, and how many cycles came near it.
fn limit_of(bytes: u64, cycles: &Cycles) -> String {
    let reached: Vec<_> = cycles
        .thresholds
        .iter()
        .map(|one| format!("{}% of it in {}", one.percent, one.cycles))
        .collect();
    let limit = tight(human::bytes(bytes));
    if reached.is_empty() {
        return limit;
    }
    format!("{limit}; cycles that reached {}", reached.join(", "))
}

/// What a column is called, and what stands in it.
type Column<'a> = (&'static str, Box<dyn Fn(&Cycle) -> String + 'a>);

/// The name of the mark is in no column when it is always the same.
fn columns<'a>(view: &'a View<'_>, cycles: &'a Cycles) -> Vec<Column<'a>> {
    let about = |bytes: u64| format!("{}{}", view.about(), human::bytes(bytes));
    let of = |amount: Option<Statistics>, which: fn(&Statistics) -> u64| {
        amount.map_or_else(String::new, |amount| human::bytes(which(&amount)))
    };
    let most: fn(&Statistics) -> u64 = |amount| amount.maximum_bytes;
    vec![
        ("", Box::new(|one| one.number.to_string())),
        (
            "from",
            Box::new(|one| match &cycles.name {
                None => shorten_middle(&clean(&one.from), NAME).into_owned(),
                Some(_) => String::new(),
            }),
        ),
        ("time", Box::new(time)),
        (
            "grew",
            Box::new(|one| human::change(one.amounts.outstanding.growth_bytes)),
        ),
        (
            "traced min",
            Box::new(move |one| about(one.amounts.outstanding.minimum_bytes)),
        ),
        (
            "avg",
            Box::new(move |one| about(one.amounts.outstanding.average_bytes)),
        ),
        (
            "max",
            Box::new(move |one| about(one.amounts.outstanding.maximum_bytes)),
        ),
        ("RSS max", Box::new(move |one| of(one.amounts.rss, most))),
        (
            "usage max",
            Box::new(move |one| of(one.amounts.usage, most)),
        ),
    ]
}

/// A line a cycle. Columns that do not fit are left out, the last ones first.
fn table(page: &mut Page, view: &View<'_>, cycles: &Cycles) {
    let hidden = cycles.list.len().saturating_sub(SHOWN);
    let shown: Vec<&Cycle> = cycles.list.iter().skip(hidden).collect();
    let columns: Vec<(&str, Vec<String>)> = columns(view, cycles)
        .into_iter()
        .map(|(head, cell)| {
            let cells = shown.iter().map(|one| cell(one));
            (
                head,
                std::iter::once(head.to_owned()).chain(cells).collect(),
            )
        })
        // Nothing at all in a column: no limit, no process that runs, no names.
        .filter(|(_, cells): &(_, Vec<String>)| cells.iter().skip(1).any(|cell| !cell.is_empty()))
        .collect();
    let mut lines = vec![vec![]; shown.len() + 1];
    let mut used = 0;
    for (head, cells) in &columns {
        let wide = cells.iter().map(|cell| width(cell)).max().unwrap_or(0);
        used += 2 + wide;
        if used > page.width() {
            break;
        }
        for (line, (pieces, cell)) in lines.iter_mut().zip(cells).enumerate() {
            let pad = " ".repeat(wide - width(cell));
            let text = match *head {
                "from" => format!("  {cell}{pad}"),
                _ => format!("  {pad}{cell}"),
            };
            pieces.push(look(line, head, &text));
        }
    }
    for pieces in &lines {
        page.line(pieces);
    }
    let before = cycles.earlier + hidden;
    if before > 0 {
        let count = human::counted(before as u64, "earlier cycle", "earlier cycles");
        page.prose(2, &[plain("  "), piece(style::DIM, format!("and {count}"))]);
    }
}

/// How a cell looks: the growth stands out.
fn look(line: usize, head: &str, text: &str) -> Piece {
    match (line, head) {
        (0, _) | (_, "") => piece(style::DIM, text),
        (_, "grew") => piece(style::BOLD, text),
        _ => plain(text),
    }
}

fn time(cycle: &Cycle) -> String {
    let time = human::seconds(cycle.amounts.seconds);
    match cycle.to {
        Some(_) => time,
        None => format!("{time} so far"),
    }
}

fn growing(page: &mut Page, view: &View<'_>, cycles: &Cycles) {
    if cycles.completed < cycles.needed {
        let text = format!(
            "what grows in every cycle is told from {} on",
            cycles.needed
        );
        page.prose(2, &[plain("  "), piece(style::DIM, text)]);
        return;
    }
    if cycles.growing_functions.is_empty() {
        let told = if cycles.at_least().is_empty() {
            piece(style::GOOD, "nothing grew in every cycle")
        } else {
            let looked_at = human::count(cycles.stacks_looked_at as u64);
            let text =
                format!("none of the {looked_at} stacks that gained most grew in every cycle");
            piece(style::WARN, text)
        };
        page.prose(2, &[plain("  "), told]);
        return;
    }
    let listed = cycles.list.iter().filter(|one| one.to.is_some()).count();
    for grows in cycles.growing_functions.iter().take(MAX_FUNCTIONS) {
        let bytes = human::change(grows.gained_bytes);
        let pieces = [
            piece(style::BAD, grows.title()),
            plain(format!(
                " grows in each of {listed} cycles: {}{}{} in all",
                cycles.at_least(),
                view.about(),
                tight(bytes)
            )),
        ];
        page.labelled(piece(style::DIM, "Leak?"), LABEL, &pieces);
    }
    let more = cycles.growing_functions.len().saturating_sub(MAX_FUNCTIONS);
    if more > 0 {
        let functions = human::counted(more as u64, "function grows", "functions grow");
        label(page, "", &format!("and {functions} in each"));
    }
}

/// What a stack gained in the latest cycles, when it gained anything.
pub(super) fn of_stack(page: &mut Page, indent: usize, stack: &Stack) {
    let hidden = stack.gained_per_cycle.len().saturating_sub(SHOWN);
    let shown: Vec<_> = stack.gained_per_cycle.iter().skip(hidden).collect();
    if shown.iter().all(|gained| **gained == 0) {
        return;
    }
    let gained: Vec<_> = shown
        .into_iter()
        .map(|n| tight(human::change(*n)))
        .collect();
    let text = format!("per cycle: {}", gained.join(", "));
    page.prose(
        indent,
        &[plain(" ".repeat(indent)), piece(style::DIM, text)],
    );
}

#[cfg(test)]
mod tests {
    use crate::report::cycles::tests::cycles;
    use crate::report::fixtures;
    use crate::report::text::{TextOptions, render};

    fn text(width: usize) -> String {
        let mut report = fixtures::leak();
        report.cycles = Some(cycles());
        report.stacks[0].gained_per_cycle = vec![1000, 1010, 1000, -4096];
        let options = TextOptions {
            width,
            ..TextOptions::default()
        };
        render(&report, options)
    }

    // The whole, a line a cycle, what grows in every one, and what each stack gained.
    #[test]
    fn tells_all() {
        let text = text(100);
        for line in [
            "Cycles    3 cycles from \"cycle\" to \"cycle\", 10 s each on average",
            "  limit   64.0 MiB; cycles that reached 50% of it in 3, 65% of it in 2, 75% of it in 0",
            "Leak?     session_new (a.c:7) grows in each of 3 cycles: +2.94 KiB in all",
            "    per cycle: +1000 B, +1010 B, +1000 B, -4.00 KiB",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.lines().any(|line| line.contains("10 s so far")));
    }

    // Too few cycles to tell, and enough of them without growth.
    #[test]
    fn nothing_grows() {
        let mut report = fixtures::leak();
        let mut told = cycles();
        told.growing_functions.clear();
        report.cycles = Some(told.clone());
        let text = render(&report, TextOptions::default());
        assert!(text.contains("  nothing grew in every cycle\n"), "{text}");
        told.stacks_gaining = 100;
        report.cycles = Some(told.clone());
        let text = render(&report, TextOptions::default());
        assert!(
            text.contains("  none of the 3 stacks that gained most grew in every"),
            "{text}"
        );
        told.completed = 2;
        report.cycles = Some(told);
        let text = render(&report, TextOptions::default());
        assert!(
            text.contains("  what grows in every cycle is told from 3 on\n"),
            "{text}"
        );
    }

    // A sum that leaves out stacks is a bound.
    #[test]
    fn not_every_stack() {
        let mut report = fixtures::leak();
        let mut told = cycles();
        told.stacks_gaining = 100;
        report.cycles = Some(told);
        let text = render(&report, TextOptions::default());
        assert!(
            text.contains("in each of 3 cycles: at least +2.94 KiB"),
            "{text}"
        );
    }

    // However narrow the terminal: no line of the table is wider.
    #[test]
    fn fits() {
        for width in [40, 60, 80, 120] {
            let text = text(width);
            let table = text.lines().skip_while(|line| !line.starts_with("Cycles"));
            for line in table.take_while(|line| !line.starts_with("#1")) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}
