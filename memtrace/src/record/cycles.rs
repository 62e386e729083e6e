//! What happened between marks, read back: of the stretches that each report kept, and of what the
//! stacks held at the marks.

use std::collections::BTreeMap;

use super::RecordError;
use super::encode::StackKey;
use super::read::{Held, Moment, Recording};
use crate::ledger::cycles::{Look, MAX_SEGMENTS, Marked, Segment, Track};
use crate::ledger::regions::RegionKind;
use crate::report::cycles::{Candidate, Cycles};
use crate::report::model::Report;

/// Of a report's header what is wanted here.
#[derive(serde::Deserialize)]
struct Kept {
    #[serde(default)]
    segments: Vec<Segment>,
}

/// Numbers of stacks in the file; also of those that are gone by the later moment.
type Ids = BTreeMap<StackKey, i64>;

impl Held {
    fn key(&self) -> StackKey {
        StackKey {
            space: self.space.cast_unsigned(),
            stack: u32::try_from(self.number).unwrap_or(u32::MAX),
            probe: self.of.0,
            kind: self.of.1,
        }
    }
}

/// What stacks hold, in the order of their keys.
fn bytes_of(held: &[Held], ids: &mut Ids) -> Vec<(StackKey, u64)> {
    ids.extend(held.iter().map(|one| (one.key(), one.id)));
    let mut all: Vec<_> = held
        .iter()
        .map(|one| (one.key(), one.row.held_bytes()))
        .collect();
    all.sort_unstable();
    all
}

impl Recording {
    /// Puts the cycles between two moments into a report of the later one, whose stacks are
    /// `shown`.
    pub(super) fn tell_cycles(
        &self,
        report: &mut Report,
        (from, to): (Option<&Moment>, &Moment),
        shown: &[i64],
    ) -> Result<(), RecordError> {
        let own = std::mem::take(&mut report.segments);
        if own.is_empty() {
            return Ok(());
        }
        let from = from.map_or(0, |moment| moment.interval);
        let mut ids = Ids::new();
        let marked = self.marked(from, to.interval, own, &mut ids)?;
        let now = bytes_of(&self.held(to)?, &mut ids);
        let keys: BTreeMap<i64, StackKey> = ids.iter().map(|(key, id)| (*id, *key)).collect();
        let key = |id| keys.get(id).copied();
        let wanted: Vec<StackKey> = shown.iter().filter_map(key).collect();
        let Some(look) = marked.look(&now, &wanted) else {
            return Ok(());
        };
        for (stack, id) in report.stacks.iter_mut().zip(shown) {
            let gained = key(id).and_then(|key| look.growth.get(&key));
            stack.gained_per_cycle = gained.cloned().unwrap_or_default();
        }
        let candidates = self.candidates(&look, &ids)?;
        report.cycles = Some(Cycles::new(&look, &candidates));
        Ok(())
    }

    /// The marks of a range of intervals, with what was held then.
    fn marked(
        &self,
        from: i64,
        to: i64,
        own: Vec<Segment>,
        ids: &mut Ids,
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
            let held = bytes_of(&self.held(moment)?, ids);
            if !marked.columns.push_older(*number, &held) {
                break;
            }
        }
        Ok(marked)
    }

    fn segments(&self, moment: &Moment) -> Result<Vec<Segment>, RecordError> {
        let header: String = self.ask(
            "SELECT header FROM intervals WHERE id = ?",
            [moment.interval],
        )?;
        let kept: Kept = serde_json::from_str(&header)
            .map_err(|error| RecordError::damaged(self.path(), error))?;
        Ok(kept.segments)
    }

    fn candidates(&self, look: &Look<StackKey>, ids: &Ids) -> Result<Vec<Candidate>, RecordError> {
        let wanted = look.candidates.iter();
        let wanted = wanted.filter(|key| !key.kind.is_some_and(RegionKind::is_apart));
        wanted
            .map(|key| {
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
