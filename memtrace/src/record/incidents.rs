//! What went wrong: incidents in a recording, without the report that their interval has already.

use rusqlite::OptionalExtension as _;

use super::{RecordError, Recording, Writer};
use crate::report::incident::Incident;

/// Incidents that are read: memory must not follow what a file claims.
const MAX_INCIDENTS: i64 = 100_000;
/// Stacks in an incident, as it was told.
const STACKS: usize = 100;

/// An incident and its place in the recording.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Numbered {
    /// 1 is the first of the recording.
    pub number: i64,
    /// What happened; without the report in a list.
    #[serde(flatten)]
    pub incident: Incident,
}

impl Writer {
    /// Records what went wrong: it belongs to the interval that was written last, whose report is
    /// the incident's and is not written again.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn keep_incident(&mut self, incident: &Incident) -> Result<(), RecordError> {
        let kind = incident.kind.name();
        self.incident(&incident.at, kind, incident.pid(), &details(incident))
    }
}

/// What is written of an incident.
pub(super) fn details(incident: &Incident) -> serde_json::Value {
    let details = incident.without_report();
    let taken_at = incident.report.as_ref().map(|report| &report.taken_at);
    serde_json::json!({ "incident": details, "report_taken_at": taken_at })
}

#[derive(serde::Deserialize)]
struct Details {
    incident: Incident,
    report_taken_at: Option<String>,
}

impl Recording {
    /// Every amount that was watched: what it is, and its bytes.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn thresholds(&self) -> Result<Vec<(String, u64)>, RecordError> {
        let mut statement = self
            .db
            .prepare("SELECT name, bytes FROM thresholds ORDER BY id LIMIT ?")
            .map_err(self.wrong())?;
        let bytes = |row: &rusqlite::Row<'_>| row.get::<_, i64>(1).map(i64::cast_unsigned);
        let rows = statement
            .query_map([MAX_INCIDENTS], |row| Ok((row.get(0)?, bytes(row)?)))
            .and_then(Iterator::collect);
        rows.map_err(self.wrong())
    }

    /// Every incident in the order they were recorded, without their reports.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn incidents(&self) -> Result<Vec<Numbered>, RecordError> {
        let mut statement = self
            .db
            .prepare("SELECT id, json FROM incidents ORDER BY id LIMIT ?")
            .map_err(self.wrong())?;
        let rows = statement
            .query_map([MAX_INCIDENTS], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect::<Result<Vec<(i64, String)>, _>>);
        let rows = rows.map_err(self.wrong())?.into_iter();
        rows.map(|(number, json)| {
            let incident = self.details(&json)?.incident.without_report();
            Ok(Numbered { number, incident })
        })
        .collect()
    }

    /// One incident with its report and what was before it; nothing when there is none of this number.
    /// Both are left out when its interval was dropped for its age.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn incident(&self, number: i64) -> Result<Option<Incident>, RecordError> {
        let found: Option<(i64, String)> = self
            .db
            .query_row(
                "SELECT interval, json FROM incidents WHERE id = ?",
                [number],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(self.wrong())?;
        let Some((interval, json)) = found else {
            return Ok(None);
        };
        let Details {
            mut incident,
            report_taken_at,
        } = self.details(&json)?;
        let moments = self.moments()?;
        let moment = moments.iter().find(|moment| {
            moment.interval == interval && Some(&moment.taken_at) == report_taken_at.as_ref()
        });
        // What a file claims there is not what it holds.
        incident.before = None;
        match moment {
            Some(moment) => {
                incident.report = Some(self.report(moment, Some(STACKS))?.report);
                incident.before = Some(self.before(&incident, &moments, moment)?);
            }
            None => incident.notes.push(
                "its report is not in the recording: too old, or the disk was too slow".to_owned(),
            ),
        }
        Ok(Some(incident))
    }

    fn details(&self, json: &str) -> Result<Details, RecordError> {
        serde_json::from_str(json).map_err(|error| RecordError::damaged(self.path(), error))
    }
}
