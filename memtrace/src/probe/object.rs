//! The kernel object as built, and what must be changed in it before loading.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::ProbeError;

/// The object's bytes.
const BYTES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memtrace.bpf.o"));

/// Offset of the flags in a map definition: type, key size, value size, entries come before.
const FLAGS_OFFSET: u64 = 16;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// Maps that allocate on demand where the kernel can do so safely.
const ON_DEMAND: [&str; 4] = ["LIVE", "CONTEXTS", "THREADS", "KNOWN"];

/// The object for this kernel. The flags of a map cannot be set when loading, so they are
/// changed in the definition.
pub(super) fn for_kernel(maps_on_demand: bool) -> Result<Vec<u8>, ProbeError> {
    let mut bytes = BYTES.to_vec();
    if maps_on_demand {
        return Ok(bytes);
    }
    for name in ON_DEMAND {
        let place = flags_of(name).ok_or(ProbeError::Missing(name))?;
        let word = bytes
            .get_mut(place..place + 4)
            .ok_or(ProbeError::Missing(name))?;
        let flags = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) & !NO_PREALLOC;
        word.copy_from_slice(&flags.to_ne_bytes());
    }
    Ok(bytes)
}

/// File offset of a map's flags.
fn flags_of(name: &str) -> Option<usize> {
    let file = object::File::parse(BYTES).ok()?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let (start, size) = section.file_range()?;
    let place = start + symbol.address() + FLAGS_OFFSET;
    (place + 4 <= start + size).then_some(usize::try_from(place).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every on-demand map is found in the object, has the flag, and loses it for old kernels.
    #[test]
    fn flags_are_cleared_for_old_kernels() {
        let old = for_kernel(false).expect("patchable object");
        for name in ON_DEMAND {
            let place = flags_of(name).expect("map is in the object");
            assert_eq!(BYTES[place] & 1, 1, "{name} allocates on demand as built");
            assert_eq!(old[place] & 1, 0, "{name} is preallocated for old kernels");
        }
    }

    /// Every program at a uprobe that needs a stack has a jump to another program: without one, kernels
    /// from 6.13 on let such programs write over each other's stacks where they can be preempted.
    #[test]
    fn programs_at_uprobes_keep_the_threads_stack() {
        const TAIL_CALL: [u8; 8] = [0x85, 0, 0, 0, 12, 0, 0, 0];
        let file = object::File::parse(BYTES).expect("an object");
        let mut seen = 0;
        for section in file.sections() {
            let kind = section.name().expect("a name");
            if !matches!(kind, "uprobe" | "uretprobe") {
                continue;
            }
            let code = section.data().expect("code");
            let programs = file.symbols().filter(|symbol| {
                symbol.section_index() == Some(section.index()) && symbol.size() > 0
            });
            for program in programs {
                let name = program.name().expect("a name");
                let (start, size) = (program.address(), program.size());
                let range = usize::try_from(start).expect("small")..;
                let code = &code[range][..usize::try_from(size).expect("small")];
                let mut instructions = code.as_chunks::<8>().0.iter();
                let jumps = instructions.any(|instruction| *instruction == TAIL_CALL);
                assert!(jumps || name.starts_with("empty"), "{name} has no jump");
                seen += 1;
            }
        }
        assert!(seen >= 20, "{seen} programs");
    }
}
