//! The kernel: release, lockdown, JIT, BTF.

use std::env::consts::ARCH;

use super::Tree;
use crate::{probe::Features, report::doctor::Check};

/// The release and what follows from it.
pub(super) fn release(features: &Features, machine: &str) -> Check {
    let name = "kernel";
    let this = format!("{} on {machine}", features.release);
    if machine != ARCH {
        return Check::fail(
            name,
            format!("{this}, but this memtrace is built for {ARCH}"),
        )
        .remedy(format!("install memtrace for {machine}"));
    }
    by_version(features.version, machine, &this)
}

/// What follows from major and minor version.
pub(super) fn by_version(version: (u32, u32), machine: &str, this: &str) -> Check {
    let name = "kernel";
    let newer = "boot a kernel from 5.10 on";
    match version {
        (0..5, _) | (5, 0..8) => Check::fail(
            name,
            format!("{this}: too old, BPF has no ring buffer before 5.8"),
        )
        .remedy(newer),
        (5, 8..10) => {
            Check::warn(name, format!("{this}: memtrace is tested from 5.10 on")).remedy(newer)
        }
        (5, _) if machine == "aarch64" => Check::warn(
            name,
            format!(
                "{this}: on aarch64 memtrace's programs load from 6.0 on, unless the distribution has \
                 brought that back"
            ),
        )
        .remedy("boot a kernel from 6.0 on"),
        (5, 10..15) => Check::warn(
            name,
            format!(
                "{this}: takes the memory of all tables at the start (on demand from 6.1 on), \
                 attaches without bpf links (from 5.15 on)"
            ),
        )
        .remedy(SMALLER),
        (5, _) | (6, 0) => Check::warn(
            name,
            format!("{this}: takes the memory of all tables at the start (on demand from 6.1 on)"),
        )
        .remedy(SMALLER),
        _ => Check::ok(
            name,
            format!("{this}: ring buffer, bpf links, tables that grow on demand"),
        ),
    }
}

const SMALLER: &str = "nothing must be done; --live-entries sets the size of the largest table, \
                       about 100 bytes an entry";

/// Lockdown: in its strictest form nothing of the kernel can be observed.
pub(super) fn lockdown(tree: &Tree) -> Check {
    let name = "lockdown";
    let Some(text) = tree.read("sys/kernel/security/lockdown") else {
        let found = match tree.exists("sys/kernel/security/lsm") {
            true => "none: this kernel does not have it",
            false => "unknown, /sys/kernel/security is not mounted",
        };
        return Check::ok(name, found);
    };
    let mode = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or(text.as_str(), |(mode, _)| mode);
    match mode {
        "confidentiality" => Check::fail(name, "confidentiality: the kernel hides its tracepoints")
            .remedy("boot with lockdown=integrity, or without secure boot"),
        mode => Check::ok(name, mode),
    }
}

/// Whether BPF programs are compiled.
pub(super) fn jit(tree: &Tree) -> Check {
    let name = "BPF JIT";
    match tree.number("proc/sys/net/core/bpf_jit_enable") {
        Some(0) => Check::warn(name, "off: programs are interpreted, each hit costs more")
            .remedy("sysctl net.core.bpf_jit_enable=1"),
        Some(2) => Check::warn(name, "on, and every program is written to the kernel's log")
            .remedy("sysctl net.core.bpf_jit_enable=1"),
        Some(_) => Check::ok(name, "on"),
        None => Check::ok(
            name,
            "unknown (net.core.bpf_jit_enable cannot be read): the measured cost decides",
        ),
    }
}

/// BTF, which memtrace does without.
pub(super) fn btf(tree: &Tree) -> Check {
    let found = match tree.exists("sys/kernel/btf/vmlinux") {
        true => "present (not needed)",
        false => "not there, and not needed",
    };
    Check::ok("BTF", found)
}
