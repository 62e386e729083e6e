//! The executable mappings a program makes, as the kernel logs them: for programs that are gone
//! before anyone could read their `/proc/PID/maps`.
//!
//! A perf event that counts nothing (`PERF_COUNT_SW_DUMMY`) writes a record for every executable
//! mapping of a process into a buffer for each processor. The buffers are small and are only read
//! when the mappings are needed: what a program maps at its start fits, the rest is not wanted.
//! Checked against `include/uapi/linux/perf_event.h` of Linux 5.10 to 6.18.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::id::Tgid;

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_SAMPLE_TIME: u64 = 1 << 2;
const INHERIT: u64 = 1 << 1;
const MMAP: u64 = 1 << 8;
const COMM: u64 = 1 << 9;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const MMAP2: u64 = 1 << 23;
const COMM_EXEC: u64 = 1 << 24;
const FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;

const RECORD_COMM: u32 = 3;
const RECORD_MMAP2: u32 = 10;
/// In a `COMM` record: the process has become another program.
const MISC_COMM_EXEC: u16 = 1 << 13;

const PAGE: usize = 4096;
/// Room for some 400 mappings.
const DATA: usize = 16 * PAGE;
/// Where the buffer's head stands in the page before the data.
const DATA_HEAD: usize = 1024;

/// `struct perf_event_attr` up to its fifth version, as words.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    rest: [u64; 8],
}

const _: () = assert!(size_of::<Attributes>() == 112);

/// A mapping of a file, or of memory when the path is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedMapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset in the file of `start`.
    pub offset: u64,
    /// Inode of the file.
    pub inode: u64,
    /// As the process sees it.
    pub path: PathBuf,
}

/// The log of one process and those it forks.
pub struct MapLog {
    rings: Vec<Ring>,
}

impl MapLog {
    /// Begins to log. For a process with one thread: others that it has already are not covered.
    pub fn open(tgid: Tgid) -> io::Result<Self> {
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
        let rings = cpus.into_iter().map(|cpu| Ring::open(tgid, cpu));
        Ok(Self {
            rings: rings.collect::<io::Result<_>>()?,
        })
    }

    /// What a process has mapped since it became its present program, oldest first.
    pub fn mappings(&self, tgid: Tgid) -> Vec<LoggedMapping> {
        let mut records: Vec<_> = self
            .rings
            .iter()
            .flat_map(|ring| parse(&ring.copy(), tgid))
            .collect();
        records.sort_by_key(|(time, _)| *time);
        let mut mappings = Vec::new();
        for (_, record) in records {
            match record {
                Record::Exec => mappings.clear(),
                Record::Mapping(new) => {
                    // What it was put over is gone.
                    mappings
                        .retain(|old: &LoggedMapping| old.end <= new.start || new.end <= old.start);
                    mappings.push(new);
                }
            }
        }
        mappings
    }
}

struct Ring {
    base: NonNull<u8>,
    _event: OwnedFd,
}

impl Ring {
    fn open(tgid: Tgid, cpu: u32) -> io::Result<Self> {
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: PERF_COUNT_SW_DUMMY,
            period: 0,
            sample_type: PERF_SAMPLE_TIME,
            read_format: 0,
            flags: INHERIT | MMAP | MMAP2 | COMM | COMM_EXEC | SAMPLE_ID_ALL,
            rest: [0; 8],
        };
        // SAFETY: the attributes live through the call and say their own size.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                tgid.0,
                cpu,
                -1,
                FLAG_FD_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd)
            .ok()
            .filter(|fd| *fd >= 0)
            .ok_or_else(io::Error::last_os_error)?;
        // SAFETY: a new descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE + DATA,
                libc::PROT_READ,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self {
            base,
            _event: event,
        })
    }

    /// All that was written. Mapped for reading only, the buffer keeps its last records: for a
    /// program that is gone nothing is written any more, and a torn record only ends the parsing.
    fn copy(&self) -> Vec<u8> {
        // SAFETY: an aligned word in the first page of the mapping, which lives as long as `self`.
        let head = unsafe { &*self.base.as_ptr().add(DATA_HEAD).cast::<AtomicU64>() };
        let head = head.load(Ordering::Acquire);
        // Once it has wrapped, where a record begins is not known any more.
        let length = usize::try_from(head).unwrap_or(usize::MAX);
        if length > DATA {
            return Vec::new();
        }
        // SAFETY: the data follow the first page; `length` is within them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(PAGE), length) }.to_vec()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this length, and nobody holds a reference into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), PAGE + DATA) };
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Record {
    Exec,
    Mapping(LoggedMapping),
}

/// The records of one process with their times, as far as they can be read.
fn parse(mut bytes: &[u8], tgid: Tgid) -> Vec<(u64, Record)> {
    let mut found = Vec::new();
    while let Some((kind, misc, size)) = head(bytes) {
        let (Some(record), Some(rest)) = (bytes.get(..size), bytes.get(size..)) else {
            break;
        };
        let time = size.checked_sub(8).and_then(|at| word(record, at));
        let of = word(record, 8).map(|pid_tid| pid_tid as u32);
        if let Some(time) = time.filter(|_| of == Some(tgid.0)) {
            match kind {
                RECORD_COMM if misc & MISC_COMM_EXEC != 0 => found.push((time, Record::Exec)),
                RECORD_MMAP2 => {
                    found.extend(mapping(record).map(|mapping| (time, Record::Mapping(mapping))));
                }
                _ => {}
            }
        }
        bytes = rest;
    }
    found
}

/// Type, flags and size of the record that begins here.
fn head(bytes: &[u8]) -> Option<(u32, u16, usize)> {
    let head = word(bytes, 0)?;
    let size = (head >> 48) as usize;
    (size >= 8).then_some((head as u32, (head >> 32) as u16, size))
}

/// `pid, tid; addr; len; pgoff; maj, min; ino; generation; prot, flags; filename`, then the time.
fn mapping(record: &[u8]) -> Option<LoggedMapping> {
    let start = word(record, 16)?;
    let name = record.get(72..record.len().checked_sub(8)?)?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(LoggedMapping {
        start,
        end: start.checked_add(word(record, 24)?)?,
        offset: word(record, 32)?,
        inode: word(record, 48)?,
        path: PathBuf::from(OsStr::from_bytes(name)),
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u32, misc: u16, body: &[u64], name: &[u8], time: u64) -> Vec<u8> {
        let size = 8 + body.len() * 8 + name.len() + 8;
        let head = u64::from(kind) | u64::from(misc) << 32 | (size as u64) << 48;
        let words = std::iter::once(&head).chain(body);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(name);
        bytes.extend(time.to_ne_bytes());
        bytes
    }

    fn mmap(tgid: u32, start: u64, time: u64) -> Vec<u8> {
        let body = [u64::from(tgid), start, 0x1000, 0x2000, 0, 77, 0, 5];
        record(RECORD_MMAP2, 0, &body, b"/lib/libc.so\0\0\0\0", time)
    }

    /// Mappings of the process are read, others and unknown records are skipped, half a record
    /// ends the reading.
    #[test]
    fn records() {
        let mut bytes = mmap(7, 0x10_0000, 5);
        bytes.extend(mmap(8, 0x20_0000, 6));
        bytes.extend(record(3, MISC_COMM_EXEC, &[7], b"name\0\0\0\0", 3));
        bytes.extend(record(99, 0, &[7], b"", 4));
        bytes.extend(mmap(7, 0x30_0000, 9));
        bytes.truncate(bytes.len() - 1);
        let wanted = LoggedMapping {
            start: 0x10_0000,
            end: 0x10_1000,
            offset: 0x2000,
            inode: 77,
            path: "/lib/libc.so".into(),
        };
        assert_eq!(
            parse(&bytes, Tgid(7)),
            [(5, Record::Mapping(wanted)), (3, Record::Exec)]
        );
    }

    proptest! {
        /// No bytes make the parser panic.
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, Tgid(7));
        }
    }
}
