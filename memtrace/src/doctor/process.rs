//! One process: can it be traced, where would its probes go.

use std::path::PathBuf;

use super::trials::Trials;
use crate::{
    id::Tgid,
    probe::Confinement,
    report::doctor::{Check, PlacementRow},
    target::{
        discover::{self, DiscoveredObject, Discoverer, Discovery, PlannedProbe},
        process::{Process, ProcessError, Seccomp},
    },
};

/// What was found in a process.
#[derive(Default)]
pub(super) struct Found {
    pub checks: Vec<Check>,
    pub placements: Vec<PlacementRow>,
}

/// Looks at a process.
pub(super) fn look(
    discoverer: &mut Discoverer,
    objects: &[PathBuf],
    trials: &mut Trials,
    tgid: Tgid,
) -> Found {
    let name = format!("pid {tgid}");
    match read(discoverer, tgid) {
        Ok((process, confined, discovery)) => {
            let mut found = discovered(&name, &process, &discovery, objects);
            found.checks.extend(seccomp(&name, confined, trials));
            found
        }
        Err(error) => Found {
            checks: vec![refused(name, &error)],
            ..Found::default()
        },
    }
}

fn read(
    discoverer: &mut Discoverer,
    tgid: Tgid,
) -> Result<(Process, Seccomp, Discovery), ProcessError> {
    let process = discoverer.proc().read(tgid)?;
    process.check_traceable()?;
    let confined = discoverer.proc().seccomp(&process);
    let discovery = discoverer.discover(tgid)?;
    Ok((process, confined, discovery))
}

/// A process that cannot be read without root is no fault of the machine.
fn refused(name: String, error: &ProcessError) -> Check {
    match error {
        ProcessError::Permission { .. } => Check::warn(name, error.to_string()),
        _ => Check::fail(name, error.to_string()),
    }
}

fn discovered(name: &str, process: &Process, discovery: &Discovery, objects: &[PathBuf]) -> Found {
    let wanted: Vec<&DiscoveredObject> = discovery
        .objects
        .iter()
        .filter(|object| discover::is_wanted(objects, &object.path))
        .collect();
    let mut found = Found {
        checks: vec![summary(name, process, discovery, &wanted)],
        placements: Vec::new(),
    };
    let notes = wanted.iter().filter_map(|o| o.analysis.note.clone());
    let notes = notes.chain(discovery.notes.iter().cloned());
    // The one reason why nothing is found stands in the summary already.
    if !wanted.is_empty() {
        found
            .checks
            .extend(notes.map(|note| Check::warn(name, note)));
    }
    let problems = discovery.searched.iter().filter_map(|s| {
        let problem = s.problem.as_ref()?;
        Some(format!("{}: {problem}", s.path))
    });
    found.checks.extend(problems.map(|p| Check::warn(name, p)));
    for object in wanted {
        let rows = object.analysis.functions.iter();
        let rows = rows.map(|probe| row(process.tgid, object, probe));
        found.placements.extend(rows);
    }
    found
}

/// `redis-server (/usr/bin/redis-server): 14 functions of jemalloc, 12 of glibc`.
fn summary(
    name: &str,
    process: &Process,
    discovery: &Discovery,
    wanted: &[&DiscoveredObject],
) -> Check {
    let who = format!("{} ({})", process.comm, process.exe_text());
    if wanted.is_empty() {
        let why = match discovery.notes.as_slice() {
            [] => "no allocator in the objects named".to_owned(),
            notes => notes.join("; "),
        };
        return Check::fail(name, format!("{who} cannot be traced: {why}"));
    }
    let objects: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(index, object)| {
            let functions = if index == 0 { "functions " } else { "" };
            let count = object.analysis.functions.len();
            format!("{count} {functions}of {}", object.analysis.family_text())
        })
        .collect();
    Check::ok(name, format!("{who}: {}", objects.join(", ")))
}

fn row(tgid: Tgid, object: &DiscoveredObject, probe: &PlannedProbe) -> PlacementRow {
    PlacementRow {
        pid: tgid.0,
        object: object.path.clone(),
        family: object.analysis.family_text(),
        function: probe.found.names.join("="),
        offset: probe.placement.offset,
        instruction: probe.placement.instruction.clone(),
        emulated: probe.placement.emulated,
        reason: reason(probe),
    }
}

fn reason(probe: &PlannedProbe) -> String {
    let mut reason = probe.placement.reason.clone();
    if !probe.also.is_empty() {
        reason += &format!(
            "; covers {} too, which only jump here",
            probe.also.join(", ")
        );
    }
    reason
}

/// Whether its filter would kill it (R25).
fn seccomp(name: &str, confined: Seccomp, trials: &mut Trials) -> Option<Check> {
    let confinement = match confined {
        Seccomp::Off => return None,
        Seccomp::Strict => Confinement::Strict,
        Seccomp::Filter => Confinement::Filter,
    };
    Some(match trials.return_probes_kill(confinement) {
        Some(Ok(false)) => Check::ok(name, "runs under seccomp, which leaves return probes alone here"),
        Some(Ok(true)) => Check::fail(
            name,
            "runs under seccomp, which kills it at a return probe on this kernel: memtrace refuses it",
        )
        .remedy("update the kernel (6.14 and later let return probes pass), or start it without its filter"),
        Some(Err(error)) => Check::warn(name, format!("runs under seccomp; {error}")),
        None => Check::warn(
            name,
            "runs under seccomp; whether that kills it at a return probe could not be tried",
        ),
    })
}
