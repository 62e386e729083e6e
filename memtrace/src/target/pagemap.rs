//! Which pages of a process are resident anonymous memory, as the kernel's page tables say.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

use super::{maps::Maps, process::ProcFs};
use crate::id::Tgid;

/// Stretches that are taken of one process.
const MAX_RUNS: usize = 1 << 20;
/// Address space that is looked through page by page, where the kernel cannot list what is there:
/// 8 bytes are read for each page.
const MAX_SPAN: u64 = 64 << 30;
/// Entries read at once.
const CHUNK: usize = 1 << 15;

/// Resident anonymous pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Stretches by rising address, first address and the one behind.
    pub runs: Vec<(u64, u64)>,
    /// Bytes in huge pages, where the kernel tells.
    pub huge_bytes: Option<u64>,
    /// Not all could be looked through.
    pub partial: bool,
}

/// Reads them: by the system call that lists them (Linux 6.7), else page by page.
///
/// # Errors
/// When the process is gone, or its page map may not be read.
pub fn resident(proc: &ProcFs, tgid: Tgid) -> io::Result<Resident> {
    let file = File::open(proc.process(tgid).join("pagemap"))?;
    match scan(&file) {
        Err(error) if is_unknown_call(&error) => {}
        found => return found,
    }
    let maps = Maps::read(proc, tgid).map_err(io::Error::other)?;
    read(&file, &maps)
}

fn is_unknown_call(error: &io::Error) -> bool {
    [libc::ENOTTY, libc::EINVAL, libc::ENOSYS]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno))
}

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN`, `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_ZEROS: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;
/// No program has memory above.
const USER_END: u64 = if cfg!(target_arch = "aarch64") {
    1 << 48
} else {
    (1 << 47) - 4096
};

fn scan(file: &File) -> io::Result<Resident> {
    let mut found = Resident {
        huge_bytes: Some(0),
        ..Resident::default()
    };
    let mut regions = vec![PageRegion::default(); 4096];
    let mut start = 0;
    while start < USER_END {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start,
            end: USER_END,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_mask: IS_PRESENT | IS_FILE | IS_ZEROS,
            category_inverted: IS_FILE | IS_ZEROS,
            return_mask: IS_HUGE,
            ..ScanArg::default()
        };
        // SAFETY: the kernel writes at most `vec_len` regions, and the end of its walk.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = usize::try_from(count).unwrap_or(0);
        for region in regions.iter().take(count) {
            push(&mut found.runs, region.start, region.end);
            if let (true, Some(huge)) = (region.categories & IS_HUGE != 0, &mut found.huge_bytes) {
                *huge += region.end.saturating_sub(region.start);
            }
        }
        if found.runs.len() >= MAX_RUNS || arg.walk_end <= start {
            found.partial = arg.walk_end < USER_END;
            break;
        }
        start = arg.walk_end;
    }
    Ok(found)
}

fn push(runs: &mut Vec<(u64, u64)>, start: u64, end: u64) {
    match runs.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => runs.push((start, end)),
    }
}

/// Bits of an entry of pagemap.
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_FILE: u64 = 1 << 61;
const ENTRY_FRAME: u64 = (1 << 55) - 1;

fn read(file: &File, maps: &Maps) -> io::Result<Resident> {
    let page = rustix::param::page_size() as u64;
    let zeros = frame_of_zeros(page);
    let mut found = Resident::default();
    let mut span = 0;
    let mut bytes = vec![0_u8; CHUNK * 8];
    for mapping in maps.mappings.iter().filter(|m| !m.permissions.shared) {
        span += mapping.len();
        if span > MAX_SPAN || found.runs.len() >= MAX_RUNS {
            found.partial = true;
            break;
        }
        let mut at = mapping.start;
        while at < mapping.end {
            let pages = usize::try_from((mapping.end - at) / page).unwrap_or(CHUNK);
            let wanted = bytes.get_mut(..pages.min(CHUNK) * 8).unwrap_or_default();
            let count = file.read_at(wanted, at / page * 8)?;
            if count == 0 {
                break;
            }
            for entry in wanted[..count].as_chunks::<8>().0 {
                if is_anonymous(u64::from_ne_bytes(*entry), zeros) {
                    push(&mut found.runs, at, at + page);
                }
                at += page;
            }
        }
    }
    Ok(found)
}

fn is_anonymous(entry: u64, zeros: Option<u64>) -> bool {
    let frame = entry & ENTRY_FRAME;
    entry & ENTRY_PRESENT != 0 && entry & ENTRY_FILE == 0 && (frame == 0 || Some(frame) != zeros)
}

/// The frame of the page of zeros that stands for memory only read so far: found by reading some of
/// memtrace's own.
fn frame_of_zeros(page: u64) -> Option<u64> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    let length = usize::try_from(page).ok()?;
    let file = File::open("/proc/self/pagemap").ok()?;
    // SAFETY: a new mapping where the kernel likes.
    let place = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ,
            MapFlags::PRIVATE,
        )
    }
    .ok()?;
    // SAFETY: the mapping is readable and that long.
    let _ = unsafe { place.cast::<u8>().read_volatile() };
    let mut entry = [0; 8];
    let read = file.read_exact_at(&mut entry, place as u64 / page * 8);
    // SAFETY: made above, used by nobody else.
    let _ = unsafe { munmap(place, length) };
    read.ok()?;
    let entry = u64::from_ne_bytes(entry);
    (entry & ENTRY_PRESENT != 0)
        .then_some(entry & ENTRY_FRAME)
        .filter(|frame| *frame != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

    /// Pages of this process that were written to are found, those only read or never touched are
    /// not; both ways of reading agree.
    #[test]
    fn own_pages() {
        let page = rustix::param::page_size();
        let length = 8 * page;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes, written and read within its length.
        let start = unsafe {
            let place =
                mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::PRIVATE).unwrap();
            place.cast::<u8>().add(2 * page).write_volatile(1);
            place.cast::<u8>().add(3 * page).write_volatile(1);
            let _ = place.cast::<u8>().add(5 * page).read_volatile();
            place as u64
        };
        let end = start + length as u64;
        let me = Tgid(std::process::id());
        let proc = ProcFs::default();
        let file = File::open("/proc/self/pagemap").unwrap();
        let inside = |found: Resident| -> u64 {
            let cut = |&(from, to): &(u64, u64)| to.min(end).saturating_sub(from.max(start));
            found.runs.iter().map(cut).sum()
        };
        let maps = Maps::read(&proc, me).unwrap();
        assert_eq!(inside(resident(&proc, me).unwrap()), 2 * page as u64);
        if frame_of_zeros(page as u64).is_some() {
            assert_eq!(inside(read(&file, &maps).unwrap()), 2 * page as u64);
        }
    }
}
