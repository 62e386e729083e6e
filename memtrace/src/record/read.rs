//! Reading a recording: the report of any moment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row as SqlRow};

use super::cycles::{Known, bytes_of};
use super::encode::Row;
use super::{Moment, RecordError, open};
use crate::ledger::regions::RegionKind;
use crate::report::cycles::Candidate;
use crate::report::model::{DebugLink, Frame, NotShown, Process, Report, Stack, Stated, Word};
use crate::report::sums::is_summed;
use crate::trend::Verdict;

/// Frames of one stack that are read; unwinding ends long before.
const MAX_FRAMES: i64 = 16_384;
/// Rows of one moment that are read, and frames of one report: memory must not follow what a file claims. No
/// session has so many.
pub(super) const MAX_ROWS: i64 = if cfg!(test) { 20_000 } else { 2_000_000 };
/// Stacks with a verdict that are shown: a session judges no more.
pub(super) const MAX_JUDGED: usize = 2000;

/// A recording, opened.
#[derive(Debug)]
pub struct Recording {
    pub(super) db: Connection,
    path: PathBuf,
    pub(super) known: Known,
}

/// A report that was read back.
#[derive(Debug)]
pub struct Read {
    /// As live reporting gave it, with the first stacks only.
    pub report: Report,
    /// The stacks of the report, as [`Recording::histories`] wants them.
    pub stacks: Vec<i64>,
    /// Their address spaces, as the recorder numbered them.
    pub spaces: Vec<u64>,
    /// The stacks that the functions of its cycles are found in.
    pub(super) candidates: Vec<Candidate>,
}

impl Read {
    /// The frames of all its stacks, for who can name them better; [`Self::rename`] comes after it.
    pub fn stacks_mut(&mut self) -> Vec<&mut Vec<Frame>> {
        let stacks = self.report.stacks.iter_mut();
        let candidates = self.candidates.iter_mut();
        stacks
            .map(|stack| &mut stack.frames)
            .chain(candidates.map(|candidate| &mut candidate.frames))
            .collect()
    }

    /// Names what is told of the cycles again, as the stacks are named now.
    pub fn rename(&mut self) {
        if let Some(cycles) = &mut self.report.cycles {
            cycles.rename(&self.candidates);
        }
    }
}

/// A stack at one moment.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub id: i64,
    pub row: Row,
    pub pid: u32,
    /// Its probe, and what a region is used as.
    pub of: (Word, Option<RegionKind>),
    pub(super) space: i64,
    pub(super) number: i64,
}

impl Held {
    /// No memory of the program's in use.
    pub fn is_apart(&self) -> bool {
        let (_, kind) = self.of;
        kind.is_some_and(RegionKind::is_apart)
    }
}

impl Recording {
    /// Opens a recording, also while it is written: what is asked of it is answered as of now.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let recording = Self {
            db: open::read(path)?,
            path: path.to_owned(),
            known: Known::default(),
        };
        let session: i64 = recording.ask("SELECT count(*) FROM session", [])?;
        if session == 0 {
            return Err(RecordError::Empty(path.to_owned()));
        }
        Ok(recording)
    }

    /// What is asked from now on may take its time again.
    pub(super) fn be_patient(&self) {
        open::be_patient(&self.db);
    }

    /// What is asked from now on is answered as of then, and not as of when it was opened: for who
    /// looks at a growing file for long. A recorder cannot use the room of what it drops before that.
    pub(super) fn let_go(&self) -> Result<(), RecordError> {
        self.db.execute_batch("COMMIT").map_err(self.wrong())
    }

    /// Asks several things of one moment of the file, after [`Self::let_go`].
    pub(super) fn at_once<T>(
        &self,
        ask: impl FnOnce(&Self) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        self.be_patient();
        self.db.execute_batch("BEGIN").map_err(self.wrong())?;
        let answer = ask(self);
        let gone = self.let_go();
        answer.and_then(|answer| gone.map(|()| answer))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn wrong(&self) -> impl Fn(rusqlite::Error) -> RecordError {
        |error| open::wrong(&self.path, &error)
    }

    fn damaged(&self, why: impl ToString) -> RecordError {
        RecordError::damaged(&self.path, why)
    }

    pub(super) fn ask<T: rusqlite::types::FromSql>(
        &self,
        sql: &str,
        with: impl rusqlite::Params,
    ) -> Result<T, RecordError> {
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(with, |row| row.get(0)))
            .map_err(self.wrong())
    }

    /// True when the recorder came to its end.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn is_whole(&self) -> Result<bool, RecordError> {
        let ended: Option<String> = self.ask("SELECT ended_at FROM session", [])?;
        Ok(ended.is_some())
    }

    /// The report of a moment with its first `top` stacks, as live reporting gave it.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn report(&self, moment: &Moment, top: Option<usize>) -> Result<Read, RecordError> {
        let mut report = self.without_stacks(moment)?;
        let held = self.held(moment)?;
        let now = bytes_of(&held);
        let (judged, rest): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|held| held.row.verdict().is_some());
        let shown = top.unwrap_or(usize::MAX).min(MAX_JUDGED).min(judged.len());
        let (shown, below) = judged.split_at(shown);
        let probes = report.probes.as_slice();
        let summed = || {
            let hidden = below.iter().chain(&rest);
            hidden.filter(move |held| is_summed(probes, held.of.0, held.of.1))
        };
        let not_shown = NotShown {
            stacks: below.len() + rest.len(),
            outstanding_bytes: summed().map(|h| h.row.held_bytes()).sum(),
            outstanding_objects: summed().map(|h| h.row.held_objects()).sum(),
        };
        report.not_shown = not_shown;
        let mut frames_read = 0;
        report.stacks = (1..)
            .zip(shown)
            .map(|(rank, held)| {
                let frames = self.frames(held.id)?;
                frames_read += frames.len();
                self.not_too_many(frames_read, "frames")?;
                Ok(Stack {
                    rank,
                    frames,
                    ..held.row.account(moment.at_ms, held.pid, held.of)
                })
            })
            .collect::<Result<_, RecordError>>()?;
        report.name_owners();
        let keys: Vec<_> = shown.iter().map(Held::key).collect();
        let candidates = self.tell_cycles(&mut report, (None, moment), &now, &keys)?;
        Ok(Read {
            report,
            candidates,
            stacks: shown.iter().map(|held| held.id).collect(),
            spaces: shown
                .iter()
                .map(|held| held.space.cast_unsigned())
                .collect(),
        })
    }

    /// The report of a moment without its stacks.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn without_stacks(&self, moment: &Moment) -> Result<Report, RecordError> {
        let mut report = self.header(moment)?;
        let processes = self.processes(moment)?.into_iter();
        report.processes = processes.map(|(_, process)| process).collect();
        Ok(report)
    }

    pub(super) fn header(&self, moment: &Moment) -> Result<Report, RecordError> {
        let text: String = self.ask(
            "SELECT header FROM intervals WHERE id = ?",
            [moment.interval],
        )?;
        let coverage: String = self.ask(
            "SELECT json FROM documents WHERE id = (SELECT coverage FROM intervals WHERE id = ?)",
            [moment.interval],
        )?;
        let mut report: Report = serde_json::from_str(&text).map_err(|e| self.damaged(e))?;
        report.coverage = serde_json::from_str(&coverage).map_err(|e| self.damaged(e))?;
        Ok(report)
    }

    /// The processes of a report, with their numbers in the recording.
    pub(super) fn processes(&self, moment: &Moment) -> Result<Vec<(i64, Process)>, RecordError> {
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT process, json FROM
                   (SELECT process, max(interval), place, json FROM process_samples
                    WHERE interval BETWEEN ?1 AND ?2 GROUP BY process)
                 WHERE json IS NOT NULL ORDER BY place, process LIMIT ?3",
            )
            .map_err(self.wrong())?;
        let texts: Result<Vec<(i64, String)>, _> = statement
            .query_map((self.key(moment)?, moment.interval, MAX_ROWS), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .and_then(Iterator::collect);
        let texts = texts.map_err(self.wrong())?;
        self.not_too_many(texts.len(), "processes")?;
        texts
            .iter()
            .map(|(id, text)| {
                let process = serde_json::from_str(text).map_err(|e| self.damaged(e))?;
                Ok((*id, process))
            })
            .collect()
    }

    /// What is cut off would be missing in a sum: it is refused.
    pub(super) fn not_too_many(&self, rows: usize, what: &str) -> Result<(), RecordError> {
        if rows < usize::try_from(MAX_ROWS).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(self.damaged(format!("a moment has {MAX_ROWS} {what} or more")))
    }

    /// The address spaces of a moment's processes, in the order of its report.
    pub(super) fn process_spaces(&self, moment: &Moment) -> Result<Vec<i64>, RecordError> {
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT p.space FROM (SELECT process, max(interval), place, json FROM process_samples
                   WHERE interval BETWEEN ?1 AND ?2 GROUP BY process) s
                 LEFT JOIN processes p ON p.id = s.process
                 WHERE json IS NOT NULL ORDER BY place, process LIMIT ?3",
            )
            .map_err(self.wrong())?;
        statement
            .query_map((self.key(moment)?, moment.interval, MAX_ROWS), |row| {
                Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0))
            })
            .and_then(Iterator::collect)
            .map_err(self.wrong())
    }

    /// What processes hold in a range of intervals, in order: interval, address space, bytes.
    pub(super) fn each_process(
        &self,
        from: i64,
        to: i64,
        mut each: impl FnMut(i64, i64, u64),
    ) -> Result<(), RecordError> {
        let wrong = self.wrong();
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT s.interval, p.space, s.outstanding_bytes FROM process_samples s
                 JOIN processes p ON p.id = s.process
                 WHERE s.interval BETWEEN ?1 AND ?2 ORDER BY s.interval",
            )
            .map_err(&wrong)?;
        let mut rows = statement.query([from, to]).map_err(&wrong)?;
        while let Some(row) = rows.next().map_err(&wrong)? {
            let read = || Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?));
            let (interval, space, bytes) = read().map_err(&wrong)?;
            each(interval, space, bytes.map_or(0, i64::cast_unsigned));
        }
        Ok(())
    }

    /// The interval from which on a moment's rows are read.
    fn key(&self, moment: &Moment) -> Result<i64, RecordError> {
        let key: Option<i64> = self.ask(
            "SELECT max(id) FROM intervals WHERE is_key AND id <= ?",
            [moment.interval],
        )?;
        key.ok_or_else(|| self.damaged("no key interval"))
    }

    /// Every stack known at a moment, in the order of reports.
    pub(super) fn held(&self, moment: &Moment) -> Result<Vec<Held>, RecordError> {
        // Of a group with max() SQLite takes the other columns from the row that has it.
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT s.*, k.number, k.probe, k.kind, p.pid, p.space FROM
                   (SELECT max(interval), * FROM samples
                    WHERE interval BETWEEN ?1 AND ?2 GROUP BY stack LIMIT ?3) s
                 LEFT JOIN stacks k ON k.id = s.stack LEFT JOIN processes p ON p.id = k.process",
            )
            .map_err(self.wrong())?;
        let held: Result<Vec<Held>, _> = statement
            .query_map((self.key(moment)?, moment.interval, MAX_ROWS), held_of)
            .and_then(Iterator::collect);
        let mut held = held.map_err(self.wrong())?;
        self.not_too_many(held.len(), "stacks")?;
        held.retain(|held| !held.row.is_gone());
        held.sort_by_key(|held| {
            let (_, kind) = held.of;
            (
                kind.is_some_and(RegionKind::is_apart),
                held.row.verdict() != Some(Verdict::Growing),
                std::cmp::Reverse(held.row.rank_bytes()),
                kind,
                held.space.cast_unsigned(),
                held.number,
            )
        });
        Ok(held)
    }

    /// The frames of a stack, innermost first.
    pub(super) fn frames(&self, stack: i64) -> Result<Vec<Frame>, RecordError> {
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT fn.name, m.path, m.build_id, f.offset, f.address, fi.path, f.line,
                        f.inlined, f.allocator, f.reason, f.stated, m.debug_link, m.debug_link_crc
                 FROM stack_frames sf JOIN frames f ON f.id = sf.frame
                 LEFT JOIN functions fn ON fn.id = f.function
                 LEFT JOIN modules m ON m.id = f.module
                 LEFT JOIN files fi ON fi.id = f.file
                 WHERE sf.stack = ? ORDER BY sf.depth LIMIT ?",
            )
            .map_err(self.wrong())?;
        let frames: Result<Vec<Frame>, _> = statement
            .query_map([stack, MAX_FRAMES], |row| {
                let hex = |value: i64| format!("{:#x}", value.cast_unsigned());
                Ok(Frame {
                    function: row.get(0)?,
                    module: row.get(1)?,
                    build_id: row.get(2)?,
                    offset: row.get::<_, Option<i64>>(3)?.map(hex),
                    address: hex(row.get(4)?),
                    file: row.get(5)?,
                    line: row.get(6)?,
                    inlined: row.get(7)?,
                    allocator: row.get(8)?,
                    reason: row.get(9)?,
                    stated: stated(row)?,
                })
            })
            .and_then(Iterator::collect);
        let mut frames = frames.map_err(self.wrong())?;
        if frames.is_empty() {
            frames.push(Frame {
                address: "0x0".to_owned(),
                reason: Some("the recorder ended before it was named".to_owned()),
                ..Frame::default()
            });
        }
        Ok(frames)
    }

    /// What stacks held over time up to a moment, where it changed: seconds since tracing began
    /// and bytes.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn histories(
        &self,
        stacks: &[i64],
        until: &Moment,
    ) -> Result<Vec<Vec<(f64, u64)>>, RecordError> {
        let mut histories = vec![Vec::new(); stacks.len()];
        let places: HashMap<i64, usize> = stacks
            .iter()
            .enumerate()
            .map(|(at, id)| (*id, at))
            .collect();
        self.each_row(0, until.interval, |_, at_ms, stack, row| {
            let history = places.get(&stack).and_then(|at| histories.get_mut(*at));
            if let Some(history) = history {
                history.push((at_ms as f64 / 1000.0, row.held_bytes()));
            }
        })?;
        Ok(histories)
    }

    /// What stacks held at every moment between two.
    pub(super) fn histories_between(
        &self,
        stacks: &[i64],
        from: &Moment,
        to: &Moment,
    ) -> Result<Vec<Vec<(f64, u64)>>, RecordError> {
        let mut moments = self.moments()?;
        moments.retain(|m| (from.interval..=to.interval).contains(&m.interval));
        let places: HashMap<i64, usize> = stacks
            .iter()
            .enumerate()
            .map(|(at, id)| (*id, at))
            .collect();
        let mut histories = vec![Vec::with_capacity(moments.len()); stacks.len()];
        let mut held = vec![0_u64; stacks.len()];
        for stack in self.held(from)? {
            if let Some(held) = places.get(&stack.id).and_then(|at| held.get_mut(*at)) {
                *held = stack.row.held_bytes();
            }
        }
        let mut moments = moments.into_iter().peekable();
        let mut close = |before: i64, held: &[u64]| {
            while let Some(moment) = moments.next_if(|m| m.interval < before) {
                for (history, bytes) in histories.iter_mut().zip(held) {
                    history.push((moment.at_ms as f64 / 1000.0, *bytes));
                }
            }
        };
        self.each_row(from.interval + 1, to.interval, |interval, _, stack, row| {
            close(interval, &held);
            if let Some(held) = places.get(&stack).and_then(|at| held.get_mut(*at)) {
                *held = row.held_bytes();
            }
        })?;
        close(i64::MAX, &held);
        Ok(histories)
    }

    /// Every row of a range of intervals, in order: interval, its time, stack, row.
    pub(super) fn each_row(
        &self,
        from: i64,
        to: i64,
        mut each: impl FnMut(i64, i64, i64, Row),
    ) -> Result<(), RecordError> {
        let wrong = self.wrong();
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT s.*, i.at_ms FROM intervals i JOIN samples s ON s.interval = i.id
                 WHERE i.id BETWEEN ?1 AND ?2 ORDER BY i.id, s.stack",
            )
            .map_err(&wrong)?;
        let mut rows = statement.query([from, to]).map_err(&wrong)?;
        while let Some(row) = rows.next().map_err(&wrong)? {
            let read = || Ok((row.get(0)?, row.get(13)?, row.get(1)?, row_of(row, 2)?));
            let (interval, at_ms, stack, values) = read().map_err(&wrong)?;
            each(interval, at_ms, stack, values);
        }
        Ok(())
    }
}

/// The last columns of a frame.
fn stated(row: &SqlRow<'_>) -> rusqlite::Result<Option<Stated>> {
    let Some(address) = row.get::<_, Option<i64>>(10)? else {
        return Ok(None);
    };
    let (name, checksum): (Option<String>, Option<u32>) = (row.get(11)?, row.get(12)?);
    let link = name.zip(checksum);
    Ok(Some(Stated {
        address: address.cast_unsigned(),
        link: link.map(|(name, checksum)| DebugLink { name, checksum }),
    }))
}

fn held_of(row: &SqlRow<'_>) -> rusqlite::Result<Held> {
    let probe: Option<String> = row.get("probe")?;
    let probe = match probe.as_deref() {
        Some("region") => "region",
        Some("fault") => "fault",
        _ => "heap",
    };
    let kind: Option<String> = row.get("kind")?;
    let kind = kind.as_deref().and_then(RegionKind::named);
    Ok(Held {
        id: row.get("stack")?,
        row: row_of(row, 3)?,
        pid: row.get::<_, Option<u32>>("pid")?.unwrap_or(0),
        of: (probe, kind),
        space: row.get::<_, Option<i64>>("space")?.unwrap_or(0),
        number: row.get::<_, Option<i64>>("number")?.unwrap_or(0),
    })
}

/// The columns of `samples` after its key.
fn row_of(row: &SqlRow<'_>, from: usize) -> rusqlite::Result<Row> {
    let unsigned = |at: usize| row.get::<_, i64>(from + at).map(i64::cast_unsigned);
    let maybe = |at: usize| {
        row.get::<_, Option<i64>>(from + at)
            .map(|v| v.map(i64::cast_unsigned))
    };
    Ok(Row {
        allocated_bytes: unsigned(0)?,
        freed_bytes: unsigned(1)?,
        allocated_objects: unsigned(2)?,
        freed_objects: unsigned(3)?,
        outstanding_bytes: maybe(4)?,
        outstanding_objects: maybe(5)?,
        oldest_ms: row.get(from + 6)?,
        growth: row.get(from + 7)?,
        verdict: row.get(from + 8)?,
        confidence: row.get(from + 9)?,
        flags: row.get(from + 10)?,
    })
}
