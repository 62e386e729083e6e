//! What can be wrong with a recording, in one line each.

use std::path::{Path, PathBuf};

/// A recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file of a new recording is there already.
    #[error(
        "cannot record to {}: it exists; remove it or choose another --record FILE", .0.display()
    )]
    Exists(PathBuf),
    /// Another memtrace is writing it.
    #[error(
        "cannot record to {}: it is being written by {who}; choose another --record FILE",
        path.display()
    )]
    Busy {
        /// As the user named it.
        path: PathBuf,
        /// `memtrace (pid 12)`.
        who: String,
    },
    /// The file cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// As the user named it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no recording.
    #[error("{} is not a memtrace recording: {why}", path.display())]
    NotARecording {
        /// As the user named it.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It was written by a newer memtrace.
    #[error(
        "{} is a recording of version {found}, this memtrace reads up to {known}: use a newer \
         memtrace", path.display()
    )]
    Newer {
        /// As the user named it.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version known.
        known: i64,
    },
    /// What is in it makes no sense.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// As the user named it.
        path: PathBuf,
        /// Where.
        why: String,
    },
    /// It holds no interval yet.
    #[error("{} holds no interval yet: its recorder ended before the first report", .0.display())]
    Empty(PathBuf),
    /// A moment that is not in it.
    #[error("{}: {why}", path.display())]
    NoMoment {
        /// As the user named it.
        path: PathBuf,
        /// What there is instead.
        why: String,
    },
    /// Its write-ahead log cannot be read from where it is.
    #[error(
        "cannot read {}: part of it is in {}-wal, which needs a writable directory: copy both \
         files to one", .0.display(), .0.display()
    )]
    NeedsWritable(PathBuf),
    /// The disk did not take the last part in time.
    #[error(
        "{}: the disk is too slow, what was to be written last ({waiting} times) is not in it", path.display()
    )]
    TooSlow {
        /// As the user named it.
        path: PathBuf,
        /// What was not written.
        waiting: usize,
    },
    /// Writing failed; what was written before stays readable.
    #[error("{}: {}", path.display(), reason(source))]
    Write {
        /// As the user named it.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl RecordError {
    pub(super) fn write(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write {
            path: path.clone(),
            source,
        }
    }

    pub(super) fn damaged(path: &Path, why: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            why: crate::symbolize::printable(&why.to_string()),
        }
    }
}

/// SQLite's reason in words that say what to do.
fn reason(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::ReadOnly) => "it cannot be written to".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it locked".to_owned()
        }
        _ => error.to_string(),
    }
}
