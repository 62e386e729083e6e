//! memtrace leaves nothing behind: no BPF object, no probe in the target's code, no process, no file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;

use memtrace_tests::{BpfObjects, Program, Target, Tracer, deadline, require_kernel};

/// The bytes of every file mapping of the target that is executable, as the target sees them.
fn code_of(pid: u32) -> Vec<(String, Vec<u8>)> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    fs::read_to_string(format!("/proc/{pid}/maps"))
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next()?, fields.next()?);
            let path = fields.nth(3)?;
            if !rights.contains('x') || !path.starts_with('/') {
                return None;
            }
            let (start, end) = range.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            let mut bytes = vec![0; usize::try_from(end - start).ok()?];
            memory.read_exact_at(&mut bytes, start).ok()?;
            Some((path.to_owned(), bytes))
        })
        .collect()
}

/// After Ctrl-C, SIGTERM or SIGKILL of memtrace: its programs and maps are gone from the kernel, the
/// target's code is byte for byte what it was, and the target runs on with the same results.
#[test]
fn nothing_is_left_after_any_end() {
    require_kernel!();
    let bare = {
        let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc", "realloc_vector"]);
        target.go();
        target.truth().outstanding()
    };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc", "realloc_vector"]);
        let pid = target.pid();
        let before = code_of(pid);
        assert!(!before.is_empty());
        let mut tracer = Tracer::attach(pid);
        let objects = BpfObjects::held_by(tracer.pid());
        let (programs, maps) = objects.counts();
        assert!(
            programs > 0 && maps > 0,
            "memtrace holds no BPF objects? {objects:?}"
        );
        assert_ne!(before, code_of(pid), "no probe is in the target's code");
        tracer.signal(signal);
        tracer.wait();
        objects.assert_gone(deadline(10));
        for ((path, before), (_, after)) in before.iter().zip(code_of(pid)) {
            assert!(
                *before == after,
                "signal {signal}: {path} is changed in the target"
            );
        }
        target.go();
        assert_eq!(target.truth().outstanding(), bare);
        target.assert_unharmed();
    }
}

/// Nothing is pinned, and no process of memtrace's outlives it.
#[test]
fn no_pin_and_no_child() {
    require_kernel!();
    let pins = || -> BTreeSet<_> {
        fs::read_dir("/sys/fs/bpf")
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    let before = pins();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let mut tracer = Tracer::attach(target.pid());
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", tracer.pid()))
        .unwrap_or_default();
    target.go();
    target.truth();
    tracer.finish();
    assert!(
        pins().is_subset(&before),
        "pinned: {:?}",
        pins().difference(&before)
    );
    for child in children.split_whitespace() {
        assert!(
            !fs::exists(format!("/proc/{child}")).unwrap(),
            "child {child} lives on"
        );
    }
    target.assert_unharmed();
}

/// A long attach and detach in a row: the target, under load all the time, gets the same results.
#[test]
fn attach_and_detach_under_load() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["reuse", "all"]);
    target.go();
    for _ in 0..5 {
        let mut tracer = Tracer::attach(target.pid());
        tracer.finish();
    }
    let truth = target.truth();
    assert_eq!(truth.site("reuse_a").outstanding_objects, 25);
    assert_eq!(truth.site("leak_realloc_vector").outstanding_objects, 10);
    target.assert_unharmed();
}
