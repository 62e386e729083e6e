//! Small trials of the kernel, which leave nothing behind.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

const BPF_MAP_CREATE: libc::c_long = 0;

/// Kinds of maps that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Every kernel with BPF has it.
    Array,
    /// Linux 5.8.
    RingBuffer,
}

/// The start of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Makes a map of the smallest size and lets it go again.
pub fn try_map(kind: MapKind) -> io::Result<()> {
    let attr = match kind {
        MapKind::Array => CreateAttr {
            kind: 2,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            flags: 0,
        },
        MapKind::RingBuffer => CreateAttr {
            kind: 27,
            key_size: 0,
            value_size: 0,
            max_entries: u32::try_from(rustix::param::page_size()).unwrap_or(4096),
            flags: 0,
        },
    };
    // SAFETY: the kernel reads the bytes of `attr` and takes the rest of the union as zero.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            &raw const attr,
            size_of::<CreateAttr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
