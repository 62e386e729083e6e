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
    record::{Given, Lost, Observed, RecordError, Recorder, Writer},
    report::model::{Frame, Mark, Owner, Report},
};

use std::collections::HashMap;

/// Stacks that no report shows are named in the background: what is not there by then is asked for
/// again at the next interval.
const NAMES_DEADLINE: Duration = Duration::from_millis(500);
/// Who sets a mark is told when it is recorded; a slow disk is waited for so long.
const MARK_PATIENCE: Duration = Duration::from_secs(1);

impl Session {
    /// Records every report from now on.
    ///
    /// # Errors
    /// When there can be no thread for it.
    pub fn start_recording(&mut self, writer: Writer) -> std::io::Result<()> {
        self.recorder = Some(Recorder::start(writer)?);
        Ok(())
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
        self.recorder.as_ref().is_some_and(Recorder::is_recording)
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
        observed: Vec<Observed>,
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
        if let Some(recorder) = self.recorder.as_ref().filter(|_| !asked.is_empty()) {
            recorder.settle(MARK_PATIENCE);
        }
        if let Some(socket) = &self.mark_socket {
            socket.confirm(asked);
        }
        self.tell_cycles(report, &held);
        // Bounded by what the socket takes in one session.
        self.untold_marks.append(&mut report.marks);
        report.marks.clone_from(&self.untold_marks);
    }

    /// Does something with the recording, if there is one.
    pub(super) fn recording(&mut self, hand_over: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = self.recorder.as_mut().filter(|one| one.is_recording()) {
            hand_over(recorder);
        }
    }

    /// A recording that cannot be written ends; tracing goes on.
    fn tell_of_recording(&mut self) {
        if let Some(error) = self.recorder.as_mut().and_then(Recorder::failure) {
            self.notices.push(recording_ended(&error));
        }
    }

    /// Ends the recording, if there still is one; a notice says what it lacks.
    pub fn finish_recording(&mut self) {
        let ended_at = jiff::Timestamp::now().to_string();
        let Some(recorder) = self.recorder.take() else {
            return;
        };
        let Lost {
            intervals,
            incidents,
        } = recorder.lost();
        if let Err(error) = recorder.finish(&ended_at) {
            self.notices.push(recording_ended(&error));
        }
        if intervals + incidents > 0 {
            self.notices.push(format!(
                "the disk was too slow for the recording: it lacks {intervals} reports and \
                 {incidents} incidents"
            ));
        }
    }

    /// What the recording lacks: reports, incidents, and limits whose thresholds had no place.
    pub(super) fn not_recorded(&self) -> [u64; 3] {
        let lost = self.recorder.as_ref().map(Recorder::lost);
        let Lost {
            intervals,
            incidents,
        } = lost.unwrap_or_default();
        let limits = lost.map_or(0, |_| self.usage.unrecorded());
        [intervals, incidents, limits]
    }

    /// Every stack with its figures, those that reports show first and in their order; nothing
    /// when nobody records.
    pub(super) fn observed(
        &self,
        judged: &[Judged<'_>],
        unjudged: &[(Ranked<'_>, (u64, u64))],
        names: &HashMap<SpaceId, (Tgid, Owner)>,
    ) -> Vec<Observed> {
        if !self.recorder.as_ref().is_some_and(Recorder::is_recording) {
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

    /// Records a report.
    fn record(&mut self, report: &mut Report, observed: Vec<Observed>) {
        self.tell_of_recording();
        // Taken out: naming needs all of the session.
        let Some(mut recorder) = self.recorder.take() else {
            return;
        };
        if recorder.is_recording() {
            let frames = self.frames_for(&recorder, report, &observed);
            let given = Given {
                at: self.observed_at,
                spaces: self.images().map(|(image, _)| image.space.0).collect(),
                observed,
                frames,
                marks: report.marks.iter().map(|mark| mark.name.clone()).collect(),
            };
            recorder.interval(report, given);
        }
        self.recorder = Some(recorder);
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

fn recording_ended(error: &RecordError) -> String {
    format!("recording ended, tracing goes on: {error}; what was recorded before can be read")
}
