//! ELF notes: the build id, and Go's mark.

use object::elf;

use super::{Object, u32_at};

/// Bytes of one note segment read at most.
const NOTES_CAP: u64 = 64 * 1024;
/// Length of a build id at most: the linker's are 8, 16 or 20 bytes, a hand-made one can be more.
const BUILD_ID_CAP: usize = 64;

/// What the notes told.
#[derive(Default)]
pub(super) struct Notes {
    pub build_id: Option<Vec<u8>>,
    pub go: bool,
}

/// Reads the note segments (they survive the stripping of section headers) and note sections.
pub(super) fn read(object: &Object) -> Notes {
    let segments = object
        .segments
        .iter()
        .filter(|s| s.kind == elf::PT_NOTE)
        .map(|s| (s.offset, s.file_size));
    let sections = object
        .sections
        .iter()
        .filter(|s| s.kind == elf::SHT_NOTE)
        .map(|s| (s.offset, s.size));
    let mut notes = Notes::default();
    for (offset, size) in segments.chain(sections).take(64) {
        if let Ok(bytes) = object.read_at(offset, size.min(NOTES_CAP)) {
            parse(&bytes, &mut notes);
        }
    }
    notes
}

/// Notes are `namesz descsz type name desc`, name and desc padded to 4 bytes.
fn parse(bytes: &[u8], notes: &mut Notes) {
    let mut rest = bytes;
    while let Some((header, body)) = rest.split_at_checked(12) {
        let name_size = u32_at(header, 0) as usize;
        let desc_size = u32_at(header, 4) as usize;
        let Some(name) = body.get(..name_size) else {
            return;
        };
        let Some(tail) = body.get(padded(name_size)..) else {
            return;
        };
        let Some(desc) = tail.get(..desc_size) else {
            return;
        };
        match (name, u32_at(header, 8)) {
            (b"GNU\0", elf::NT_GNU_BUILD_ID) if !desc.is_empty() && desc.len() <= BUILD_ID_CAP => {
                notes.build_id.get_or_insert_with(|| desc.to_vec());
            }
            (b"Go\0\0", _) => notes.go = true,
            _ => {}
        }
        let Some(next) = tail.get(padded(desc_size)..) else {
            return;
        };
        rest = next;
    }
}

fn padded(size: usize) -> usize {
    size.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, desc.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, desc] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// The build id is found behind another note, and Go's note is seen.
    #[test]
    fn build_id_and_go() {
        let mut bytes = note(b"GNU\0", 1, &[0; 16]);
        bytes.extend(note(b"GNU\0", elf::NT_GNU_BUILD_ID, &[1, 2, 3, 4, 5]));
        bytes.extend(note(b"Go\0\0", 4, b"abc"));
        let mut notes = Notes::default();
        parse(&bytes, &mut notes);
        assert_eq!(notes.build_id.as_deref(), Some(&[1, 2, 3, 4, 5][..]));
        assert!(notes.go);
    }

    proptest::proptest! {
        /// No bytes make the parser panic or loop.
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            parse(&bytes, &mut Notes::default());
        }
    }
}
