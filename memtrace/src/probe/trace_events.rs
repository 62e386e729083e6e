//! Trace events of tracefs that stand for many probes at once.
//!
//! A definition is a name in `uprobe_events` or `kprobe_events` and does nothing by itself; the probes
//! are on while a perf event of it is open, and go with that, however memtrace ends. The name is removed
//! after it. One that a killed memtrace left behind is removed when the next one starts.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::tracefs;

/// What the groups of memtrace's events begin with; its process id and start time follow.
const PREFIX: &str = "memtrace_";
/// More than memtrace ever leaves behind, and an end for a list that does not.
const MAX_LINES: usize = 1 << 16;

/// Calls of one function of the kernel that can be on their way at once: of more, the return is missed,
/// and counted.
const MAX_CALLS_IN_FLIGHT: u32 = 1024;

/// What is probed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Kernel,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "uprobe_events",
            Self::Kernel => "kprobe_events",
        }
    }
}

/// Where trace events are defined.
pub(super) struct TraceEvents {
    tracefs: PathBuf,
    group: String,
    next: AtomicU64,
}

/// A defined event. Dropping it removes the definition, which works when nothing uses it.
pub(super) struct Definition {
    tracefs: PathBuf,
    kind: Kind,
    name: String,
}

impl TraceEvents {
    /// Finds them, and removes what killed ones left; nothing where they cannot be defined.
    pub(super) fn open() -> Option<Self> {
        let tracefs = tracefs(Path::new("/"))?;
        let own = std::process::id();
        let group = format!("{PREFIX}{own}_{}", started(own)?);
        let events = Self {
            tracefs,
            group,
            next: AtomicU64::new(0),
        };
        events.remove_stale().ok()?;
        Some(events)
    }

    /// Defines an event at some places, each named once.
    pub(super) fn define(
        &self,
        at_return: bool,
        places: &[(&Path, u64)],
    ) -> io::Result<Definition> {
        let definition = self.definition(Kind::User);
        let kind = if at_return { 'r' } else { 'p' };
        for (path, offset) in places {
            let path = path.display().to_string();
            // Words end at blanks; memtrace's own paths have none.
            if path.contains(|c: char| c.is_whitespace() || c == ':') {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let name = &definition.name;
            definition.write(&format!("{kind}:{name} {path}:{offset:#x}\n"))?;
        }
        Ok(definition)
    }

    /// Defines an event at a function of the kernel.
    pub(super) fn define_in_kernel(
        &self,
        at_return: bool,
        function: &str,
    ) -> io::Result<Definition> {
        let definition = self.definition(Kind::Kernel);
        let kind = match at_return {
            true => format!("r{MAX_CALLS_IN_FLIGHT}"),
            false => "p".to_owned(),
        };
        definition.write(&format!("{kind}:{} {function}\n", definition.name))?;
        Ok(definition)
    }

    fn definition(&self, kind: Kind) -> Definition {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Definition {
            tracefs: self.tracefs.clone(),
            kind,
            // The kernel's list of misses leaves the group out.
            name: format!("{group}/{group}_{number}", group = self.group),
        }
    }

    /// Hits of this memtrace's probes on functions of the kernel that it did not show.
    pub(super) fn missed(&self) -> u64 {
        let text = fs::read_to_string(self.tracefs.join("kprobe_profile"));
        text.map_or(0, |text| missed(&text, &self.group))
    }

    fn remove_stale(&self) -> io::Result<()> {
        for kind in [Kind::User, Kind::Kernel] {
            let text = match fs::read_to_string(self.tracefs.join(kind.file())) {
                // A kernel without probes on its own functions.
                Err(_) if kind == Kind::Kernel => return Ok(()),
                text => text?,
            };
            let mut names: Vec<_> = stale(&text, started).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                // One that somebody uses stays, the kernel sees to that.
                let _ = write(&self.tracefs, kind, &format!("-:{name}\n"));
            }
        }
        Ok(())
    }
}

impl Definition {
    /// Its number, by which a perf event is opened.
    pub(super) fn id(&self) -> io::Result<u64> {
        let path = self.tracefs.join("events").join(&self.name).join("id");
        let text = fs::read_to_string(path)?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn write(&self, line: &str) -> io::Result<()> {
        write(&self.tracefs, self.kind, line)
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        // What stays is removed by the next memtrace.
        let _ = self.write(&format!("-:{}\n", self.name));
    }
}

/// One line, in one call: the kernel takes each by itself.
fn write(tracefs: &Path, kind: Kind, line: &str) -> io::Result<()> {
    let path = tracefs.join(kind.file());
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(line.as_bytes())
}

/// The misses of a group's events in `kprobe_profile`: lines of a name, hits and misses.
fn missed(text: &str, group: &str) -> u64 {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let number = words.next()?.strip_prefix(group)?;
        number.starts_with('_').then_some(())?;
        words.nth(1)?.parse::<u64>().ok()
    };
    text.lines().take(MAX_LINES).filter_map(of_line).sum()
}

/// Start time of a process in clock ticks.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; the 22nd field is the 20th behind it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Names of memtrace's events whose process is gone.
fn stale(text: &str, started: impl Fn(u32) -> Option<u64>) -> impl Iterator<Item = &str> {
    text.lines().take(MAX_LINES).filter_map(move |line| {
        // `p:group/name`, `r:…`, `r1024:…`
        let (_, name) = line.split_ascii_whitespace().next()?.split_once(':')?;
        let (group, _) = name.split_once('/')?;
        let (pid, start) = group.strip_prefix(PREFIX)?.split_once('_')?;
        let (pid, start): (u32, u64) = (pid.parse().ok()?, start.parse().ok()?);
        (started(pid) != Some(start)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only events of memtrace whose process is gone are taken for left behind.
    #[test]
    fn stale_names() {
        let text = "p:memtrace_7_100/e0 /lib/libc.so.6:0x10\n\
                    r:memtrace_7_99/e1 /lib/libc.so.6:0x10\n\
                    p:memtrace_8_1/e0 /lib/libc.so.6:0x10\n\
                    p:probe_memtrace/e0 /lib/libc.so.6:0x10\n\
                    r1024:memtrace_9_1/e2 __x64_sys_mmap\n\
                    p:memtrace_x/e0 /lib/libc.so.6:0x10\nodd\n";
        let started = |pid| (pid == 7).then_some(100);
        let names: Vec<_> = stale(text, started).collect();
        assert_eq!(
            names,
            ["memtrace_7_99/e1", "memtrace_8_1/e0", "memtrace_9_1/e2"]
        );
    }

    /// Misses are those of the group's own events.
    #[test]
    fn misses_of_a_group() {
        let text = "  memtrace_7_100_0        12      3\n  memtrace_7_100_1   4   5\n\
                    memtrace_7_1000_0  9  9\n  p_sys_read  1  1\n memtrace_7_100_2\n";
        assert_eq!(missed(text, "memtrace_7_100"), 8);
    }

    /// The start time of this very process is found.
    #[test]
    fn own_start() {
        assert!(started(std::process::id()).is_some());
    }
}
