//! A 64-bit little-endian ELF file, read by bounded `pread`s.
//!
//! Nothing is mapped, so a file that is truncated while it is read is an error and not a SIGBUS;
//! every read has a cap that is checked against the file's length before memory is taken. Offsets
//! and sizes in the headers are claims: they are checked where they are used.

mod headers;
mod notes;
mod plt;
mod symbols;

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object::elf;

pub use symbols::{Binding, FoundSymbols, Symbol, SymbolKind, Wanted};

use super::open::{self, OpenError};
use super::printable;

/// Bytes of one section returned at most by [`Object::section_data`].
pub const SECTION_CAP: u64 = 128 << 20;

/// Why an object cannot be used. Each message names the file.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not an ELF file at all.
    #[error("{path} is not an ELF file")]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// ELF, but of a kind that memtrace does not trace.
    #[error("{path} is {found}: memtrace reads 64-bit little-endian x86-64 and aarch64 objects")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// Its headers contradict themselves or the file's length.
    #[error("{path} is a broken ELF file ({what}); its functions and stacks cannot be resolved")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Larger than memtrace is willing to read.
    #[error("{path}: {what} has {size} bytes, more than the {cap} that memtrace reads")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        cap: u64,
    },
}

/// Instruction set of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// `EM_X86_64`
    X86_64,
    /// `EM_AARCH64`
    Aarch64,
}

impl Machine {
    /// The machine memtrace itself was built for.
    #[must_use]
    pub const fn host() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }
}

/// Which file this is, so that one file is probed once however many processes map it.
///
/// On overlayfs the device differs for each container that shares an image layer while the inode
/// below is one, and the kernel puts a probe on that one (measured: two attaches count twice). So
/// there the device is left out, and size and modification time stand in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// Device, 0 on overlayfs.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Size in bytes, 0 where the device tells enough.
    pub size: u64,
    /// Modification time in nanoseconds, 0 where the device tells enough.
    pub modified_ns: i128,
}

impl ObjectId {
    /// The identity of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let mut id = Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: 0,
            modified_ns: 0,
        };
        if open::on_overlay(file) {
            id.device = 0;
            id.size = meta.len();
            id.modified_ns =
                i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        }
        Ok(id)
    }
}

/// A program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `PT_LOAD`, `PT_GNU_EH_FRAME`, …
    pub kind: u32,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Address in the object's own numbering.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
}

impl Segment {
    /// True for code.
    #[must_use]
    pub fn executable(&self) -> bool {
        self.flags & elf::PF_X != 0
    }
}

/// A section header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// `SHT_PROGBITS`, `SHT_NOBITS`, …
    pub kind: u32,
    /// `SHF_ALLOC`, …
    pub flags: u64,
    /// Address in the object's own numbering, 0 when it is not loaded.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Index of the section it refers to (a symbol table's strings).
    pub link: u32,
}

/// An open ELF file. Reading it needs no path and no permission any more.
#[derive(Debug)]
pub struct Object {
    file: Arc<File>,
    path: PathBuf,
    id: ObjectId,
    length: u64,
    machine: Machine,
    fixed_address: bool,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    build_id: Option<Vec<u8>>,
    go: bool,
    needed: Vec<String>,
    soname: Option<String>,
}

impl Object {
    /// Opens a regular file of memtrace's own mount namespace.
    pub fn open(path: &Path) -> Result<Self, ObjectError> {
        Self::from_file(open::regular(path)?, path.to_owned())
    }

    /// Reads the headers of an open file. `path` is what to call it.
    pub fn from_file(file: File, path: PathBuf) -> Result<Self, ObjectError> {
        let read_error = |source| ObjectError::Read {
            path: path.clone(),
            source,
        };
        let length = file.metadata().map_err(read_error)?.len();
        let id = ObjectId::of(&file).map_err(read_error)?;
        let mut object = Self {
            file: Arc::new(file),
            path,
            id,
            length,
            machine: Machine::X86_64,
            fixed_address: false,
            segments: Vec::new(),
            sections: Vec::new(),
            build_id: None,
            go: false,
            needed: Vec::new(),
            soname: None,
        };
        object.read_headers()?;
        Ok(object)
    }

    /// The file, for interfaces that want a descriptor.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// What the object is called: its path as the process sees it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path for people.
    #[must_use]
    pub fn path_text(&self) -> String {
        printable(self.path.as_os_str().as_bytes())
    }

    /// A path that leads to exactly this file while the object lives, for attaching probes.
    #[must_use]
    pub fn attach_path(&self) -> PathBuf {
        open::own_path(&self.file)
    }

    /// Which file it is.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Length of the file when it was opened.
    #[must_use]
    pub fn file_length(&self) -> u64 {
        self.length
    }

    /// Instruction set.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// `ET_EXEC`: addresses in the process are the object's own.
    #[must_use]
    pub fn has_fixed_address(&self) -> bool {
        self.fixed_address
    }

    /// All program headers.
    #[must_use]
    pub fn program_headers(&self) -> &[Segment] {
        &self.segments
    }

    /// The loaded segments.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.kind == elf::PT_LOAD)
    }

    /// The first program header of a kind, as `PT_GNU_EH_FRAME` where section headers are stripped.
    #[must_use]
    pub fn program_header(&self, kind: u32) -> Option<&Segment> {
        self.segments.iter().find(|s| s.kind == kind)
    }

    /// All sections; none when the section headers are stripped or broken.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The first section of a name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// Bytes of the first section of a name, at most [`SECTION_CAP`]; none when there is no such
    /// section or it has no bytes in the file.
    pub fn section_data(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let Some(section) = self.section(name) else {
            return Ok(None);
        };
        if section.kind == elf::SHT_NOBITS {
            return Ok(None);
        }
        if section.size > SECTION_CAP {
            return Err(ObjectError::TooLarge {
                path: self.path.clone(),
                what: printable(name.as_bytes()),
                size: section.size,
                cap: SECTION_CAP,
            });
        }
        self.read_at(section.offset, section.size).map(Some)
    }

    /// Exactly `length` bytes at a file offset. The range is checked against the file before
    /// memory is taken; lengths above [`SECTION_CAP`] are refused.
    pub fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>, ObjectError> {
        if length > SECTION_CAP {
            return Err(ObjectError::TooLarge {
                path: self.path.clone(),
                what: format!("the range at {offset:#x}"),
                size: length,
                cap: SECTION_CAP,
            });
        }
        if offset
            .checked_add(length)
            .is_none_or(|end| end > self.length)
        {
            return Err(self.malformed("a part lies behind the end of the file"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| {
                if source.kind() == io::ErrorKind::UnexpectedEof {
                    self.malformed("truncated while it was read")
                } else {
                    ObjectError::Read {
                        path: self.path.clone(),
                        source,
                    }
                }
            })?;
        Ok(bytes)
    }

    /// Exactly `length` bytes at an address of the object's own numbering.
    pub fn read_address(&self, address: u64, length: u64) -> Result<Vec<u8>, ObjectError> {
        let offset = self
            .offset_of(address)
            .ok_or_else(|| self.malformed("an address lies in no segment of the file"))?;
        self.read_at(offset, length)
    }

    /// File offset of an address of the object's own numbering.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments().find_map(|s| {
            let inside = address.checked_sub(s.address)?;
            if inside < s.file_size {
                s.offset.checked_add(inside)
            } else {
                None
            }
        })
    }

    /// Address, in the object's own numbering, of a file offset.
    #[must_use]
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments().find_map(|s| {
            let inside = offset.checked_sub(s.offset)?;
            if inside < s.file_size {
                s.address.checked_add(inside)
            } else {
                None
            }
        })
    }

    /// What to add to the object's own addresses to get those of a process that maps `length` bytes
    /// at file offset `offset` to `start`.
    #[must_use]
    pub fn load_bias(&self, start: u64, offset: u64, length: u64) -> Option<u64> {
        let end = offset.checked_add(length)?;
        let segment = self.segments().find(|s| {
            s.offset < end
                && s.offset
                    .checked_add(s.file_size)
                    .is_some_and(|e| offset < e)
        })?;
        // A mapping starts at a page, a segment need not: the difference may be negative.
        let address = segment
            .address
            .wrapping_add(offset.wrapping_sub(segment.offset));
        Some(start.wrapping_sub(address))
    }

    /// True when the address lies in an executable segment.
    #[must_use]
    pub fn is_code(&self, address: u64) -> bool {
        self.segments().any(|s| {
            s.executable()
                && address
                    .checked_sub(s.address)
                    .is_some_and(|i| i < s.file_size)
        })
    }

    /// The linker's build id.
    #[must_use]
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// The build id in hexadecimal.
    #[must_use]
    pub fn build_id_text(&self) -> Option<String> {
        use std::fmt::Write;
        let id = self.build_id.as_deref()?;
        let mut text = String::with_capacity(id.len() * 2);
        for byte in id {
            write!(text, "{byte:02x}").ok()?;
        }
        Some(text)
    }

    /// True when the object holds Go code: Go moves its stacks, so a return probe would crash it.
    #[must_use]
    pub fn is_go(&self) -> bool {
        self.go
    }

    /// True when the object names a program interpreter (a dynamically linked executable).
    #[must_use]
    pub fn has_interpreter(&self) -> bool {
        self.program_header(elf::PT_INTERP).is_some()
    }

    /// `DT_NEEDED`: the libraries it asks for.
    #[must_use]
    pub fn needed(&self) -> &[String] {
        &self.needed
    }

    /// `DT_SONAME`: what it calls itself.
    #[must_use]
    pub fn soname(&self) -> Option<&str> {
        self.soname.as_deref()
    }

    fn malformed(&self, what: &'static str) -> ObjectError {
        ObjectError::Malformed {
            path: self.path.clone(),
            what,
        }
    }
}

/// The bytes at `at`, zeros behind the end.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = at.checked_add(N).and_then(|end| bytes.get(at..end)) {
        out.copy_from_slice(found);
    }
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The string that starts at `offset`, without its end mark; empty outside of the table.
fn string_at(table: &[u8], offset: usize) -> &[u8] {
    let rest = table.get(offset..).unwrap_or_default();
    rest.split(|&b| b == 0).next().unwrap_or_default()
}

#[cfg(test)]
#[path = "object/tests.rs"]
pub(in crate::target) mod tests;
