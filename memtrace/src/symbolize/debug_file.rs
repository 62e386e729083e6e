//! Separate debug files: where distributions put DWARF and the symbols of stripped objects.
//!
//! Inside of a target's root they are looked for while the target lives, and kept open. On the host
//! they are looked for when names are wanted. A file is used only when its build id, or the
//! checksum that the object's link states, says that it belongs to the object.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::unwind::{Bytes, DebugLink, Layout, ModuleFile};

/// Where distributions keep debug files.
const DEBUG_ROOT: &str = "usr/lib/debug";
/// Largest file whose checksum is computed; it is needed only for objects without a build id.
const MAX_CHECKSUM: u64 = 256 << 20;

/// Looks for the debug file of an object inside of a target's root and remembers it in the module.
///
/// `root` is `/proc/PID/root`, opened. Symbolic links cannot lead out of it, and nothing that is
/// not a regular file is read.
pub fn find_debug_file(root: impl AsFd, module: &ModuleFile) {
    if !module.debug_file_searched() {
        let found = search(root.as_fd(), module).map(|(file, _)| file);
        module.set_debug_file(found);
    }
}

/// Looks for the debug file of an object on the host. Also says whether only root can change it.
pub(super) fn find_on_host(module: &ModuleFile) -> Option<(File, bool)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).ok()?;
    search(root.as_fd(), module)
}

fn search(root: BorrowedFd<'_>, module: &ModuleFile) -> Option<(File, bool)> {
    let link = read_link(module);
    candidates(module, link.as_ref())
        .into_iter()
        .find_map(|path| {
            let file = File::from(open_inside(root, &path)?);
            let meta = file.metadata().ok()?;
            let same =
                meta.dev() == module.identity().device && meta.ino() == module.identity().inode;
            if !meta.is_file() || same {
                return None;
            }
            let trusted = meta.uid() == 0 && meta.mode() & 0o022 == 0;
            let bytes = Bytes::File {
                file,
                len: meta.len(),
            };
            if !belongs(&bytes, module, link.as_ref()) {
                return None;
            }
            match bytes {
                Bytes::File { file, .. } => Some((file, trusted)),
                Bytes::Memory(_) => None,
            }
        })
}

fn open_inside(root: BorrowedFd<'_>, path: &Path) -> Option<OwnedFd> {
    // Non-blocking: a FIFO in the file's place must not hold the session up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()
}

fn candidates(module: &ModuleFile, link: Option<&DebugLink>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let debug = Path::new(DEBUG_ROOT);
    if let Some((first, rest)) = module.build_id().and_then(|id| id.split_at_checked(2)) {
        paths.push(debug.join(format!(".build-id/{first}/{rest}.debug")));
    }
    let dir = Path::new(module.path())
        .parent()
        .and_then(|dir| dir.strip_prefix("/").ok());
    if let (Some(link), Some(dir)) = (link, dir) {
        paths.push(dir.join(&link.name));
        paths.push(dir.join(".debug").join(&link.name));
        paths.push(debug.join(dir).join(&link.name));
    }
    paths
}

fn belongs(bytes: &Bytes, module: &ModuleFile, link: Option<&DebugLink>) -> bool {
    let Ok(layout) = Layout::read(bytes) else {
        return false;
    };
    match (module.build_id(), layout.build_id.as_deref()) {
        (Some(wanted), found) => found == Some(wanted),
        (None, _) => link.is_some_and(|link| checksum(bytes) == Some(link.checksum)),
    }
}

/// The object's `.gnu_debuglink`.
pub(super) fn read_link(module: &ModuleFile) -> Option<DebugLink> {
    let sections = module.layout().ok()?.sections(module.bytes());
    let section = sections.iter().find(|s| s.name == b".gnu_debuglink")?;
    let bytes = module.bytes().read(section.offset, section.size, 4096)?;
    let end = bytes.iter().position(|b| *b == 0)?;
    let name = std::str::from_utf8(bytes.get(..end)?).ok()?;
    // A name, not a path: the object does not choose which directories are looked at.
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return None;
    }
    let checksum = bytes
        .get((end + 1).next_multiple_of(4)..)?
        .first_chunk::<4>()?;
    Some(DebugLink {
        name: name.to_owned(),
        checksum: u32::from_le_bytes(*checksum),
    })
}

/// CRC-32 as zlib computes it.
pub(super) fn checksum(bytes: &Bytes) -> Option<u32> {
    if bytes.len() > MAX_CHECKSUM {
        return None;
    }
    let mut sum = flate2::Crc::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < bytes.len() {
        let want = usize::try_from(bytes.len() - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..want)?;
        if !bytes.read_into(at, part) {
            return None;
        }
        sum.update(part);
        at += want as u64;
    }
    Some(sum.sum())
}
