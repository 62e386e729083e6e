//! Names of JIT-compiled code, from the perf map its runtime writes: `/tmp/perf-PID.map` with lines
//! `START SIZE NAME`, numbers in hexadecimal, with `0x` in front since JDK 25.
//!
//! The file is read backwards, because a later line overrides an earlier one (code moves and
//! addresses are used again): the first line that holds an address is the right one, and a file of
//! any size needs no more memory than the addresses asked for. It lies in a directory that anybody
//! can write to, so it is opened only when it is a regular file, no link, inside the process's own
//! root, and owned by the process's user or root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::open::{self, OpenError};
use super::printable;
use super::process::{ProcFs, Process};
use crate::id::Tgid;

/// Bytes read of one map at most, its newest ones.
const BYTES_CAP: u64 = 512 << 20;
/// Bytes read in one piece.
const CHUNK: u64 = 1 << 20;
/// Bytes of one line that are looked at; the rest of a name is cut.
const LINE_CAP: usize = 1024;
/// Larger than any compiled function; a line that claims more is nonsense.
const CODE_CAP: u64 = 256 << 20;

/// Why a perf map is not used.
#[derive(Debug, thiserror::Error)]
pub enum PerfMapError {
    /// It cannot be opened or is no regular file.
    #[error("JIT names of process {tgid}: {source}")]
    Open {
        /// The process.
        tgid: Tgid,
        /// Why.
        source: OpenError,
    },
    /// Somebody else wrote it.
    #[error(
        "JIT names of process {tgid}: {path} belongs to user {owner}, not to the process's user {uid} or root; it is not read"
    )]
    Owner {
        /// The process.
        tgid: Tgid,
        /// The map, as the process sees it.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        uid: u32,
    },
    /// It cannot be read.
    #[error("JIT names of process {tgid}: cannot read {path}: {source}")]
    Read {
        /// The process.
        tgid: Tgid,
        /// The map, as the process sees it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The names found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JitNames {
    /// Address → name, printable. Addresses without a name are missing.
    pub names: BTreeMap<u64, String>,
    /// False when the process has no perf map.
    pub present: bool,
    /// True when the map is longer than what is read, and some addresses were not found in that.
    pub truncated: bool,
    /// Lines that were not understood.
    pub skipped: u64,
}

/// Looks addresses up in a process's perf map. No map is no error.
pub fn lookup(
    proc: &ProcFs,
    process: &Process,
    addresses: impl IntoIterator<Item = u64>,
) -> Result<JitNames, PerfMapError> {
    let tgid = process.tgid;
    let path = path_of(process);
    let file = match open::beneath(&proc.process_root(tgid), &path, false) {
        Ok(file) => file,
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(JitNames::default());
        }
        Err(source) => return Err(PerfMapError::Open { tgid, source }),
    };
    let read_error = |source| PerfMapError::Read {
        tgid,
        path: path.clone(),
        source,
    };
    let owner = file.metadata().map_err(read_error)?.uid();
    if owner != process.uid && owner != 0 {
        return Err(PerfMapError::Owner {
            tgid,
            path,
            owner,
            uid: process.uid,
        });
    }
    search(&file, addresses, CHUNK, BYTES_CAP).map_err(read_error)
}

/// Reads the file backwards until every address has a name or the cap is reached.
fn search(
    file: &File,
    addresses: impl IntoIterator<Item = u64>,
    chunk: u64,
    cap: u64,
) -> io::Result<JitNames> {
    let mut names = JitNames {
        present: true,
        ..JitNames::default()
    };
    let mut open: BTreeSet<u64> = addresses.into_iter().collect();
    let length = file.metadata()?.len();
    let stop = length.saturating_sub(cap);
    let mut position = length;
    // The start of what was read last: the end of a line whose start comes with the next piece.
    let mut carried: Vec<u8> = Vec::new();
    // What stands behind the last newline is still being written.
    let mut complete = false;
    while position > stop && !open.is_empty() {
        let start = position.saturating_sub(chunk).max(stop);
        let mut piece = vec![0; usize::try_from(position - start).unwrap_or(0)];
        match file.read_exact_at(&mut piece, start) {
            // Truncated while it is read: what is left is read on.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (carried, complete, position) = (Vec::new(), false, start);
                continue;
            }
            result => result?,
        }
        let mut rest = piece.as_slice();
        while let Some(newline) = rest.iter().rposition(|&b| b == b'\n') {
            let (before, line) = rest.split_at(newline);
            if complete {
                let line = line.get(1..).unwrap_or_default();
                take(line, std::mem::take(&mut carried), &mut open, &mut names);
            }
            carried.clear();
            complete = true;
            rest = before;
        }
        if complete {
            // Of a long line the start is what counts, and that comes last.
            let mut line = rest
                .get(..rest.len().min(LINE_CAP))
                .unwrap_or_default()
                .to_vec();
            line.extend(carried.iter().take(LINE_CAP - line.len()));
            carried = line;
        }
        position = start;
    }
    if complete && position == 0 {
        take(&carried, Vec::new(), &mut open, &mut names);
    }
    names.truncated = position > 0 && !open.is_empty();
    Ok(names)
}

/// Gives the name in a line (of two parts) to every address in its range that has none yet.
fn take(line: &[u8], tail: Vec<u8>, open: &mut BTreeSet<u64>, names: &mut JitNames) {
    let whole;
    let line = if tail.is_empty() {
        line
    } else {
        whole = [line, &tail].concat();
        &whole
    };
    let line = line.get(..line.len().min(LINE_CAP)).unwrap_or_default();
    if line.is_empty() {
        return;
    }
    let Some((start, end, name)) = parse(line) else {
        names.skipped += 1;
        return;
    };
    while let Some(&address) = open.range(start..end).next() {
        open.remove(&address);
        names.names.insert(address, printable(name));
    }
}

/// `START SIZE NAME`.
fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (start, rest) = split_once(line)?;
    let (size, name) = split_once(rest)?;
    let (start, size) = (hex(start)?, hex(size)?);
    let name = name.trim_ascii();
    if size == 0 || size > CODE_CAP || name.is_empty() {
        return None;
    }
    Some((start, start.checked_add(size)?, name))
}

fn split_once(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|&b| b == b' ')?;
    Some((text.get(..space)?, text.get(space + 1..)?))
}

fn hex(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    // `from_str_radix` would take a sign.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// Where a process's perf map would be, in its own root.
#[must_use]
pub fn path_of(process: &Process) -> PathBuf {
    Path::new("/tmp").join(format!("perf-{}.map", process.inner_pid()))
}

#[cfg(test)]
mod tests;
