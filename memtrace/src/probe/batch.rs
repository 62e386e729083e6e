//! Reading and emptying hash maps in batches: one system call for thousands of entries.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{plain::Shared, uninterrupted::Uninterrupted};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// The `batch` member of `union bpf_attr` (Linux 5.6).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<BatchAttr>() == 56);

fn bpf(command: libc::c_long, attr: &mut BatchAttr) -> io::Result<()> {
    let _uninterrupted = Uninterrupted::begin();
    // SAFETY: `attr` is a valid union member of the size given; the buffers it points to are
    // described by `count`, which the callers keep in step with their lengths.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<BatchAttr>(),
        )
    };
    if result < 0 {
        // Before the thread is scheduled as usual again: that sets the error too.
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Walks a hash map batch by batch. Entries added or removed meanwhile may or may not be seen;
/// every entry that stays is seen once.
pub(super) struct Walk<'fd, K, V> {
    fd: BorrowedFd<'fd>,
    cursor: u32,
    started: bool,
    finished: bool,
    capacity: usize,
    keys: Vec<MaybeUninit<K>>,
    values: Vec<MaybeUninit<V>>,
    types: PhantomData<(K, V)>,
}

/// A bucket longer than the batch makes the kernel ask for more room; this much is enough for
/// any sane hash and bounds the memory.
const MAX_BATCH: usize = 1 << 18;

impl<'fd, K: Shared, V: Copy + 'static> Walk<'fd, K, V> {
    /// A walk in steps of about `batch` entries. `V` must be plain data of the map's value size.
    pub(super) fn new(fd: BorrowedFd<'fd>, batch: usize) -> Self {
        Self {
            fd,
            cursor: 0,
            started: false,
            finished: false,
            capacity: batch.max(64),
            keys: Vec::new(),
            values: Vec::new(),
            types: PhantomData,
        }
    }

    /// The next entries, or `None` at the end.
    pub(super) fn next_batch(&mut self) -> io::Result<Option<impl Iterator<Item = (K, V)> + '_>> {
        while !self.finished {
            self.keys.resize_with(self.capacity, MaybeUninit::zeroed);
            self.values.resize_with(self.capacity, MaybeUninit::zeroed);
            let mut next = 0_u32;
            let mut attr = BatchAttr {
                in_batch: if self.started {
                    std::ptr::from_ref(&self.cursor) as u64
                } else {
                    0
                },
                out_batch: std::ptr::from_mut(&mut next) as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(self.capacity).unwrap_or(u32::MAX),
                map_fd: self.fd.as_raw_fd().cast_unsigned(),
                ..BatchAttr::default()
            };
            match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.finished = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    if self.capacity >= MAX_BATCH {
                        return Err(error);
                    }
                    self.capacity *= 2;
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => return Err(error),
            }
            self.cursor = next;
            self.started = true;
            let count = (attr.count as usize).min(self.capacity);
            if count == 0 {
                continue;
            }
            let keys = self.keys.get(..count).unwrap_or_default();
            let values = self.values.get(..count).unwrap_or_default();
            return Ok(Some(keys.iter().zip(values).map(|(key, value)| {
                // SAFETY: zeroed, then written by the kernel; both types are plain data.
                unsafe { (key.assume_init_read(), value.assume_init_read()) }
            })));
        }
        Ok(None)
    }
}

/// Removes entries; those already gone are no error.
pub(super) fn delete<K: Shared>(fd: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let mut attr = BatchAttr {
            keys: rest.as_ptr() as u64,
            count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            map_fd: fd.as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        let result = bpf(BPF_MAP_DELETE_BATCH, &mut attr);
        let done = (attr.count as usize).min(rest.len());
        match result {
            Ok(()) => return Ok(()),
            // The entry after the deleted ones is gone: go on behind it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                rest = rest.get(done + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
