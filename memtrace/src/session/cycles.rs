//! What happens between marks, in a running session.

use std::time::Duration;

use super::{
    Session,
    reporting::{Judged, Ranked},
    thresholds::Thresholds,
};
use crate::{
    id::{SpaceId, StackId},
    ledger::{
        StackAccount,
        cycles::{Look, Marked, Reading, Track, Used},
        regions::RegionKind,
    },
    record::StackKey,
    report::{
        cycles::{Candidate, Cycles},
        model::{Frame, ProcessState, Report, Word},
        profile::Events,
    },
};

/// Stacks that no report shows are named in the background; late ones have their names next time.
const NAMES_DEADLINE: Duration = Duration::from_millis(500);

/// What the stacks hold at one report.
#[derive(Debug, Default)]
pub(super) struct HeldNow {
    /// All of them in the order of their keys; empty before the first mark.
    all: Vec<(StackKey, u64)>,
    /// Those that a report may show, in its order.
    ranked: Vec<StackKey>,
}

/// No marks yet.
pub(super) fn marked(thresholds: &Thresholds) -> Marked<StackKey> {
    Marked {
        track: Track::new(thresholds.as_slice()),
        ..Marked::default()
    }
}

/// How a recording calls a stack.
pub(super) fn key(probe: Word, kind: Option<RegionKind>, stack: &StackAccount<'_>) -> StackKey {
    StackKey {
        space: stack.space.0,
        stack: stack.stack.0,
        probe,
        kind,
    }
}

impl Session {
    /// What the stacks hold, once there are marks or one is being set.
    pub(super) fn held_at_mark(
        &self,
        judged: &[Judged<'_>],
        unjudged: &[(Ranked<'_>, (u64, u64))],
        is_marked: bool,
    ) -> HeldNow {
        if !is_marked && self.marked.track.is_empty() {
            return HeldNow::default();
        }
        let ranked = judged
            .iter()
            .map(|one| key(one.probe, one.kind, &one.stack));
        let ranked: Vec<StackKey> = ranked.collect();
        let shown = ranked
            .iter()
            .copied()
            .zip(judged.iter().map(|one| one.bytes));
        let rest = unjudged.iter();
        let rest =
            rest.map(|((probe, kind, stack), (bytes, _))| (key(probe, *kind, stack), *bytes));
        let mut all: Vec<_> = shown.chain(rest).collect();
        all.sort_unstable();
        HeldNow { all, ranked }
    }

    /// Takes a report's figures, and the marks that it has; leaves in it what a recording keeps.
    pub(super) fn read_cycles(&mut self, report: &mut Report, held: &HeldNow) {
        let reading = self.reading(report);
        let seconds = report.duration_seconds;
        self.marked.track.read(seconds, &reading);
        if !report.marks.is_empty() {
            let names = report.marks.iter().map(|mark| mark.name.clone()).collect();
            let at = &report.taken_at;
            let number = self.marked.track.mark(names, at, seconds, &reading);
            self.marked.columns.push(number, &held.all);
        }
        report.segments = self.marked.track.latest();
    }

    fn reading(&self, report: &Report) -> Reading {
        let images = self.images().map(|(image, _)| image);
        let running: Vec<_> = report
            .processes
            .iter()
            .zip(images)
            .filter(|(process, _)| process.state == ProcessState::Running)
            .collect();
        let used = running.iter().filter_map(|(_, image)| {
            let memory = &image.memory;
            Some(Used {
                bytes: memory.usage?.saturating_sub(memory.reclaimable),
                limit: memory.limit?,
            })
        });
        let outstanding = report.processes.iter().map(|one| one.outstanding_bytes);
        let rss = running.iter().filter_map(|(process, _)| process.rss_bytes);
        Reading {
            outstanding: outstanding.fold(0, u64::saturating_add),
            rss: rss.reduce(u64::saturating_add),
            used: used.reduce(Used::nearer),
        }
    }

    /// What happened so far, for pages.
    #[must_use]
    pub fn events(&self) -> Events {
        let mut events = self.events.clone();
        for (at, name) in self.marked.track.marks() {
            events.mark(at, name);
        }
        events
    }

    /// Puts the cycles into a report.
    pub(super) fn tell_cycles(&mut self, report: &mut Report, held: &HeldNow) {
        report.segments.clear();
        let shown = held.ranked.iter().take(report.stacks.len());
        let shown: Vec<StackKey> = shown.copied().collect();
        let Some(look) = self.marked.look(&held.all, &shown) else {
            return;
        };
        for (stack, key) in report.stacks.iter_mut().zip(&shown) {
            stack.gained_per_cycle = look.growth.get(key).cloned().unwrap_or_default();
        }
        let candidates = self.candidates(&look, report, held);
        report.cycles = Some(Cycles::new(&look, &candidates));
    }

    fn candidates(
        &mut self,
        look: &Look<StackKey>,
        report: &Report,
        held: &HeldNow,
    ) -> Vec<Candidate> {
        let shown = |key: &StackKey| -> Option<Vec<Frame>> {
            let stacks = held.ranked.iter().zip(&report.stacks);
            let mut found = stacks.filter(|(one, _)| *one == key);
            Some(found.next()?.1.frames.clone())
        };
        let wanted = look.candidates.iter();
        let wanted = wanted.filter(|key| !key.kind.is_some_and(RegionKind::is_apart));
        let known: Vec<(StackKey, Option<Vec<Frame>>)> =
            wanted.map(|key| (*key, shown(key))).collect();
        let hidden = known.iter().filter(|(_, frames)| frames.is_none());
        let captured: Vec<_> = hidden
            .map(|(key, _)| {
                let (space, stack) = (SpaceId(key.space), StackId(key.stack));
                let unwound = self.stacks.get(stack);
                let frames = unwound.map(|unwound| self.unwinder.capture(space, unwound));
                (space, frames.unwrap_or_default())
            })
            .collect();
        let mut named = self.named(&captured, NAMES_DEADLINE).into_iter();
        known
            .into_iter()
            .map(|(key, frames)| Candidate {
                frames: frames.or_else(|| named.next()).unwrap_or_default(),
                probe: key.probe,
                gained: look.growth.get(&key).cloned().unwrap_or_default(),
            })
            .collect()
    }
}
