//! Incidents as files: each one whole, on the disk before anything else happens.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::Incident;
use crate::report::output;

/// Files of one session. A container that is killed every minute must not fill the disk: the
/// oldest of this session go.
const MAX_FILES: usize = 500;

/// An incident could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write an incident to {}: {source}; free space or name another --incidents", path.display())]
pub struct IncidentError {
    /// The file, or the directory when it cannot be used at all.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Where incidents are written.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    written: VecDeque<PathBuf>,
    pub(super) limit: usize,
}

impl Directory {
    /// Makes the directory if it is not there, and finds out whether files can be written in it.
    ///
    /// # Errors
    /// [`IncidentError`].
    pub fn open(path: &Path) -> Result<Self, IncidentError> {
        let fail = |source| IncidentError {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(fail)?;
        output::Destination::Replace(path.join("incident.json"))
            .check()
            .map_err(|error| fail(io::Error::other(error.to_string())))?;
        Ok(Self {
            path: path.to_owned(),
            written: VecDeque::new(),
            limit: MAX_FILES,
        })
    }

    /// Writes one: whole, synchronized, under its name only when it is complete. The name begins
    /// with the time, so that names sort as they happened.
    ///
    /// # Errors
    /// [`IncidentError`].
    pub fn write(&mut self, incident: &Incident) -> Result<PathBuf, IncidentError> {
        let path = self.free_name(incident);
        let fail = |source| IncidentError {
            path: path.clone(),
            source,
        };
        let mut bytes = serde_json::to_vec_pretty(incident).map_err(|e| fail(e.into()))?;
        bytes.push(b'\n');
        output::replace(&path, &bytes).map_err(fail)?;
        // The name too must outlast a crash of the machine.
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(fail)?;
        self.written.push_back(path.clone());
        if self.written.len() > self.limit
            && let Some(oldest) = self.written.pop_front()
        {
            let _ = fs::remove_file(oldest);
        }
        Ok(path)
    }

    /// `2026-11-21T14-05-00.123Z-oom-kill-1234.json`; colons are no good in file names.
    fn free_name(&self, incident: &Incident) -> PathBuf {
        let (clock, _) = incident.at.split_once('.').unwrap_or((&incident.at, ""));
        let fraction = incident.at.strip_prefix(clock).unwrap_or_default();
        let fraction: String = fraction.chars().take(4).filter(|c| *c != 'Z').collect();
        let time = format!(
            "{}{fraction}Z",
            clock.trim_end_matches('Z').replace(':', "-")
        );
        let pid = incident.pid().unwrap_or(0);
        let stem = format!("{time}-{}-{pid}", incident.kind.name());
        let name = |number: u32| match number {
            0 => self.path.join(format!("{stem}.json")),
            number => self.path.join(format!("{stem}-{number}.json")),
        };
        (0..1000)
            .map(name)
            .find(|path| !path.exists())
            .unwrap_or_else(|| name(0))
    }
}
