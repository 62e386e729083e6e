//! What was before an incident: the usage that was recorded until then, and what grew.

use std::collections::BTreeMap;

use super::read::MAX_ROWS;
use super::{Moment, RecordError, Recording};
use crate::report::incident::{Before, Incident, Kind, MAX_POINTS, Point, spread};

/// Stacks of a stretch that are looked at for those of the processes in question.
const STACKS: usize = 100;

/// A process as its latest row has it.
struct Known {
    runs: bool,
    rss: Option<u64>,
    usage: Option<u64>,
    limit: Option<u64>,
    outstanding: u64,
}

/// A row of the tables: of a process, or only that an interval begins (`process` is null).
struct Row {
    interval: i64,
    is_key: bool,
    process: Option<i64>,
    known: Option<Known>,
}

impl Recording {
    /// What is known of the time before an incident whose report is that of `moment`.
    pub(super) fn before(
        &self,
        incident: &Incident,
        moments: &[Moment],
        moment: &Moment,
    ) -> Result<Before, RecordError> {
        let pids = pids(incident);
        let limit = limit(incident);
        let mut points = self.points(&pids, limit, moments, moment)?;
        let end = points
            .pop()
            .map(|(_, point)| end(incident, point))
            .unwrap_or_default();
        let first = points.first().map(|(moment, _)| *moment);
        let mut before = Before {
            reports: points.len(),
            limit_bytes: limit,
            timeline: points.into_iter().map(|(_, point)| point).collect(),
            ..Before::default()
        };
        before.timeline.push(end);
        let times: Vec<f64> = before
            .timeline
            .iter()
            .map(|point| point.seconds_since_start)
            .collect();
        let chosen = spread(&times, MAX_POINTS);
        let mut at = 0;
        before.timeline.retain(|_| {
            at += 1;
            chosen.binary_search(&(at - 1)).is_ok()
        });
        if let Some(first) = first.filter(|first| first.at_ms < moment.at_ms) {
            let stretch = self.window(first, moment, Some(STACKS))?;
            before.grown(&stretch.report, &pids);
        }
        Ok(before)
    }

    /// What the processes used at every moment until one, that one last.
    fn points<'a>(
        &self,
        pids: &[u32],
        limit: Option<u64>,
        moments: &'a [Moment],
        until: &Moment,
    ) -> Result<Vec<(&'a Moment, Point)>, RecordError> {
        let mut known: BTreeMap<i64, Known> = BTreeMap::new();
        let mut rows = self.rows(pids, until)?.into_iter().peekable();
        let mut points = Vec::new();
        for moment in moments.iter().filter(|m| m.interval <= until.interval) {
            while let Some(row) = rows.next_if(|row| row.interval <= moment.interval) {
                if row.process.is_none() && row.is_key {
                    // It has a row of every process that is still shown.
                    known.clear();
                }
                match (row.process, row.known) {
                    (Some(process), Some(now)) => _ = known.insert(process, now),
                    (Some(process), None) => _ = known.remove(&process),
                    (None, _) => {}
                }
            }
            if !known.is_empty() || moment.interval == until.interval {
                points.push((moment, point(moment, &known, limit)));
            }
        }
        Ok(points)
    }

    /// The rows of these processes until a moment, each interval's after one of its own.
    fn rows(&self, pids: &[u32], until: &Moment) -> Result<Vec<Row>, RecordError> {
        let wanted = serde_json::json!(pids).to_string();
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT id AS interval, is_key, NULL AS process, NULL, NULL, NULL, NULL, NULL
                   FROM intervals WHERE id <= ?2
                 UNION ALL
                 SELECT s.interval, 0, s.process, s.state, s.rss_bytes, s.usage_bytes, s.limit_bytes,
                        s.outstanding_bytes
                   FROM processes p JOIN process_samples s ON s.process = p.id
                   WHERE s.interval <= ?2 AND p.pid IN (SELECT value FROM json_each(?1))
                 ORDER BY interval, process LIMIT ?3",
            )
            .map_err(self.wrong())?;
        let bytes = |row: &rusqlite::Row<'_>, at| {
            let value: Option<i64> = row.get(at)?;
            Ok::<_, rusqlite::Error>(value.map(i64::cast_unsigned))
        };
        let rows = statement.query_map((wanted, until.interval, MAX_ROWS), |row| {
            let state: Option<String> = row.get(3)?;
            let known = match state {
                Some(state) => Some(Known {
                    runs: state == "running",
                    rss: bytes(row, 4)?,
                    usage: bytes(row, 5)?,
                    limit: bytes(row, 6)?,
                    outstanding: bytes(row, 7)?.unwrap_or(0),
                }),
                None => None,
            };
            Ok(Row {
                interval: row.get(0)?,
                is_key: row.get(1)?,
                process: row.get(2)?,
                known,
            })
        });
        rows.and_then(Iterator::collect).map_err(self.wrong())
    }
}

/// Whose memory it is about.
fn pids(incident: &Incident) -> Vec<u32> {
    let victims = incident.victims.iter().filter(|victim| victim.traced);
    let mut pids: Vec<u32> = incident
        .processes
        .iter()
        .map(|process| process.pid)
        .chain(victims.map(|victim| victim.pid))
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The limit that was met or neared.
fn limit(incident: &Incident) -> Option<u64> {
    let crossed = incident.threshold.map(|threshold| threshold.limit_bytes);
    crossed.or_else(|| incident.cgroup.as_ref()?.limit_bytes)
}

/// One moment. Usage is that of the limit in question only: a process may have been nearer to another one.
fn point(moment: &Moment, known: &BTreeMap<i64, Known>, limit: Option<u64>) -> Point {
    let running = || known.values().filter(|process| process.runs);
    let of_limit = running().filter(|process| limit.is_some() && process.limit == limit);
    Point {
        taken_at: moment.taken_at.clone(),
        seconds_since_start: moment.at_ms as f64 / 1000.0,
        // The same group's, read for each process.
        usage_bytes: of_limit.filter_map(|process| process.usage).max(),
        rss_bytes: running()
            .filter_map(|process| process.rss)
            .reduce(u64::saturating_add),
        outstanding_bytes: known
            .values()
            .fold(0, |sum, process| sum.saturating_add(process.outstanding)),
    }
}

/// The incident as the last point: what it says itself counts more than the report that was taken of it.
fn end(incident: &Incident, report: Point) -> Point {
    let usage_bytes = match incident.kind {
        Kind::Threshold => incident.threshold.map(|crossed| crossed.used_bytes),
        Kind::OomKill => incident.used_at_the_kill(),
    };
    Point {
        taken_at: incident.at.clone(),
        seconds_since_start: report.seconds_since_start,
        usage_bytes,
        ..report
    }
}
