//! What the kernel holds: can it be tested here, and is anything left behind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// True when kernel tests shall run; panics when they shall and cannot.
#[track_caller]
pub fn kernel_tests_wanted() -> bool {
    if std::env::var("MEMTRACE_SKIP_KERNEL_TESTS").is_ok_and(|value| value == "1") {
        return false;
    }
    // SAFETY: a plain system call without arguments.
    let uid = unsafe { libc::geteuid() };
    assert_eq!(
        uid, 0,
        "needs root and BPF; MEMTRACE_SKIP_KERNEL_TESTS=1 skips what does"
    );
    true
}

/// Major and minor version of the running kernel, for tests of what depends on it.
pub fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|text| text.parse().ok());
    (next().unwrap_or(0), next().unwrap_or(0))
}

/// The BPF programs, maps and links that one process holds, by the kernel's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BpfObjects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl BpfObjects {
    /// Read from the process's file descriptors.
    pub fn held_by(pid: u32) -> Self {
        let mut objects = Self::default();
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
            return objects;
        };
        for entry in entries.flatten() {
            for line in std::fs::read_to_string(entry.path())
                .unwrap_or_default()
                .lines()
            {
                let Some((key, value)) = line.split_once(':') else {
                    continue;
                };
                let Ok(id) = value.trim().parse() else {
                    continue;
                };
                match key {
                    "prog_id" => objects.programs.insert(id),
                    "map_id" => objects.maps.insert(id),
                    "link_id" => objects.links.insert(id),
                    _ => false,
                };
            }
        }
        objects
    }

    /// How many programs and maps there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.programs.len(), self.maps.len())
    }

    /// Waits until the kernel has none of them any more; panics at the deadline.
    #[track_caller]
    pub fn assert_gone(&self, until: Instant) {
        const PROG_GET_NEXT_ID: libc::c_int = 11;
        const MAP_GET_NEXT_ID: libc::c_int = 12;
        loop {
            let programs = self
                .programs
                .iter()
                .filter(|&&id| exists(PROG_GET_NEXT_ID, id));
            let maps = self.maps.iter().filter(|&&id| exists(MAP_GET_NEXT_ID, id));
            let left: Vec<String> = programs
                .map(|id| format!("program {id}"))
                .chain(maps.map(|id| format!("map {id}")))
                .collect();
            if left.is_empty() {
                return;
            }
            // The kernel frees them a grace period after the last reference.
            assert!(Instant::now() < until, "left in the kernel: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// True when the kernel still has an object of this id. Asks for the id after the one before it and
/// takes no reference: a program array that is opened and closed while the kernel clears it is never
/// freed (its clearing is counted twice and done once).
fn exists(command: libc::c_int, id: u32) -> bool {
    // union bpf_attr, as far as this command uses it: the id to start from, the next id.
    let mut attribute = [0u32; 16];
    attribute[0] = id - 1;
    // SAFETY: the kernel reads and writes within `size` bytes of a live array.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attribute.as_mut_ptr(),
            size_of_val(&attribute),
        )
    };
    result == 0 && attribute[1] == id
}
