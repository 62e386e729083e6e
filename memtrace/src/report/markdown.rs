//! The gate's outcome as Markdown, for a pull request or a job's summary.

use std::fmt::Write as _;

use super::{culprit, cycles::Cycles, gate::Outcome, human, model::Report, profile::names};
use crate::trend::Verdict;

/// Findings that are shown whole.
const MAX_SHOWN: usize = 20;
/// Rows of the table of stacks.
const MAX_ROWS: usize = 10;

/// The document.
#[must_use]
pub fn render(outcome: &Outcome, report: &Report) -> String {
    let mut out = String::new();
    let count = u64::try_from(outcome.findings.len()).unwrap_or(u64::MAX);
    let verdict = match (outcome.failed(), outcome.passed.is_empty()) {
        (true, _) => format!(
            "❌ memtrace: {}",
            human::counted(count, "finding", "findings")
        ),
        (false, false) => "✅ memtrace: passed".to_owned(),
        (false, true) => "memtrace".to_owned(),
    };
    let _ = writeln!(
        out,
        "### {verdict}\n\nTarget {} on {}, {}, {} of {}\n",
        code(&names::target(report)),
        code(&report.host),
        human::seconds(report.duration_seconds),
        human::counted(
            u64::from(report.intervals.completed),
            "interval",
            "intervals"
        ),
        human::seconds(report.intervals.seconds)
    );
    findings(&mut out, outcome);
    for note in &outcome.notes {
        let _ = writeln!(out, "> ⚠️ {}\n", plain(note));
    }
    suppressions(&mut out, outcome);
    if let Some(told) = &report.cycles {
        cycles(&mut out, told);
    }
    stacks(&mut out, report);
    out
}

fn findings(out: &mut String, outcome: &Outcome) {
    if outcome.findings.is_empty() {
        return;
    }
    out.push_str("| function | where | |\n|---|---|---|\n");
    for finding in outcome.findings.iter().take(MAX_SHOWN) {
        let place = finding.place.as_deref().unwrap_or(&finding.module);
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            cell(&finding.name),
            cell(place),
            plain(&finding.text)
        );
    }
    let more = outcome.findings.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        let _ = writeln!(out, "\nand {more} more");
    }
    out.push('\n');
    for finding in outcome.findings.iter().take(MAX_SHOWN) {
        if finding.frames.is_empty() {
            continue;
        }
        let _ = writeln!(
            out,
            "<details><summary>Stack of <code>{}</code></summary>\n\n{}\n</details>\n",
            html(&finding.name),
            block(&finding.frames.join("\n"))
        );
    }
}

fn suppressions(out: &mut String, outcome: &Outcome) {
    if outcome.suppressions.is_empty() {
        return;
    }
    out.push_str("| suppression | reason | used |\n|---|---|---|\n");
    for used in &outcome.suppressions {
        let count = u64::try_from(used.stacks).unwrap_or(u64::MAX);
        let times = match count {
            0 => format!("**not used** (line {})", used.line),
            _ => format!(
                "{}, {}",
                human::counted(count, "stack", "stacks"),
                human::bytes(used.bytes)
            ),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {times} |",
            cell(&used.patterns),
            plain(&used.reason)
        );
    }
    out.push('\n');
}

/// The cycles that are over, and what grows in each of them.
fn cycles(out: &mut String, cycles: &Cycles) {
    let Some(total) = &cycles.total else {
        return;
    };
    let count = human::counted(cycles.completed as u64, "cycle", "cycles");
    let _ = writeln!(out, "**{count}** {}\n", plain(&cycles.marks()));
    for grows in cycles.growing_functions.iter().take(MAX_ROWS) {
        let _ = writeln!(
            out,
            "- {} grows in every cycle: {}{} in all",
            code(&grows.title()),
            cycles.at_least(),
            human::change(grows.gained_bytes)
        );
    }
    if !cycles.growing_functions.is_empty() {
        out.push('\n');
    }
    out.push_str("| all cycles | minimum | average | maximum | first | last | growth |\n");
    out.push_str("|---|--:|--:|--:|--:|--:|--:|\n");
    let amounts = [
        ("outstanding", Some(&total.outstanding)),
        ("resident", total.rss.as_ref()),
        ("usage of the limit", total.usage.as_ref()),
    ];
    for (name, amount) in amounts {
        let Some(amount) = amount else { continue };
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            human::bytes(amount.minimum_bytes),
            human::bytes(amount.average_bytes),
            human::bytes(amount.maximum_bytes),
            human::bytes(amount.first_bytes),
            human::bytes(amount.last_bytes),
            human::change(amount.growth_bytes)
        );
    }
    let reached = cycles.thresholds.iter();
    let reached: Vec<_> = reached
        .map(|one| format!("{}% of the limit in {}", one.percent, one.cycles))
        .collect();
    if !reached.is_empty() {
        let _ = writeln!(out, "\nCycles that reached {}", reached.join(", "));
    }
    out.push_str("\n<details><summary>Cycle by cycle</summary>\n\n");
    out.push_str("| cycle | from | time | outstanding grew | outstanding | resident, at most |\n");
    out.push_str("|--:|---|--:|--:|--:|--:|\n");
    for one in cycles.list.iter().filter(|one| one.to.is_some()) {
        let resident = one.amounts.rss.as_ref();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            one.number,
            cell(&one.from),
            human::seconds(one.amounts.seconds),
            human::change(one.amounts.outstanding.growth_bytes),
            human::bytes(one.amounts.outstanding.last_bytes),
            resident.map_or_else(|| "–".to_owned(), |rss| human::bytes(rss.maximum_bytes))
        );
    }
    out.push_str("\n</details>\n\n");
}

fn stacks(out: &mut String, report: &Report) {
    if report.stacks.is_empty() {
        return;
    }
    let about = if report.overhead.sample_bytes > 1 {
        "~"
    } else {
        ""
    };
    out.push_str("<details><summary>Largest stacks</summary>\n\n");
    out.push_str("| function | where | holds | objects | growth | verdict |\n");
    out.push_str("|---|---|--:|--:|--:|---|\n");
    for stack in report.stacks.iter().take(MAX_ROWS) {
        let frame = culprit::culprit(&stack.frames).and_then(|at| stack.frames.get(at));
        let name = frame.map_or_else(|| "[unknown]".to_owned(), names::frame);
        let place = frame.and_then(culprit::short_place).unwrap_or_default();
        let verdict = names::verdict(stack.verdict);
        let verdict = match stack.verdict {
            Verdict::Growing => format!("**{verdict}**"),
            _ => verdict.to_owned(),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {about}{} | {about}{} | {} | {verdict} |",
            cell(&name),
            cell(&place),
            human::bytes(stack.outstanding_bytes),
            human::count(stack.outstanding_objects),
            human::rate(stack.growth_bytes_per_second)
        );
    }
    out.push_str("\n</details>\n");
}

/// Text in which nothing is markup: as code, in a fence longer than any in it.
fn code(text: &str) -> String {
    let text = super::layout::clean(text);
    if text.trim().is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// The same in a table, where `|` ends a cell even in code, and `\|` after a `\` does too.
fn cell(text: &str) -> String {
    if !text.contains(['|', '\\']) {
        return code(text);
    }
    let mut out = String::from("<code>");
    for c in super::layout::clean(text).chars() {
        if c.is_ascii_punctuation() {
            let _ = write!(out, "&#{};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.push_str("</code>");
    out
}

fn block(text: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// memtrace's own words, with names in them.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in super::layout::clean(text).chars() {
        if matches!(
            c,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' | '~' | '@' | '!'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{fixtures, gate::Gate, profile::arbitrary, suppress::Suppressions};

    fn gate() -> Gate {
        let text = "[[suppression]]\nfunction = \"warm_*\"\nreason = \"fills up\"\n\
                    [[suppression]]\nmodule = \"gone.so\"\nreason = \"is <gone>\"\n";
        Gate {
            growing: Some(0.0),
            suppressions: Suppressions::parse(text).unwrap(),
            ..Gate::default()
        }
    }

    // What fails, with its stack; what is suppressed, and what is not used.
    #[test]
    fn golden() {
        let mut report = fixtures::leak();
        report.stacks[1].verdict = Verdict::Growing;
        report.stacks[0].frames[1].function = Some("a|b`c</details>".to_owned());
        insta::assert_snapshot!(render(&gate().judge(&report), &report));
    }

    // Cycles: the whole, one by one, and what grows in every one.
    #[test]
    fn cycles_are_told() {
        let mut report = fixtures::leak();
        report.cycles = Some(crate::report::cycles::tests::cycles());
        let text = render(&gate().judge(&report), &report);
        for line in [
            "**3 cycles** from \"cycle\" to \"cycle\"",
            "- `session_new (a.c:7)` grows in every cycle: +2.94 KiB in all",
            "Cycles that reached 50% of the limit in 3, 65% of the limit in 2, 75% of the limit in 0",
            "| 2 | `cycle` | 10 s | +1010 B |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    // A report that passes.
    #[test]
    fn golden_passed() {
        let mut report = fixtures::leak();
        report.stacks.truncate(0);
        report.processes.clear();
        insta::assert_snapshot!(render(&gate().judge(&report), &report));
    }

    proptest! {
        // Whatever the names: every table row has its cells, and details are closed as often as
        // they are opened.
        #[test]
        fn well_formed(report in arbitrary::report()) {
            let text = render(&gate().judge(&report), &report);
            let mut columns = 0;
            let mut fence: Option<String> = None;
            for line in text.lines() {
                if let Some(open) = &fence {
                    if line == open { fence = None; }
                    continue;
                }
                if line.starts_with("```") {
                    fence = Some(line.trim_end_matches("text").to_owned());
                    continue;
                }
                let cells = line.replace("\\\\", "").replace("\\|", "").matches('|').count();
                if line.starts_with("| ") && columns > 0 {
                    prop_assert_eq!(cells, columns, "{}", line);
                } else if !line.starts_with('|') {
                    columns = 0;
                }
                if line.starts_with("| function |") || line.starts_with("| suppression |") {
                    columns = cells;
                }
            }
            prop_assert!(fence.is_none());
        }
    }
}
