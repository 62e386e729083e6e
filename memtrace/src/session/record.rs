//! What a session hands to its recording, and how it goes on without one.

use std::{path::Path, time::Duration};

use super::{
    Session,
    cycles::{HeldNow, key},
    marks::{self, Asked, MarkSocket, NameError},
    reporting::{Judged, Ranked},
};
use crate::{
    id::{SpaceId, StackId, Tgid},
    record::{Interval, Observed, RecordError, Recorder},
    report::model::{Frame, Mark, Owner, Report},
};

use std::collections::HashMap;

/// Stacks that no report shows are named in the background: what is not there by then is asked for
/// again at the next interval.
const NAMES_DEADLINE: Duration = Duration::from_millis(500);

impl Session {
    /// Records every report from now on.
    pub fn start_recording(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Listens for marks from now on. Without a place to listen there are none, which is said.
    pub fn listen_for_marks(&mut self) {
        match MarkSocket::listen(Path::new(marks::DIRECTORY)) {
            Ok(socket) => self.mark_socket = Some(socket),
            Err(error) => self.notices.push(format!(
                "`memtrace mark` cannot reach this session: {error}"
            )),
        }
    }

    /// Marks reach this session no more: whoever sets one is not kept waiting for an answer.
    pub fn ignore_marks(&mut self) {
        self.mark_socket = None;
    }

    /// Names this moment: the report that is taken next has the mark, and so has the recording.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn mark(&mut self, name: &str) -> Result<(), NameError> {
        let name = marks::check_name(name.as_bytes())?;
        self.own_marks.push(Asked::own(name.to_owned()));
        Ok(())
    }

    /// True while every report is recorded.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// The marks of the last report were shown: later reports need not tell them.
    pub fn marks_told(&mut self) {
        self.untold_marks.clear();
    }

    /// Records a report with the marks that came, tells who set them, and leaves in the report all
    /// that nobody was shown yet.
    pub(super) fn keep_report(
        &mut self,
        report: &mut Report,
        observed: &[Observed],
        asked: &[Asked],
        held: HeldNow,
    ) {
        let at = report.taken_at.clone();
        let new = asked.iter().map(|one| Mark {
            name: one.name.clone(),
            at: at.clone(),
        });
        report.marks = new.collect();
        self.read_cycles(report, &held);
        self.record(report, observed);
        if let Some(socket) = &self.mark_socket {
            socket.confirm(asked);
        }
        self.tell_cycles(report, &held);
        // Bounded by what the socket takes in one session.
        self.untold_marks.append(&mut report.marks);
        report.marks.clone_from(&self.untold_marks);
    }

    /// Does something with the recording, if there is one. One that cannot be written ends; tracing
    /// goes on.
    pub(super) fn recording(
        &mut self,
        write: impl FnOnce(&mut Recorder) -> Result<(), RecordError>,
    ) {
        let Some(mut recorder) = self.recorder.take() else {
            return;
        };
        match write(&mut recorder) {
            Ok(()) => self.recorder = Some(recorder),
            Err(error) => self.notices.push(format!(
                "recording ended, tracing goes on: {error}; what was recorded before can be read"
            )),
        }
    }

    /// Ends the recording, if there still is one.
    ///
    /// # Errors
    /// When its last part cannot be written.
    pub fn finish_recording(&mut self) -> Result<(), RecordError> {
        let ended_at = jiff::Timestamp::now().to_string();
        self.recorder
            .take()
            .map_or(Ok(()), |recorder| recorder.finish(&ended_at))
    }

    /// Every stack with its figures, those that reports show first and in their order; nothing
    /// when nobody records.
    pub(super) fn observed(
        &self,
        judged: &[Judged<'_>],
        unjudged: &[(Ranked<'_>, (u64, u64))],
        names: &HashMap<SpaceId, (Tgid, Owner)>,
    ) -> Vec<Observed> {
        if self.recorder.is_none() {
            return Vec::new();
        }
        let observed = |judged: &Judged<'_>, is_judged| {
            let account = self.stack(0, judged, names);
            Observed {
                key: key(judged.probe, judged.kind, &judged.stack),
                account,
                judged: is_judged,
            }
        };
        let rest = unjudged.iter().map(|(stack, held)| {
            let judged = Judged::unknown(*stack, *held);
            observed(&judged, false)
        });
        judged
            .iter()
            .map(|judged| observed(judged, true))
            .chain(rest)
            .collect()
    }

    /// Records a report. A recording that cannot be written ends; tracing goes on.
    fn record(&mut self, report: &mut Report, observed: &[Observed]) {
        let Some(recorder) = self.recorder.take() else {
            return;
        };
        let frames = self.frames_for(&recorder, report, observed);
        let spaces: Vec<u64> = self.images().map(|(image, _)| image.space.0).collect();
        let marks: Vec<String> = report.marks.iter().map(|mark| mark.name.clone()).collect();
        let interval = Interval {
            at: self.observed_at,
            spaces: &spaces,
            observed,
            frames,
            marks: &marks,
        };
        self.recorder = Some(recorder);
        self.recording(|recorder| recorder.interval(report, interval));
    }

    /// The frames that the recording lacks. The report has named its own already.
    fn frames_for(
        &mut self,
        recorder: &Recorder,
        report: &Report,
        observed: &[Observed],
    ) -> Vec<(usize, Vec<Frame>)> {
        let wanted = recorder.wants_names(observed);
        let mut frames = Vec::with_capacity(wanted.len());
        let mut hidden = Vec::new();
        for at in wanted {
            match report.stacks.get(at) {
                Some(shown) => frames.push((at, shown.frames.clone())),
                None => hidden.push(at),
            }
        }
        let stacks = hidden.iter().filter_map(|at| observed.get(*at));
        let captured: Vec<_> = stacks
            .clone()
            .map(|stack| {
                let (space, stack) = (SpaceId(stack.key.space), StackId(stack.key.stack));
                let unwound = self.stacks.get(stack);
                let frames = unwound.map(|unwound| self.unwinder.capture(space, unwound));
                (space, frames.unwrap_or_default())
            })
            .collect();
        let models = stacks.map(|stack| stack.account.clone()).collect();
        let named = self.with_names(models, &captured, NAMES_DEADLINE);
        let named = named.into_iter().map(|stack| stack.frames);
        frames.extend(hidden.into_iter().zip(named));
        frames
    }
}
