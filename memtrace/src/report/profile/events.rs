//! What happened to a session so far, for who draws it.

use super::{Incident, Mark, Threshold};
use crate::report::incident;

/// Events of one kind that are kept; what comes later is in reports and recordings only.
pub const MAX_EVENTS: usize = 1000;

/// Marks, watched amounts and incidents, each in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// Named moments.
    pub marks: Vec<Mark>,
    /// Watched amounts.
    pub thresholds: Vec<Threshold>,
    /// What went wrong.
    pub incidents: Vec<Incident>,
}

impl Events {
    /// A moment was named, so many seconds after tracing began.
    pub fn mark(&mut self, at: f64, name: &str) {
        let name = name.to_owned();
        push(&mut self.marks, Mark { at, name });
    }

    /// An amount is watched.
    pub fn threshold(&mut self, name: &str, bytes: u64) {
        let name = name.to_owned();
        push(&mut self.thresholds, Threshold { name, bytes });
    }

    /// Something went wrong.
    pub fn incident(&mut self, incident: &incident::Incident) {
        let kind = match (incident.kind, incident.threshold) {
            (incident::Kind::OomKill, _) => "OOM kill".to_owned(),
            (incident::Kind::Threshold, Some(crossed)) => {
                format!("{}% of the limit", crossed.percent)
            }
            (incident::Kind::Threshold, None) => "threshold".to_owned(),
        };
        let told = Incident {
            at: incident.seconds_since_start,
            pid: incident.pid(),
            kind,
            text: said(incident),
        };
        push(&mut self.incidents, told);
    }

    /// The same from a moment on, in seconds since then, and up to another.
    #[must_use]
    pub fn between(mut self, from: f64, to: f64) -> Self {
        let within = |at: &mut f64| {
            let is = (from..=to).contains(at);
            *at -= from;
            is
        };
        self.marks.retain_mut(|mark| within(&mut mark.at));
        self.incidents
            .retain_mut(|incident| within(&mut incident.at));
        self
    }
}

/// An incident's first line without its heading, which is its kind.
fn said(incident: &incident::Incident) -> String {
    let first = incident::lines(incident).into_iter().next();
    let first = first.unwrap_or_default();
    match first.split_once(": ") {
        Some((_, text)) => text.to_owned(),
        None => first,
    }
}

fn push<T>(events: &mut Vec<T>, event: T) {
    if events.len() < MAX_EVENTS {
        events.push(event);
    }
}
