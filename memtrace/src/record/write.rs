//! Writing a recording: what changed, one transaction an interval.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::encode::{Observed, Row, StackKey, verdicts};
use super::names::Names;
use super::retention::{Retention, Thinner};
use super::{APPLICATION_ID, RecordError, VERSION, open};
use crate::ledger::regions::RegionKind;
use crate::report::model::{Frame, Process, ProcessState, Report};

/// Changes since the last key interval, for each stack, that make the next one due.
const KEY_AFTER: usize = 4;

/// One report, with what it does not show.
#[derive(Debug)]
pub struct Interval<'a> {
    /// When, since tracing began, whole milliseconds; what ages are counted from.
    pub at: Duration,
    /// Its address spaces, in the order of `report.processes`.
    pub spaces: &'a [u64],
    /// All stacks, shown or not.
    pub observed: &'a [Observed],
    /// Frames of stacks, by their place in `observed`; of one that has some they are replaced.
    pub frames: Vec<(usize, Vec<Frame>)>,
    /// Marks set at this moment.
    pub marks: &'a [String],
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    db: Connection,
    path: PathBuf,
    state: State,
    thinner: Thinner,
    /// After the connection and before the lock: fields are dropped in order.
    unused: Unused,
    /// Held for as long as the connection.
    _lock: File,
}

/// A file that nothing was recorded to: it would only be in the way of the next attempt, and goes.
#[derive(Debug)]
struct Unused(Option<PathBuf>);

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What has been written.
#[derive(Debug, Default)]
struct State {
    names: Names,
    stacks: HashMap<StackKey, KnownStack>,
    processes: HashMap<u64, KnownProcess>,
    documents: HashMap<String, i64>,
    stack_ids: i64,
    intervals: i64,
    marks: i64,
    incidents: i64,
    /// Rows since the last key interval.
    changes: usize,
    began: bool,
}

#[derive(Debug)]
struct KnownStack {
    id: i64,
    row: Row,
    interval: i64,
    is_named: bool,
}

#[derive(Debug)]
struct KnownProcess {
    id: i64,
    place: usize,
    json: String,
    interval: i64,
}

impl Writer {
    /// Makes a new recording; the file must not be there.
    ///
    /// # Errors
    /// [`RecordError::Exists`], [`RecordError::Busy`], and what SQLite says.
    pub fn create(path: &Path, retention: Retention) -> Result<Self, RecordError> {
        let (db, lock) = open::create(path)?;
        Self::with(db, lock, path, retention).inspect_err(|_| {
            // An empty file would only be in the way of the next attempt.
            let _ = std::fs::remove_file(path);
        })
    }

    fn with(
        db: Connection,
        lock: File,
        path: &Path,
        retention: Retention,
    ) -> Result<Self, RecordError> {
        let write = RecordError::write(path);
        db.pragma_update(None, "journal_mode", "wal")
            .map_err(&write)?;
        // A commit is on the disk after the next checkpoint: memtrace may be killed at any time
        // without loss, and no report waits for a disk.
        db.pragma_update(None, "synchronous", "normal")
            .map_err(&write)?;
        db.busy_timeout(Duration::from_secs(1)).map_err(&write)?;
        db.execute_batch(&format!(
            "BEGIN; {} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};",
            include_str!("schema.sql")
        ))
        .map_err(&write)?;
        for (id, name) in verdicts() {
            db.execute("INSERT INTO verdicts VALUES (?, ?)", params![id, name])
                .map_err(&write)?;
        }
        db.execute_batch("COMMIT").map_err(&write)?;
        db.set_prepared_statement_cache_capacity(32);
        Ok(Self {
            db,
            path: path.to_owned(),
            state: State::default(),
            thinner: Thinner::new(retention),
            unused: Unused(Some(path.to_owned())),
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which of the stacks have no names yet.
    #[must_use]
    pub fn wants_names(&self, observed: &[Observed]) -> Vec<usize> {
        let known = &self.state.stacks;
        let wanted = observed.iter().enumerate();
        let wanted = wanted.filter(|(_, s)| known.get(&s.key).is_none_or(|known| !known.is_named));
        wanted.map(|(at, _)| at).collect()
    }

    /// Writes one report. After an error the recording is at its end: drop it.
    ///
    /// # Errors
    /// What SQLite says: a full disk, a file that went away.
    pub fn interval(
        &mut self,
        report: &mut Report,
        interval: Interval<'_>,
    ) -> Result<(), RecordError> {
        let write = RecordError::write(&self.path);
        let transaction = self.db.unchecked_transaction().map_err(&write)?;
        self.state
            .interval(&transaction, report, interval)
            .and_then(|()| self.thinner.thin(&transaction, self.state.intervals))
            .and_then(|()| transaction.commit())
            .map_err(&write)?;
        self.unused.0 = None;
        Ok(())
    }

    /// Something went wrong with a target: an OOM kill, a threshold crossed. It belongs to the
    /// last interval written.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn incident(
        &mut self,
        at: &str,
        kind: &str,
        pid: Option<u32>,
        details: &serde_json::Value,
    ) -> Result<(), RecordError> {
        self.state.incidents += 1;
        self.db
            .execute(
                "INSERT INTO incidents VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    self.state.incidents,
                    self.state.intervals,
                    at,
                    kind,
                    pid,
                    details.to_string()
                ],
            )
            .map(drop)
            .map_err(RecordError::write(&self.path))
    }

    /// An amount that is watched.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn threshold(&mut self, name: &str, bytes: u64) -> Result<(), RecordError> {
        self.db
            .execute(
                "INSERT INTO thresholds (name, bytes) VALUES (?, ?)",
                params![name, bytes.cast_signed()],
            )
            .map(drop)
            .map_err(RecordError::write(&self.path))
    }

    /// The session is over; all is in one file then.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn finish(self, ended_at: &str) -> Result<(), RecordError> {
        let write = RecordError::write(&self.path);
        self.db
            .execute("UPDATE session SET ended_at = ?", [ended_at])
            .map_err(&write)?;
        // One plain file: it can be read from read-only media, and readers leave nothing beside it.
        // Somebody who reads it right now keeps the log; it is whole with it.
        let _ = self.db.pragma_update(None, "journal_mode", "delete");
        let Self { db, _lock, .. } = self;
        let closed = db.close().map_err(|(_, error)| write(error));
        drop(_lock);
        closed
    }
}

impl State {
    fn interval(
        &mut self,
        db: &Connection,
        report: &mut Report,
        interval: Interval<'_>,
    ) -> rusqlite::Result<()> {
        if !std::mem::replace(&mut self.began, true) {
            session(db, report)?;
        }
        self.intervals += 1;
        // Reading begins at a key interval: never more than five times the rows that are needed, and
        // a quarter more of them in the file. A mark's stays when the intervals around it go.
        let is_key = self.intervals == 1
            || self.changes > KEY_AFTER * interval.observed.len().max(16)
            || !interval.marks.is_empty();
        if is_key {
            self.changes = 0;
        }
        let at_ms = i64::try_from(interval.at.as_millis()).unwrap_or(i64::MAX);
        self.header(db, report, at_ms, is_key)?;
        self.processes(db, &report.processes, interval.spaces, is_key)?;
        let still: Vec<u64> = (interval.spaces.iter().zip(&report.processes))
            .filter(|(_, process)| process.state != ProcessState::Running)
            .map(|(space, _)| *space)
            .collect();
        for observed in interval.observed {
            let row = Row::of(observed, at_ms, still.contains(&observed.key.space));
            self.stack(db, observed, row, is_key)?;
        }
        self.forget_gone_stacks(db, is_key)?;
        for (at, frames) in interval.frames {
            if let Some(observed) = interval.observed.get(at) {
                self.name(db, observed.key, &frames)?;
            }
        }
        for name in interval.marks {
            self.marks += 1;
            db.prepare_cached("INSERT INTO marks VALUES (?, ?, ?)")?
                .execute(params![self.marks, self.intervals, name])?;
        }
        Ok(())
    }

    fn header(
        &mut self,
        db: &Connection,
        report: &mut Report,
        at_ms: i64,
        is_key: bool,
    ) -> rusqlite::Result<()> {
        let json = |value: serde_json::Result<String>| {
            value.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
        };
        let coverage = std::mem::take(&mut report.coverage);
        let processes = std::mem::take(&mut report.processes);
        let stacks = std::mem::take(&mut report.stacks);
        let header = serde_json::to_string(report);
        let objects = serde_json::to_string(&coverage);
        report.coverage = coverage;
        report.processes = processes;
        report.stacks = stacks;
        let document = self.document(db, json(objects)?)?;
        db.prepare_cached("INSERT INTO intervals VALUES (?, ?, ?, ?, ?)")?
            .execute(params![
                self.intervals,
                at_ms,
                is_key,
                document,
                json(header)?
            ])?;
        Ok(())
    }

    fn document(&mut self, db: &Connection, json: String) -> rusqlite::Result<i64> {
        if let Some(id) = self.documents.get(&json) {
            return Ok(*id);
        }
        let id = i64::try_from(self.documents.len()).unwrap_or(i64::MAX - 1) + 1;
        db.prepare_cached("INSERT INTO documents VALUES (?, ?)")?
            .execute(params![id, json])?;
        self.documents.insert(json, id);
        Ok(id)
    }

    fn processes(
        &mut self,
        db: &Connection,
        processes: &[Process],
        spaces: &[u64],
        is_key: bool,
    ) -> rusqlite::Result<()> {
        let mut insert = db.prepare_cached("INSERT INTO process_samples VALUES (?, ?, ?, ?)")?;
        for (place, (process, space)) in processes.iter().zip(spaces).enumerate() {
            let json = serde_json::to_string(process)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            let next = i64::try_from(self.processes.len()).unwrap_or(i64::MAX - 1) + 1;
            let (id, changed) = match self.processes.get_mut(space) {
                Some(known) => {
                    known.interval = self.intervals;
                    let changed = known.json != json || known.place != place;
                    known.place = place;
                    if changed {
                        known.json.clone_from(&json);
                    }
                    (known.id, changed)
                }
                None => {
                    db.prepare_cached("INSERT INTO processes VALUES (?, ?, ?)")?
                        .execute(params![next, process.pid, space.cast_signed()])?;
                    let known = KnownProcess {
                        id: next,
                        place,
                        json: json.clone(),
                        interval: self.intervals,
                    };
                    self.processes.insert(*space, known);
                    (next, true)
                }
            };
            if changed || is_key {
                let place = i64::try_from(place).unwrap_or(i64::MAX);
                insert.execute(params![self.intervals, id, place, json])?;
            }
        }
        for known in self.processes.values_mut() {
            if known.interval + 1 == self.intervals && !is_key {
                insert.execute(params![self.intervals, known.id, 0, None::<String>])?;
            }
            if known.interval < self.intervals {
                known.json = String::new();
            }
        }
        Ok(())
    }

    fn stack(
        &mut self,
        db: &Connection,
        observed: &Observed,
        row: Row,
        is_key: bool,
    ) -> rusqlite::Result<()> {
        let interval = self.intervals;
        let (id, changed) = match self.stacks.get_mut(&observed.key) {
            Some(known) => {
                known.interval = interval;
                let changed = known.row != row;
                known.row = row;
                (known.id, changed)
            }
            None => {
                self.stack_ids += 1;
                let id = self.stack_ids;
                let process = self.processes.get(&observed.key.space).map(|p| p.id);
                db.prepare_cached("INSERT INTO stacks VALUES (?, ?, ?, ?, ?)")?
                    .execute(params![
                        id,
                        process.unwrap_or(0),
                        observed.key.stack,
                        observed.key.probe,
                        observed.key.kind.map(RegionKind::name)
                    ])?;
                let known = KnownStack {
                    id,
                    row,
                    interval,
                    is_named: false,
                };
                self.stacks.insert(observed.key, known);
                (id, true)
            }
        };
        if changed || is_key {
            self.changes += usize::from(!is_key);
            sample(db, interval, id, &row)?;
        }
        Ok(())
    }

    fn forget_gone_stacks(&mut self, db: &Connection, is_key: bool) -> rusqlite::Result<()> {
        let interval = self.intervals;
        for known in self.stacks.values_mut() {
            if known.interval < interval && !known.row.is_gone() {
                known.row = Row::GONE;
                if !is_key {
                    self.changes += 1;
                    sample(db, interval, known.id, &Row::GONE)?;
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, db: &Connection, key: StackKey, frames: &[Frame]) -> rusqlite::Result<()> {
        let Some(known) = self.stacks.get_mut(&key) else {
            return Ok(());
        };
        if std::mem::replace(&mut known.is_named, true) {
            // Some were late the time before.
            db.prepare_cached("DELETE FROM stack_frames WHERE stack = ?")?
                .execute([known.id])?;
        }
        let mut insert = db.prepare_cached("INSERT INTO stack_frames VALUES (?, ?, ?)")?;
        for (depth, frame) in (0_i64..).zip(frames) {
            insert.execute(params![known.id, depth, self.names.frame(db, frame)?])?;
        }
        Ok(())
    }
}

fn sample(db: &Connection, interval: i64, stack: i64, row: &Row) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            interval,
            stack,
            row.allocated_bytes.cast_signed(),
            row.freed_bytes.cast_signed(),
            row.allocated_objects.cast_signed(),
            row.freed_objects.cast_signed(),
            row.outstanding_bytes.map(u64::cast_signed),
            row.outstanding_objects.map(u64::cast_signed),
            row.oldest_ms,
            row.growth,
            row.verdict,
            row.confidence,
            row.flags,
        ])
        .map(drop)
}

fn session(db: &Connection, report: &Report) -> rusqlite::Result<()> {
    let system = rustix::system::uname();
    let info = rustix::system::sysinfo();
    let memory = u64::from(info.mem_unit).saturating_mul(info.totalram);
    db.execute(
        "INSERT INTO session VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        params![
            report.tool_version,
            report.host,
            system.release().to_string_lossy(),
            system.machine().to_string_lossy(),
            memory.cast_signed(),
            std::process::id(),
            report.target.kind,
            report.target.value,
            report.started_at,
            report.intervals.seconds,
        ],
    )
    .map(drop)
}
