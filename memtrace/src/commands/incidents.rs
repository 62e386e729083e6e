//! `memtrace incidents`.

use anyhow::Context as _;

use crate::{
    cli::{exit::Exit, incidents::IncidentsPlan, terminal},
    record::{Numbered, Recording},
    report::{
        incident::{self, Incident},
        layout::clean,
        text::{self, TextOptions},
    },
};

/// Lists a recording's incidents, or shows one.
pub(super) fn incidents(plan: &IncidentsPlan) -> anyhow::Result<Exit> {
    let recording = Recording::open(&plan.file)?;
    let Some(number) = plan.number else {
        let found = recording.incidents()?;
        return super::print_as(plan.json, &found, || list(&found));
    };
    let found = recording.incident(number)?.with_context(|| {
        format!(
            "{} has no incident {number}: `memtrace incidents FILE` lists them",
            plan.file.display()
        )
    })?;
    super::print_as(plan.json, &found, || whole(&found, terminal::width()))
}

/// What an incident is in lines; a recording may come from anybody.
fn lines(incident: &Incident) -> Vec<String> {
    let lines = incident::lines(incident).into_iter();
    lines.map(|line| clean(&line).into_owned()).collect()
}

/// A line an incident.
fn list(found: &[Numbered]) -> String {
    if found.is_empty() {
        return "no incident is recorded\n".to_owned();
    }
    let line = |one: &Numbered| {
        let first = lines(&one.incident).into_iter().next().unwrap_or_default();
        format!("{:>3}  {}  {first}\n", one.number, clean(&one.incident.at))
    };
    found.iter().map(line).collect()
}

/// One with its report.
fn whole(incident: &Incident, width: usize) -> String {
    let mut text = format!("{}\n", clean(&incident.at));
    for line in lines(incident) {
        text.push_str(&line);
        text.push('\n');
    }
    if let Some(report) = &incident.report {
        text.push('\n');
        text.push_str(&text::render(
            report,
            TextOptions {
                width,
                ..TextOptions::default()
            },
        ));
    }
    text
}
