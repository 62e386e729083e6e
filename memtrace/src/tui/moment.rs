//! One moment of a session or a recording, as the screen shows it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::replay::Cursor;
use crate::{
    ledger::{Point, regions::RegionKind},
    report::model::{Process, Report, Stack},
};

/// What a row is across moments: its rank changes, this does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The process's address space.
    pub space: u64,
    /// The stack; 0 for a process.
    pub stack: u64,
    /// Which of the stack's accounts: one call path can allocate and map. 0 for a process.
    pub account: u8,
}

impl Key {
    /// Of a process.
    #[must_use]
    pub fn of_process(space: u64) -> Self {
        Self {
            space,
            ..Self::default()
        }
    }

    /// Of a stack of a report, by its number in its address space.
    #[must_use]
    pub fn of_stack(space: u64, number: u64, stack: &Stack) -> Self {
        let kinds = RegionKind::ALL.iter();
        let kind = kinds.zip(3..).find(|(kind, _)| Some(**kind) == stack.kind);
        let account = match (stack.probe, kind) {
            ("region", Some((_, at))) => at,
            ("region", None) => 2,
            ("fault", _) => 1,
            _ => 0,
        };
        Self {
            space,
            stack: number,
            account,
        }
    }
}

/// A moment with a name, and what was outstanding then.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    /// As it was given.
    pub name: String,
    /// Seconds since tracing began.
    pub at: f64,
    /// Bytes and objects of each stack known then.
    pub stacks: HashMap<Key, (u64, u64)>,
}

/// What a row held over time.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Whose.
    pub key: Key,
    /// Outstanding bytes, oldest first.
    pub points: Vec<Point>,
}

/// A report and the series behind it. Never changed once made.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The report.
    pub report: Report,
    /// For each of its stacks, in its order.
    pub stacks: Vec<Past>,
    /// For each of its processes, in its order.
    pub processes: Vec<Past>,
    /// What was marked until then, in its order. Growth is shown since the last one.
    pub marks: Vec<Arc<Mark>>,
    /// It is written to a recording.
    pub is_recording: bool,
    /// Where in a recording it is; nothing when it is live.
    pub cursor: Option<Cursor>,
}

/// Processes that share a container.
#[derive(Clone, Debug)]
pub(super) struct ContainerRow<'a> {
    /// Name, pod or id.
    pub name: String,
    /// Of the full id and the runtime: the same in every moment.
    pub key: Key,
    /// Where its processes are in the report.
    pub members: Vec<(usize, &'a Process)>,
}

impl Moment {
    /// The mark named `name` of this moment, with what its stacks hold.
    #[must_use]
    pub fn mark(&self, name: String) -> Mark {
        let stacks = self.report.stacks.iter().zip(&self.stacks);
        let held = |stack: &Stack| (stack.outstanding_bytes, stack.outstanding_objects);
        Mark {
            name,
            at: self.report.duration_seconds,
            stacks: stacks
                .map(|(stack, past)| (past.key, held(stack)))
                .collect(),
        }
    }

    /// A stack with its past.
    pub(super) fn stack(&self, at: usize) -> Option<(&Stack, &Past)> {
        Some((self.report.stacks.get(at)?, self.stacks.get(at)?))
    }

    /// A process with its past.
    pub(super) fn process(&self, at: usize) -> Option<(&Process, &Past)> {
        Some((self.report.processes.get(at)?, self.processes.get(at)?))
    }

    /// Where the stack of this key is.
    pub(super) fn find_stack(&self, key: Key) -> Option<usize> {
        self.stacks.iter().position(|past| past.key == key)
    }

    /// The process that a stack belongs to.
    pub(super) fn process_of(&self, stack: Key) -> Option<&Process> {
        let at = self
            .processes
            .iter()
            .position(|past| past.key.space == stack.space)?;
        self.report.processes.get(at)
    }

    /// The containers of the processes, by name.
    pub(super) fn containers(&self) -> Vec<ContainerRow<'_>> {
        let mut rows: BTreeMap<(String, &str), Vec<(usize, &Process)>> = BTreeMap::new();
        for (at, process) in self.report.processes.iter().enumerate() {
            let Some(container) = &process.container else {
                continue;
            };
            rows.entry((container_name(process), container.id.as_str()))
                .or_default()
                .push((at, process));
        }
        rows.into_iter()
            .map(|((name, id), members)| ContainerRow {
                name,
                key: Key::of_process(hash(id)),
                members,
            })
            .collect()
    }

    /// What a container's processes held together over time.
    pub(super) fn container_points(&self, row: &ContainerRow<'_>) -> Vec<Point> {
        let members = row.members.iter();
        let pasts: Vec<&[Point]> = members
            .filter_map(|(at, _)| Some(self.processes.get(*at)?.points.as_slice()))
            .collect();
        sum(&pasts)
    }
}

/// Pod and name, else the image, else the start of the id.
pub(super) fn container_name(process: &Process) -> String {
    let Some(container) = &process.container else {
        return String::new();
    };
    let short: String = container.id.chars().take(12).collect();
    match (&container.pod, &container.name) {
        (Some(pod), Some(name)) => format!("{pod}/{name}"),
        (Some(only), None) | (None, Some(only)) => only.clone(),
        (None, None) => container.image.clone().unwrap_or(short),
    }
}

/// FNV-1a: an id of text that is the same in every moment.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The sum of series at every time that one of them has; each holds its last value until its next.
fn sum(series: &[&[Point]]) -> Vec<Point> {
    if let [only] = series {
        return only.to_vec();
    }
    let mut steps: Vec<(f64, usize, u64)> = Vec::new();
    for (which, points) in series.iter().enumerate() {
        steps.extend(points.iter().map(|point| (point.at, which, point.bytes)));
    }
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut held = vec![0_u64; series.len()];
    let mut out: Vec<Point> = Vec::new();
    for (at, which, bytes) in steps {
        if let Some(slot) = held.get_mut(which) {
            *slot = bytes;
        }
        let bytes = held
            .iter()
            .fold(0_u64, |sum, held| sum.saturating_add(*held));
        match out.last_mut() {
            Some(last) if last.at.total_cmp(&at).is_eq() => last.bytes = bytes,
            _ => out.push(Point { at, bytes }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(of: &[(f64, u64)]) -> Vec<Point> {
        let point = |&(at, bytes)| Point { at, bytes };
        of.iter().map(point).collect()
    }

    // Series of different times are added as steps.
    #[test]
    fn sums_hold_the_last_value() {
        let (a, b) = (
            points(&[(0.0, 1), (1.0, 2), (2.0, 3)]),
            points(&[(1.0, 10), (3.0, 0)]),
        );
        assert_eq!(
            sum(&[&a, &b]),
            points(&[(0.0, 1), (1.0, 12), (2.0, 13), (3.0, 3)])
        );
        assert_eq!(sum(&[]), []);
        assert_eq!(sum(&[&a]), a);
    }
}
