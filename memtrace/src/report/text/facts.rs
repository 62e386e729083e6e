//! The lines between the answer and the stacks: memory, limit, cost, what is covered.

use super::headline::{state, time_of_day};
use super::{View, verdict_style, verdict_word};
use crate::report::culprit::file_name;
use crate::report::explain;
use crate::report::human;
use crate::report::layout::{Page, Piece, piece, plain, style, tight};
use crate::report::model::{Container, Coverage, Process};
use crate::trend::Verdict;

/// Width of the label column.
pub(super) const LABEL: usize = 10;
/// Above this share of the target's CPU the cost is worth a warning.
const DEAR: f64 = 0.2;
/// Processes shown one by one.
const MAX_PROCESSES: usize = 12;
/// Marks shown one by one.
const MAX_MARKS: usize = 8;
/// With so little time to the limit it is shown in red.
const SOON_SECONDS: f64 = 3600.0;

pub(super) fn write(page: &mut Page, view: &View<'_>) {
    match view.only_process() {
        Some(one) => one_process(page, view, one),
        None => many_processes(page, view),
    }
    filters(page, view);
    sampling(page, view);
    overhead(page, view);
    coverage(page, view);
    marks(page, view);
}

/// The moments that were named since the report before, the latest when there are many.
fn marks(page: &mut Page, view: &View<'_>) {
    let marks = &view.report.marks;
    let before = marks.len().saturating_sub(MAX_MARKS);
    if before > 0 {
        label(page, "Mark", &[plain(format!("{before} earlier ones"))]);
    }
    for mark in marks.iter().skip(before) {
        let mut pieces = vec![piece(style::BOLD, mark.name.clone())];
        if let Some(time) = time_of_day(&mark.at) {
            pieces.push(plain(format!(", set at {}", tight(time))));
        }
        label(page, "Mark", &pieces);
    }
}

fn label(page: &mut Page, name: &str, pieces: &[Piece]) {
    page.labelled(piece(style::DIM, name), LABEL, pieces);
}

/// What a process's figures are.
fn held(view: &View<'_>) -> &'static str {
    match view.report.gained_since {
        Some(_) => "gained",
        None => "outstanding",
    }
}

fn one_process(page: &mut Page, view: &View<'_>, one: &Process) {
    if let Some(container) = &one.container {
        label(page, "Container", &[plain(container_name(container))]);
    }
    let mut rss = vec![plain(rss(view, one))];
    if view.report.target.kind != "run" && view.report.gained_since.is_none() {
        rss.push(piece(style::DIM, "; what lived before is unknown"));
    }
    label(page, "RSS", &rss);
    let traced = format!(
        "{} {} in {}",
        view.bytes(one.outstanding_bytes),
        held(view),
        view.objects(one.outstanding_objects)
    );
    label(page, "Traced", &[plain(traced)]);
    explained(page, view, one);
    limit(page, one);
}

/// What resident memory is made of, and what made it grow.
fn explained(page: &mut Page, view: &View<'_>, one: &Process) {
    if let Some(sentence) = explain::growth(one, &view.report.stacks) {
        label(page, "Growth", &[plain(sentence)]);
    }
    if let Some(parts) = &one.reconciliation {
        let named = [
            ("live blocks", parts.heap_outstanding.unwrap_or(0)),
            ("from before the attach", parts.before_attach),
            ("held by the allocator", parts.heap_retained),
            ("own mappings", parts.regions),
            ("files", parts.file),
            ("shared", parts.shared),
            ("stacks", parts.stack),
            ("unexplained", parts.unexplained),
        ];
        let named: Vec<_> = named
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(what, bytes)| format!("{} {what}", tight(human::bytes(bytes))))
            .collect();
        if view.verbose && !named.is_empty() {
            label(page, "Resident", &[plain(named.join(", "))]);
        }
    }
    if let Some(runtime) = &one.runtime {
        let text = format!(
            "{}{}: {}",
            runtime.name.name(),
            explain::managed(runtime),
            runtime.advice
        );
        label(page, "Runtime", &[plain(text)]);
    }
}

fn rss(view: &View<'_>, one: &Process) -> String {
    let in_window = view.report.gained_since.is_some();
    let start = match view.report.target.kind {
        _ if in_window => "at its beginning",
        "run" => "at start",
        _ => "at attach",
    };
    let end = match state(one) {
        "" if in_window => "at its end",
        "" => "now",
        _ => "when last seen",
    };
    let size = |bytes| tight(human::bytes(bytes));
    match (one.rss_bytes_at_attach, one.rss_bytes) {
        (Some(before), Some(now)) => format!("{} {start} → {} {end}", size(before), size(now)),
        (Some(before), None) => format!("{} {start}, then unknown", size(before)),
        (None, Some(now)) => format!("{} {end}, unknown {start}", size(now)),
        (None, None) => "unknown".to_owned(),
    }
}

fn limit(page: &mut Page, one: &Process) {
    let Some(limit) = one.memory_limit_bytes else {
        return;
    };
    let mut pieces = vec![plain(tight(human::bytes(limit)))];
    if let Some(usage) = one.memory_usage_bytes {
        pieces.push(plain(format!(
            ", {} of it used",
            tight(human::bytes(usage))
        )));
    }
    if let Some(left) = one.seconds_to_limit {
        let look = if left < SOON_SECONDS {
            style::BAD
        } else {
            style::WARN
        };
        pieces.push(plain("; "));
        pieces.push(piece(
            look,
            format!("reached in {}", tight(human::seconds(left))),
        ));
        pieces.push(plain(" at this growth"));
    }
    label(page, "Limit", &pieces);
}

fn container_name(container: &Container) -> String {
    let mut text = container.title();
    if let (Some(uid), None) = (&container.pod_uid, &container.pod) {
        text.push_str(&format!(", pod {uid}"));
    }
    if let Some(image) = &container.image {
        text.push_str(&format!(", image {image}"));
    }
    text
}

fn many_processes(page: &mut Page, view: &View<'_>) {
    let mut shown: Vec<_> = view.report.processes.iter().collect();
    if shown.len() > MAX_PROCESSES && !view.verbose {
        // Those that grow, then those that hold most.
        shown.sort_by_key(|one| {
            let grows = one.verdict == Verdict::Growing;
            (!grows, std::cmp::Reverse(one.outstanding_bytes))
        });
    }
    let limit = if view.verbose {
        usize::MAX
    } else {
        MAX_PROCESSES
    };
    let (shown, rest) = shown.split_at(shown.len().min(limit));
    for one in shown {
        let name = match one.processes {
            1 => format!("{} ({}{})", one.pid, one.comm, state(one)),
            many => format!("{} and others ({many} of {}, ended)", one.pid, one.comm),
        };
        let mut items = vec![
            vec![piece(style::DIM, "pid "), plain(name)],
            vec![piece(style::DIM, "RSS "), plain(rss(view, one))],
            vec![plain(format!(
                "{} {}",
                view.bytes(one.outstanding_bytes),
                held(view)
            ))],
            vec![plain(view.rate(one.growth_bytes_per_second))],
            vec![piece(verdict_style(one.verdict), verdict_word(one.verdict))],
        ];
        if let Some(left) = one.seconds_to_limit {
            items.push(vec![piece(
                style::BAD,
                format!("limit in {}", human::seconds(left)),
            )]);
        }
        page.items(4, &items);
    }
    if !rest.is_empty() {
        let bytes = rest.iter().map(|one| one.outstanding_bytes).sum();
        let text = format!(
            "and {} more with {} {}",
            rest.iter().map(|one| one.processes).sum::<u64>(),
            view.bytes(bytes),
            held(view)
        );
        page.prose(4, &[piece(style::DIM, text)]);
    }
    if view.report.processes.is_empty() {
        label(page, "Processes", &[plain("none")]);
    } else if view.report.target.kind != "run" {
        page.prose(
            0,
            &[piece(
                style::DIM,
                "What lived before the attach is unknown.",
            )],
        );
    }
}

fn filters(page: &mut Page, view: &View<'_>) {
    let filters = &view.report.filters;
    let mut shown = Vec::new();
    if let Some(age) = filters.older_seconds {
        shown.push(format!("at least {} old", human::seconds(age)));
    }
    match (filters.min_size_bytes, filters.max_size_bytes) {
        (Some(min), Some(max)) => {
            shown.push(format!("of {} to {}", human::bytes(min), human::bytes(max)));
        }
        (Some(min), None) => shown.push(format!("of {} and more", human::bytes(min))),
        (None, Some(max)) => shown.push(format!("of {} and less", human::bytes(max))),
        (None, None) => {}
    }
    if !shown.is_empty() {
        label(
            page,
            "Only",
            &[plain(format!("allocations {}", shown.join(", ")))],
        );
    }
}

fn sampling(page: &mut Page, view: &View<'_>) {
    if view.sampled() {
        let rate = human::bytes(view.report.overhead.sample_bytes);
        let text = format!("one allocation per {rate} on average; figures with ~ are estimates");
        label(page, "Sampled", &[plain(text)]);
    }
}

fn overhead(page: &mut Page, view: &View<'_>) {
    let cost = &view.report.overhead;
    let hits = cost.probe_hits.heap + cost.probe_hits.region + cost.probe_hits.fault;
    let mut pieces = Vec::new();
    match cost.fraction_of_target_cpu {
        Some(share) if share > DEAR => {
            pieces.push(piece(style::WARN, human::percent(share)));
            pieces.push(plain(" of the target's CPU time"));
        }
        Some(share) => pieces.push(plain(format!(
            "{} of the target's CPU time",
            human::percent(share)
        ))),
        None => pieces.push(plain("share of the target's CPU time not known yet")),
    }
    let each = format!(
        " ({} of {:.0}\u{a0}ns)",
        tight(human::counted(hits, "probe hit", "probe hits")),
        cost.nanoseconds_per_hit
    );
    pieces.push(piece(style::DIM, each));
    if cost
        .fraction_of_target_cpu
        .is_some_and(|share| share > DEAR)
        && !cost.detached
        // Only calls of allocators are sampled.
        && cost.probe_hits.heap > hits / 2
    {
        let advice = if view.sampled() {
            "a larger --sample-bytes"
        } else {
            "--sample-bytes 512KiB"
        };
        pieces.push(plain(format!("; {advice} makes it cheaper")));
    }
    label(page, "Overhead", &pieces);
    if cost.detached {
        let text = "--max-overhead could not be kept, the probes are gone: \
                    the figures stand where they stood then";
        page.labelled(piece(style::BAD, "DETACHED"), LABEL, &[plain(text)]);
    }
}

fn coverage(page: &mut Page, view: &View<'_>) {
    let covered = &view.report.coverage;
    if !view.report.probes.contains(&"heap") {
        let what = view.report.probes.join(", ");
        let text = format!("{what}; not the allocators");
        label(page, "Probes", &[plain(text)]);
    } else if covered.iter().all(|one| one.functions.is_empty()) {
        // A note, below, knows better what to do.
        let text = if covered.iter().any(|one| one.note.is_some()) {
            "none"
        } else {
            "none: no allocator was found; --object, --prefix or --alloc-fn can name one"
        };
        page.labelled(piece(style::BAD, "Probes"), LABEL, &[plain(text)]);
    } else if view.verbose {
        for one in covered {
            object(page, one);
        }
    } else {
        label(page, "Probes", &[plain(summary(covered))]);
    }
    let mut told = Vec::new();
    for one in covered {
        let Some(note) = &one.note else { continue };
        let text = match file_name(&one.object) {
            "" => note.clone(),
            object => format!("{object}: {note}"),
        };
        if !told.contains(&text) {
            page.labelled(piece(style::WARN, "Note"), LABEL, &[plain(&text)]);
            told.push(text);
        }
    }
}

/// `glibc in libc.so.6 (12 functions), c++ in libstdc++.so.6 (8)`.
fn summary(covered: &[Coverage]) -> String {
    // The same library in many processes is one entry.
    let mut objects: Vec<(&str, &str, usize)> = Vec::new();
    for one in covered.iter().filter(|one| !one.functions.is_empty()) {
        let (family, object) = (one.family.as_str(), file_name(&one.object));
        let known = objects
            .iter_mut()
            .find(|known| (known.0, known.1) == (family, object));
        match known {
            Some((_, _, count)) => *count = (*count).max(one.functions.len()),
            None => objects.push((family, object, one.functions.len())),
        }
    }
    let mut unit = "\u{a0}functions";
    let parts: Vec<String> = objects
        .into_iter()
        .map(|(family, object, count)| {
            format!(
                "{family} in {object} ({count}{})",
                std::mem::take(&mut unit)
            )
        })
        .collect();
    parts.join(", ")
}

fn object(page: &mut Page, one: &Coverage) {
    let mut pieces = vec![plain(format!("{} in {}", one.family, one.object))];
    if !one.functions.is_empty() {
        pieces.push(piece(style::DIM, format!(": {}", one.functions.join(" "))));
    }
    if !one.missing.is_empty() {
        pieces.push(piece(
            style::DIM,
            format!("; it has no {}", one.missing.join(" ")),
        ));
    }
    label(page, "Probes", &pieces);
}
