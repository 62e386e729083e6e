//! CSV (RFC 4180): a row for each process, and one for each stack, at each moment.
//!
//! A live session writes the rows of each report as it is taken; a profile with a series gives the
//! rows of all its moments, oldest first, those of the last one with every figure.

use std::fmt::Write as _;

use super::{
    culprit,
    layout::clean,
    profile::{Profile, ProfiledProcess, Sample, names},
};
use crate::ledger::regions::RegionKind;

/// The columns; further ones may be added at the end.
const HEADER: &str = "taken_at,seconds,row,pid,process,container,stack_id,function,module,probe,\
outstanding_bytes,outstanding_objects,allocated_bytes,allocated_objects,oldest_seconds,\
growth_bytes_per_second,verdict,confidence,rss_bytes,usage_bytes,limit_bytes,stack,kind,summed\r\n";

/// The rows, with the header before them when `begins`.
#[must_use]
pub fn render(profile: &Profile, begins: bool) -> String {
    let mut out = String::new();
    if begins {
        out.push_str(HEADER);
    }
    past(profile, &mut out);
    let now = Time {
        taken_at: clean(&profile.meta.taken_at).into_owned(),
        seconds: profile.meta.duration_seconds,
    };
    for process in &profile.processes {
        process_now(&now, process).write(&mut out);
    }
    for sample in &profile.samples {
        stack_now(profile, &now, sample).write(&mut out);
    }
    if let Some(rest) = names::not_shown(profile) {
        let mut row = Row::new(&now, "not-shown");
        row.function = rest;
        row.summed = "yes";
        row.outstanding_bytes = Some(profile.not_shown.outstanding_bytes);
        row.outstanding_objects = Some(profile.not_shown.outstanding_objects);
        row.write(&mut out);
    }
    out
}

struct Time {
    taken_at: String,
    seconds: f64,
}

/// The moments before the last one.
fn past(profile: &Profile, out: &mut String) {
    let mut rows: Vec<(f64, usize, Row)> = Vec::new();
    let end = profile.meta.duration_seconds;
    for process in &profile.processes {
        for point in process.usage.iter().filter(|point| point.at < end) {
            let mut row = of_process(&past_time(profile, point.at), process);
            row.outstanding_bytes = Some(point.outstanding_bytes);
            row.rss = point.rss_bytes;
            row.usage = point.usage_bytes;
            row.limit = point.limit_bytes;
            rows.push((point.at, rows.len(), row));
        }
    }
    for sample in &profile.samples {
        for moment in sample.history.iter().filter(|moment| moment.at < end) {
            let mut row = of_stack(profile, &past_time(profile, moment.at), sample);
            row.outstanding_bytes = Some(moment.outstanding_bytes);
            row.outstanding_objects = moment.outstanding_objects;
            rows.push((moment.at, rows.len(), row));
        }
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for (_, _, row) in rows {
        row.write(out);
    }
}

fn past_time(profile: &Profile, at: f64) -> Time {
    let started: Option<jiff::Timestamp> = profile.meta.started_at.parse().ok();
    let length = jiff::SignedDuration::try_from_secs_f64(at).ok();
    let then = started
        .zip(length)
        .and_then(|(start, by)| start.checked_add(by).ok());
    Time {
        taken_at: then.map_or_else(String::new, |then| then.to_string()),
        seconds: at,
    }
}

fn of_process(time: &Time, process: &ProfiledProcess) -> Row {
    let mut row = Row::new(time, "process");
    row.pid = Some(process.pid);
    row.process.clone_from(&process.comm);
    row.container = process.container.clone().unwrap_or_default();
    row
}

fn process_now(now: &Time, process: &ProfiledProcess) -> Row {
    let mut row = of_process(now, process);
    row.outstanding_bytes = Some(process.outstanding_bytes);
    row.outstanding_objects = Some(process.outstanding_objects);
    row.growth = Some(process.growth_bytes_per_second);
    row.verdict = names::verdict(process.verdict);
    row.rss = process.rss_bytes;
    row.usage = process.usage_bytes;
    row.limit = process.limit_bytes;
    row
}

fn of_stack(profile: &Profile, time: &Time, sample: &Sample) -> Row {
    let process = profile.process(sample.pid);
    let frame = culprit::culprit(&sample.frames).and_then(|at| sample.frames.get(at));
    let mut row = Row::new(time, "stack");
    row.pid = Some(sample.pid);
    row.process = process.map_or_else(String::new, |process| process.comm.clone());
    row.container = process
        .and_then(|p| p.container.clone())
        .unwrap_or_default();
    row.stack_id = names::stack_id(sample);
    row.function = frame.map(names::frame).unwrap_or_default();
    row.module = frame
        .and_then(|frame| frame.module.clone())
        .unwrap_or_default();
    row.probe = sample.probe;
    row.region = sample.kind.map_or("", RegionKind::name);
    row.summed = if sample.summed { "yes" } else { "no" };
    let frames: Vec<_> = sample.frames.iter().map(names::frame).collect();
    row.stack = frames.join(" < ");
    row
}

fn stack_now(profile: &Profile, now: &Time, sample: &Sample) -> Row {
    let mut row = of_stack(profile, now, sample);
    row.outstanding_bytes = Some(sample.outstanding_bytes);
    row.outstanding_objects = Some(sample.outstanding_objects);
    row.allocated = Some((sample.allocated_bytes, sample.allocated_objects));
    row.oldest = sample.oldest_seconds;
    row.growth = Some(sample.growth_bytes_per_second);
    row.verdict = names::verdict(sample.verdict);
    row.confidence = Some(sample.confidence);
    row
}

/// One row; what is not known stays empty.
#[derive(Default)]
struct Row {
    taken_at: String,
    seconds: f64,
    kind: &'static str,
    pid: Option<u32>,
    process: String,
    container: String,
    stack_id: String,
    function: String,
    module: String,
    probe: &'static str,
    outstanding_bytes: Option<u64>,
    outstanding_objects: Option<u64>,
    allocated: Option<(u64, u64)>,
    oldest: Option<f64>,
    growth: Option<f64>,
    verdict: &'static str,
    confidence: Option<f64>,
    rss: Option<u64>,
    usage: Option<u64>,
    limit: Option<u64>,
    stack: String,
    region: &'static str,
    summed: &'static str,
}

impl Row {
    fn new(time: &Time, kind: &'static str) -> Self {
        Self {
            taken_at: time.taken_at.clone(),
            seconds: time.seconds,
            kind,
            ..Self::default()
        }
    }

    fn write(&self, out: &mut String) {
        let number = |value: Option<u64>| value.map_or_else(String::new, |v| v.to_string());
        let float = |value: Option<f64>, digits: usize| match value {
            Some(value) if value.is_finite() => format!("{value:.digits$}"),
            _ => String::new(),
        };
        let fields = [
            text(&self.taken_at),
            float(Some(self.seconds), 3),
            self.kind.to_owned(),
            number(self.pid.map(u64::from)),
            text(&self.process),
            text(&self.container),
            self.stack_id.clone(),
            text(&self.function),
            text(&self.module),
            self.probe.to_owned(),
            number(self.outstanding_bytes),
            number(self.outstanding_objects),
            number(self.allocated.map(|(bytes, _)| bytes)),
            number(self.allocated.map(|(_, objects)| objects)),
            float(self.oldest, 3),
            float(self.growth, 3),
            self.verdict.to_owned(),
            float(self.confidence, 3),
            number(self.rss),
            number(self.usage),
            number(self.limit),
            text(&self.stack),
            self.region.to_owned(),
            self.summed.to_owned(),
        ];
        for (at, field) in fields.iter().enumerate() {
            let _ = write!(out, "{}{field}", if at > 0 { "," } else { "" });
        }
        out.push_str("\r\n");
    }
}

/// A text field. What a spreadsheet would take for a formula gets a `'` before it, as they do
/// themselves: names come from the target.
fn text(value: &str) -> String {
    let value = clean(value);
    let formula = value.trim_start().starts_with(['=', '+', '-', '@']);
    let guard = if formula { "'" } else { "" };
    if formula || value.contains([',', '"', '\'', ' ', ';']) {
        format!("\"{guard}{}\"", value.replace('"', "\"\""))
    } else {
        value.into_owned()
    }
}

#[cfg(test)]
mod tests;
