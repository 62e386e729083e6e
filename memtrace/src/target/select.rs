//! Which processes are meant: by name, cgroup or container, or all.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{container::Identity, process::ProcFs};
use crate::id::Tgid;

/// Bytes of a process's name that the kernel keeps.
const COMM_BYTES: usize = 15;
/// More than the kernel ever writes to `/proc/PID/cgroup`.
const FILE_CAP: u64 = 64 * 1024;

/// Which processes are traced, those that begin later too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those with this name, as `/proc/PID/comm` has it.
    Comm(String),
    /// Those in a cgroup or below it: a directory of the cgroup file system, or the cgroup's own path.
    Cgroup(PathBuf),
    /// Those of a container, by the beginning of its id.
    Container(String),
    /// All.
    All,
}

impl Selector {
    /// Kind and value for reports.
    #[must_use]
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Comm(name) => ("comm", name.clone()),
            Self::Cgroup(path) => ("cgroup", path.to_string_lossy().into_owned()),
            Self::Container(name) => ("container", name.clone()),
            Self::All => ("all", String::new()),
        }
    }

    /// The name as the kernel has it, when processes are selected by that.
    #[must_use]
    pub fn comm_words(&self) -> [u64; 2] {
        let mut bytes = [0; COMM_BYTES + 1];
        if let Self::Comm(name) = self {
            for (to, from) in bytes.iter_mut().zip(name.bytes().take(COMM_BYTES)) {
                *to = from;
            }
        }
        let word = |range: std::ops::Range<usize>| {
            let bytes = bytes.get(range).unwrap_or_default();
            bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        [word(0..8), word(8..16)]
    }

    /// Whether a process is meant. One that cannot be read is not.
    #[must_use]
    pub fn matches(&self, proc: &ProcFs, tgid: Tgid) -> bool {
        match self {
            Self::All => true,
            Self::Comm(name) => read(&proc.process(tgid).join("comm")).is_some_and(|comm| {
                comm.strip_suffix('\n').unwrap_or(&comm).as_bytes() == kept(name)
            }),
            Self::Cgroup(path) => {
                cgroups(proc, tgid).is_some_and(|text| in_cgroup(&text, &path.to_string_lossy()))
            }
            Self::Container(wanted) => Identity::of_process(proc, tgid)
                .is_some_and(|container| container.id.starts_with(wanted.as_str())),
        }
    }
}

fn kept(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    bytes.get(..COMM_BYTES).unwrap_or(bytes)
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_CAP).read_to_end(&mut bytes))
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `/proc/PID/cgroup` of a process.
#[must_use]
pub fn cgroups(proc: &ProcFs, tgid: Tgid) -> Option<String> {
    read(&proc.process(tgid).join("cgroup"))
}

/// `ID:CONTROLLERS:PATH` as controllers and path.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

/// Whether a process with these cgroups is in `wanted` or below it.
fn in_cgroup(text: &str, wanted: &str) -> bool {
    let wanted = wanted.trim_end_matches('/');
    let Some(mounted) = wanted.strip_prefix("/sys/fs/cgroup") else {
        let wanted = wanted.trim_start_matches('/');
        return lines(text).any(|(_, path)| is_below(path, wanted));
    };
    let mounted = mounted.trim_start_matches('/');
    let (first, rest) = mounted.split_once('/').unwrap_or((mounted, ""));
    // A hierarchy of version 1 is named by its controllers, or by its own name.
    let of_first = |controllers: &str| {
        controllers == first
            || controllers.strip_prefix("name=") == Some(first)
            || controllers.split(',').any(|name| name == first)
            || (first == "unified" && controllers.is_empty())
    };
    if !first.is_empty() && lines(text).any(|(controllers, _)| of_first(controllers)) {
        return lines(text)
            .any(|(controllers, path)| of_first(controllers) && is_below(path, rest));
    }
    lines(text).any(|(controllers, path)| controllers.is_empty() && is_below(path, mounted))
}

/// Whether a cgroup's path is `wanted` (without the slash in front) or below it.
fn is_below(path: &str, wanted: &str) -> bool {
    let path = path.trim_start_matches('/');
    wanted.is_empty()
        || path
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e7a0c9d2b1e5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b";

    /// A tree with one process of this name and these cgroups.
    fn tree(comm: &str, cgroup: &str) -> (tempfile::TempDir, ProcFs) {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("7");
        std::fs::create_dir(&process).unwrap();
        std::fs::write(process.join("comm"), format!("{comm}\n")).unwrap();
        std::fs::write(process.join("cgroup"), cgroup).unwrap();
        let proc = ProcFs::new(dir.path());
        (dir, proc)
    }

    fn matches(selector: &Selector, comm: &str, cgroup: &str) -> bool {
        let (_dir, proc) = tree(comm, cgroup);
        selector.matches(&proc, Tgid(7))
    }

    /// Names are compared whole, as far as the kernel keeps them.
    #[test]
    fn by_name() {
        let worker = Selector::Comm("worker".into());
        assert!(matches(&worker, "worker", ""));
        assert!(!matches(&worker, "worker2", ""));
        let long = Selector::Comm("a-very-long-name-of-a-program".into());
        assert!(matches(&long, "a-very-long-nam", ""));
        assert!(!matches(&long, "a-very-long-na", ""));
        assert_eq!(
            long.comm_words(),
            [
                u64::from_le_bytes(*b"a-very-l"),
                u64::from_le_bytes(*b"ong-nam\0")
            ]
        );
    }

    /// A cgroup is named by its path or its directory, in either version, and holds what is below.
    #[test]
    fn by_cgroup() {
        let v1 = "5:memory:/web/a\n4:cpu,cpuacct:/other\n0::/\n";
        let v2 = "0::/web/a\n";
        let path = |text: &str| Selector::Cgroup(text.into());
        for (wanted, in_v1, in_v2) in [
            ("/web", true, true),
            ("web/a/", true, true),
            ("/web/a/b", false, false),
            ("/we", false, false),
            ("/sys/fs/cgroup/memory/web", true, false),
            ("/sys/fs/cgroup/cpuacct/web", false, false),
            ("/sys/fs/cgroup/web/a", false, true),
            ("/sys/fs/cgroup/unified/web", false, true),
        ] {
            assert_eq!(matches(&path(wanted), "x", v1), in_v1, "{wanted}");
            assert_eq!(matches(&path(wanted), "x", v2), in_v2, "{wanted}");
        }
    }

    /// Container ids are found in the paths of every runtime and driver; a prefix is enough.
    #[test]
    fn by_container() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/kubepods.slice/kubepods-burstable.slice/x.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods/burstable/podUID/{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/libpod_parent/libpod-{ID}"),
        ] {
            let text = format!("3:memory:{path}\n0::/\n");
            let wanted = Selector::Container("3f4e7a0c".into());
            assert!(matches(&wanted, "x", &text), "{path}");
            assert!(!matches(&Selector::Container("4e7a".into()), "x", &text));
        }
    }

    /// A process that is gone, or whose files are rubbish, is none that is meant.
    #[test]
    fn hostile() {
        let (_dir, proc) = tree("x", "rubbish\n:\n::\n5:memory\n");
        assert!(!Selector::Cgroup("/a".into()).matches(&proc, Tgid(7)));
        assert!(!Selector::Container("abcd".into()).matches(&proc, Tgid(7)));
        assert!(!Selector::Comm("x".into()).matches(&proc, Tgid(8)));
    }
}
