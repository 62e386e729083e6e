//! Copies of the parts of an object that names are found in.
//!
//! blazesym maps the files it reads, and who can truncate a mapped file kills the reader by
//! SIGBUS; files in containers belong to somebody else. So it is given a sparse copy that only
//! memtrace holds: section headers, symbols, strings and DWARF, at their own offsets, with holes
//! where code and data were. Copying a hundred megabytes takes some thirty milliseconds, happens once
//! an object, and only for objects in stacks that are shown.
//!
//! Compressed sections are put into the copy uncompressed, up to a limit: a few KiB can grow to
//! gigabytes, and a reader that trusts them ends in the out-of-memory killer. Links to other files,
//! which blazesym would open by whatever path the file names, are hidden by erasing the section's
//! name.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use object::elf;
use rustix::fs::{Mode, OFlags};

use crate::unwind::{Bytes, Layout, Section};

use super::screen::is_dangerous;

/// Copies up to this size are kept in memory, larger ones in an unlinked file.
const MAX_IN_MEMORY: u64 = 64 << 20;
/// Symbols and debug information of one object, uncompressed; sections beyond it are left out.
const MAX_COPY: u64 = 2 << 30;
/// Symbols of one object; Chromium's are 300 MiB.
const MAX_SYMBOLS: u64 = 512 << 20;
/// `Elf64_Chdr`, in front of compressed bytes.
const COMPRESSION_HEADER: u64 = 24;
/// Sections that lead to other files.
const LINKS: [&[u8]; 3] = [b".gnu_debuglink", b".gnu_debugaltlink", b".debug_sup"];

/// A copy; gone when dropped.
#[derive(Debug)]
pub(super) struct Snapshot {
    file: File,
    /// Bytes copied.
    pub size: u64,
    /// It has DWARF.
    pub has_debug_info: bool,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("its symbols are larger than {} MiB", MAX_SYMBOLS >> 20)]
    TooLarge,
    #[error("it has no section headers")]
    NoSections,
    #[error("cannot copy its symbols: {0}")]
    Io(#[from] io::Error),
    #[error("cannot read its symbols")]
    Unreadable,
}

impl Snapshot {
    /// Copies what names need.
    pub fn take(bytes: &Bytes, layout: &Layout) -> Result<Self, SnapshotError> {
        let sections = layout.sections(bytes);
        if sections.is_empty() {
            return Err(SnapshotError::NoSections);
        }
        let mut wanted = Wanted::of(bytes, &sections)?;
        let file = scratch_file(wanted.size)?;
        file.set_len(bytes.len())?;
        copy(bytes, &file, 0, HEADERS.min(bytes.len()))?;
        for section in &sections {
            copy(bytes, &file, section.header_offset, 64)?;
        }
        for section in &wanted.plain {
            copy(bytes, &file, section.offset, section.size)?;
        }
        let mut end = bytes.len().next_multiple_of(8);
        for section in &wanted.compressed {
            match uncompress(bytes, section, &file, end) {
                Ok(size) => end = (end + size).next_multiple_of(8),
                Err(_) => wanted.erase.push(section),
            }
        }
        for section in &wanted.erase {
            // The empty name is the first of every table of names.
            file.write_all_at(&[0; 4], section.header_offset)?;
        }
        let mut copy = Self {
            file,
            size: wanted.size,
            has_debug_info: wanted.has_debug_info,
        };
        copy.screen(layout)?;
        seal(&copy.file);
        Ok(copy)
    }

    /// Hides debug information that would end its reader.
    fn screen(&mut self, layout: &Layout) -> Result<(), SnapshotError> {
        let bytes = Bytes::File {
            file: self.file.try_clone()?,
            len: self.file.metadata()?.len(),
        };
        let sections = layout.sections(&bytes);
        if self.has_debug_info && is_dangerous(&bytes, &sections) {
            self.has_debug_info = false;
            for section in sections.iter().filter(|s| is_debug(s)) {
                self.file.write_all_at(&[0; 4], section.header_offset)?;
            }
        }
        Ok(())
    }

    /// The path by which this process opens the copy.
    pub fn path(&self) -> PathBuf {
        own_path(&self.file)
    }
}

/// ELF header and program headers lie in the first page of every file that linkers make.
const HEADERS: u64 = 64 << 10;

/// The path by which this process opens a file that it has open.
pub(super) fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What to copy and what to hide.
struct Wanted<'a> {
    plain: Vec<&'a Section>,
    compressed: Vec<&'a Section>,
    erase: Vec<&'a Section>,
    size: u64,
    has_debug_info: bool,
}

impl<'a> Wanted<'a> {
    fn of(bytes: &Bytes, sections: &'a [Section]) -> Result<Self, SnapshotError> {
        let inside = |s: &Section| {
            s.offset
                .checked_add(s.size)
                .is_some_and(|e| e <= bytes.len())
        };
        let (mut plain, mut compressed, mut erase) = (Vec::new(), Vec::new(), Vec::new());
        let mut size = 0u64;
        for section in sections.iter().filter(|s| is_symbols(s)) {
            size = size.saturating_add(section.size);
            if inside(section) {
                plain.push(section)
            } else {
                erase.push(section)
            }
        }
        if size > MAX_SYMBOLS {
            return Err(SnapshotError::TooLarge);
        }
        for section in sections.iter().filter(|s| is_debug(s)) {
            let grown = match is_compressed(section) {
                true => compression(bytes, section).map_or(u64::MAX, |(_, size)| size),
                false => section.size,
            };
            let fits = size.saturating_add(grown) <= MAX_COPY;
            if !fits || !inside(section) {
                erase.push(section);
                continue;
            }
            size += grown;
            if is_compressed(section) {
                compressed.push(section)
            } else {
                plain.push(section)
            }
        }
        erase.extend(
            sections
                .iter()
                .filter(|s| LINKS.contains(&s.name.as_slice())),
        );
        let mut copied = plain.iter().chain(&compressed);
        let has_debug_info = copied.any(|s| s.name == b".debug_info");
        Ok(Self {
            plain,
            compressed,
            erase,
            size,
            has_debug_info,
        })
    }
}

fn is_symbols(section: &Section) -> bool {
    use elf::{SHT_DYNSYM, SHT_STRTAB, SHT_SYMTAB, SHT_SYMTAB_SHNDX};
    matches!(
        section.kind,
        SHT_SYMTAB | SHT_DYNSYM | SHT_STRTAB | SHT_SYMTAB_SHNDX
    ) || section.name == b".note.gnu.build-id" && section.size <= 4096
}

fn is_debug(section: &Section) -> bool {
    section.kind != elf::SHT_NOBITS
        && section.name.starts_with(b".debug_")
        && section.name != b".debug_sup"
}

fn is_compressed(section: &Section) -> bool {
    section.flags & u64::from(elf::SHF_COMPRESSED) != 0
}

/// How a section is compressed, and what it says it grows to.
fn compression(bytes: &Bytes, section: &Section) -> Option<(u32, u64)> {
    let mut header = [0; COMPRESSION_HEADER as usize];
    if section.size < COMPRESSION_HEADER || !bytes.read_into(section.offset, &mut header) {
        return None;
    }
    let (kind, rest) = header.split_first_chunk::<4>()?;
    let size = rest.get(4..)?.first_chunk::<8>()?;
    Some((u32::from_le_bytes(*kind), u64::from_le_bytes(*size)))
}

/// Writes a section uncompressed at `end` of the copy and points its header there.
fn uncompress(bytes: &Bytes, section: &Section, to: &File, end: u64) -> io::Result<u64> {
    let (kind, claimed) = compression(bytes, section).ok_or(io::ErrorKind::InvalidData)?;
    let start = section.offset + COMPRESSION_HEADER;
    let input = SectionReader {
        bytes,
        at: start,
        end: section.offset + section.size,
    };
    let mut output: Box<dyn Read + '_> = match kind {
        elf::ELFCOMPRESS_ZLIB => Box::new(flate2::read::ZlibDecoder::new(input)),
        elf::ELFCOMPRESS_ZSTD => Box::new(zstd::stream::read::Decoder::new(input)?),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    while size < claimed {
        let room = usize::try_from(claimed - size)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = output.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..count], end + size)?;
        size += count as u64;
    }
    let flags = section.flags & !u64::from(elf::SHF_COMPRESSED);
    to.write_all_at(&flags.to_le_bytes(), section.header_offset + 8)?;
    to.write_all_at(&end.to_le_bytes(), section.header_offset + 24)?;
    to.write_all_at(&size.to_le_bytes(), section.header_offset + 32)?;
    Ok(size)
}

/// A part of an object as a stream.
struct SectionReader<'a> {
    bytes: &'a Bytes,
    at: u64,
    end: u64,
}

impl Read for SectionReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(out.len());
        if !self.bytes.read_into(self.at, &mut out[..count]) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// A file nobody else can reach.
fn scratch_file(size: u64) -> io::Result<File> {
    if size > MAX_IN_MEMORY {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        for dir in [PathBuf::from("/var/tmp"), std::env::temp_dir()] {
            if let Ok(fd) = rustix::fs::open(&dir, flags, Mode::RUSR | Mode::WUSR) {
                return Ok(File::from(fd));
            }
        }
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    Ok(File::from(rustix::fs::memfd_create(
        "memtrace-symbols",
        flags,
    )?))
}

fn seal(file: &File) {
    use rustix::fs::SealFlags;
    // Files on disk cannot be sealed, and need not: they have no name.
    let _ = rustix::fs::fcntl_add_seals(
        file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    );
}

fn copy(from: &Bytes, to: &File, offset: u64, len: u64) -> Result<(), SnapshotError> {
    let mut buffer = vec![0; usize::try_from(len.min(256 << 10)).unwrap_or(0)];
    let end = offset.saturating_add(len);
    let mut at = offset;
    while at < end {
        let want = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = &mut buffer[..want];
        if !from.read_into(at, part) {
            return Err(SnapshotError::Unreadable);
        }
        to.write_all_at(part, at)?;
        at += want as u64;
    }
    Ok(())
}
