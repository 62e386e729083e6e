//! Placement on aarch64, decoded by hand.
//!
//! What the kernel simulates (arch/arm64/kernel/probes/decode-insn.c, 5.10 to 6.18): `b`, `bl`,
//! `b.cond`, `br`, `blr`, `ret`, `cbz`, `cbnz`, `tbz`, `tbnz`, `adr`, `adrp`. `nop` is simulated
//! since 6.13 only and `ldr` from a literal is refused since 6.12, so neither is a place. A return
//! probe replaces the link register, so that must still be the caller's and unsigned: the search
//! ends at `paciasp`.

use memtrace_common::Function;

use super::{DISTANCE_CAP, Found, Obstacle, Placement, Registers, decide};

/// The argument registers' names.
const NAMES: [&str; 6] = ["x0", "x1", "x2", "x3", "x4", "x5"];
/// Number of the link register.
const LINK: u32 = 30;
/// Number that means the stack pointer in some places and zero in others.
const STACK_OR_ZERO: u32 = 31;

pub(super) fn place(function: Function, code: &[u8], address: u64) -> Placement {
    let first = words(code)
        .next()
        .map_or_else(String::new, |w| text(w, address));
    let found = search(function, code, address).and_then(|found| {
        let from = reached_by(code, found.offset);
        from.map_or(Ok(found), |from| Err(Obstacle::Reached(from)))
    });
    decide(function, first, found)
}

fn words(code: &[u8]) -> impl Iterator<Item = u32> {
    code.as_chunks()
        .0
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

/// The first simulated instruction.
fn search(function: Function, code: &[u8], address: u64) -> Result<Found, Obstacle> {
    let mut registers = Registers::new([0, 1, 2, 3, 4, 5], NAMES);
    let mut empty = true;
    for (offset, word) in (0_u64..).step_by(4).zip(words(code)) {
        empty = false;
        if offset > DISTANCE_CAP {
            return Err(Obstacle::TooFar);
        }
        if is_simulated(word) {
            let function = registers.convention(function).map_err(Obstacle::Argument)?;
            let instruction = text(word, address.wrapping_add(offset));
            let jumps_to = match kind_of_branch(word) {
                Some(Branch::Direct("b", bits, position)) => {
                    let here = address.wrapping_add(offset);
                    Some(here.wrapping_add_signed(distance(word, bits, position)))
                }
                _ => None,
            };
            return Ok(Found {
                offset,
                function,
                instruction,
                jumps_to,
            });
        }
        let copied = copied_register(word).and_then(|source| registers.get(source));
        for effect in effects(word)?.into_iter().flatten() {
            match effect {
                Effect::StackPointer => return Err(Obstacle::StackPointer),
                Effect::Register(LINK) => return Err(Obstacle::ReturnAddress),
                Effect::Register(STACK_OR_ZERO) => {}
                Effect::Register(number) => registers.set(number as usize, copied),
            }
        }
    }
    Err(if empty {
        Obstacle::NoCode
    } else {
        Obstacle::Leaves
    })
}

/// The source of `mov xd, xm`.
fn copied_register(word: u32) -> Option<usize> {
    let source = (word >> 16) & 0x1f;
    (word & 0xffe0_ffe0 == 0xaa00_03e0 && source != STACK_OR_ZERO).then_some(source as usize)
}

fn is_simulated(word: u32) -> bool {
    kind_of_branch(word).is_some() || is_adr(word)
}

/// `adr`, `adrp`.
fn is_adr(word: u32) -> bool {
    word & 0x1f00_0000 == 0x1000_0000
}

/// Branches the kernel simulates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    /// Bits and position of the word offset, and a name.
    Direct(&'static str, u32, u32),
    /// To a register.
    Register(&'static str),
}

fn kind_of_branch(word: u32) -> Option<Branch> {
    match word {
        w if w & 0xfc00_0000 == 0x1400_0000 => Some(Branch::Direct("b", 26, 0)),
        w if w & 0xfc00_0000 == 0x9400_0000 => Some(Branch::Direct("bl", 26, 0)),
        w if w & 0xff00_0010 == 0x5400_0000 => Some(Branch::Direct("b.cond", 19, 5)),
        w if w & 0x7f00_0000 == 0x3400_0000 => Some(Branch::Direct("cbz", 19, 5)),
        w if w & 0x7f00_0000 == 0x3500_0000 => Some(Branch::Direct("cbnz", 19, 5)),
        w if w & 0x7f00_0000 == 0x3600_0000 => Some(Branch::Direct("tbz", 14, 5)),
        w if w & 0x7f00_0000 == 0x3700_0000 => Some(Branch::Direct("tbnz", 14, 5)),
        w if w & 0xffff_fc1f == 0xd61f_0000 => Some(Branch::Register("br")),
        w if w & 0xffff_fc1f == 0xd63f_0000 => Some(Branch::Register("blr")),
        w if w & 0xffff_fc1f == 0xd65f_0000 => Some(Branch::Register("ret")),
        _ => None,
    }
}

/// Distance in bytes that a direct branch goes.
fn distance(word: u32, bits: u32, position: u32) -> i64 {
    let field = i64::from((word >> position) & ((1 << bits) - 1));
    // Sign-extended, in words of four bytes.
    (field << (64 - bits)) >> (64 - bits) << 2
}

/// Offset of a branch of the function that leads behind the entry, up to the place.
fn reached_by(code: &[u8], offset: u64) -> Option<u64> {
    let window = 1..=i64::try_from(offset).ok()?;
    (0_i64..)
        .step_by(4)
        .zip(words(code))
        .find_map(|(at, word)| {
            let Some(Branch::Direct(_, bits, position)) = kind_of_branch(word) else {
                return None;
            };
            let target = at.checked_add(distance(word, bits, position))?;
            if window.contains(&target) {
                u64::try_from(at).ok()
            } else {
                None
            }
        })
}

/// A register that an instruction overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// A general register; 31 is the zero register.
    Register(u32),
    /// The stack pointer.
    StackPointer,
}

impl Effect {
    /// A register field in which 31 means the stack pointer.
    fn or_stack(number: u32) -> Self {
        if number == STACK_OR_ZERO {
            Self::StackPointer
        } else {
            Self::Register(number)
        }
    }
}

/// Up to three registers.
type Effects = [Option<Effect>; 3];

/// What an instruction that is not simulated overwrites; what is not surely known is an obstacle.
fn effects(word: u32) -> Result<Effects, Obstacle> {
    let destination = word & 0x1f;
    let one = |effect| Ok([Some(effect), None, None]);
    match (word >> 25) & 0xf {
        // Data processing with an immediate.
        0b1000 | 0b1001 => {
            let flags_set = word & 0x2000_0000 != 0;
            let arithmetic = word & 0x1f80_0000 == 0x1100_0000 || word & 0x1fc0_0000 == 0x1180_0000;
            let logical = word & 0x1f80_0000 == 0x1200_0000;
            let sets_only_flags = word & 0x6000_0000 == 0x6000_0000;
            if (arithmetic && !flags_set) || (logical && !sets_only_flags) {
                return one(Effect::or_stack(destination));
            }
            one(Effect::Register(destination))
        }
        // Data processing with registers.
        0b0101 | 0b1101 => {
            let extended_add = word & 0x3fe0_0000 == 0x0b20_0000;
            let conditional_compare = word & 0x3fe0_0000 == 0x3a40_0000;
            if extended_add {
                one(Effect::or_stack(destination))
            } else if conditional_compare {
                Ok([None; 3])
            } else {
                one(Effect::Register(destination))
            }
        }
        // Loads and stores.
        0b0100 | 0b0110 | 0b1100 | 0b1110 => memory_effects(word),
        // Floating point and SIMD: some write a general register in the same field.
        0b0111 | 0b1111 => one(Effect::Register(destination)),
        // System instructions; the branches are simulated.
        0b1010 | 0b1011 => system_effects(word),
        _ => Err(Obstacle::Unknown),
    }
}

fn system_effects(word: u32) -> Result<Effects, Obstacle> {
    match word {
        // nop, and all forms of bti.
        0xd503_201f => Ok([None; 3]),
        w if w & 0xffff_ff3f == 0xd503_241f => Ok([None; 3]),
        // paciasp, pacibsp, paciaz, pacibz sign the link register, xpaclri strips it.
        0xd503_233f | 0xd503_237f | 0xd503_231f | 0xd503_235f | 0xd503_20ff => {
            Err(Obstacle::ReturnAddress)
        }
        // mrs (the thread pointer).
        w if w & 0xfff0_0000 == 0xd530_0000 => {
            Ok([Some(Effect::Register(word & 0x1f)), None, None])
        }
        // svc, brk, hlt, …
        w if w & 0xff00_0000 == 0xd400_0000 => Err(Obstacle::Leaves),
        _ => Err(Obstacle::Unknown),
    }
}

fn memory_effects(word: u32) -> Result<Effects, Obstacle> {
    let vector = word & (1 << 26) != 0;
    let first = word & 0x1f;
    let base = (word >> 5) & 0x1f;
    // Pairs: opc 101 V mode L imm7 Rt2 Rn Rt; modes 1 and 3 write the base back.
    if word & 0x3a00_0000 == 0x2800_0000 {
        let loads = word & (1 << 22) != 0 && !vector;
        let writes_back = word & (1 << 23) != 0;
        return Ok([
            loads.then_some(Effect::Register(first)),
            loads.then_some(Effect::Register((word >> 10) & 0x1f)),
            writes_back.then(|| Effect::or_stack(base)),
        ]);
    }
    let loads = word & 0x00c0_0000 != 0 && !vector;
    let loaded = loads.then_some(Effect::Register(first));
    // Unsigned offset.
    if word & 0x3b00_0000 == 0x3900_0000 {
        return Ok([loaded, None, None]);
    }
    // Unscaled (00), post-index (01), unprivileged (10), pre-index (11).
    if word & 0x3b20_0000 == 0x3800_0000 {
        let writes_back = word & 0x400 != 0;
        return Ok([loaded, writes_back.then(|| Effect::or_stack(base)), None]);
    }
    // Register offset.
    if word & 0x3b20_0c00 == 0x3820_0800 {
        return Ok([loaded, None, None]);
    }
    // Literals.
    if word & 0x3b00_0000 == 0x1800_0000 {
        return Ok([(!vector).then_some(Effect::Register(first)), None, None]);
    }
    // Exclusives, acquire and release, atomics, structure loads.
    Err(Obstacle::Atomic)
}

/// Enough of Arm's syntax to recognize the instruction.
fn text(word: u32, address: u64) -> String {
    match kind_of_branch(word) {
        Some(Branch::Direct(name, bits, position)) => {
            let target = address.wrapping_add_signed(distance(word, bits, position));
            format!("{name} {target:#x}")
        }
        Some(Branch::Register("ret")) => "ret".to_owned(),
        Some(Branch::Register(name)) => format!("{name} x{}", (word >> 5) & 0x1f),
        None if is_adr(word) => {
            let name = if word >> 31 == 1 { "adrp" } else { "adr" };
            format!("{name} x{}", word & 0x1f)
        }
        None => match word {
            0xd503_201f => "nop".to_owned(),
            0xd503_233f => "paciasp".to_owned(),
            w if w & 0xffff_ff3f == 0xd503_241f => "bti".to_owned(),
            w => format!(".inst {w:#010x}"),
        },
    }
}
