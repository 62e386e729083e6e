//! Where reports go: standard output, or a file that is never left half written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::json::is_closed_pipe;

/// A place for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file that holds the latest report, whole: replaced by renaming.
    Replace(PathBuf),
    /// A file that gets every report at its end.
    Append(PathBuf),
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// It was written.
    Written,
    /// The reader has gone: end with success.
    ReaderGone,
}

/// A report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// To standard output.
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    /// The format cannot hold it.
    #[error("cannot make the report: {0}")]
    Render(io::Error),
    /// To a file; what it held before is still there.
    #[error("cannot write {}: {}; {}", path.display(), reason(error), remedy(error))]
    File {
        /// As the user named it.
        path: PathBuf,
        /// Why: told in the text, so not once more as its source.
        error: io::Error,
    },
}

fn reason(error: &io::Error) -> String {
    // std appends "(os error 28)", which helps nobody.
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_lowercase(),
        None => text,
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "what it held before is unchanged; free space or choose another --output"
        }
        io::ErrorKind::NotFound => "make its directory first or choose another --output",
        io::ErrorKind::IsADirectory => "name a file in it",
        _ => "choose another --output",
    }
}

impl Destination {
    /// Finds out whether a report could be written, before hours of tracing: leaves no trace.
    ///
    /// # Errors
    /// What a write would return.
    pub fn check(&self) -> Result<(), OutputError> {
        match self {
            Self::Stdout => Ok(()),
            Self::Replace(path) => check_replace(path).map_err(|source| fail(path, source)),
            Self::Append(path) => check_append(path).map_err(|source| fail(path, source)),
        }
    }

    /// True when nothing is there yet that a report would go on from.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Append(path) => fs::metadata(path).map_or(true, |found| found.len() == 0),
            Self::Stdout | Self::Replace(_) => true,
        }
    }

    /// Writes one report.
    ///
    /// # Errors
    /// [`OutputError`], except that a closed pipe is [`Delivery::ReaderGone`].
    pub fn write(&self, report: &[u8]) -> Result<Delivery, OutputError> {
        let (done, path) = match self {
            Self::Stdout => (to_stdout(report), None),
            Self::Replace(path) => (replace(path, report), Some(path)),
            Self::Append(path) => (append(path, report), Some(path)),
        };
        match (done, path) {
            (Ok(()), _) => Ok(Delivery::Written),
            (Err(error), _) if is_closed_pipe(&error) => Ok(Delivery::ReaderGone),
            (Err(error), None) => Err(OutputError::Stdout(error)),
            (Err(error), Some(path)) => Err(fail(path, error)),
        }
    }
}

fn fail(path: &Path, error: io::Error) -> OutputError {
    OutputError::File {
        path: path.to_owned(),
        error,
    }
}

fn to_stdout(report: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(report)?;
    out.flush()
}

/// The regular file to replace, symbolic links followed; `None` when the path is something that
/// must be written into instead (`/dev/null`, a FIFO): renaming over that would destroy it.
fn regular(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if found.is_file() => fs::canonicalize(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(path.to_owned())),
        Err(error) => Err(error),
    }
}

/// Writes a file whole or not at all: beside it, synchronized, renamed.
pub(super) fn replace(path: &Path, report: &[u8]) -> io::Result<()> {
    let Some(path) = regular(path)? else {
        return OpenOptions::new().write(true).open(path)?.write_all(report);
    };
    let mut temporary = Temporary::beside(&path)?;
    temporary.file.write_all(report)?;
    // A full disk may show only here; the old report must not be gone by then.
    temporary.file.sync_data()?;
    temporary.rename_to(&path)
}

fn check_replace(path: &Path) -> io::Result<()> {
    match regular(path)? {
        Some(path) => Temporary::beside(&path).map(drop),
        // Not opened: a FIFO would block until it has a reader.
        None => Ok(()),
    }
}

fn append(path: &Path, report: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)?;
    let before = file
        .metadata()
        .ok()
        .filter(fs::Metadata::is_file)
        .map(|found| found.len());
    let done = file.write_all(report).and_then(|()| file.flush());
    if let (Err(_), Some(length)) = (&done, before) {
        // No half line for whoever reads the file; if this fails too, the first error counts.
        let _ = file.set_len(length);
    }
    done
}

fn check_append(path: &Path) -> io::Result<()> {
    if regular(path)?.is_none() {
        return Ok(());
    }
    let existed = path.exists();
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)?;
    if !existed {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A new file in the same directory, removed unless it was renamed.
struct Temporary {
    file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    fn beside(target: &Path) -> io::Result<Self> {
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        // An existing report keeps its mode; memtrace runs as root, its reader may not.
        let mode = fs::metadata(target).map_or(0o644, |found| found.permissions().mode() & 0o777);
        for attempt in 0..64_u32 {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}", std::process::id()));
            let path = directory.join(hidden);
            // create_new follows no link: nobody can aim root's write at another file.
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
            {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        path: Some(path),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn rename_to(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    // A second report replaces the first whole, and no temporary file stays.
    #[test]
    fn replaces_whole() {
        let directory = tempfile::tempdir().unwrap();
        let out = Destination::Replace(directory.path().join("report.json"));
        out.check().unwrap();
        assert!(
            files(directory.path()).is_empty(),
            "a check leaves no trace"
        );
        assert_eq!(
            out.write(b"a long first report").unwrap(),
            Delivery::Written
        );
        assert_eq!(out.write(b"second").unwrap(), Delivery::Written);
        assert_eq!(
            fs::read(directory.path().join("report.json")).unwrap(),
            b"second"
        );
        assert_eq!(files(directory.path()), ["report.json"]);
    }

    // Appending keeps every line; a check of a file that is not there does not make it.
    #[test]
    fn appends() {
        let directory = tempfile::tempdir().unwrap();
        let out = Destination::Append(directory.path().join("reports.ndjson"));
        out.check().unwrap();
        assert!(files(directory.path()).is_empty());
        let _ = out.write(b"1\n").unwrap();
        out.check().unwrap();
        let _ = out.write(b"2\n").unwrap();
        assert_eq!(
            fs::read(directory.path().join("reports.ndjson")).unwrap(),
            b"1\n2\n"
        );
    }

    // A link is followed, not replaced; the file keeps its mode.
    #[test]
    fn follows_links_and_keeps_mode() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        let link = directory.path().join("link");
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let _ = Destination::Replace(link.clone()).write(b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    // A device is written into: renaming over /dev/null would break the machine.
    #[test]
    fn devices_stay_devices() {
        let out = Destination::Replace("/dev/null".into());
        out.check().unwrap();
        let _ = out.write(b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    // A full device gives one line that names the file and what to do.
    #[test]
    fn full_disk() {
        let error = Destination::Replace("/dev/full".into())
            .write(b"x")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write /dev/full: no space left on device; \
             what it held before is unchanged; free space or choose another --output"
        );
    }

    // A missing directory and a directory in the file's place are found before tracing.
    #[test]
    fn checked_early() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Destination::Replace(directory.path().join("no/report"));
        assert!(
            missing
                .check()
                .unwrap_err()
                .to_string()
                .contains("make its directory first")
        );
        for out in [
            Destination::Replace(directory.path().to_owned()),
            Destination::Append(directory.path().to_owned()),
        ] {
            assert!(
                out.check()
                    .unwrap_err()
                    .to_string()
                    .contains("is a directory")
            );
        }
    }
}
