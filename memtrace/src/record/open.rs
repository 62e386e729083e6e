//! Opening a recording's file: to make a new one, or to read one that somebody else may have made.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::{APPLICATION_ID, RecordError, VERSION};

/// How long one question to a recording may take; a hostile one can make it endless.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest text or blob in a recording that is read.
const MAX_VALUE: i32 = 64 << 20;
/// The tables a reader asks.
const TABLES: [&str; 14] = [
    "session",
    "documents",
    "intervals",
    "processes",
    "process_samples",
    "modules",
    "functions",
    "files",
    "frames",
    "stacks",
    "stack_frames",
    "samples",
    "marks",
    "incidents",
];

/// Makes the file, empty, and holds it so that no second memtrace writes it.
pub(super) fn create(path: &Path) -> Result<(Connection, File), RecordError> {
    let open = |source| RecordError::Open {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(open)?;
    let found = file.metadata().map_err(open)?;
    if !found.is_file() {
        return Err(RecordError::NotARecording {
            path: path.to_owned(),
            why: "it is not a regular file".to_owned(),
        });
    }
    // The lock is flock's: SQLite's own are of another kind and do not meet it. The descriptor
    // must not be closed before the connection, or SQLite's locks go with it.
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(RecordError::Busy {
            path: path.to_owned(),
            who: writer(path),
        });
    }
    if found.len() > 0 {
        return Err(RecordError::Exists(path.to_owned()));
    }
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(RecordError::write(path))?;
    Ok((db, file))
}

/// Who writes it, as far as it says.
fn writer(path: &Path) -> String {
    let pid = read(path).ok().and_then(|db| {
        db.query_row("SELECT writer_pid FROM session", [], |row| row.get(0))
            .ok()
    });
    pid.map_or_else(
        || "another memtrace".to_owned(),
        |pid: i64| format!("memtrace (pid {pid})"),
    )
}

/// Opens a file to read, and makes sure that it is a recording of a version that is known.
pub(super) fn read(path: &Path) -> Result<Connection, RecordError> {
    looks_right(path)?;
    let db = connect(path)?;
    be_patient(&db);
    let wrong = |error: rusqlite::Error| wrong(path, &error);
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE)
        .map_err(wrong)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)
        .map_err(wrong)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)
        .map_err(wrong)?;
    // All answers are of one moment of the file: a recorder may write it, and thin it, meanwhile.
    db.execute_batch("BEGIN").map_err(wrong)?;
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("application_id").map_err(wrong)? != APPLICATION_ID {
        return Err(RecordError::NotARecording {
            path: path.to_owned(),
            why: "it is a database of something else".to_owned(),
        });
    }
    let found = pragma("user_version").map_err(wrong)?;
    if found > VERSION {
        return Err(RecordError::Newer {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    let is_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
    for table in TABLES {
        let count: i64 = db
            .query_row(is_table, [table], |row| row.get(0))
            .map_err(wrong)?;
        if count != 1 {
            return Err(RecordError::damaged(path, format!("no table {table}")));
        }
    }
    Ok(db)
}

/// From now on [`PATIENCE`] counts.
pub(super) fn be_patient(db: &Connection) {
    let deadline = Instant::now() + PATIENCE;
    db.progress_handler(100_000, Some(move || Instant::now() > deadline));
}

/// SQLite's errors on a file that is read.
pub(super) fn wrong(path: &Path, error: &rusqlite::Error) -> RecordError {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => RecordError::NotARecording {
            path: path.to_owned(),
            why: "it is no SQLite file".to_owned(),
        },
        Some(ErrorCode::OperationInterrupted) => {
            RecordError::damaged(path, "reading it takes too long")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            RecordError::damaged(path, "it is truncated or corrupt")
        }
        _ => RecordError::damaged(path, error),
    }
}

/// Whether a file looks like a recording rather than like text.
pub fn is_recording(path: &Path) -> bool {
    looks_right(path).is_ok()
}

/// A regular file that begins as SQLite's do: nothing else is given to SQLite.
fn looks_right(path: &Path) -> Result<(), RecordError> {
    let open = |source| RecordError::Open {
        path: path.to_owned(),
        source,
    };
    let not = |why: &str| RecordError::NotARecording {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(open)?;
    let found = file.metadata().map_err(open)?;
    if !found.is_file() {
        return Err(not("it is not a regular file"));
    }
    let mut head = Vec::new();
    (&mut file).take(16).read_to_end(&mut head).map_err(open)?;
    if head.is_empty() {
        return Err(not("it is empty"));
    }
    if head != b"SQLite format 3\0" {
        return Err(not("it is no SQLite file"));
    }
    Ok(())
}

fn connect(path: &Path) -> Result<Connection, RecordError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let usual = Connection::open_with_flags(path, flags).and_then(|db| {
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0))?;
        Ok(db)
    });
    let error = match usual {
        Ok(db) => return Ok(db),
        Err(error) => error,
    };
    use rusqlite::ErrorCode;
    let cannot_share = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure)
    );
    if !cannot_share {
        return Err(wrong(path, &error));
    }
    // Read-only media: SQLite cannot make its shared memory beside the file. Nobody writes there
    // either, so what is in the file is all, unless a log lies beside it.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(RecordError::NeedsWritable(path.to_owned()));
    }
    Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)
        .map_err(|error| wrong(path, &error))
}

/// The path as an URI that says that nobody writes the file.
fn immutable(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}
