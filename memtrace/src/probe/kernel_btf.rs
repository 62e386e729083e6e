//! One function's place in the kernel's type information (BTF).
//!
//! Attaching to a kernel function takes the number of its type and nothing else. Reading all types
//! into structures takes 100 ms, finding one by its name a few.

use std::fs;

use aya::{Btf, Endianness};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Larger ones are not believed: a distribution's is 5 to 8 MiB.
const MAX_BYTES: u64 = 64 << 20;

const HEADER_BYTES: usize = 24;
/// `struct btf_type`.
const TYPE_BYTES: usize = 12;
const KIND_POINTER: u32 = 2;
const KIND_FUNCTION: u32 = 12;

/// Type information in which this function stands at its number in the kernel's, and everything
/// before it is a stand-in. Nothing when the kernel has none or no such function.
pub(super) fn with_only(function: &str) -> Option<Btf> {
    if fs::metadata(VMLINUX).ok()?.len() > MAX_BYTES {
        return None;
    }
    let number = number_of(&fs::read(VMLINUX).ok()?, function)?;
    Btf::parse(&stand_in(function, number), Endianness::default()).ok()
}

/// The number of a function's type.
fn number_of(btf: &[u8], function: &str) -> Option<usize> {
    let header_bytes = word(btf, 4)? as usize;
    let section = |offset: usize, length: usize| {
        let start = header_bytes.checked_add(word(btf, offset)? as usize)?;
        btf.get(start..start.checked_add(word(btf, length)? as usize)?)
    };
    let (types, strings) = (section(8, 12)?, section(16, 20)?);
    let name = offset_of(strings, function.as_bytes())?;
    let (mut at, mut number) = (0, 1);
    while at < types.len() {
        let info = word(types, at + 4)?;
        let kind = info >> 24 & 0x1f;
        if kind == KIND_FUNCTION && word(types, at)? as usize == name {
            return Some(number);
        }
        at += TYPE_BYTES + bytes_behind(kind, (info & 0xffff) as usize)?;
        number += 1;
    }
    None
}

/// Offset of a string in a section of strings that each end with a zero.
fn offset_of(strings: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut at = 0;
    for string in strings.split(|byte| *byte == 0) {
        if string == wanted {
            return Some(at);
        }
        at += string.len() + 1;
    }
    None
}

/// Bytes that follow a `struct btf_type`, by its kind and number of members; none for kinds that
/// this was not written for.
fn bytes_behind(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => members * 12,
        // ENUM, FUNC_PROTO
        6 | 13 => members * 8,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Type information of `number` types: pointers to nothing, the last one the function.
fn stand_in(function: &str, number: usize) -> Vec<u8> {
    let strings = [b"\0", function.as_bytes(), b"\0"].concat();
    let types_bytes = number * TYPE_BYTES;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + types_bytes + strings.len());
    let mut push = |words: &[u32]| {
        for word in words {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
    };
    // Magic and version; then the header's length, and offset and length of types and strings.
    push(&[0x0001_eb9f, HEADER_BYTES as u32, 0, types_bytes as u32]);
    push(&[types_bytes as u32, strings.len() as u32]);
    for _ in 1..number {
        push(&[0, KIND_POINTER << 24, 0]);
    }
    push(&[1, KIND_FUNCTION << 24, 0]);
    bytes.extend_from_slice(&strings);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function is found again at its number; what is not there is not found.
    #[test]
    fn stand_in_keeps_the_number() {
        for number in [1, 2, 1000] {
            let bytes = stand_in("security_mmap_file", number);
            assert_eq!(number_of(&bytes, "security_mmap_file"), Some(number));
            assert_eq!(number_of(&bytes, "security_mmap"), None);
            assert!(Btf::parse(&bytes, Endianness::default()).is_ok());
        }
    }

    /// Cut-off bytes give nothing and do no harm.
    #[test]
    fn survives_cut_off_bytes() {
        let bytes = stand_in("f", 3);
        for length in 0..bytes.len() {
            let _ = number_of(&bytes[..length], "f");
        }
    }
}
