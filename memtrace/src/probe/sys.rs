//! The system calls behind probes: perf events of one place, and of a trace event for one thread,
//! which aya has no way to ask for.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::OnceLock,
};

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_EVENT_IOC_ENABLE: u64 = 0x2400;
const PERF_EVENT_IOC_SET_BPF: u64 = 0x4004_2408;
const PERF_FLAG_FD_CLOEXEC: u64 = 8;

/// Size of `struct perf_event_attr` up to `config2` (`PERF_ATTR_SIZE_VER1`).
const PERF_ATTR_BYTES: u32 = 72;

/// The start of `struct perf_event_attr`.
#[repr(C)]
#[derive(Default)]
struct PerfAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    path: u64,
    offset: u64,
}

const _: () = assert!(size_of::<PerfAttr>() == PERF_ATTR_BYTES as usize);

/// Which processes a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Every one that maps the file.
    All,
    /// One thread's, as far as the kernel ties probes to threads; else its process.
    One(u32),
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Attaches a program to one place.
pub(super) fn attach_single(
    program: BorrowedFd<'_>,
    path: &Path,
    offset: u64,
    at_return: bool,
    scope: Scope,
) -> io::Result<OwnedFd> {
    let (kind, return_bit) = uprobe_events()?;
    let path = c_path(path)?;
    let attr = PerfAttr {
        kind,
        size: PERF_ATTR_BYTES,
        config: if at_return { 1 << return_bit } else { 0 },
        path: path.as_ptr() as u64,
        offset,
        ..PerfAttr::default()
    };
    attach(program, &attr, scope)
}

/// Attaches a program to a trace event of probes, by its number.
pub(super) fn attach_event(program: BorrowedFd<'_>, id: u64, scope: Scope) -> io::Result<OwnedFd> {
    let attr = PerfAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: PERF_ATTR_BYTES,
        config: id,
        ..PerfAttr::default()
    };
    attach(program, &attr, scope)
}

fn attach(program: BorrowedFd<'_>, attr: &PerfAttr, scope: Scope) -> io::Result<OwnedFd> {
    let (pid, cpu) = match scope {
        Scope::All => (-1, 0),
        Scope::One(pid) => (pid.cast_signed(), -1),
    };
    // SAFETY: `attr` is as long as it says, and its path, if any, lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attr),
            pid,
            cpu,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let event = owned(fd)?;
    control(&event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
    control(&event, PERF_EVENT_IOC_ENABLE, 0)?;
    Ok(event)
}

fn control(event: &OwnedFd, request: u64, argument: i32) -> io::Result<()> {
    // SAFETY: both requests take a number.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The type of single probes, and which bit of their configuration asks for the return.
fn uprobe_events() -> io::Result<(u32, u32)> {
    static KNOWN: OnceLock<(u32, u32)> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let read = |name: &str, prefix: &str| {
        let path = format!("/sys/bus/event_source/devices/uprobe/{name}");
        let text = fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        let number = text.trim().strip_prefix(prefix).unwrap_or_default();
        number
            .parse()
            .map_err(|_| io::Error::other(format!("{path} says `{}`", text.trim())))
    };
    let asked = (read("type", "")?, read("format/retprobe", "config:")?);
    Ok(*KNOWN.get_or_init(|| asked))
}
