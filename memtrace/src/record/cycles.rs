//! What happened between marks, read back: of the stretches that each report kept, and of what the
//! stacks held at the marks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::encode::StackKey;
use super::read::{Held, Recording};
use super::{Moment, RecordError};
use crate::ledger::cycles::{Look, MAX_ENTRIES, MAX_SEGMENTS, Marked, Segment, Track};
use crate::ledger::regions::RegionKind;
use crate::report::cycles::{Candidate, Cycles};
use crate::report::model::Report;

/// Of a report's header what is wanted here.
#[derive(serde::Deserialize)]
struct Kept {
    #[serde(default)]
    segments: Vec<Segment>,
}

/// What stacks hold, in the order of their keys.
type Bytes = Arc<[(StackKey, u64)]>;

/// What was read of marked moments, by their intervals: each of the reports that are read one after
/// the other wants the same. Marked moments stay as they are, so that it does not become old.
#[derive(Debug, Default)]
pub(super) struct Known {
    segments: RefCell<BTreeMap<i64, Vec<Segment>>>,
    held: RefCell<BTreeMap<i64, Bytes>>,
    /// Numbers of the stacks in the file; also of those that are gone by a later moment.
    ids: RefCell<BTreeMap<StackKey, i64>>,
}

impl Known {
    fn keep(&self, interval: i64, bytes: &Bytes) {
        let mut held = self.held.borrow_mut();
        held.insert(interval, Arc::clone(bytes));
        let mut entries: usize = held.values().map(|one| one.len()).sum();
        while entries > MAX_ENTRIES && held.len() > 1 {
            let gone = held.pop_first();
            entries -= gone.map_or(0, |(_, bytes)| bytes.len());
        }
    }
}

impl Held {
    pub(super) fn key(&self) -> StackKey {
        StackKey {
            space: self.space.cast_unsigned(),
            stack: u32::try_from(self.number).unwrap_or(u32::MAX),
            probe: self.of.0,
            kind: self.of.1,
        }
    }
}

/// What stacks hold that hold anything.
pub(super) fn bytes_of<'a>(held: impl IntoIterator<Item = &'a Held>) -> Vec<(StackKey, u64)> {
    let held = held
        .into_iter()
        .map(|one| (one.key(), one.row.held_bytes()));
    let mut all: Vec<_> = held.filter(|(_, bytes)| *bytes > 0).collect();
    all.sort_unstable();
    all
}

impl Recording {
    /// Puts the cycles between two moments into a report of the later one, at which stacks hold
    /// `now`, and whose stacks are `shown`. Gives the stacks that growing functions were found in.
    pub(super) fn tell_cycles(
        &self,
        report: &mut Report,
        (from, to): (Option<&Moment>, &Moment),
        now: &[(StackKey, u64)],
        shown: &[StackKey],
    ) -> Result<Vec<Candidate>, RecordError> {
        let own = std::mem::take(&mut report.segments);
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let from = from.map_or(0, |moment| moment.interval);
        let marked = self.marked(from, to.interval, own)?;
        let Some(look) = marked.look(now, shown) else {
            return Ok(Vec::new());
        };
        for (stack, key) in report.stacks.iter_mut().zip(shown) {
            stack.gained_per_cycle = look.growth.get(key).cloned().unwrap_or_default();
        }
        let candidates = self.candidates(&look)?;
        report.cycles = Some(Cycles::new(&look, &candidates));
        Ok(candidates)
    }

    /// The marks of a range of intervals, with what was held then.
    fn marked(
        &self,
        from: i64,
        to: i64,
        own: Vec<Segment>,
    ) -> Result<Marked<StackKey>, RecordError> {
        let mut segments: BTreeMap<u64, Segment> = BTreeMap::new();
        // The number of each mark, and its moment.
        let mut marks: Vec<(u64, Moment)> = Vec::new();
        let mut moments = self.moments()?;
        moments.retain(|m| !m.marks.is_empty() && (from..=to).contains(&m.interval));
        moments.drain(..moments.len().saturating_sub(MAX_SEGMENTS));
        for moment in moments {
            let kept = self.segments(&moment)?;
            if let Some(opened) = kept.last() {
                marks.push((opened.number, moment));
            }
            segments.extend(kept.into_iter().map(|one| (one.number, one)));
        }
        segments.extend(own.into_iter().map(|one| (one.number, one)));
        // What was closed by the first mark began before it.
        let first = marks.first().map_or(u64::MAX, |(number, _)| *number);
        let mut marked = Marked {
            track: Track::of(segments.split_off(&first).into_values()),
            ..Marked::default()
        };
        for (number, moment) in marks.iter().rev() {
            if !marked.columns.push_older(*number, self.held_at(moment)?) {
                break;
            }
        }
        Ok(marked)
    }

    fn segments(&self, moment: &Moment) -> Result<Vec<Segment>, RecordError> {
        if let Some(known) = self.known.segments.borrow().get(&moment.interval) {
            return Ok(known.clone());
        }
        let header: String = self.ask(
            "SELECT header FROM intervals WHERE id = ?",
            [moment.interval],
        )?;
        let kept: Kept = serde_json::from_str(&header)
            .map_err(|error| RecordError::damaged(self.path(), error))?;
        let mut known = self.known.segments.borrow_mut();
        known.insert(moment.interval, kept.segments.clone());
        if known.len() > MAX_SEGMENTS {
            known.pop_first();
        }
        Ok(kept.segments)
    }

    /// What the stacks held at a marked moment.
    fn held_at(&self, moment: &Moment) -> Result<Bytes, RecordError> {
        if let Some(known) = self.known.held.borrow().get(&moment.interval) {
            return Ok(Arc::clone(known));
        }
        let held = self.held(moment)?;
        let mut ids = self.known.ids.borrow_mut();
        ids.extend(held.iter().map(|one| (one.key(), one.id)));
        let bytes: Bytes = bytes_of(&held).into();
        self.known.keep(moment.interval, &bytes);
        Ok(bytes)
    }

    fn candidates(&self, look: &Look<StackKey>) -> Result<Vec<Candidate>, RecordError> {
        let ids = self.known.ids.borrow();
        let wanted = look.candidates.iter();
        let wanted = wanted.filter(|key| !key.kind.is_some_and(RegionKind::is_apart));
        wanted
            .map(|key| {
                // Each held something at the last mark of a cycle, which was read.
                let frames = ids.get(key).map(|id| self.frames(*id)).transpose()?;
                Ok(Candidate {
                    frames: frames.unwrap_or_default(),
                    probe: key.probe,
                    gained: look.growth.get(key).cloned().unwrap_or_default(),
                })
            })
            .collect()
    }
}
