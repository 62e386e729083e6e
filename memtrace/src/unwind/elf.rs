//! What is read of an ELF file: headers, segments, sections, build id. Every read is bounded.
//!
//! The bytes come from a target and are hostile: nothing here is mapped (a file that is truncated
//! while mapped raises SIGBUS), nothing is allocated that the file is not long enough to fill, and
//! a broken file is a value.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use object::elf;

/// Program headers looked at; real files have about a dozen.
const MAX_SEGMENTS: u16 = 256;
/// Section headers looked at; real linked files have about forty.
const MAX_SECTIONS: u32 = 8192;
/// Bytes of section names.
const MAX_SECTION_NAMES: u64 = 1 << 20;
/// Bytes of one note segment.
const MAX_NOTES: u64 = 64 << 10;

/// Where an object's bytes are.
#[derive(Debug)]
pub enum Bytes {
    /// A regular file, kept open: it can be read after it was deleted or its container is gone.
    File {
        /// The file.
        file: File,
        /// Its length when it was opened.
        len: u64,
    },
    /// Bytes that have no file: the vDSO.
    Memory(Arc<[u8]>),
}

impl Bytes {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// True for an empty file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` from `offset`; false when there are not that many bytes.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> bool {
        match self {
            Self::File { file, .. } => file.read_exact_at(out, offset).is_ok(),
            Self::Memory(bytes) => {
                let Ok(start) = usize::try_from(offset) else {
                    return false;
                };
                let Some(end) = start.checked_add(out.len()) else {
                    return false;
                };
                let Some(part) = bytes.get(start..end) else {
                    return false;
                };
                out.copy_from_slice(part);
                true
            }
        }
    }

    /// Exactly `len` bytes at `offset`; `None` when there are fewer or more than `cap` were asked for.
    pub fn read(&self, offset: u64, len: u64, cap: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(len)?;
        if len > cap || end > self.len() {
            return None;
        }
        let mut out = vec![0; usize::try_from(len).ok()?];
        self.read_into(offset, &mut out).then_some(out)
    }
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address as the file states it.
    pub address: u64,
    /// Offset of its bytes in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Holds code.
    pub executable: bool,
}

/// A section header with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name.
    pub name: Vec<u8>,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Address as the file states it; 0 when not loaded.
    pub address: u64,
    /// Offset of its bytes in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Where the header itself is in the file.
    pub header_offset: u64,
}

impl Section {
    /// True when the section's bytes are in the file as they are in memory.
    pub fn has_plain_bytes(&self) -> bool {
        self.kind != elf::SHT_NOBITS && self.flags & u64::from(elf::SHF_COMPRESSED) == 0
    }

    /// Stated addresses.
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// 32-bit, or another byte order.
    #[error("not a 64-bit little-endian ELF file")]
    OtherClass,
    /// Headers point outside of the file or make no sense.
    #[error("broken ELF headers")]
    Broken,
}

/// An object's layout: how offsets in its file relate to the addresses it states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `e_machine`.
    pub machine: u16,
    /// Loaded segments in the file's order.
    pub segments: Vec<Segment>,
    /// Address and size of `.eh_frame_hdr`, by `PT_GNU_EH_FRAME`.
    pub eh_frame_hdr: Option<Range<u64>>,
    /// Build id, lower-case hex.
    pub build_id: Option<String>,
    sections_at: u64,
    section_count: u16,
    section_names: u16,
}

impl Layout {
    /// Reads the headers, program headers and notes.
    pub fn read(bytes: &Bytes) -> Result<Self, ElfError> {
        let mut header = [0; 64];
        if !bytes.read_into(0, &mut header) || header[..4] != elf::ELFMAG {
            return Err(ElfError::NotElf);
        }
        if header[4] != elf::ELFCLASS64 || header[5] != elf::ELFDATA2LSB {
            return Err(ElfError::OtherClass);
        }
        let field = Fields(&header);
        let mut layout = Self {
            machine: field.u16(18),
            segments: Vec::new(),
            eh_frame_hdr: None,
            build_id: None,
            sections_at: field.u64(40),
            section_count: field.u16(60),
            section_names: field.u16(62),
        };
        let count = field.u16(56).min(MAX_SEGMENTS);
        if field.u16(54) != 56 && count > 0 {
            return Err(ElfError::Broken);
        }
        let table = bytes
            .read(
                field.u64(32),
                u64::from(count) * 56,
                u64::from(MAX_SEGMENTS) * 56,
            )
            .ok_or(ElfError::Broken)?;
        for entry in table.chunks_exact(56) {
            layout.add_program_header(bytes, &Fields(entry));
        }
        if layout.build_id.is_none() {
            layout.build_id = layout.build_id_by_section(bytes);
        }
        Ok(layout)
    }

    fn add_program_header(&mut self, bytes: &Bytes, entry: &Fields<'_>) {
        let (offset, address) = (entry.u64(8), entry.u64(16));
        let (file_size, memory_size) = (entry.u64(32), entry.u64(40));
        match entry.u32(0) {
            elf::PT_LOAD => self.segments.push(Segment {
                address,
                offset,
                file_size,
                memory_size,
                executable: entry.u32(4) & elf::PF_X != 0,
            }),
            elf::PT_GNU_EH_FRAME => {
                self.eh_frame_hdr = address.checked_add(file_size).map(|end| address..end);
            }
            elf::PT_NOTE if self.build_id.is_none() => {
                self.build_id = bytes
                    .read(offset, file_size, MAX_NOTES)
                    .and_then(|n| build_id(&n));
            }
            _ => {}
        }
    }

    /// Some separate debug files have notes but no segment that says so.
    fn build_id_by_section(&self, bytes: &Bytes) -> Option<String> {
        let sections = self.sections(bytes);
        let note = sections.iter().find(|s| s.name == b".note.gnu.build-id")?;
        build_id(&bytes.read(note.offset, note.size, MAX_NOTES)?)
    }

    /// The section headers; empty when the file has none or they are broken.
    pub fn sections(&self, bytes: &Bytes) -> Vec<Section> {
        self.try_sections(bytes).unwrap_or_default()
    }

    fn try_sections(&self, bytes: &Bytes) -> Option<Vec<Section>> {
        if self.sections_at == 0 {
            return None;
        }
        let first = bytes.read(self.sections_at, 64, 64)?;
        // With 65,280 sections or more the counts move into the first header.
        let count = match self.section_count {
            0 => u32::try_from(Fields(&first).u64(32)).ok()?,
            n => u32::from(n),
        };
        let names_index = match self.section_names {
            0xffff => Fields(&first).u32(40),
            n => u32::from(n),
        };
        let count = count.min(MAX_SECTIONS);
        let size = u64::from(count) * 64;
        let table = bytes.read(self.sections_at, size, size)?;
        let header = |index: usize| table.get(index * 64..index * 64 + 64).map(Fields);
        let names = header(usize::try_from(names_index).ok()?)?;
        let names = bytes.read(names.u64(24), names.u64(32), MAX_SECTION_NAMES)?;
        let section = |(index, raw): (usize, &[u8])| {
            let field = Fields(raw);
            let name = names.get(usize::try_from(field.u32(0)).ok()?..)?;
            Some(Section {
                name: name.split(|b| *b == 0).next()?.to_vec(),
                kind: field.u32(4),
                flags: field.u64(8),
                address: field.u64(16),
                offset: field.u64(24),
                size: field.u64(32),
                header_offset: self.sections_at + index as u64 * 64,
            })
        };
        Some(
            table
                .chunks_exact(64)
                .enumerate()
                .filter_map(section)
                .collect(),
        )
    }

    /// The stated address of the byte at `offset` of the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.address_of_range(offset, 1)
    }

    /// The stated address of a mapping of `len` bytes that begins at `offset` of the file.
    ///
    /// Mappings begin at whole pages, segments need not: with lld the page that an executable
    /// segment begins in ends the segment before it, at another address. So it is the executable
    /// segment with the largest part in the mapping that counts.
    pub fn address_of_range(&self, offset: u64, len: u64) -> Option<u64> {
        let end = offset.saturating_add(len);
        let part = |s: &Segment| {
            let segment_end = s.offset.saturating_add(s.file_size);
            segment_end.min(end).saturating_sub(s.offset.max(offset))
        };
        let best = self
            .segments
            .iter()
            .max_by_key(|s| (s.executable && part(s) > 0, part(s)))?;
        (part(best) > 0).then(|| best.address.wrapping_sub(best.offset).wrapping_add(offset))
    }

    /// The offset in the file of the byte at a stated address, and how many bytes follow in its segment.
    pub fn offset_of(&self, address: u64) -> Option<(u64, u64)> {
        let holds = |s: &&Segment| address >= s.address && address - s.address < s.file_size;
        let segment = self.segments.iter().find(holds)?;
        let into = address - segment.address;
        Some((segment.offset.checked_add(into)?, segment.file_size - into))
    }

    /// The addresses the object covers when loaded.
    pub fn span(&self) -> Option<Range<u64>> {
        let start = self.segments.iter().map(|s| s.address).min()?;
        let end = self
            .segments
            .iter()
            .map(|s| s.address.saturating_add(s.memory_size))
            .max()?;
        (start < end).then_some(start..end)
    }
}

/// The GNU build id in a note segment.
fn build_id(notes: &[u8]) -> Option<String> {
    let mut rest = notes;
    while rest.len() >= 12 {
        let field = Fields(rest);
        let (name_len, desc_len) = (field.u32(0) as usize, field.u32(4) as usize);
        let name_end = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let desc_end = name_end.checked_add(desc_len)?;
        let desc = rest.get(name_end..desc_end)?;
        if field.u32(8) == elf::NT_GNU_BUILD_ID && rest.get(12..12 + name_len)? == b"GNU\0" {
            let sane = (4..=64).contains(&desc.len());
            return sane.then(|| desc.iter().map(|b| format!("{b:02x}")).collect());
        }
        rest = rest.get(desc_end.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// Little-endian fields of a header whose size was checked; 0 outside of it.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0
            .get(at..at + N)
            .and_then(|b| b.try_into().ok())
            .unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}
