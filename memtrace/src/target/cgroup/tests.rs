use std::{fs, path::Path};

use super::{CgroupFs, Group, Version};
use crate::{id::Tgid, target::process::ProcFs};

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn group(root: &Path, text: &str) -> Group {
    CgroupFs::new(root).group(text).unwrap()
}

const V2: (&str, &str) = ("proc/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
const HYBRID: (&str, &str) = (
    "proc/mounts",
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
);

/// A process on its way out is in the root group before it is gone: that is not where it was. One
/// that lives there is.
#[test]
fn on_its_way_out() {
    let stat = |flags: u32| {
        format!("7 (a b) S 1 7 7 0 -1 {flags} 0 0 0 0 1 1 0 0 20 0 1 0 99 0 0 0 0 0 0 0 0 0 0 0\n")
    };
    for (path, flags, wanted) in [
        ("/", 0x40_0004, None),
        ("/", 0x40_0000, Some("/")),
        ("/pod/app", 0x40_0004, Some("/pod/app")),
    ] {
        let text = format!("0::{path}\n");
        let stat = stat(flags);
        let root = tree(&[
            V2,
            ("sys/fs/cgroup/pod/app/memory.max", "max\n"),
            ("proc/7/cgroup", &text),
            ("proc/7/stat", &stat),
        ]);
        let proc = ProcFs::new(root.path().join("proc"));
        let group = CgroupFs::new(root.path()).group_of(&proc, Tgid(7));
        assert_eq!(group.as_ref().map(Group::path), wanted);
    }
}

/// On version 2 the smallest limit above counts, with what is used of it, events and pressure.
#[test]
fn version_2() {
    let root = tree(&[
        V2,
        ("sys/fs/cgroup/pod/memory.max", "1000\n"),
        ("sys/fs/cgroup/pod/memory.current", "900\n"),
        ("sys/fs/cgroup/pod/app/memory.max", "2000\n"),
        ("sys/fs/cgroup/pod/app/memory.current", "700\n"),
        ("sys/fs/cgroup/pod/app/memory.peak", "800\n"),
        (
            "sys/fs/cgroup/pod/app/memory.stat",
            "anon 5\ninactive_file 60\n",
        ),
        (
            "sys/fs/cgroup/pod/app/memory.events",
            "low 0\nmax 7\noom_kill 1\n",
        ),
        (
            "sys/fs/cgroup/pod/app/memory.pressure",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=9\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=3\n",
        ),
    ]);
    let group = group(root.path(), "0::/pod/app\n");
    let effective = group.effective().unwrap();
    assert_eq!((effective.limit, effective.usage), (1000, 900));
    assert_eq!(effective.group.path(), "/pod");
    assert!(effective.group.contains(&group) && !group.contains(&effective.group));
    let state = group.state();
    assert_eq!(
        (state.limit, state.usage, state.peak, state.inactive_file),
        (Some(2000), Some(700), Some(800), Some(60))
    );
    assert_eq!((state.events["max"], state.events["oom_kill"]), (7, 1));
    let pressure = state.pressure.unwrap();
    assert_eq!((pressure.some_avg10, pressure.full_avg10), (1.5, 0.5));
}

/// On a hybrid machine the memory controller's own hierarchy counts; of equal limits the outermost.
#[test]
fn hybrid() {
    let root = tree(&[
        HYBRID,
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "64\n"),
        ("sys/fs/cgroup/memory/pod/memory.usage_in_bytes", "60\n"),
        ("sys/fs/cgroup/memory/pod/app/memory.limit_in_bytes", "64\n"),
        ("sys/fs/cgroup/memory/pod/app/memory.usage_in_bytes", "30\n"),
        ("sys/fs/cgroup/memory/pod/app/memory.failcnt", "12\n"),
        (
            "sys/fs/cgroup/memory/pod/app/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        ),
        ("sys/fs/cgroup/unified/x/memory.max", "1\n"),
    ]);
    let group = group(root.path(), "4:cpu:/\n3:memory:/pod/app\n0::/x\n");
    assert_eq!((group.version(), group.path()), (Version::V1, "/pod/app"));
    let effective = group.effective().unwrap();
    assert_eq!(
        (effective.group.path(), effective.limit, effective.usage),
        ("/pod", 64, 60)
    );
    let events = group.state().events;
    assert_eq!((events["oom_kill"], events["failcnt"]), (2, 12));
    assert_eq!(events.len(), 2);
}

/// A group above that does not count those below (version 1 before 5.11) limits nothing.
#[test]
fn without_hierarchy() {
    let root = tree(&[
        HYBRID,
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "10\n"),
        ("sys/fs/cgroup/memory/a/memory.use_hierarchy", "0\n"),
        ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "99\n"),
        ("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "5\n"),
    ]);
    let effective = group(root.path(), "3:memory:/a/b\n").effective().unwrap();
    assert_eq!((effective.limit, effective.usage), (99, 5));
}

/// No limit anywhere, a group that was removed, a cgroup namespace's path, files full of rubbish.
#[test]
fn nothing_to_find() {
    let root = tree(&[
        V2,
        ("sys/fs/cgroup/app/memory.max", "max\n"),
        ("sys/fs/cgroup/app/memory.current", "5\n"),
        ("sys/fs/cgroup/odd/memory.max", "\u{0}\u{1}12x"),
        ("sys/fs/cgroup/odd/memory.events", "max\n\n -3\nhigh x\n"),
        ("sys/fs/cgroup/odd/memory.pressure", "some\n"),
    ]);
    let at = |path: &str| CgroupFs::new(root.path()).group(path);
    assert_eq!(at("0::/app\n").unwrap().effective(), None);
    assert_eq!(at("0::/gone\n"), None);
    assert_eq!(at("0::/../../app\n").unwrap().path(), "/app");
    let odd = at("0::/odd\n").unwrap();
    let nothing = super::State {
        id: odd.id(),
        ..Default::default()
    };
    assert_eq!((odd.effective(), odd.state()), (None, nothing));
    assert_eq!(at("rubbish"), None);
}

/// A group's number is its directory's.
#[test]
fn identity() {
    use std::os::unix::fs::MetadataExt as _;
    let root = tree(&[V2, ("sys/fs/cgroup/app/memory.max", "max\n")]);
    let directory = root.path().join("sys/fs/cgroup/app");
    let inode = fs::metadata(directory).unwrap().ino();
    assert_eq!(group(root.path(), "0::/app\n").id(), Some(inode));
}
