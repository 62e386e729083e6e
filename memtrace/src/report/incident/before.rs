//! What was before an incident: usage against the limit over time, and the stacks that grew. Pure.
//!
//! Only what was recorded: a moment at which usage is not known has none.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Incident, Kind};
use crate::report::{
    culprit, human,
    model::{Frame, Report, Stack, Word, fixed},
};
use crate::trend::Verdict;

/// Points of a timeline in JSON.
pub const MAX_POINTS: usize = 200;
/// Lines of a timeline in text.
const LINES: usize = 12;
/// Stacks that grew, named.
const MAX_GREW: usize = 5;
/// Columns of a whole bar.
const BAR: usize = 20;
/// Narrower pages have no bars.
const WITH_BAR: usize = 78;

/// What a recording knows of the time before an incident.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Before {
    /// Reports that were recorded before it.
    pub reports: usize,
    /// The limit that was met or neared.
    pub limit_bytes: Option<u64>,
    /// In order of time, the last one the incident itself. Of many: some spread over the whole time, and the more
    /// the nearer to its end.
    pub timeline: Vec<Point>,
    /// The stacks that gained between the first point and the last, most first.
    pub grew: Vec<Grew>,
}

/// One moment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Point {
    /// RFC 3339.
    pub taken_at: String,
    /// Seconds since tracing began.
    pub seconds_since_start: f64,
    /// Used of the limit, without files that were not used lately; null when it is not known.
    pub usage_bytes: Option<u64>,
    /// Resident memory of the traced processes under the limit that ran; null when none did.
    pub rss_bytes: Option<u64>,
    /// Outstanding since the attach in these processes.
    pub outstanding_bytes: u64,
}

/// A stack that grew before it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Grew {
    /// Process.
    pub pid: u32,
    /// The innermost function that is the program's own; null when unknown.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// Object.
    pub module: Option<String>,
    /// heap, region or fault.
    #[serde(deserialize_with = "fixed")]
    pub probe: Word,
    /// What it gained in that time.
    pub gained_bytes: u64,
    /// In so many objects.
    pub gained_objects: u64,
    /// Growth in that time.
    pub growth_bytes_per_second: f64,
    /// Verdict of that time.
    pub verdict: Verdict,
    /// Innermost first; not printed, for who names them again.
    #[serde(skip)]
    pub frames: Vec<Frame>,
}

impl Grew {
    /// Takes the function's name from the frames as they are named now.
    pub fn rename(&mut self) {
        let frame = culprit::culprit(&self.frames).and_then(|at| self.frames.get(at));
        self.function = frame.and_then(|frame| frame.function.clone());
        self.file = frame.and_then(|frame| frame.file.clone());
        self.line = frame.and_then(|frame| frame.line);
        self.module = frame.and_then(|frame| frame.module.clone());
    }
}

impl Before {
    /// Takes what grew from the report of that stretch.
    pub fn grown(&mut self, stretch: &Report, pids: &[u32]) {
        let stacks = stretch.stacks.iter();
        let mut grew: Vec<&Stack> = stacks
            .filter(|stack| pids.contains(&stack.pid) && !stack.is_apart())
            .filter(|stack| stack.outstanding_bytes > 0)
            .collect();
        grew.sort_by_key(|stack| (std::cmp::Reverse(stack.outstanding_bytes), stack.rank));
        self.grew = grew.into_iter().take(MAX_GREW).map(grew_of).collect();
    }
}

fn grew_of(stack: &Stack) -> Grew {
    let mut grew = Grew {
        pid: stack.pid,
        function: None,
        file: None,
        line: None,
        module: None,
        probe: stack.probe,
        gained_bytes: stack.outstanding_bytes,
        gained_objects: stack.outstanding_objects,
        growth_bytes_per_second: stack.growth_bytes_per_second,
        verdict: stack.verdict,
        frames: stack.frames.clone(),
    };
    grew.rename();
    grew
}

/// Which of these times, in their order, stand for all when there may be `most`: the first and the last, half of
/// the others spread evenly, and half nearer and nearer to the end.
#[must_use]
pub fn spread(times: &[f64], most: usize) -> Vec<usize> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return Vec::new();
    };
    if times.len() <= most {
        return (0..times.len()).collect();
    }
    let mut chosen = BTreeSet::from([0, times.len() - 1]);
    // The last time that is not after it.
    let at = |time: f64| times.partition_point(|t| *t <= time).saturating_sub(1);
    let room = most.saturating_sub(2);
    let even = room / 2;
    for part in 1..=even {
        let share = part as f64 / (even + 1) as f64;
        chosen.insert(at(first + (last - first) * share));
    }
    let mut left = (last - first) / (even + 1) as f64;
    // Halved until it is nothing; the bound is that of a double's digits.
    for _ in 0..64 {
        if chosen.len() >= most {
            break;
        }
        left /= 2.0;
        chosen.insert(at(last - left));
    }
    chosen.into_iter().take(most).collect()
}

/// Lines for a person, without line ends; they hold names as they were recorded. Those of the table fit the width,
/// others are for wrapping.
#[must_use]
pub fn lines(incident: &Incident, width: usize) -> Vec<String> {
    let Some(before) = &incident.before else {
        return Vec::new();
    };
    let mut lines = timeline(before, incident.kind, width);
    let (Some(first), Some(last)) = (before.timeline.first(), before.timeline.last()) else {
        return lines;
    };
    if before.reports == 0 {
        lines.push("  no report was recorded before it".to_owned());
    } else {
        let time = human::seconds(last.seconds_since_start - first.seconds_since_start);
        if before.grew.is_empty() {
            lines.push(format!("No stack grew in these {time}."));
        } else {
            lines.push(format!("Grew in these {time}"));
            lines.extend(before.grew.iter().map(grown));
        }
    }
    lines
}

fn timeline(before: &Before, kind: Kind, width: usize) -> Vec<String> {
    let Some(end) = before.timeline.last() else {
        return Vec::new();
    };
    let has_bar = width >= WITH_BAR && before.limit_bytes.is_some();
    let title = match before.limit_bytes {
        Some(limit) => format!("Before it, of the limit of {}", human::bytes(limit)),
        None => "Before it".to_owned(),
    };
    let gap = " ".repeat(if has_bar { BAR + 2 } else { 0 });
    let head = format!("{:>14}{:>9}{gap}{:>18}  {:>9}", "", "used", "traced", "RSS");
    let mut lines = vec![title, head];
    let points = before.timeline.iter();
    let times: Vec<f64> = points.map(|point| point.seconds_since_start).collect();
    for at in spread(&times, LINES) {
        let Some(point) = before.timeline.get(at) else {
            continue;
        };
        let when = match (at + 1 == times.len(), kind) {
            (false, _) => human::seconds(end.seconds_since_start - point.seconds_since_start),
            (true, Kind::OomKill) => "the kill".to_owned(),
            (true, Kind::Threshold) => "then".to_owned(),
        };
        lines.push(line(&when, point, before.limit_bytes, has_bar));
    }
    lines
}

fn line(when: &str, point: &Point, limit: Option<u64>, has_bar: bool) -> String {
    let amount = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), human::bytes);
    let share = match (point.usage_bytes, limit) {
        (Some(used), Some(limit)) if limit > 0 => Some(used as f64 / limit as f64),
        _ => None,
    };
    let percent = share.map_or_else(String::new, human::percent);
    let bar = if has_bar {
        format!("  {:<BAR$}", bar(share.unwrap_or(0.0)))
    } else {
        String::new()
    };
    format!(
        "{when:>14}{:>9} {percent:>6}{bar}  {:>9}  {:>9}",
        amount(point.usage_bytes),
        human::bytes(point.outstanding_bytes),
        amount(point.rss_bytes)
    )
}

/// As many blocks as there are twentieths.
fn bar(share: f64) -> String {
    let blocks = (share.clamp(0.0, 1.0) * BAR as f64).round();
    "█".repeat(blocks as usize)
}

fn grown(grew: &Grew) -> String {
    let name = grew.function.as_deref().unwrap_or("an unknown function");
    let place = match (&grew.file, grew.line) {
        (Some(file), Some(line)) => format!(" ({}:{line})", culprit::file_name(file)),
        _ => String::new(),
    };
    format!(
        "  +{} ({}, {}) at {name}{place} in pid {}",
        human::bytes(grew.gained_bytes),
        human::counted(grew.gained_objects, "object", "objects"),
        human::rate(grew.growth_bytes_per_second),
        grew.pid,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::incident::tests::{before, kill};

    fn printed(incident: &Incident, width: usize) -> String {
        lines(incident, width).join("\n")
    }

    // On a wide page with bars, on a narrow one without; no line of the table is wider than the page.
    #[test]
    fn wide_and_narrow() {
        let mut incident = kill();
        incident.before = Some(before());
        let (wide, narrow) = (printed(&incident, 80), printed(&incident, 60));
        let table = |text: &str| text.lines().take(11).map(|l| l.chars().count()).max();
        let fits = |text: &str, width| table(text).is_some_and(|columns| columns <= width);
        assert!(fits(&wide, 80) && fits(&narrow, 60), "{wide}\n{narrow}");
        insta::assert_snapshot!(format!("{wide}\n\n{narrow}"));
    }

    // What is not known is not made up: without a limit, without usage, and with no report before it.
    #[test]
    fn nothing_is_made_up() {
        let mut incident = kill();
        let mut known = before();
        known.limit_bytes = None;
        for point in &mut known.timeline {
            point.usage_bytes = None;
            point.rss_bytes = None;
        }
        known.grew.clear();
        incident.before = Some(known.clone());
        let some = printed(&incident, 80);
        assert!(
            !some.contains('%') && some.contains("No stack grew"),
            "{some}"
        );
        known.reports = 0;
        known.timeline.drain(..known.timeline.len() - 1);
        incident.before = Some(known);
        let none = printed(&incident, 80);
        assert!(none.ends_with("no report was recorded before it"), "{none}");
        incident.before = None;
        assert_eq!(printed(&incident, 80), "");
    }

    proptest! {
        // In order, without doubles, no more than asked for, the ends always among them; all when they are few.
        #[test]
        fn spread_keeps_the_ends(
            steps in proptest::collection::vec(0.0..1000.0_f64, 1..400),
            most in 2..40_usize,
        ) {
            let mut at = 0.0;
            let times: Vec<f64> = steps.iter().map(|step| { at += step; at }).collect();
            let chosen = spread(&times, most);
            prop_assert!(chosen.len() <= most);
            prop_assert!(chosen.windows(2).all(|two| two[0] < two[1]));
            prop_assert_eq!(chosen.first(), Some(&0));
            prop_assert_eq!(chosen.last(), Some(&(times.len() - 1)));
            if times.len() <= most {
                prop_assert_eq!(chosen.len(), times.len());
            }
        }
    }
}
