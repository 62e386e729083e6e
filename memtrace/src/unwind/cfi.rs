//! An object's call frame information, copied out of its file: `.eh_frame` with a search table,
//! and `.debug_frame` for what the first does not cover.

use std::ops::Range;
use std::sync::Arc;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian, UnwindSection,
};
use object::elf;

use super::elf::{Layout, Section};
use super::module::ModuleFile;

/// How gimli reads a section.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Entries indexed of one section; Chromium has about 700,000.
const MAX_ENTRIES: usize = 4 << 20;
/// Encodings of the table that is built where the linker made none: absolute eight bytes for the
/// pointer and relative to the table's own address, signed four bytes, for its rows.
const BUILT_HEADER: [u8; 4] = [1, 0x04, 0x03, 0x3b];

/// Why an object gives no unwind information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCfi {
    /// Not a 64-bit ELF file of this machine, or headers that make no sense.
    NotUsable,
    /// Neither `.eh_frame` nor `.debug_frame`.
    Absent,
    /// Larger than the cap for one object.
    TooLarge,
}

/// `.eh_frame` and its search table.
#[derive(Debug)]
pub(super) struct EhTables {
    pub eh_frame: Arc<[u8]>,
    pub header: Arc<[u8]>,
    pub eh_frame_at: Range<u64>,
    pub header_at: Range<u64>,
    pub bases: BaseAddresses,
}

/// `.debug_frame` and an index of it.
#[derive(Debug)]
pub(super) struct DebugTables {
    pub data: Box<[u8]>,
    /// Start address and offset of each entry, sorted.
    pub index: Box<[(u64, u32)]>,
    pub bases: BaseAddresses,
}

/// The unwind tables of one object.
#[derive(Debug)]
pub(super) struct Cfi {
    /// Stated addresses of the whole object.
    pub span: Range<u64>,
    pub eh: Option<EhTables>,
    pub debug: Option<DebugTables>,
}

impl Cfi {
    /// Reads an object's tables; at most `cap` bytes.
    pub fn load(module: &ModuleFile, cap: u64) -> Result<Self, NoCfi> {
        let layout = module.layout().map_err(|_| NoCfi::NotUsable)?;
        let span = layout.span().ok_or(NoCfi::NotUsable)?;
        if layout.machine != MACHINE || span.end - span.start > u64::from(u32::MAX) {
            return Err(NoCfi::NotUsable);
        }
        let sections = layout.sections(module.bytes());
        let loader = Loader {
            module,
            layout,
            sections: &sections,
            cap,
        };
        let eh = loader.eh_tables(&span)?;
        let debug = loader.debug_tables()?;
        if eh.is_none() && debug.is_none() {
            return Err(NoCfi::Absent);
        }
        Ok(Self { span, eh, debug })
    }

    /// Bytes held.
    pub fn size(&self) -> u64 {
        let eh = self
            .eh
            .as_ref()
            .map_or(0, |t| t.eh_frame.len() + t.header.len());
        let debug = self
            .debug
            .as_ref()
            .map_or(0, |t| t.data.len() + t.index.len() * 16);
        (eh + debug) as u64
    }
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64;

/// A section's bytes and their stated addresses.
type Placed = (Range<u64>, Vec<u8>);

struct Loader<'a> {
    module: &'a ModuleFile,
    layout: &'a Layout,
    sections: &'a [Section],
    cap: u64,
}

impl Loader<'_> {
    fn section(&self, name: &[u8]) -> Option<&Section> {
        self.sections
            .iter()
            .find(|s| s.name == name && s.has_plain_bytes() && s.size > 0)
    }

    /// Bytes at an offset, capped; a file that is too short has no such section.
    fn read(&self, offset: u64, len: u64) -> Result<Option<Vec<u8>>, NoCfi> {
        if len > self.cap {
            return Err(NoCfi::TooLarge);
        }
        Ok(self.module.bytes().read(offset, len, self.cap))
    }

    fn eh_tables(&self, span: &Range<u64>) -> Result<Option<EhTables>, NoCfi> {
        let header = self.header()?;
        let mut bases = BaseAddresses::default();
        if let Some(text) = self.section(b".text") {
            bases = bases.set_text(text.address);
        }
        if let Some(got) = self.section(b".got") {
            bases = bases.set_got(got.address);
        }
        if let Some((at, _)) = &header {
            bases = bases.set_eh_frame_hdr(at.start);
        }
        let Some((at, eh_frame)) = self.eh_frame(header.as_ref(), &bases)? else {
            return Ok(None);
        };
        let bases = bases.set_eh_frame(at.start);
        let good = header.filter(|(_, bytes)| has_table(bytes, &bases));
        let (header_at, header) = match good {
            Some((at, bytes)) => (at, bytes),
            None => (
                span.start..span.start,
                build_header(&eh_frame, &at, span.start, &bases),
            ),
        };
        let bases = bases.set_eh_frame_hdr(header_at.start);
        Ok(Some(EhTables {
            eh_frame: eh_frame.into(),
            header: header.into(),
            eh_frame_at: at,
            header_at,
            bases,
        }))
    }

    fn header(&self) -> Result<Option<Placed>, NoCfi> {
        let by_section = self.section(b".eh_frame_hdr").map(Section::addresses);
        let Some(at) = self.layout.eh_frame_hdr.clone().or(by_section) else {
            return Ok(None);
        };
        let Some((offset, room)) = self.layout.offset_of(at.start) else {
            return Ok(None);
        };
        let len = (at.end - at.start).min(room);
        Ok(self.read(offset, len)?.map(|bytes| (at, bytes)))
    }

    /// `.eh_frame` by its section header, else from where the search table says it begins.
    fn eh_frame(
        &self,
        header: Option<&Placed>,
        bases: &BaseAddresses,
    ) -> Result<Option<Placed>, NoCfi> {
        if let Some(section) = self.section(b".eh_frame")
            && let Some(bytes) = self.read(section.offset, section.size)?
        {
            return Ok(Some((section.addresses(), bytes)));
        }
        let Some((_, header)) = header else {
            return Ok(None);
        };
        let parsed = gimli::EhFrameHdr::new(header, LittleEndian).parse(bases, 8);
        let Ok(start) = parsed.and_then(|h| h.eh_frame_ptr().direct()) else {
            return Ok(None);
        };
        let Some((offset, room)) = self.layout.offset_of(start) else {
            return Ok(None);
        };
        // Without section headers only its terminator says where it ends.
        let Some(mut bytes) = self.read(offset, room.min(self.cap))? else {
            return Ok(None);
        };
        bytes.truncate(terminated_len(&bytes));
        bytes.shrink_to_fit();
        Ok(Some((
            start..start.saturating_add(bytes.len() as u64),
            bytes,
        )))
    }

    fn debug_tables(&self) -> Result<Option<DebugTables>, NoCfi> {
        let Some(section) = self.section(b".debug_frame") else {
            return Ok(None);
        };
        let Some(data) = self.read(section.offset, section.size)? else {
            return Ok(None);
        };
        let bases = BaseAddresses::default();
        let mut frame = DebugFrame::new(&data, LittleEndian);
        frame.set_address_size(8);
        let index = index_of(&frame, &bases);
        Ok(Some(DebugTables {
            data: data.into(),
            index: index.into(),
            bases,
        }))
    }
}

fn has_table(header: &[u8], bases: &BaseAddresses) -> bool {
    gimli::EhFrameHdr::new(header, LittleEndian)
        .parse(bases, 8)
        .is_ok_and(|parsed| parsed.table().is_some())
}

/// Length up to and with the zero word that ends `.eh_frame`, or up to what does not fit.
fn terminated_len(bytes: &[u8]) -> usize {
    let mut at = 0usize;
    while let Some(word) = bytes.get(at..at + 4) {
        let len = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize;
        let next = at + 4 + len;
        if len == 0 || len == 0xffff_ffff || next > bytes.len() {
            return if len == 0 { at + 4 } else { at };
        }
        at = next;
    }
    at
}

/// Start and section offset of every entry that can be read, sorted; stops at the first broken one.
fn index_of<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
) -> Vec<(u64, u32)> {
    let mut index = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(fde) = partial.parse(S::cie_from_offset) else {
            continue;
        };
        let Ok(offset) = u32::try_from(fde.offset()) else {
            break;
        };
        // Entries of removed functions are left at address 0.
        if fde.initial_address() != 0 && !fde.is_empty_range() {
            index.push((fde.initial_address(), offset));
        }
        if index.len() >= MAX_ENTRIES {
            break;
        }
    }
    index.sort_unstable();
    index.shrink_to_fit();
    index
}

trait EmptyRange {
    fn is_empty_range(&self) -> bool;
}

impl EmptyRange for gimli::FrameDescriptionEntry<Slice<'_>> {
    fn is_empty_range(&self) -> bool {
        self.len() == 0
    }
}

/// The search table that the linker did not make, stated to lie at `base`.
fn build_header(eh_frame: &[u8], at: &Range<u64>, base: u64, bases: &BaseAddresses) -> Vec<u8> {
    let mut frame = EhFrame::new(eh_frame, LittleEndian);
    frame.set_address_size(8);
    let relative = |address: u64| i32::try_from(address.wrapping_sub(base).cast_signed()).ok();
    let rows: Vec<_> = index_of(&frame, bases)
        .into_iter()
        .filter_map(|(start, offset)| {
            let entry = at.start.checked_add(u64::from(offset))?;
            Some((relative(start)?, relative(entry)?))
        })
        .collect();
    let mut header = Vec::with_capacity(16 + rows.len() * 8);
    header.extend_from_slice(&BUILT_HEADER);
    header.extend_from_slice(&at.start.to_le_bytes());
    header.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(0).to_le_bytes());
    for (start, entry) in rows {
        header.extend_from_slice(&start.to_le_bytes());
        header.extend_from_slice(&entry.to_le_bytes());
    }
    header
}
