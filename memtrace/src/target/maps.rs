//! `/proc/PID/maps`: what a process has mapped where.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::printable;
use super::process::{ProcFs, ProcessError, error_of};
use crate::id::Tgid;

/// Access rights of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// Shared and not private.
    pub shared: bool,
}

/// One mapping: `[start, end)` in the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Access rights.
    pub permissions: Permissions,
    /// Offset of `start` in the file.
    pub offset: u64,
    /// Device, major and minor. Not comparable with `stat` on overlayfs and btrfs.
    pub device: (u32, u32),
    /// Inode, 0 for anonymous memory.
    pub inode: u64,
    /// Path in the process's mount namespace, or `[heap]` and its like, or nothing.
    pub path: PathBuf,
    /// The file was deleted or replaced after it was mapped.
    pub deleted: bool,
}

impl Mapping {
    /// True when a file is behind it: a path, not `[heap]` or an anonymous mapping.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.inode != 0 && self.path.is_absolute()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never: a mapping has at least one page. For clippy and the like.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The path for people.
    #[must_use]
    pub fn path_text(&self) -> String {
        printable(self.path.as_os_str().as_bytes())
    }
}

/// All mappings of one moment, by rising address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// The mappings.
    pub mappings: Vec<Mapping>,
    /// Lines that were not understood, and those beyond [`MAPPINGS_CAP`].
    pub skipped: usize,
}

/// Mappings read of one process; the kernel's default limit is 65,530.
pub const MAPPINGS_CAP: usize = 1 << 20;

/// Bytes of maps read at most.
const BYTES_CAP: u64 = 256 << 20;

impl Maps {
    /// Reads the mappings of a process. A process that has just ended has none.
    pub fn read(proc: &ProcFs, tgid: Tgid) -> Result<Self, ProcessError> {
        let path = proc.process(tgid).join("maps");
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(BYTES_CAP).read_to_end(&mut bytes))
            .map_err(|source| error_of(tgid, &path, source))?;
        Ok(Self::parse(&bytes))
    }

    /// Parses the text of maps.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut maps = Self::default();
        for line in text.split(|&b| b == b'\n') {
            if line.is_empty() {
                continue;
            }
            match parse_line(line) {
                Some(mapping) if maps.mappings.len() < MAPPINGS_CAP => maps.mappings.push(mapping),
                _ => maps.skipped += 1,
            }
        }
        maps
    }

    /// The mapping that holds `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|m| m.start <= address);
        self.mappings
            .get(after.checked_sub(1)?)
            .filter(|m| address < m.end)
    }
}

/// `START-END PERMS OFFSET MAJOR:MINOR INODE     PATH`; the path is the rest of the line.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || -> Option<&str> {
        let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail.get(1..).unwrap_or_default();
        std::str::from_utf8(word).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?.as_bytes();
    let offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?;
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end {
        return None;
    }
    let (path, deleted) = unescape_path(rest.trim_ascii_start());
    Some(Mapping {
        start,
        end,
        permissions: Permissions {
            read: permissions.first() == Some(&b'r'),
            write: permissions.get(1) == Some(&b'w'),
            execute: permissions.get(2) == Some(&b'x'),
            shared: permissions.get(3) == Some(&b's'),
        },
        offset: hex(offset)?,
        device: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode: inode.parse().ok()?,
        path,
        deleted,
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Undoes what the kernel does to a path: it writes a newline as `\012` (and, a defect of the
/// format, leaves a backslash alone, so a name that really holds `\012` reads the same) and marks
/// a deleted file at the end. A name that ends so by itself is taken for deleted; that only keeps
/// it from being opened by its path.
fn unescape_path(text: &[u8]) -> (PathBuf, bool) {
    let (text, deleted) = match text.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (text, false),
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            bytes.push(b'\n');
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    (PathBuf::from(OsString::from_vec(bytes)), deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    const TEXT: &[u8] = b"\
        55d0c8a00000-55d0c8a02000 r-xp 00001000 fe:01 1234                       /usr/bin/a b\n\
        7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n\
        7f0000001000-7f0000002000 rw-s 00000000 00:1f 99                         /tmp/x\\012y (deleted)\n\
        7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n";

    /// Paths keep spaces and newlines, the mark of a deleted file is taken off.
    #[test]
    fn parses_the_kernels_lines() {
        let maps = Maps::parse(TEXT);
        assert_eq!((maps.mappings.len(), maps.skipped), (4, 0));
        let first = &maps.mappings[0];
        assert_eq!(first.path, Path::new("/usr/bin/a b"));
        assert_eq!(
            (first.offset, first.device, first.inode),
            (0x1000, (0xfe, 1), 1234)
        );
        assert!(first.permissions.execute && first.is_file() && !first.permissions.write);
        let deleted = &maps.mappings[2];
        assert_eq!(
            (deleted.path.as_path(), deleted.deleted),
            (Path::new("/tmp/x\ny"), true)
        );
        assert_eq!(deleted.path_text(), "/tmp/x\\ny");
        assert!(deleted.permissions.shared);
        assert!(!maps.mappings[3].is_file());
    }

    /// An address is found in its mapping and in no gap.
    #[test]
    fn finds_addresses() {
        let maps = Maps::parse(TEXT);
        assert_eq!(maps.find(0x7f00_0000_1fff).map(|m| m.inode), Some(99));
        assert!(maps.find(0x7f00_0000_2000).is_none());
        assert!(maps.find(0).is_none());
    }

    /// Lines that make no sense are counted and skipped.
    #[test]
    fn counts_what_it_does_not_understand() {
        let maps = Maps::parse(b"hello\n2-1 r-xp 0 0:0 0 \n1000-2000 r--p 0 0:0 0 /x\n\xff\xff");
        assert_eq!((maps.mappings.len(), maps.skipped), (1, 3));
    }

    /// This process's own mappings are all understood and hold its code.
    #[test]
    fn reads_this_process() {
        let maps = Maps::read(&ProcFs::default(), Tgid(std::process::id())).unwrap();
        assert_eq!(maps.skipped, 0);
        let code = maps
            .find(reads_this_process as fn() as usize as u64)
            .unwrap();
        assert!(code.permissions.execute && code.is_file());
    }

    proptest! {
        /// A mapping written as the kernel writes it comes back as it was.
        #[test]
        fn round_trip(start in 0_u64..1 << 47, pages in 1_u64..1 << 20, offset: u64, inode: u64,
                      major in 0_u32..4096, minor in 0_u32..1 << 20,
                      name in "/[ -\\[\\]-~\n]{0,40}[!-\\[\\]-~]", flags: [bool; 4], deleted: bool) {
            let permissions = Permissions {
                read: flags[0], write: flags[1], execute: flags[2], shared: flags[3],
            };
            let mapping = Mapping {
                start, end: start + pages * 4096, permissions, offset, device: (major, minor),
                inode, path: PathBuf::from(&name), deleted,
            };
            let flag = |on, c| if on { c } else { '-' };
            let line = format!(
                "{:x}-{:x} {}{}{}{} {:08x} {:02x}:{:02x} {} {:>20}{}\n",
                mapping.start, mapping.end, flag(flags[0], 'r'), flag(flags[1], 'w'),
                flag(flags[2], 'x'), if flags[3] { 's' } else { 'p' }, offset, major, minor, inode,
                name.replace('\n', "\\012"), if deleted { " (deleted)" } else { "" },
            );
            prop_assert_eq!(Maps::parse(line.as_bytes()).mappings, vec![mapping]);
        }

        /// No bytes make the parser panic.
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = Maps::parse(&text);
        }
    }
}
