//! One memory cgroup and those above it.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::read;

/// No limit, as version 1 writes it: the largest number of bytes in whole pages. Far below it no
/// machine has that much.
const UNLIMITED: u64 = 1 << 62;
/// Deeper hierarchies are not believed.
const MAX_DEPTH: usize = 64;

/// Whose files a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A hierarchy of the memory controller's own.
    V1,
    /// The unified hierarchy.
    V2,
}

impl Version {
    /// 1 or 2.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    fn limit_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    fn usage_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }

    fn peak_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.max_usage_in_bytes",
            Self::V2 => "memory.peak",
        }
    }

    fn inactive_file(self) -> &'static str {
        match self {
            Self::V1 => "total_inactive_file",
            Self::V2 => "inactive_file",
        }
    }
}

/// A memory cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    version: Version,
    mount: PathBuf,
    /// Below the mount, with a slash first, without one at the end.
    path: String,
}

/// The limit that a group meets first: its own or that of a group above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The group that has it.
    pub group: Group,
    /// Bytes.
    pub limit: u64,
    /// Bytes counted against it.
    pub usage: u64,
}

/// Waiting for memory (PSI), in percent of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Pressure {
    /// Some task waited, over the last 10 s.
    pub some_avg10: f64,
    /// The same over 60 s.
    pub some_avg60: f64,
    /// All tasks waited, over the last 10 s.
    pub full_avg10: f64,
    /// The same over 60 s.
    pub full_avg60: f64,
}

/// All that a group's files tell at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The kernel's own number of the group.
    pub id: Option<u64>,
    /// The group's own limit.
    pub limit: Option<u64>,
    /// Bytes used.
    pub usage: Option<u64>,
    /// Most bytes used so far.
    pub peak: Option<u64>,
    /// Bytes of files that the kernel would give back first.
    pub inactive_file: Option<u64>,
    /// `memory.events`, or version 1's `failcnt` and `oom_kill`.
    pub events: BTreeMap<String, u64>,
    /// Version 2 only.
    pub pressure: Option<Pressure>,
}

impl Group {
    /// The group at `path` below a mount, if it is there.
    pub(super) fn at(version: Version, mount: &Path, path: &str) -> Option<Self> {
        // A cgroup namespace shows what is above its root as `..`: the mount begins there.
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".." && *part != ".")
            .collect();
        if parts.len() > MAX_DEPTH {
            return None;
        }
        let group = Self {
            version,
            mount: mount.to_owned(),
            path: parts.iter().flat_map(|part| ["/", part]).collect(),
        };
        group.directory().is_dir().then_some(group)
    }

    /// Which files it has.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether it is the group that all others are below.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    /// As `/proc/PID/cgroup` has it.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.is_empty() {
            "/"
        } else {
            &self.path
        }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.mount.join(self.path.trim_start_matches('/'))
    }

    /// The kernel's own number of it, which is the directory's inode.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        std::fs::metadata(self.directory()).ok().map(|m| m.ino())
    }

    /// True for the group itself and those below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let rest = other.path.strip_prefix(&self.path);
        self.version == other.version
            && self.mount == other.mount
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn parent(&self) -> Option<Self> {
        let cut = self.path.rfind('/')?;
        Some(Self {
            path: self.path.get(..cut)?.to_owned(),
            ..self.clone()
        })
    }

    fn number(&self, file: &str) -> Option<u64> {
        read(&self.directory().join(file))?.trim().parse().ok()
    }

    /// Its own limit.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.number(self.version.limit_file())
            .filter(|limit| *limit < UNLIMITED)
    }

    /// Bytes used by it and those below.
    #[must_use]
    pub fn usage(&self) -> Option<u64> {
        self.number(self.version.usage_file())
    }

    /// Bytes of files in memory that were not used lately: given back before anything is killed.
    #[must_use]
    pub fn inactive_file(&self) -> Option<u64> {
        let text = read(&self.directory().join("memory.stat"))?;
        value(&text, self.version.inactive_file())
    }

    /// The smallest limit of its own and of those above; of equal ones the outermost, which more
    /// counts against. Nothing when only the machine limits it.
    #[must_use]
    pub fn effective(&self) -> Option<Effective> {
        let mut found: Option<(Self, u64)> = None;
        let mut at = Some(self.clone());
        while let Some(group) = at {
            if let Some(limit) = group.limit()
                && found.as_ref().is_none_or(|(_, least)| limit <= *least)
            {
                found = Some((group.clone(), limit));
            }
            at = group.parent().filter(|above| above.counts_below());
        }
        let (group, limit) = found?;
        let usage = group.usage()?;
        Some(Effective {
            group,
            limit,
            usage,
        })
    }

    /// False for a group of version 1 that does not count what those below it use: kernels before
    /// 5.11 can be told so.
    fn counts_below(&self) -> bool {
        self.version == Version::V2 || self.number("memory.use_hierarchy") != Some(0)
    }

    /// Everything at once.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            id: self.id(),
            limit: self.limit(),
            usage: self.usage(),
            peak: self.number(self.version.peak_file()),
            inactive_file: self.inactive_file(),
            events: self.events(),
            pressure: self.pressure(),
        }
    }

    fn events(&self) -> BTreeMap<String, u64> {
        let file = |name: &str| read(&self.directory().join(name)).unwrap_or_default();
        match self.version {
            Version::V2 => pairs(&file("memory.events")).collect(),
            Version::V1 => pairs(&file("memory.oom_control"))
                .filter(|(name, _)| name == "oom_kill")
                .chain(self.number("memory.failcnt").map(|n| ("failcnt".into(), n)))
                .collect(),
        }
    }

    fn pressure(&self) -> Option<Pressure> {
        if self.version == Version::V1 {
            return None;
        }
        let text = read(&self.directory().join("memory.pressure"))?;
        let average = |kind: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
            let word = line
                .split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(name))?;
            word.strip_prefix('=')?.parse().ok()
        };
        Some(Pressure {
            some_avg10: average("some", "avg10")?,
            some_avg60: average("some", "avg60")?,
            full_avg10: average("full", "avg10").unwrap_or_default(),
            full_avg60: average("full", "avg60").unwrap_or_default(),
        })
    }
}

/// Lines of a name and a number.
fn pairs(text: &str) -> impl Iterator<Item = (String, u64)> {
    text.lines().filter_map(|line| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    })
}

fn value(text: &str, name: &str) -> Option<u64> {
    pairs(text)
        .find(|(found, _)| found == name)
        .map(|(_, number)| number)
}
