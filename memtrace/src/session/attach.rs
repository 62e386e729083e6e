//! Probes on the allocators of a process, each place once (R8).

use std::path::Path;

use memtrace_common::Function;

use super::{Session, SessionError};
use crate::{
    id::Tgid,
    probe::{AttachPoint, Purpose},
    report::model::Coverage,
    target::{
        discover::{self, Analysis, Discovery},
        object::ObjectId,
    },
};

/// A place that has its probe. A probe stays with its process through exec, so an image that
/// maps the same file again is covered from its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attached {
    /// None when it is for every process that maps the file.
    pub tgid: Option<Tgid>,
    object: ObjectId,
    offset: u64,
}

impl Session {
    /// Puts probes on everything found that has none yet, and notes what is covered.
    pub(super) fn attach_discovered(
        &mut self,
        tgid: Tgid,
        found: &Discovery,
    ) -> Result<(), SessionError> {
        let mut coverage = Vec::new();
        for object in &found.objects {
            if !self.is_wanted(&object.path) {
                continue;
            }
            self.attach_analysis(tgid, &object.analysis)?;
            coverage.push(covered(tgid, &object.path, &object.analysis));
        }
        if let Some(traced) = self.traced.iter_mut().find(|t| t.tgid == tgid) {
            if found.go {
                self.reconciled.is_go(traced.image.space);
            }
            let exe = &traced.image.exe;
            coverage.extend(found.notes.iter().map(|note| uncovered(tgid, exe, note)));
            traced.image.coverage = coverage;
        }
        Ok(())
    }

    /// Puts probes on a file that the process does not map yet.
    pub(super) fn attach_file(&mut self, tgid: Tgid, path: &Path) -> Result<(), SessionError> {
        if !self.is_wanted(&path.to_string_lossy()) {
            return Ok(());
        }
        let Some(analysis) = self.discoverer.discover_file(path) else {
            return Ok(());
        };
        self.attach_analysis(tgid, &analysis)?;
        if let Some(traced) = self.traced.iter_mut().find(|t| t.tgid == tgid) {
            // True from the first instruction on, even if the program is gone before anyone looks.
            let covered = covered(tgid, &path.to_string_lossy(), &analysis);
            traced.image.coverage.push(covered);
        }
        Ok(())
    }

    /// `--object` restricts the search to paths that end so.
    fn is_wanted(&self, path: &str) -> bool {
        discover::is_wanted(&self.options.objects, path)
    }

    fn attach_analysis(&mut self, tgid: Tgid, analysis: &Analysis) -> Result<(), SessionError> {
        self.learn_functions(analysis);
        if self.detached || !self.options.probes.heap {
            return Ok(());
        }
        let path = analysis.object.attach_path();
        let anchor = self
            .traced
            .iter()
            .find(|t| t.tgid == tgid)
            .map_or(tgid, |t| t.anchor);
        let mut points = Vec::new();
        let mut probes = Vec::new();
        // Frees first: at no time is an allocation recorded whose free is not seen, also in a
        // process that was a target before.
        let (frees, others): (Vec<_>, Vec<_>) = analysis
            .functions
            .iter()
            .partition(|probe| !probe.needs_return);
        for probe in frees.into_iter().chain(others) {
            let offset = probe.file_offset();
            let place = Attached {
                tgid: (!self.follow.shared).then_some(tgid),
                object: analysis.object.id(),
                offset,
            };
            if !self.attached.insert(place) {
                continue;
            }
            probes.push((probe, place));
            points.push(AttachPoint {
                path: &path,
                offset,
                // An argument may stand in another register at the probed place.
                function: probe.placement.function,
                returns: &probe.returns,
                process: (!self.follow.shared).then_some(tgid),
                anchor: (!self.follow.shared).then_some(anchor),
            });
        }
        let results = self
            .kernel
            .attach(&mut self.attachments, &points, Purpose::Trace);
        for ((probe, place), result) in probes.into_iter().zip(results) {
            match result {
                Ok(()) => self.note_placement(probe.found.function, probe.placement.emulated),
                // It ends meanwhile: the session will see that.
                Err(error) if error.is_no_such_process() => {
                    self.attached.remove(&place);
                }
                // Later than at the start: what is traced already goes on.
                Err(error) if !self.is_adding => {
                    let notice = error.to_string();
                    if !self.notices.contains(&notice) {
                        self.notices.push(notice);
                    }
                    self.probes_refused += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The dearest placement of the common functions decides what a hit is taken to cost.
    fn note_placement(&mut self, function: Function, emulated: bool) {
        let placements = &mut self.costs.placements;
        match function {
            Function::Size0 | Function::Calloc | Function::Realloc => {
                placements.stepped_entry |= !emulated
            }
            Function::Free0 => placements.stepped_free |= !emulated,
            _ => {}
        }
    }
}

fn covered(tgid: Tgid, path: &str, analysis: &Analysis) -> Coverage {
    Coverage {
        pid: tgid.0,
        object: path.to_owned(),
        family: analysis.family_text(),
        functions: analysis
            .functions
            .iter()
            .flat_map(|probe| probe.covered().map(str::to_owned))
            .collect(),
        missing: analysis.missing.clone(),
        note: analysis.note.clone(),
    }
}

/// Something to know about a whole process.
fn uncovered(tgid: Tgid, exe: &str, note: &str) -> Coverage {
    Coverage {
        pid: tgid.0,
        object: exe.to_owned(),
        family: "none".into(),
        functions: Vec::new(),
        missing: Vec::new(),
        note: Some(note.to_owned()),
    }
}
