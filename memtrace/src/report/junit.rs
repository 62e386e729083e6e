//! The gate's outcome as JUnit XML, as CI servers read it: a failed test case for each finding, a
//! passed one for each option without, a skipped one for each suppression that was used.

use std::fmt::Write as _;

use super::{
    gate::{Finding, Outcome},
    human,
    model::Report,
    profile::names::target,
};

/// The document.
#[must_use]
pub fn render(outcome: &Outcome, report: &Report) -> String {
    let used: Vec<_> = outcome
        .suppressions
        .iter()
        .filter(|u| u.stacks > 0)
        .collect();
    let tests = outcome.findings.len() + outcome.passed.len() + used.len();
    let failures = outcome.findings.len();
    let skipped = used.len();
    let seconds = if report.duration_seconds.is_finite() {
        report.duration_seconds
    } else {
        0.0
    };
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\"");
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites name=\"memtrace\" {counts} time=\"{seconds:.3}\">"
    );
    let _ = writeln!(
        out,
        "  <testsuite name=\"memtrace {}\" {counts} skipped=\"{skipped}\" time=\"{seconds:.3}\" timestamp=\"{}\" hostname=\"{}\">",
        xml(&target(report)),
        xml(&report.taken_at),
        xml(&report.host)
    );
    for option in &outcome.passed {
        let _ = writeln!(
            out,
            "    <testcase classname=\"memtrace\" name=\"{}\"/>",
            xml(option)
        );
    }
    for finding in &outcome.findings {
        failure(&mut out, finding);
    }
    for used in used {
        let _ = writeln!(
            out,
            "    <testcase classname=\"memtrace.suppressed\" name=\"{}\">\n      <skipped message=\"{}\"/>\n    </testcase>",
            xml(&used.patterns),
            xml(&format!(
                "{}: {} with {}",
                used.reason,
                human::counted(
                    u64::try_from(used.stacks).unwrap_or(u64::MAX),
                    "stack",
                    "stacks"
                ),
                human::bytes(used.bytes)
            ))
        );
    }
    if !outcome.notes.is_empty() {
        let _ = writeln!(
            out,
            "    <system-out>{}</system-out>",
            xml(&outcome.notes.join("; "))
        );
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn failure(out: &mut String, finding: &Finding) {
    let class = match finding.module.as_str() {
        "" => "memtrace".to_owned(),
        module => format!("memtrace.{module}"),
    };
    let _ = writeln!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\">",
        xml(&class),
        xml(&finding.title())
    );
    let _ = writeln!(
        out,
        "      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
        finding.kind.name(),
        xml(&finding.text),
        xml(&finding.frames.join("\n"))
    );
}

/// Text for markup and attributes; what XML has no place for is replaced.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{fixtures, gate::Gate, profile::arbitrary, suppress::Suppressions};

    pub(super) fn gate() -> Gate {
        let text = "[[suppression]]\nfunction = \"warm_*\"\nreason = \"fills up to 1 GiB & <stops>\"\n\
                    [[suppression]]\nmodule = \"gone.so\"\nreason = \"is gone\"\n";
        Gate {
            growing: Some(0.0),
            suppressions: Suppressions::parse(text).unwrap(),
            ..Gate::default()
        }
    }

    // A failure, a suppression that was used, and a note.
    #[test]
    fn golden() {
        let mut report = fixtures::leak();
        report.stacks[1].verdict = crate::trend::Verdict::Growing;
        report.losses.insert("live_full".to_owned(), 3);
        insta::assert_snapshot!(render(&gate().judge(&report), &report));
    }

    // A report that passes.
    #[test]
    fn golden_passed() {
        let mut report = fixtures::leak();
        report.stacks.clear();
        report.processes.clear();
        insta::assert_snapshot!(render(&gate().judge(&report), &report));
    }

    proptest! {
        // Whatever the names, the document is well formed and counts its cases.
        #[test]
        fn well_formed(report in arbitrary::report()) {
            let outcome = gate().judge(&report);
            let text = render(&outcome, &report);
            let mut depth = 0;
            for tag in text.split('<').skip(1) {
                let (tag, _) = tag.split_once('>').unwrap();
                depth += match tag {
                    tag if tag.starts_with('?') || tag.ends_with('/') => 0,
                    tag if tag.starts_with('/') => -1,
                    _ => 1,
                };
                prop_assert!(depth >= 0);
            }
            prop_assert_eq!(depth, 0);
            prop_assert_eq!(text.matches("<failure ").count(), outcome.findings.len());
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
