//! The first lines: what is traced since when, and the answer.

use super::{View, names::fit_name, verdict_word};
use crate::report::culprit::{culprit, name, short_place};
use crate::report::group;
use crate::report::human;
use crate::report::layout::{Page, Piece, piece, plain, style, tight};
use crate::report::model::{Group, GroupBy, Process, ProcessState, Stack};
use crate::trend::Verdict;

/// Leaks named at the top; the others are counted.
const NAMED: usize = 3;
/// Width of `GROWING` and two spaces.
const HANG: usize = 9;

/// `memtrace: pid 1234 (server), attached 30.5 s ago, report of 03:04:35 UTC`.
pub(super) fn title(page: &mut Page, view: &View<'_>) {
    let report = view.report;
    let age = tight(human::seconds(report.duration_seconds));
    let mut rest = match (&report.gained_since, report.target.kind) {
        (Some(_), _) => format!(", gained in {age}"),
        (None, "run") => format!(", started {age} ago"),
        (None, _) => format!(", attached {age} ago"),
    };
    if let Some(time) = time_of_day(&report.taken_at) {
        let until = match report.gained_since {
            Some(_) => " until",
            None => ", report of",
        };
        rest.push_str(&format!("{until} {}", tight(time)));
    }
    page.prose(
        10,
        &[
            piece(style::BOLD, format!("memtrace: {}", subject(view))),
            plain(rest),
        ],
    );
    for one in &report.processes {
        if one.state == ProcessState::OomKilled {
            let text = format!(
                " pid {} ({}): the kernel killed it for memory",
                one.pid, one.comm
            );
            page.labelled(piece(style::BAD, "OOM-KILLED"), HANG, &[plain(text)]);
        }
    }
}

fn subject(view: &View<'_>) -> String {
    let target = &view.report.target;
    match (target.kind, view.only_process()) {
        ("pid", Some(one)) => format!("pid {} ({}{})", one.pid, one.comm, state(one)),
        ("run", Some(one)) => format!("{} (pid {}{})", target.value, one.pid, state(one)),
        ("pid", None) if target.value.contains([',', ' ']) => format!("pids {}", target.value),
        ("run", None) => target.value.clone(),
        ("all", _) => "all processes".to_owned(),
        (kind, _) => format!("{kind} {}", target.value),
    }
}

/// `, exited` and the like; nothing for a process that runs.
pub(super) fn state(process: &Process) -> &'static str {
    match process.state {
        ProcessState::Running => "",
        ProcessState::Exited => ", exited",
        ProcessState::Exec => ", replaced by exec",
        ProcessState::OomKilled => ", OOM-killed",
    }
}

/// `03:04:35 UTC` of an RFC 3339 time.
pub(super) fn time_of_day(time: &str) -> Option<String> {
    let clock = time.split_once('T')?.1.get(..8)?;
    let zone = if time.ends_with('Z') { " UTC" } else { "" };
    let is_clock = clock
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b':');
    is_clock.then(|| format!("{clock}{zone}"))
}

/// One row that grows.
struct Leak {
    rank: usize,
    name: String,
    place: Option<String>,
    bytes: u64,
    objects: u64,
    probe: &'static str,
    rate: f64,
    confidence: f64,
}

fn leaks(view: &View<'_>) -> Vec<Leak> {
    let report = view.report;
    let mut leaks: Vec<Leak> = if report.group_by == GroupBy::Stack {
        let growing = report
            .stacks
            .iter()
            .filter(|stack| stack.verdict == Verdict::Growing && !stack.is_apart());
        growing.map(stack_leak).collect()
    } else {
        let growing = report
            .groups
            .iter()
            .filter(|group| group.verdict == Verdict::Growing);
        growing
            .map(|row| group_leak(row, report.group_by))
            .collect()
    };
    leaks.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    leaks
}

fn stack_leak(stack: &Stack) -> Leak {
    let frame = culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    Leak {
        rank: stack.rank,
        name: frame.map_or_else(|| "[stack unknown]".to_owned(), name),
        place: frame.and_then(short_place),
        bytes: stack.outstanding_bytes,
        objects: stack.outstanding_objects,
        probe: stack.probe,
        rate: stack.growth_bytes_per_second,
        confidence: stack.confidence,
    }
}

fn group_leak(row: &Group, by: GroupBy) -> Leak {
    Leak {
        rank: row.rank,
        name: group::name(row, by),
        place: None,
        bytes: row.outstanding_bytes,
        objects: row.outstanding_objects,
        probe: "heap",
        rate: row.growth_bytes_per_second,
        confidence: row.confidence,
    }
}

/// The answer in a line or two.
pub(super) fn verdict(page: &mut Page, view: &View<'_>) {
    let leaks = leaks(view);
    if leaks.is_empty() {
        return page.prose(0, &no_leak(view));
    }
    for leak in leaks.iter().take(NAMED) {
        leak.write(page, view);
    }
    if let Some(more @ 1..) = leaks.len().checked_sub(NAMED) {
        let more = human::counted(more as u64, "more that grows", "more that grow");
        page.line(&[plain(format!("{:HANG$}and {more}, below", ""))]);
    }
}

impl Leak {
    fn write(&self, page: &mut Page, view: &View<'_>) {
        let rank = format!("#{} ", self.rank);
        let room = page.width().saturating_sub(HANG);
        let name = fit_name(&self.name, room.saturating_sub(rank.len())).into_owned();
        let place = self
            .place
            .as_ref()
            .map(|place| format!(" ({})", tight(place)));
        let rest = format!(
            " {}, {} sure — {} {} in {}",
            view.rate(self.rate),
            human::confidence(self.confidence),
            view.bytes(self.bytes),
            match view.report.gained_since {
                Some(_) => "gained",
                None => "outstanding",
            },
            view.counted(self.probe, self.objects),
        );
        let pieces = [
            plain(tight(rank)),
            piece(style::BOLD, tight(name)),
            plain(place.unwrap_or_default()),
            plain(rest),
        ];
        page.labelled(
            piece(style::BAD, verdict_word(Verdict::Growing)),
            HANG,
            &pieces,
        );
    }
}

fn no_leak(view: &View<'_>) -> Vec<Piece> {
    let report = view.report;
    let (done, needed) = (report.intervals.completed, report.intervals.needed);
    let rows = if report.group_by == GroupBy::Stack {
        "stack"
    } else {
        "group"
    };
    if report
        .processes
        .iter()
        .all(|one| one.outstanding_bytes == 0 && one.outstanding_objects == 0)
        && report.stacks.is_empty()
    {
        return nothing_outstanding(view);
    }
    if report.stacks.is_empty() {
        let text = match report.gained_since {
            Some(_) => "No stack gained anything in this time.",
            None => "No allocation passes the filters.",
        };
        return vec![plain(text)];
    }
    if done < needed {
        return vec![
            piece(style::BOLD, "Too early to say"),
            plain(format!(
                ": {done} of {needed} intervals of {}.",
                human::seconds(report.intervals.seconds)
            )),
        ];
    }
    let undecided = report
        .stacks
        .iter()
        .filter(|stack| stack.verdict == Verdict::TooEarly && stack.growth_bytes_per_second > 0.0)
        .count();
    if undecided > 0 {
        let stacks = human::counted(undecided as u64, "stack gained", "stacks gained");
        let why = if report.losses.is_empty() {
            format!(": {stacks}, but not long or steadily enough for a verdict.")
        } else {
            format!(": {stacks}, but what was lost (below) could explain that.")
        };
        return vec![piece(style::BOLD, "Undecided"), plain(why)];
    }
    let growing = report
        .processes
        .iter()
        .any(|one| one.verdict == Verdict::Growing);
    if growing {
        let text = format!(", but no single {rows} shown can be blamed for it yet.");
        return vec![piece(style::WARN, "The process grows"), plain(text)];
    }
    vec![piece(style::GOOD, format!("No {rows} is growing."))]
}

/// Nothing is there to show; what that means depends on what could be seen.
fn nothing_outstanding(view: &View<'_>) -> Vec<Piece> {
    let report = view.report;
    if report.coverage.iter().all(|one| one.functions.is_empty()) {
        let text = ": there was nothing to probe, so no allocation and no free was seen.";
        return vec![piece(style::WARN, "Not traced"), plain(text)];
    }
    let filters = &report.filters;
    let mut limits = Vec::new();
    if view.sampled() {
        limits.push("a sample was recorded");
    }
    if filters.min_size_bytes.is_some() || filters.max_size_bytes.is_some() {
        limits.push("some sizes were recorded");
    }
    if !report.losses.is_empty() {
        limits.push("what was not lost (below) was recorded");
    }
    if report.gained_since.is_some() && limits.is_empty() {
        return vec![plain("No stack gained anything in this time.")];
    }
    let text = match (limits.is_empty(), report.target.kind) {
        (false, _) => format!(
            "Nothing recorded is outstanding; but only {}.",
            limits.join(", and only ")
        ),
        (true, "run") => "Nothing is outstanding: all that was allocated is freed.".to_owned(),
        (true, _) => "Nothing is outstanding of what was allocated since the attach.".to_owned(),
    };
    vec![plain(text)]
}
