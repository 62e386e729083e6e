//! The gate's outcome as Markdown, for a pull request or a job's summary.

use std::fmt::Write as _;

use super::{culprit, gate::Outcome, human, model::Report, profile::names};
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
