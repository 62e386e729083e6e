//! `memtrace incidents`.

use anyhow::Context as _;

use super::symbols::Symbols;
use crate::{
    cli::{exit::Exit, incidents::IncidentsPlan, terminal},
    record::{Numbered, Recording},
    report::{
        incident::{self, Incident},
        layout::{Page, clean, plain},
        text::{self, TextOptions},
    },
};

/// Lists a recording's incidents, or shows one.
pub(super) fn incidents(plan: &IncidentsPlan) -> anyhow::Result<Exit> {
    let recording = Recording::open(&plan.file)?;
    let Some(number) = plan.number else {
        let found = recording.incidents()?;
        let found = List::new(plan.file.display(), found);
        return super::print_as(plan.json, &found, || list(&found.incidents));
    };
    let mut found = recording.incident(number)?.with_context(|| {
        format!(
            "{} has no incident {number}: `memtrace incidents FILE` lists them",
            plan.file.display()
        )
    })?;
    if let Some(folder) = &plan.debug_dir {
        Symbols::open(Some(folder))?.rename(found.stacks_mut());
        found.rename();
    }
    super::print_as(plan.json, &found, || whole(&found, terminal::width()))
}

/// Name and version of the list's JSON schema.
const LIST_SCHEMA: &str = "memtrace.incidents/1";

/// The list as `--format json` prints it.
#[derive(serde::Serialize)]
struct List {
    schema: &'static str,
    recording: String,
    incidents: Vec<Numbered>,
}

impl List {
    fn new(recording: impl ToString, incidents: Vec<Numbered>) -> Self {
        Self {
            schema: LIST_SCHEMA,
            recording: recording.to_string(),
            incidents,
        }
    }
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

/// Where a wrapped line goes on.
const HANG: usize = 4;

/// One with its report.
fn whole(incident: &Incident, width: usize) -> String {
    let mut page = Page::new(width, false);
    page.line(&[plain(&incident.at)]);
    for part in [
        incident::lines(incident),
        incident::said_by_the_kernel(incident),
        incident::lines_before(incident, page.width()),
    ] {
        for line in &part {
            page.prose(HANG, &[plain(line)]);
        }
        page.gap();
    }
    let mut text = page.finish();
    if let Some(report) = &incident.report {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        incident::tests::{before, kill},
        json,
    };

    fn two() -> Vec<Numbered> {
        let hostile = Incident {
            at: "2026-11-21T14:06:00Z\x1b[2J".to_owned(),
            host: "a\nb".to_owned(),
            ..kill()
        };
        (1..)
            .zip([kill(), hostile])
            .map(|(number, incident)| Numbered {
                number,
                incident: incident.without_report(),
            })
            .collect()
    }

    /// A line an incident, whatever is in it.
    #[test]
    fn list_text() {
        assert_eq!(list(&[]), "no incident is recorded\n");
        insta::assert_snapshot!(list(&two()));
    }

    /// The list is one object that names its schema, and has no reports.
    #[test]
    fn list_json() {
        let mut out = Vec::new();
        let list = List::new("r.memtrace", two());
        json::pretty(&list, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    /// One incident whole: what happened, what the kernel said, what was before, then its report; 80 columns
    /// are enough.
    #[test]
    fn whole_text() {
        let mut incident = kill();
        incident.before = Some(before());
        let cgroup = incident.cgroup.as_mut().unwrap();
        cgroup.usage_bytes = Some(64 << 20);
        cgroup.events.insert("oom_kill".to_owned(), 1);
        cgroup.events.insert("low".to_owned(), 0);
        incident.victims[0].figures.oom_score_adj = Some(-5);
        let text = whole(&incident, 80);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        insta::assert_snapshot!(text);
    }
}
