//! Opening files of a process: never outside of its root, never blocking, regular files only.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use super::maps::Mapping;
use super::process::ProcFs;
use crate::id::Tgid;

/// Why a file of a process could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refused.
    #[error("cannot open {path}: {source}{}", hint(source))]
    Io {
        /// File asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A FIFO, device, directory, socket or symbolic link.
    #[error("{path} is a {found}, not a regular file; it is not opened")]
    NotRegular {
        /// File asked for.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The file at a mapping's path is another one than what is mapped.
    #[error(
        "{path} was replaced on disk after process {tgid} mapped it, and the mapped file cannot be reached; restart the process, or run memtrace with CAP_SYS_ADMIN"
    )]
    Replaced {
        /// File asked for.
        path: PathBuf,
        /// The process.
        tgid: Tgid,
    },
}

/// What to do about an error of the kernel.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run memtrace as root",
        io::ErrorKind::NotFound => "; the process or the file may be gone",
        _ => "",
    }
}

/// Opens a regular file for reading. Devices and FIFOs are recognized before they are opened, so
/// nothing blocks and no driver is woken.
pub fn regular(path: &Path) -> Result<File, OpenError> {
    let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| io_error(path, e))?;
    reopen(handle, path)
}

/// Opens `path` as a process with the root directory `root` would see it: `..` and symbolic links
/// cannot leave `root`, links of /proc are not followed, and the last component must not be a
/// link when `follow_last` is false.
pub fn beneath(root: &Path, path: &Path, follow_last: bool) -> Result<File, OpenError> {
    let directory = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| io_error(root, e))?;
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow_last {
        flags |= OFlags::NOFOLLOW;
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let handle = rustix::fs::openat2(directory.as_fd(), path, flags, Mode::empty(), resolve)
        .map_err(|e| io_error(path, e))?;
    reopen(handle, path)
}

/// Opens the file behind a mapping: through map_files, which is the very file that is mapped even
/// when it was deleted; else by its path in the process's root, when that is the same inode.
pub fn mapped(proc: &ProcFs, tgid: Tgid, mapping: &Mapping) -> Result<File, OpenError> {
    let link = proc
        .process(tgid)
        .join("map_files")
        .join(format!("{:x}-{:x}", mapping.start, mapping.end));
    let first = match regular(&link) {
        Ok(file) => return Ok(file),
        Err(error @ OpenError::NotRegular { .. }) => return Err(error),
        Err(error) => error,
    };
    if mapping.deleted || !mapping.path.is_absolute() {
        return Err(first);
    }
    let file = beneath(&proc.process(tgid).join("root"), &mapping.path, true)?;
    let found = file.metadata().map_err(|source| OpenError::Io {
        path: mapping.path.clone(),
        source,
    })?;
    // The device is not compared: maps and stat disagree about it on btrfs and overlayfs.
    if found.ino() != mapping.inode {
        return Err(OpenError::Replaced {
            path: mapping.path.clone(),
            tgid,
        });
    }
    Ok(file)
}

/// Turns a path handle into a readable file when it is a regular file.
fn reopen(handle: OwnedFd, path: &Path) -> Result<File, OpenError> {
    let stat = rustix::fs::fstat(&handle).map_err(|e| io_error(path, e))?;
    if let Some(found) = irregular(FileType::from_raw_mode(stat.st_mode)) {
        return Err(OpenError::NotRegular {
            path: path.to_owned(),
            found,
        });
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let name = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let fd = rustix::fs::openat(CWD, &name, flags, Mode::empty()).map_err(|e| io_error(path, e))?;
    Ok(File::from(fd))
}

fn irregular(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some("directory"),
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("FIFO"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("device"),
        FileType::Unknown => Some("special file"),
    }
}

fn io_error(path: &Path, error: rustix::io::Errno) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source: error.into(),
    }
}

/// A path of memtrace's own that names exactly this open file, for interfaces that take paths
/// (`perf_event_open` resolves it to the same inode, deleted or in another mount namespace).
#[must_use]
pub fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// True when the file lies on an overlay file system.
#[must_use]
pub fn on_overlay(file: &File) -> bool {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    rustix::fs::fstatfs(file).is_ok_and(|s| s.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn fifo(path: &Path) {
        rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
    }

    /// A FIFO, a directory and a device are refused by name and nothing blocks.
    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        fifo(&pipe);
        let error = regular(&pipe).unwrap_err();
        assert!(
            matches!(error, OpenError::NotRegular { found: "FIFO", .. }),
            "{error}"
        );
        assert!(matches!(
            regular(dir.path()).unwrap_err(),
            OpenError::NotRegular {
                found: "directory",
                ..
            }
        ));
        assert!(matches!(
            regular(Path::new("/dev/zero")).unwrap_err(),
            OpenError::NotRegular {
                found: "device",
                ..
            }
        ));
    }

    /// Absolute links and `..` resolve inside of the root, not outside.
    #[test]
    fn links_cannot_leave_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
        symlink("../../../../../../etc/passwd", dir.path().join("dots")).unwrap();
        for name in ["/absolute", "dots"] {
            let file = beneath(dir.path(), Path::new(name), true).unwrap();
            assert_eq!(std::io::read_to_string(file).unwrap(), "inside");
        }
    }

    /// Where the last component must not be a link, a link is refused by name.
    #[test]
    fn a_link_as_the_last_component_is_refused_on_request() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("real"), "x").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        assert!(beneath(dir.path(), Path::new("link"), true).is_ok());
        let error = beneath(dir.path(), Path::new("link"), false).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::NotRegular {
                    found: "symbolic link",
                    ..
                }
            ),
            "{error}"
        );
    }

    /// The own path of an open file reaches the same inode after it was deleted.
    #[test]
    fn own_path_survives_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        std::fs::write(&path, "still here").unwrap();
        let file = regular(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(own_path(&file)).unwrap(),
            "still here"
        );
    }
}
