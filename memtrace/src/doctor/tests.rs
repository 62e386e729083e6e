//! Checks on made-up machines.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{Tree, from_files, kernel, limits, privileges, tracing, trials};
use crate::{
    probe::Features,
    report::{
        doctor::{Check, Doctor, SCHEMA, Status, render},
        text::TextOptions,
    },
};

const ALL: &str = "000001ffffffffff";

/// A machine of files.
struct Machine {
    folder: tempfile::TempDir,
    tree: Tree,
}

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::new(folder.path());
        let machine = Self { folder, tree };
        for (path, text) in files {
            machine.write(path, text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn with_caps(self, uid: u32, caps: &str) -> Self {
        let status = format!("Name:\tx\nUid:\t0\t{uid}\t0\t0\nCapEff:\t{caps}\n");
        self.write("proc/self/status", &status);
        self
    }

    fn in_namespace(self, link: &str) -> Self {
        fs::create_dir_all(self.folder.path().join("proc/self/ns")).unwrap();
        symlink(link, self.folder.path().join("proc/self/ns/pid")).unwrap();
        self
    }

    /// Gives memtrace's own process a cgroup.
    fn in_cgroup(self, text: &str) -> Self {
        self.write(&format!("proc/{}/cgroup", std::process::id()), text);
        self
    }

    fn checks(&self, release: &str) -> Vec<Check> {
        let machine = std::env::consts::ARCH;
        from_files(&self.tree, &Features::of_release(release), machine)
    }
}

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
    Max open files            256                  20000                files     \n\
    Max locked memory         65536                65536                bytes     \n";

fn modern() -> Machine {
    Machine::new(&[
        ("proc/self/uid_map", "         0          0 4294967295\n"),
        ("proc/self/limits", &LIMITS.replace("256 ", "4096")),
        (
            "proc/mounts",
            "none /sys/kernel/tracing tracefs rw 0 0\nnone /sys/fs/cgroup cgroup2 rw 0 0\n",
        ),
        (
            "proc/meminfo",
            "MemTotal: 16384000 kB\nMemAvailable:    8192000 kB\n",
        ),
        ("proc/sys/net/core/bpf_jit_enable", "1\n"),
        ("proc/sys/kernel/perf_event_paranoid", "3\n"),
        (
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        ),
        ("sys/kernel/btf/vmlinux", ""),
        ("sys/kernel/tracing/events/header_page", ""),
        ("sys/bus/event_source/devices/uprobe/type", "8\n"),
        ("sys/fs/cgroup/app/memory.max", "1073741824\n"),
        ("sys/fs/cgroup/app/memory.current", "104857600\n"),
    ])
    .with_caps(0, ALL)
    .in_namespace("pid:[4026531836]")
    .in_cgroup("0::/app\n")
}

/// An old, locked down, unprivileged container.
fn hostile() -> Machine {
    Machine::new(&[
        ("proc/self/uid_map", "         0     100000      65536\n"),
        ("proc/self/limits", LIMITS),
        ("proc/mounts", ""),
        ("proc/meminfo", "MemAvailable:    102400 kB\n"),
        ("proc/sys/net/core/bpf_jit_enable", "0\n"),
        (
            "sys/kernel/security/lockdown",
            "none integrity [confidentiality]\n",
        ),
    ])
    .with_caps(0, "00000000a80425fb")
    .in_namespace("pid:[4026532555]")
}

fn shown(mut checks: Vec<Check>) -> String {
    // The text is the same on every machine that runs this test.
    for check in &mut checks {
        check.found = check.found.replace(std::env::consts::ARCH, "x86_64");
    }
    let doctor = Doctor {
        schema: SCHEMA,
        tool_version: "0.1.0",
        host: "web-1".to_owned(),
        checks,
        placements: Vec::new(),
        costs: Vec::new(),
    };
    render(&doctor, TextOptions::default())
}

// A machine as it should be.
#[test]
fn modern_machine() {
    insta::assert_snapshot!(shown(modern().checks("6.12.3-amd64")));
}

// A machine where everything is wrong: each has its remedy.
#[test]
fn hostile_machine() {
    let mut checks = hostile().checks("4.19.0-27-amd64");
    checks.push(trials::untried());
    for check in &checks {
        assert!(
            check.status == Status::Ok || check.remedy.is_some() || check.name == "probes",
            "{check:?}"
        );
    }
    insta::assert_snapshot!(shown(checks));
}

// Nothing can be read at all: no check fails but those that need what is missing.
#[test]
fn empty_tree() {
    let machine = Machine::new(&[]);
    insta::assert_snapshot!(shown(machine.checks("6.1.0")));
}

// What follows from the release.
#[test]
fn releases() {
    for (release, status, word) in [
        ("4.18.0-553.el8", Status::Fail, "ring buffer"),
        ("5.7.1", Status::Fail, "ring buffer"),
        ("5.8.0", Status::Warn, "5.10"),
        ("5.10.0-43-cloud", Status::Warn, "bpf links"),
        ("5.15.0-100", Status::Warn, "at the start"),
        ("6.0.1", Status::Warn, "at the start"),
        ("6.1.0-9-amd64", Status::Ok, "on demand"),
        ("7.2-rc1", Status::Ok, "on demand"),
    ] {
        let checks = modern().checks(release);
        assert_eq!(checks[0].status, status, "{release}");
        assert!(checks[0].found.contains(word), "{}", checks[0].found);
    }
    let other = from_files(&modern().tree, &Features::of_release("6.12"), "riscv64");
    assert_eq!(other[0].status, Status::Fail);
    let old = kernel::by_version((5, 15), "aarch64", "5.15");
    assert!(old.found.contains("from 6.0 on"), "{}", old.found);
}

// CAP_SYS_ADMIN stands for the newer two; without it each that is missing is named.
#[test]
fn capabilities() {
    for (caps, missing) in [
        (ALL, &[][..]),
        ("0000000000200000", &[]),
        ("000000c000080000", &[]),
        ("0000008000080000", &["CAP_PERFMON"]),
        ("000000c000000000", &["CAP_SYS_PTRACE"]),
        (
            "0000000000000000",
            &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"],
        ),
    ] {
        let machine = Machine::new(&[]).with_caps(1000, caps);
        assert_eq!(privileges::missing(&machine.tree), missing, "{caps}");
        assert!(!privileges::is_root(&machine.tree));
    }
}

// Hybrid: memory is where it is mounted.
#[test]
fn cgroup_modes() {
    for (mounts, word) in [
        ("c /sys/fs/cgroup cgroup2 rw 0 0\n", "version 2"),
        ("c /sys/fs/cgroup/memory cgroup rw 0 0\n", "version 1"),
        (
            "c /sys/fs/cgroup/memory cgroup rw 0 0\nc /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "by version 1",
        ),
        (
            "c /sys/fs/cgroup/pids cgroup rw 0 0\nc /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "by version 2",
        ),
        ("", "none"),
    ] {
        let machine = Machine::new(&[("proc/mounts", mounts)]);
        let check = limits::cgroups(&machine.tree);
        assert!(check.found.contains(word), "{mounts}: {}", check.found);
    }
}

// A small container is warned of although the machine has memory.
#[test]
fn little_memory_in_a_container() {
    let machine = modern();
    machine.write("sys/fs/cgroup/app/memory.max", "134217728\n");
    let check = limits::memory(&machine.tree);
    assert_eq!(check.status, Status::Warn, "{}", check.found);
}

fn format(path: &Path, field: &str, offset: usize) {
    fs::create_dir_all(path).unwrap();
    let line = format!("\tfield:unsigned long {field};\toffset:{offset};\tsize:8;\tsigned:0;\n");
    let old = fs::read_to_string(path.join("format")).unwrap_or_default();
    fs::write(path.join("format"), old + &line).unwrap();
}

// Tracepoints are found with their fields where they must be, and named when they are not. The one
// of OOM kills is not needed.
#[test]
fn tracepoints() {
    use memtrace_common::events::{
        EXEC_OLD_PID_OFFSET, MMAP_PROT_OFFSET, NEWTASK_FLAGS_OFFSET, NEWTASK_PID_OFFSET,
    };
    let machine = modern();
    let events = machine.folder.path().join("sys/kernel/tracing/events");
    format(&events.join("task/task_newtask"), "pid", NEWTASK_PID_OFFSET);
    let flags = NEWTASK_FLAGS_OFFSET;
    format(&events.join("task/task_newtask"), "clone_flags", flags);
    let exec = events.join("sched/sched_process_exec");
    format(&exec, "old_pid", EXEC_OLD_PID_OFFSET + 4);
    let check = tracing::tracepoints(&machine.tree);
    assert_eq!(check.status, Status::Fail);
    assert!(check.found.contains("old_pid"), "{}", check.found);
    fs::remove_file(exec.join("format")).unwrap();
    format(&exec, "old_pid", EXEC_OLD_PID_OFFSET);
    let check = tracing::tracepoints(&machine.tree);
    assert!(check.found.contains("sys_enter_mmap"), "{}", check.found);
    format(
        &events.join("syscalls/sys_enter_mmap"),
        "prot",
        MMAP_PROT_OFFSET,
    );
    let check = tracing::tracepoints(&machine.tree);
    assert_eq!(check.status, Status::Ok, "{}", check.found);
}
