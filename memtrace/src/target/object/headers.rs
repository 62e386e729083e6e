//! Reading an object's headers. Offsets and counts in them are claims.

use object::elf;

use super::{
    Machine, Object, ObjectError, Section, Segment, notes, string_at, u16_at, u32_at, u64_at,
};
use crate::target::printable;

/// Program headers read at most; real files have about a dozen.
const SEGMENTS_CAP: usize = 1024;
/// Section headers read at most; real files have a few dozen, with `-ffunction-sections` objects
/// (which are not mapped) thousands.
const SECTIONS_CAP: usize = 65_536;
/// Bytes of the dynamic section, and of the section name table, read at most.
const SMALL_CAP: u64 = 1 << 20;

/// Bytes of one name in the dynamic string table.
const NAME_CAP: u64 = 512;

pub(super) fn find(entries: &[(i64, u64)], tag: i64) -> Option<u64> {
    entries
        .iter()
        .find(|(t, _)| *t == tag)
        .map(|(_, value)| *value)
}

/// Size of `Elf64_Ehdr`.
const HEADER_SIZE: u64 = 64;
/// Size of `Elf64_Phdr`.
pub(super) const SEGMENT_SIZE: usize = 56;
/// Size of `Elf64_Shdr`.
pub(super) const SECTION_SIZE: usize = 64;

/// What is used of `Elf64_Ehdr`.
struct Header {
    segments: u64,
    sections: u64,
    segment_size: u16,
    segment_count: u16,
    section_size: u16,
    section_count: u16,
    names: u16,
}

/// An `Elf64_Shdr`, still without its name.
fn section(header: &[u8]) -> Section {
    Section {
        name: String::new(),
        kind: u32_at(header, 4),
        flags: u64_at(header, 8),
        address: u64_at(header, 16),
        offset: u64_at(header, 24),
        size: u64_at(header, 32),
        link: u32_at(header, 40),
    }
}

impl Object {
    /// Fills in everything that the headers tell.
    pub(super) fn read_headers(&mut self) -> Result<(), ObjectError> {
        let header = self.read_header()?;
        self.read_segments(&header)?;
        self.read_sections(&header);
        self.read_notes();
        self.read_dynamic();
        Ok(())
    }

    fn read_header(&mut self) -> Result<Header, ObjectError> {
        if self.length < HEADER_SIZE {
            return Err(ObjectError::NotElf {
                path: self.path.clone(),
            });
        }
        let bytes = self.read_at(0, HEADER_SIZE)?;
        let (Some(b"\x7fELF"), Some(&class), Some(&data)) =
            (bytes.get(..4), bytes.get(4), bytes.get(5))
        else {
            return Err(ObjectError::NotElf {
                path: self.path.clone(),
            });
        };
        let unsupported = |found: &str| ObjectError::Unsupported {
            path: self.path.clone(),
            found: found.into(),
        };
        if class != elf::ELFCLASS64 {
            return Err(unsupported("a 32-bit object"));
        }
        if data != elf::ELFDATA2LSB {
            return Err(unsupported("a big-endian object"));
        }
        self.machine = match u16_at(&bytes, 18) {
            elf::EM_X86_64 => Machine::X86_64,
            elf::EM_AARCH64 => Machine::Aarch64,
            other => return Err(unsupported(&format!("for machine number {other}"))),
        };
        self.fixed_address = match u16_at(&bytes, 16) {
            elf::ET_EXEC => true,
            elf::ET_DYN => false,
            _ => return Err(unsupported("neither a program nor a shared object")),
        };
        Ok(Header {
            segments: u64_at(&bytes, 32),
            sections: u64_at(&bytes, 40),
            segment_size: u16_at(&bytes, 54),
            segment_count: u16_at(&bytes, 56),
            section_size: u16_at(&bytes, 58),
            section_count: u16_at(&bytes, 60),
            names: u16_at(&bytes, 62),
        })
    }

    fn read_segments(&mut self, header: &Header) -> Result<(), ObjectError> {
        let count = usize::from(header.segment_count);
        if count > SEGMENTS_CAP {
            return Err(self.malformed("too many program headers"));
        }
        if count > 0 && usize::from(header.segment_size) != SEGMENT_SIZE {
            return Err(self.malformed("size of the program headers"));
        }
        let bytes = self.read_at(header.segments, (count * SEGMENT_SIZE) as u64)?;
        self.segments = bytes
            .chunks_exact(SEGMENT_SIZE)
            .map(|h| Segment {
                kind: u32_at(h, 0),
                flags: u32_at(h, 4),
                offset: u64_at(h, 8),
                address: u64_at(h, 16),
                file_size: u64_at(h, 32),
                memory_size: u64_at(h, 40),
            })
            .collect();
        Ok(())
    }

    /// Sections are optional: a stripped or broken table leaves none, and the program headers and
    /// the dynamic section still tell what is needed at run time.
    fn read_sections(&mut self, header: &Header) {
        if header.sections == 0 || usize::from(header.section_size) != SECTION_SIZE {
            return;
        }
        let Ok(first) = self.read_at(header.sections, SECTION_SIZE as u64) else {
            return;
        };
        let first = section(&first);
        // Counts that do not fit 16 bits are kept in the first header.
        let count = match header.section_count {
            0 => usize::try_from(first.size).unwrap_or(usize::MAX),
            n => usize::from(n),
        };
        let names = match header.names {
            elf::SHN_XINDEX => first.link as usize,
            n => usize::from(n),
        };
        if count > SECTIONS_CAP {
            return;
        }
        let Ok(bytes) = self.read_at(header.sections, (count * SECTION_SIZE) as u64) else {
            return;
        };
        let headers = bytes.chunks_exact(SECTION_SIZE);
        let mut sections: Vec<Section> = headers.clone().map(section).collect();
        let names = sections
            .get(names)
            .filter(|s| s.size <= SMALL_CAP)
            .and_then(|s| self.read_at(s.offset, s.size).ok())
            .unwrap_or_default();
        for (section, header) in sections.iter_mut().zip(headers) {
            let name = string_at(&names, u32_at(header, 0) as usize);
            section.name = String::from_utf8_lossy(name).into_owned();
        }
        self.sections = sections;
    }

    fn read_notes(&mut self) {
        let notes = notes::read(self);
        self.build_id = notes.build_id;
        self.go = notes.go
            || [
                ".note.go.buildid",
                ".gopclntab",
                ".go.buildinfo",
                ".data.rel.ro.gopclntab",
            ]
            .iter()
            .any(|name| self.section(name).is_some());
    }

    /// The dynamic section's entries, up to its end mark.
    pub(super) fn dynamic(&self) -> Vec<(i64, u64)> {
        let Some(segment) = self.program_header(elf::PT_DYNAMIC) else {
            return Vec::new();
        };
        let size = segment.file_size.min(SMALL_CAP) / 16 * 16;
        let Ok(bytes) = self.read_at(segment.offset, size) else {
            return Vec::new();
        };
        bytes
            .chunks_exact(16)
            .map(|d| (u64_at(d, 0).cast_signed(), u64_at(d, 8)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
            .collect()
    }

    fn read_dynamic(&mut self) {
        /// Libraries named at most.
        const NEEDED_CAP: usize = 1024;
        let entries = self.dynamic();
        let Some(strings) = find(&entries, elf::DT_STRTAB).and_then(|a| self.offset_of(a)) else {
            return;
        };
        let text = |at: u64| -> Option<String> {
            let offset = strings.checked_add(at)?;
            let length = self.length.saturating_sub(offset).min(NAME_CAP);
            let bytes = self.read_at(offset, length).ok()?;
            Some(printable(string_at(&bytes, 0)))
        };
        let needed = entries.iter().filter(|(tag, _)| *tag == elf::DT_NEEDED);
        let needed = needed
            .filter_map(|(_, at)| text(*at))
            .take(NEEDED_CAP)
            .collect();
        let soname = find(&entries, elf::DT_SONAME).and_then(text);
        self.needed = needed;
        self.soname = soname;
    }
}
