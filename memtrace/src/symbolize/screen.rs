//! A look at DWARF before blazesym sees it: how deep it nests.
//!
//! blazesym follows functions inlined into each other by recursion. Real ones nest some dozens deep;
//! a file of some hundred KiB can nest them until the stack is gone, which ends the process and
//! cannot be caught. The walk here goes over the same entries in the same order, without recursion,
//! one unit at a time in memory.

use gimli::{DebugAbbrev, DebugInfo, EndianSlice, LittleEndian};

use crate::unwind::{Bytes, Section};

/// Entries nested deeper are no compiler's; real ones reach about 100.
const MAX_DEPTH: isize = 2048;
/// Bytes of one unit; the largest real ones (whole-program optimisation) take some hundred MiB.
const MAX_UNIT: u64 = 512 << 20;
/// Bytes of all abbreviations.
const MAX_ABBREVIATIONS: u64 = 128 << 20;

/// Whether debug information nests too deep, or is too large, to be read.
pub(super) fn is_dangerous(bytes: &Bytes, sections: &[Section]) -> bool {
    let section = |name: &[u8]| sections.iter().find(|s| s.name == name);
    let (Some(info), Some(abbrev)) = (section(b".debug_info"), section(b".debug_abbrev")) else {
        return false;
    };
    let Some(abbrev) = bytes.read(abbrev.offset, abbrev.size, MAX_ABBREVIATIONS) else {
        return true;
    };
    let mut at = 0;
    while let Some(size) = unit_size(bytes, info, at) {
        let Some(unit) = bytes.read(info.offset.saturating_add(at), size, MAX_UNIT) else {
            return true;
        };
        if nests_too_deep(&unit, &abbrev) {
            return true;
        }
        at = at.saturating_add(size);
    }
    false
}

/// Size of the unit at an offset with its length field; `None` at the end and where it is broken,
/// which ends the reading too.
fn unit_size(bytes: &Bytes, info: &Section, at: u64) -> Option<u64> {
    let mut head = [0; 12];
    let left = info.size.checked_sub(at)?;
    if left < head.len() as u64 || !bytes.read_into(info.offset.checked_add(at)?, &mut head) {
        return None;
    }
    let (short, long) = head.split_first_chunk::<4>()?;
    let size = match u32::from_le_bytes(*short) {
        0xffff_ffff => u64::from_le_bytes(*long.first_chunk::<8>()?).checked_add(12)?,
        short => u64::from(short) + 4,
    };
    (size <= left).then_some(size)
}

fn nests_too_deep(unit: &[u8], abbrev: &[u8]) -> bool {
    let abbrev = DebugAbbrev::from(EndianSlice::new(abbrev, LittleEndian));
    let mut units = DebugInfo::from(EndianSlice::new(unit, LittleEndian)).units();
    // What is broken ends the walk of its unit here, and the reading of it there.
    let Ok(Some(unit)) = units.next() else {
        return false;
    };
    let Ok(abbreviations) = unit.abbreviations(&abbrev) else {
        return false;
    };
    let Ok(mut entries) = unit.entries_raw(&abbreviations, None) else {
        return false;
    };
    while !entries.is_empty() {
        if entries.next_depth() > MAX_DEPTH {
            return true;
        }
        let Ok(entry) = entries.read_abbreviation() else {
            return false;
        };
        let attributes = entry.map(|entry| entry.attributes()).unwrap_or_default();
        if entries.skip_attributes(attributes).is_err() {
            return false;
        }
    }
    false
}
