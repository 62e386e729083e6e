//! One process as `/proc/PID` shows it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{open, printable};
use crate::id::Tgid;

/// A proc file system: `/proc`, or a tree made by a test.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
}

impl Default for ProcFs {
    fn default() -> Self {
        Self::new("/proc")
    }
}

/// Why a process cannot be read or traced. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No such process.
    #[error("no process {tgid}: check the pid, it may have ended")]
    NotFound {
        /// Pid asked for.
        tgid: Tgid,
    },
    /// The number is a thread's, not a process's.
    #[error("{tid} is a thread of process {tgid}: use --pid {tgid}")]
    Thread {
        /// Number asked for.
        tid: Tgid,
        /// Its process.
        tgid: Tgid,
    },
    /// Not allowed.
    #[error("cannot read {path}: {source}; run memtrace as root")]
    Permission {
        /// File in /proc.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other failure.
    #[error("cannot read {path}: {source}; is /proc mounted?")]
    Io {
        /// File in /proc.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not what the kernel writes.
    #[error("cannot understand {path} ({what}); is /proc a real procfs?")]
    Malformed {
        /// File in /proc.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// It has no user memory.
    #[error(
        "process {tgid} ({comm}) is a kernel thread and has no memory of its own: choose a user process"
    )]
    KernelThread {
        /// The process.
        tgid: Tgid,
        /// Its name.
        comm: String,
    },
    /// It has ended and only waits for its parent.
    #[error(
        "process {tgid} ({comm}) has ended and waits to be reaped by its parent: nothing is left to trace"
    )]
    Ended {
        /// The process.
        tgid: Tgid,
        /// Its name.
        comm: String,
    },
    /// It ended while probes were put on it.
    #[error("process {tgid} ({comm}) ended while memtrace attached to it: nothing was traced")]
    EndedMeanwhile {
        /// The process.
        tgid: Tgid,
        /// Its name.
        comm: String,
    },
    /// It has no mappings.
    #[error("process {tgid} has no memory mapped: it is just ending, or a kernel thread")]
    NoMemory {
        /// The process.
        tgid: Tgid,
    },
    /// A 32-bit program on a 64-bit kernel (R29).
    #[error(
        "process {tgid} ({comm}) runs the 32-bit program {exe}: memtrace traces 64-bit programs only"
    )]
    ThirtyTwoBit {
        /// The process.
        tgid: Tgid,
        /// Its name.
        comm: String,
        /// Its program.
        exe: String,
    },
}

/// Scheduling state, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Running, sleeping, waiting.
    Alive,
    /// Stopped by a signal or a debugger.
    Stopped,
    /// Ended, not reaped yet.
    Zombie,
}

/// Seccomp mode of a thread (R25), ordered by what it forbids to return probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seccomp {
    /// No filter.
    Off,
    /// read, write, exit and sigreturn only.
    Strict,
    /// A BPF filter.
    Filter,
}

/// Word size of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `ELFCLASS32`, x32 included.
    Bits32,
    /// `ELFCLASS64`.
    Bits64,
}

/// One process at one moment.
#[derive(Clone, Debug)]
pub struct Process {
    /// Thread group id.
    pub tgid: Tgid,
    /// Parent's thread group id.
    pub parent: Tgid,
    /// Name, printable.
    pub comm: String,
    /// Executable as the process sees it; none for kernel threads and zombies, and when not allowed.
    pub exe: Option<PathBuf>,
    /// True when the executable was deleted or replaced since it was started.
    pub exe_deleted: bool,
    /// State.
    pub state: State,
    /// True for a kernel thread.
    pub kernel_thread: bool,
    /// Start in clock ticks since boot: with the pid it names a process for good.
    pub start_ticks: u64,
    /// Effective user id.
    pub uid: u32,
    /// Number of threads.
    pub threads: u32,
    /// Word size of the executable; none when it cannot be read.
    pub class: Option<Class>,
    /// Seccomp mode of the main thread; see [`ProcFs::seccomp`].
    pub seccomp: Seccomp,
    /// Resident bytes.
    pub rss_bytes: Option<u64>,
    /// User and system time so far, in nanoseconds, of clock-tick resolution.
    pub cpu_time_ns: u64,
    /// The same of children that have ended and that it has waited for.
    pub children_cpu_time_ns: u64,
    /// Its pid in each nested pid namespace, outermost first; at least one.
    pub namespace_pids: Vec<u32>,
    /// Inode of its pid namespace.
    pub pid_namespace: Option<u64>,
}

impl ProcFs {
    /// A proc file system mounted (or faked) at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Directory of a process.
    #[must_use]
    pub fn process(&self, tgid: Tgid) -> PathBuf {
        self.root.join(tgid.to_string())
    }

    /// Root directory of a process, as a path that leads into its mount namespace.
    #[must_use]
    pub fn process_root(&self, tgid: Tgid) -> PathBuf {
        self.process(tgid).join("root")
    }

    /// All processes, in no order. Those that end meanwhile are listed all the same.
    pub fn list(&self) -> Result<Vec<Tgid>, ProcessError> {
        let failed = |source| ProcessError::Io {
            path: self.root.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(number) = name.to_str().and_then(|n| n.parse().ok()) {
                found.push(Tgid(number));
            }
        }
        Ok(found)
    }

    /// Whether a process or thread is on its way out, or gone.
    #[must_use]
    pub fn is_ending(&self, tgid: Tgid) -> bool {
        let stat = self.read_file(tgid, &self.process(tgid).join("stat")).ok();
        stat.and_then(|text| Stat::parse(&text))
            .is_none_or(|stat| stat.ending)
    }

    /// Reads a process. Kernel threads, zombies and 32-bit programs are read too: ask
    /// [`Process::check_traceable`].
    pub fn read(&self, tgid: Tgid) -> Result<Process, ProcessError> {
        let directory = self.process(tgid);
        let stat_path = directory.join("stat");
        let stat_text = self.read_file(tgid, &stat_path)?;
        let malformed = |path: &Path, what| ProcessError::Malformed {
            path: path.into(),
            what,
        };
        let stat = Stat::parse(&stat_text).ok_or_else(|| malformed(&stat_path, "fields"))?;
        let status_path = directory.join("status");
        let status_text = self.read_file(tgid, &status_path)?;
        let status = Status::parse(&status_text).ok_or_else(|| malformed(&status_path, "Tgid"))?;
        if status.tgid != tgid {
            return Err(ProcessError::Thread {
                tid: tgid,
                tgid: status.tgid,
            });
        }
        let (exe, exe_deleted) = read_exe(&directory.join("exe"));
        // The pid may have been given to another process between the two files.
        let again = self.read_file(tgid, &stat_path)?;
        if Stat::parse(&again).is_none_or(|s| s.start_ticks != stat.start_ticks) {
            return Err(ProcessError::NotFound { tgid });
        }
        let class = if stat.kernel_thread || stat.state == State::Zombie {
            None
        } else {
            read_class(&directory.join("exe"))
        };
        Ok(Process {
            tgid,
            parent: stat.parent,
            comm: stat.comm,
            exe,
            exe_deleted,
            state: stat.state,
            kernel_thread: stat.kernel_thread,
            start_ticks: stat.start_ticks,
            uid: status.uid,
            threads: stat.threads,
            class,
            seccomp: status.seccomp,
            rss_bytes: status.rss_bytes,
            cpu_time_ns: stat.cpu_time_ns,
            children_cpu_time_ns: stat.children_cpu_time_ns,
            namespace_pids: if status.namespace_pids.is_empty() {
                vec![tgid.0]
            } else {
                status.namespace_pids
            },
            pid_namespace: read_namespace(&directory.join("ns/pid")),
        })
    }

    /// The seccomp mode of a process: of that thread which has the most, as each can have its own.
    #[must_use]
    pub fn seccomp(&self, process: &Process) -> Seccomp {
        let tasks = std::fs::read_dir(self.process(process.tgid).join("task"));
        tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| {
                let text = self.read_file(process.tgid, &task.path().join("status"));
                Some(Status::parse(&text.ok()?)?.seccomp)
            })
            .fold(process.seccomp, Seccomp::max)
    }

    /// Reads a file of a process, at most [`FILE_CAP`] bytes of it.
    fn read_file(&self, tgid: Tgid, path: &Path) -> Result<Vec<u8>, ProcessError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_CAP).read_to_end(&mut bytes))
            .map_err(|source| error_of(tgid, path, source))?;
        Ok(bytes)
    }
}

/// More than the kernel ever writes to stat or status.
const FILE_CAP: u64 = 64 * 1024;

/// An error of the kernel in the words of this module.
pub(super) fn error_of(tgid: Tgid, path: &Path, source: io::Error) -> ProcessError {
    let gone = source.raw_os_error() == Some(libc::ESRCH);
    match source.kind() {
        _ if gone => ProcessError::NotFound { tgid },
        io::ErrorKind::NotFound => ProcessError::NotFound { tgid },
        io::ErrorKind::PermissionDenied => ProcessError::Permission {
            path: path.to_owned(),
            source,
        },
        _ => ProcessError::Io {
            path: path.to_owned(),
            source,
        },
    }
}

impl Process {
    /// Refuses, with the reason, what cannot be traced.
    pub fn check_traceable(&self) -> Result<(), ProcessError> {
        let (tgid, comm) = (self.tgid, self.comm.clone());
        if self.kernel_thread {
            return Err(ProcessError::KernelThread { tgid, comm });
        }
        if self.state == State::Zombie {
            return Err(ProcessError::Ended { tgid, comm });
        }
        if self.class == Some(Class::Bits32) {
            return Err(ProcessError::ThirtyTwoBit {
                tgid,
                comm,
                exe: self.exe_text(),
            });
        }
        Ok(())
    }

    /// The executable for people.
    #[must_use]
    pub fn exe_text(&self) -> String {
        match &self.exe {
            Some(path) => printable(path.as_os_str().as_bytes()),
            None => "(unknown)".to_owned(),
        }
    }

    /// Its pid in its own pid namespace: the one in the names of its perf map.
    #[must_use]
    pub fn inner_pid(&self) -> u32 {
        self.namespace_pids.last().copied().unwrap_or(self.tgid.0)
    }
}

/// What is used of /proc/PID/stat.
struct Stat {
    comm: String,
    state: State,
    parent: Tgid,
    kernel_thread: bool,
    ending: bool,
    threads: u32,
    start_ticks: u64,
    cpu_time_ns: u64,
    children_cpu_time_ns: u64,
}

impl Stat {
    /// `PID (COMM) STATE PPID …`; COMM can hold spaces and parentheses.
    fn parse(text: &[u8]) -> Option<Self> {
        /// `PF_KTHREAD` and `PF_EXITING` in include/linux/sched.h.
        const PF_KTHREAD: u64 = 0x0020_0000;
        const PF_EXITING: u64 = 0x0000_0004;
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        let comm = printable(text.get(open + 1..close)?);
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        // Field 3 of proc(5), the state, is the first of these.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
        let state = match fields.first()?.as_bytes().first()? {
            b'Z' | b'X' | b'x' => State::Zombie,
            b'T' | b't' => State::Stopped,
            _ => State::Alive,
        };
        let ticks = number(14)?.saturating_add(number(15)?);
        let children_ticks = number(16)?.saturating_add(number(17)?);
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Some(Self {
            comm,
            state,
            parent: Tgid(number(4)?.try_into().ok()?),
            kernel_thread: number(9)? & PF_KTHREAD != 0,
            ending: number(9)? & PF_EXITING != 0,
            threads: number(20)?.try_into().unwrap_or(u32::MAX),
            start_ticks: number(22)?,
            cpu_time_ns: ticks.saturating_mul(1_000_000_000 / per_second),
            children_cpu_time_ns: children_ticks.saturating_mul(1_000_000_000 / per_second),
        })
    }
}

/// What is used of /proc/PID/status.
struct Status {
    tgid: Tgid,
    uid: u32,
    seccomp: Seccomp,
    rss_bytes: Option<u64>,
    namespace_pids: Vec<u32>,
}

impl Status {
    /// Lines of `Key:\tvalue`; the name on the first line is escaped by the kernel.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut tgid = None;
        let mut status = Self {
            tgid: Tgid(0),
            uid: u32::MAX,
            seccomp: Seccomp::Off,
            rss_bytes: None,
            namespace_pids: Vec::new(),
        };
        for line in text.split(|&b| b == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else {
                continue;
            };
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let mut words = value.split_ascii_whitespace();
            match key {
                "Tgid" => tgid = words.next().and_then(|w| w.parse().ok()),
                "Uid" => status.uid = words.nth(1).and_then(|w| w.parse().ok())?,
                "Seccomp" => {
                    status.seccomp = match words.next() {
                        Some("1") => Seccomp::Strict,
                        Some("2") => Seccomp::Filter,
                        _ => Seccomp::Off,
                    };
                }
                "VmRSS" => {
                    let kib: Option<u64> = words.next().and_then(|w| w.parse().ok());
                    status.rss_bytes = kib.and_then(|k| k.checked_mul(1024));
                }
                "NSpid" => status.namespace_pids = words.filter_map(|w| w.parse().ok()).collect(),
                _ => {}
            }
        }
        status.tgid = Tgid(tgid?);
        Some(status)
    }
}

/// Target of the exe link, and whether the kernel marked it deleted.
fn read_exe(link: &Path) -> (Option<PathBuf>, bool) {
    let Ok(target) = std::fs::read_link(link) else {
        return (None, false);
    };
    let bytes = target.as_os_str().as_bytes();
    match bytes.strip_suffix(b" (deleted)") {
        Some(path) => {
            let path = std::ffi::OsString::from_vec(path.to_vec());
            (Some(PathBuf::from(path)), true)
        }
        None => (Some(target), false),
    }
}

/// Word size in the ELF header behind the exe link.
fn read_class(link: &Path) -> Option<Class> {
    use std::os::unix::fs::FileExt;
    let file = open::regular(link).ok()?;
    let mut ident = [0_u8; 5];
    file.read_exact_at(&mut ident, 0).ok()?;
    match &ident {
        b"\x7fELF\x01" => Some(Class::Bits32),
        b"\x7fELF\x02" => Some(Class::Bits64),
        _ => None,
    }
}

/// Inode in a link of the form `pid:[4026531836]`.
fn read_namespace(link: &Path) -> Option<u64> {
    let target = std::fs::read_link(link).ok()?;
    let text = target.to_str()?;
    text.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests;
