//! The BPF system call.

use std::io::ErrorKind;

use crate::{
    probe::{MapKind, try_map},
    report::doctor::Check,
};

/// Makes the smallest maps there are.
pub(super) fn system_call() -> Check {
    let name = "BPF";
    if let Err(error) = try_map(MapKind::Array) {
        let check = Check::fail(name, format!("the system call is refused: {error}"));
        return match error.kind() {
            ErrorKind::PermissionDenied => check.remedy(
                "a container's seccomp profile or security module forbids it: --privileged, or \
                 run memtrace on the host",
            ),
            _ => check.remedy("boot a kernel with CONFIG_BPF_SYSCALL=y"),
        };
    }
    match try_map(MapKind::RingBuffer) {
        Ok(()) => Check::ok(name, "the system call works, with ring buffers"),
        Err(error) => Check::fail(name, format!("no ring buffer: {error}"))
            .remedy("boot a kernel from 5.10 on"),
    }
}
