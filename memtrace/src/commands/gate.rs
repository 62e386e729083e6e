//! The CI gate at the edge: its files in, its outcome out.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::{
    cli::{plan::GatePlan, values::FailOn},
    record::{self, Recording, When},
    report::{
        baseline::{self, Baseline},
        gate::{Gate, Outcome},
        human, junit, markdown,
        model::Report,
        output::Delivery,
        suppress::{self, Suppressions},
    },
};

/// Findings that standard error names.
const MAX_TOLD: usize = 10;

/// Reads the gate's files, and sees that its outcome can be written.
pub(super) fn load(plan: &GatePlan) -> anyhow::Result<Gate> {
    for destination in [&plan.junit, &plan.summary].into_iter().flatten() {
        destination.check()?;
    }
    let mut gate = Gate::default();
    if let Some(FailOn::Growing { bytes_per_second }) = plan.fail_on {
        gate.growing = Some(bytes_per_second as f64);
    }
    if let Some(path) = &plan.baseline {
        gate.baseline =
            Some(baseline(path).with_context(|| format!("--baseline {}", path.display()))?);
    }
    if let Some(path) = &plan.suppressions {
        let bytes = read(path, suppress::MAX_FILE_BYTES)
            .with_context(|| format!("cannot read --suppressions {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        let read = Suppressions::parse(&text);
        gate.suppressions = read.with_context(|| format!("--suppressions {}", path.display()))?;
    }
    Ok(gate)
}

/// The last report of a recording, or a JSON report.
fn baseline(path: &Path) -> anyhow::Result<Baseline> {
    if record::is_recording(path) {
        let recording = Recording::open(path)?;
        let last = recording.find(&When::End)?;
        return Ok(Baseline::of(&recording.report(&last, None)?.report));
    }
    let bytes = read(path, baseline::MAX_FILE_BYTES).context("cannot read it")?;
    Ok(Baseline::parse(&bytes)?)
}

/// A regular file of at most so many bytes.
fn read(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    // A FIFO must not block.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        bail!("it is no regular file");
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge))
            .context(format!("it has more than {}", human::bytes(most)));
    }
    Ok(bytes)
}

/// Writes the outcome where it was asked for, and tells it.
pub(super) fn deliver(
    plan: &GatePlan,
    outcome: &Outcome,
    report: &Report,
    quiet: bool,
) -> anyhow::Result<()> {
    if let Some(destination) = &plan.junit {
        let _: Delivery = destination.write(junit::render(outcome, report).as_bytes())?;
    }
    if let Some(destination) = &plan.summary {
        let _: Delivery = destination.write(markdown::render(outcome, report).as_bytes())?;
    }
    for line in told(outcome, quiet) {
        eprintln!("memtrace: {line}");
    }
    Ok(())
}

/// The outcome for standard error. What fails, and what could not be judged, is told also when quiet.
fn told(outcome: &Outcome, quiet: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in outcome.findings.iter().take(MAX_TOLD) {
        lines.push(format!(
            "failed ({}): {} {}",
            finding.kind.option(),
            finding.title(),
            finding.text
        ));
    }
    let more = outcome.findings.len().saturating_sub(MAX_TOLD);
    if more > 0 {
        lines.push(format!("failed: and {more} more"));
    }
    // A gate that could not judge must not pass in silence.
    lines.extend(outcome.notes.iter().cloned());
    if quiet {
        return lines;
    }
    for used in &outcome.suppressions {
        let count = u64::try_from(used.stacks).unwrap_or(u64::MAX);
        lines.push(match count {
            0 => format!(
                "suppression in line {} was not used: {}",
                used.line, used.patterns
            ),
            _ => format!(
                "suppressed {} with {} ({}): {}",
                human::counted(count, "stack", "stacks"),
                human::bytes(used.bytes),
                used.patterns,
                used.reason
            ),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    fn files(baseline: &Path) -> GatePlan {
        GatePlan {
            baseline: Some(baseline.to_owned()),
            ..GatePlan::default()
        }
    }

    /// Files that are missing, no files, or no reports: one line each, and no hang.
    #[test]
    fn bad_files() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        let text = directory.path().join("text");
        std::fs::write(&text, "no report").unwrap();
        let missing = directory.path().join("missing");
        let cut = directory.path().join("cut");
        std::fs::write(&cut, b"SQLite format 3\0").unwrap();
        for (path, reason) in [
            (&fifo, "it is no regular file"),
            (&text, "neither a recording nor a JSON report"),
            (&missing, "No such file"),
            (&cut, "is not a memtrace recording"),
            (&directory.path().to_owned(), "it is no regular file"),
        ] {
            let error = load(&files(path)).unwrap_err();
            let told = format!("{error:#}");
            assert!(told.contains(reason) && !told.contains('\n'), "{told}");
        }
        assert!(format!("{:#}", read(&text, 3).unwrap_err()).contains("more than 3 B"));
    }

    /// What fails is told also when quiet, the rest is not.
    #[test]
    fn lines() {
        let text = "[[suppression]]\nfunction = \"warm_*\"\nreason = \"fills\"\n\
                    [[suppression]]\nmodule = \"gone\"\nreason = \"is gone\"\n";
        let gate = Gate {
            growing: Some(0.0),
            suppressions: Suppressions::parse(text).unwrap(),
            ..Gate::default()
        };
        let mut report = fixtures::leak();
        report.stacks[1].verdict = crate::trend::Verdict::Growing;
        let outcome = gate.judge(&report);
        assert_eq!(told(&outcome, true).len(), 1);
        assert_eq!(
            told(&outcome, false),
            [
                "failed (--fail-on growing): leak_here (server.c:42) grows by 1.20 MiB/s, holds \
                 34.1 MiB, confidence 99%",
                "suppressed 1 stack with 1.00 MiB (function warm_*): fills",
                "suppression in line 4 was not used: module gone",
            ]
        );
    }
}
