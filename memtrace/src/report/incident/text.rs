//! An incident in a few lines: what, whose limit, who holds the memory.

use super::{Cgroup, Incident, Kind, Suspect, Victim};
use crate::report::{human, model::Container};

/// Lines for a person, without a line end. The first says it all.
#[must_use]
pub fn lines(incident: &Incident) -> Vec<String> {
    let mut lines = match incident.kind {
        Kind::OomKill => kill(incident),
        Kind::Threshold => vec![crossing(incident)],
    };
    lines.extend(incident.suspects.iter().map(holds));
    if incident.suspects.is_empty() {
        lines.push(nobody(incident).to_owned());
    }
    lines.extend(incident.notes.iter().map(|note| format!("  {note}")));
    lines
}

/// What the kernel said, in lines without an end: its figures of each victim, and of the cgroup.
#[must_use]
pub fn said_by_the_kernel(incident: &Incident) -> Vec<String> {
    let victims = incident.victims.iter().map(figures);
    let is_late = incident.kind == Kind::OomKill && incident.used_at_the_kill().is_none();
    let cgroup = incident.cgroup.iter().map(|cgroup| state(cgroup, is_late));
    let lines: Vec<String> = victims.chain(cgroup).flatten().collect();
    match lines.is_empty() {
        true => lines,
        false => std::iter::once("What the kernel said".to_owned())
            .chain(lines)
            .collect(),
    }
}

fn figures(victim: &Victim) -> Option<String> {
    let known = &victim.figures;
    let amounts = [
        ("anonymous", known.anon_rss_bytes),
        ("files", known.file_rss_bytes),
        ("shared", known.shmem_rss_bytes),
        ("page tables", known.page_table_bytes),
        ("address space", known.total_vm_bytes),
    ];
    let mut said: Vec<String> = amounts
        .into_iter()
        .filter_map(|(name, bytes)| Some(format!("{name} {}", human::bytes(bytes?))))
        .collect();
    said.extend(known.uid.map(|uid| format!("uid {uid}")));
    said.extend(
        known
            .oom_score_adj
            .map(|adj| format!("oom_score_adj {adj}")),
    );
    let all = said.join(", ");
    (!all.is_empty()).then(|| format!("  pid {} ({}): {all}", victim.pid, victim.comm))
}

fn state(cgroup: &Cgroup, is_late: bool) -> Option<String> {
    let used = if is_late {
        "used after memory was given back"
    } else {
        "used"
    };
    let amounts = [
        (used, cgroup.usage_bytes),
        ("of that files not used lately", cgroup.inactive_file_bytes),
        ("at most", cgroup.peak_bytes),
    ];
    let mut said: Vec<String> = amounts
        .into_iter()
        .filter_map(|(name, bytes)| Some(format!("{name} {}", human::bytes(bytes?))))
        .collect();
    let events = cgroup.events.iter().filter(|(_, count)| **count > 0);
    said.extend(events.map(|(name, count)| format!("{name} {}", human::count(*count))));
    if let Some(pressure) = &cgroup.pressure {
        said.push(format!(
            "waited for memory {} of the last 10 s, all of it {}",
            human::percent(pressure.some_avg10 / 100.0),
            human::percent(pressure.full_avg10 / 100.0)
        ));
    }
    let all = said.join(", ");
    (!all.is_empty()).then(|| format!("  cgroup {}: {all}", cgroup.path))
}

fn kill(incident: &Incident) -> Vec<String> {
    let mut lines = Vec::new();
    for victim in &incident.victims {
        lines.push(format!(
            "OOM KILL: the kernel killed pid {} ({}){}{}: {}",
            victim.pid,
            victim.comm,
            in_container(victim.container.as_ref()),
            rss(victim),
            limit(incident)
        ));
    }
    if let Some(trigger) = incident.trigger.as_ref().filter(|one| !one.is_victim) {
        lines.push(format!(
            "  triggered by an allocation of pid {} ({}){}, which was not killed",
            trigger.pid,
            trigger.comm,
            in_container(trigger.container.as_ref())
        ));
    }
    lines
}

fn rss(victim: &Victim) -> String {
    victim
        .figures
        .anon_rss_bytes
        .map_or_else(String::new, |bytes| {
            format!(", {} of anonymous memory", human::bytes(bytes))
        })
}

fn limit(incident: &Incident) -> String {
    match &incident.cgroup {
        Some(Cgroup {
            path,
            limit_bytes: Some(bytes),
            ..
        }) => format!(
            "the limit of {} on cgroup {path} was met",
            human::bytes(*bytes)
        ),
        Some(Cgroup { path, .. }) => format!("cgroup {path} ran out of memory"),
        None => "the machine ran out of memory".to_owned(),
    }
}

fn crossing(incident: &Incident) -> String {
    let Some(threshold) = incident.threshold else {
        return "memory is short".to_owned();
    };
    let path = incident.cgroup.as_ref().map(|group| group.path.as_str());
    format!(
        "MEMORY AT {}%: {} of {} used by cgroup {}{}",
        threshold.percent,
        human::bytes(threshold.used_bytes),
        human::bytes(threshold.limit_bytes),
        path.unwrap_or("/"),
        in_container(incident.container.as_ref()),
    )
}

fn in_container(container: Option<&Container>) -> String {
    container.map_or_else(String::new, |one| format!(" in {}", one.title()))
}

fn holds(suspect: &Suspect) -> String {
    let name = suspect.function.as_deref().unwrap_or("an unknown function");
    let place = match (&suspect.file, suspect.line) {
        (Some(file), Some(line)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            format!(" ({file}:{line})")
        }
        _ => String::new(),
    };
    format!(
        "  {} ({}) outstanding at {name}{place} in pid {}",
        human::bytes(suspect.outstanding_bytes),
        human::percent(suspect.share),
        suspect.pid,
    )
}

fn nobody(incident: &Incident) -> &'static str {
    if incident.victims.iter().any(|victim| victim.traced) || incident.kind == Kind::Threshold {
        "  nothing that was allocated since the attach holds much of it"
    } else {
        "  the victim was not traced: there are no stacks of it"
    }
}
