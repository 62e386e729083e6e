//! Which function a stub of the procedure linkage table leads to.

use object::elf;

use super::headers::find;
use super::{Machine, Object, string_at, u32_at, u64_at};

/// Bytes of one relocation table read at most.
const TABLE_CAP: u64 = 16 << 20;
/// Size of `Elf64_Rela`.
const ENTRY_SIZE: usize = 24;
/// Longest name.
const NAME_CAP: u64 = 256;

impl Object {
    /// Name of the dynamic symbol that the stub at an address jumps to through the global offset
    /// table (x86-64 only; on aarch64 nothing is found).
    #[must_use]
    pub fn plt_target(&self, address: u64) -> Option<String> {
        if self.machine != Machine::X86_64 {
            return None;
        }
        let slot = slot_of(&self.read_address(address, 16).ok()?, address)?;
        let entries = self.dynamic();
        let tables = [
            (elf::DT_JMPREL, elf::DT_PLTRELSZ),
            (elf::DT_RELA, elf::DT_RELASZ),
        ];
        let symbol = tables.iter().find_map(|(start, size)| {
            let offset = self.offset_of(find(&entries, *start)?)?;
            let size = find(&entries, *size)?.min(TABLE_CAP);
            let table = self.read_at(offset, size).ok()?;
            let mut found = table
                .chunks_exact(ENTRY_SIZE)
                .filter(|e| u64_at(e, 0) == slot);
            found.next().map(|entry| u64_at(entry, 8) >> 32)
        })?;
        let symbols = self.offset_of(find(&entries, elf::DT_SYMTAB)?)?;
        let entry = self
            .read_at(symbols.checked_add(symbol.checked_mul(24)?)?, 24)
            .ok()?;
        let strings = self.offset_of(find(&entries, elf::DT_STRTAB)?)?;
        let name = strings.checked_add(u64::from(u32_at(&entry, 0)))?;
        let length = self.file_length().saturating_sub(name).min(NAME_CAP);
        let bytes = self.read_at(name, length).ok()?;
        String::from_utf8(string_at(&bytes, 0).to_vec())
            .ok()
            .filter(|n| !n.is_empty())
    }
}

/// The slot in `[endbr64] [bnd] jmp [rip + displacement]`.
fn slot_of(stub: &[u8], address: u64) -> Option<u64> {
    let rest = stub.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(stub);
    let rest = rest.strip_prefix(&[0xf2]).unwrap_or(rest);
    let displacement = rest.strip_prefix(&[0xff, 0x25])?;
    let end = stub.len() - displacement.len() + 4;
    let displacement = u32_at(displacement, 0).cast_signed();
    Some(
        address
            .wrapping_add(end as u64)
            .wrapping_add_signed(displacement.into()),
    )
}

#[cfg(test)]
mod tests {
    use super::slot_of;

    /// The three forms of stubs that linkers write, and something else.
    #[test]
    fn stubs() {
        let jump = [0xff, 0x25, 0x0a, 0, 0, 0, 0x68, 0, 0, 0, 0];
        assert_eq!(slot_of(&jump, 0x1000), Some(0x1010));
        let cet = [
            0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf0, 0xff, 0xff, 0xff,
        ];
        assert_eq!(slot_of(&cet, 0x1000), Some(0x1000 + 11 - 16));
        assert_eq!(slot_of(&[0xe9, 0, 0, 0, 0], 0x1000), None);
        assert_eq!(slot_of(&[], 0x1000), None);
    }
}
