//! Placement on x86-64, decoded with iced-x86.
//!
//! What the kernel emulates (arch/x86/kernel/uprobes.c, `branch_setup_xol_ops` and
//! `push_setup_xol_ops`, the same from 5.10 to 6.18): `push` of a register without a prefix or with
//! REX.B alone (since 4.17), `nop` (90, with prefixes), `jmp rel`, `jcc rel` and `call rel` without
//! an operand size prefix. `endbr64` and the multi-byte `nop`s are single-stepped. Segment and lock
//! prefixes make the kernel refuse the probe.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, Instruction, InstructionInfoFactory,
    IntelFormatter, Mnemonic, OpAccess, OpKind, Register,
};

use memtrace_common::Function;

use super::{DISTANCE_CAP, Found, Obstacle, Placement, Registers, decide};

/// Numbers of the argument registers in their order.
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Their names.
const NAMES: [&str; 6] = ["rdi", "rsi", "rdx", "rcx", "r8", "r9"];

pub(super) fn place(function: Function, code: &[u8], address: u64) -> Placement {
    let found = search(function, code, address).and_then(|found| {
        let from = reached_by(code, address, found.offset);
        from.map_or(Ok(found), |from| Err(Obstacle::Reached(from)))
    });
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let first = if decoder.can_decode() {
        text(&decoder.decode())
    } else {
        String::new()
    };
    decide(function, first, found)
}

/// The first emulated instruction.
fn search(function: Function, code: &[u8], address: u64) -> Result<Found, Obstacle> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut factory = InstructionInfoFactory::new();
    let mut registers = Registers::new(ARGUMENTS, NAMES);
    if !decoder.can_decode() {
        return Err(Obstacle::NoCode);
    }
    while decoder.can_decode() {
        let offset = decoder.ip().wrapping_sub(address);
        if offset > DISTANCE_CAP {
            return Err(Obstacle::TooFar);
        }
        let start = decoder.position();
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err(Obstacle::Unknown);
        }
        if is_emulated(code.get(start..decoder.position()).unwrap_or_default()) {
            let function = registers.convention(function).map_err(Obstacle::Argument)?;
            let jumps = matches!(instruction.code(), Code::Jmp_rel8_64 | Code::Jmp_rel32_64);
            let jumps_to = jumps.then(|| instruction.near_branch_target());
            return Ok(Found {
                offset,
                function,
                instruction: text(&instruction),
                jumps_to,
            });
        }
        follow(&mut factory, &mut registers, &instruction)?;
    }
    Err(Obstacle::Leaves)
}

/// Keeps account of what an instruction changes; some end the search.
fn follow(
    factory: &mut InstructionInfoFactory,
    registers: &mut Registers,
    instruction: &Instruction,
) -> Result<(), Obstacle> {
    if instruction.flow_control() != FlowControl::Next {
        return Err(Obstacle::Leaves);
    }
    let exchanges = instruction.mnemonic() == Mnemonic::Xchg
        && (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    if instruction.has_lock_prefix() || exchanges {
        return Err(Obstacle::Atomic);
    }
    let copied = match instruction.code() {
        Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => {
            registers.get(instruction.op1_register().number())
        }
        _ => None,
    };
    for used in factory.info(instruction).used_registers() {
        let writes = matches!(
            used.access(),
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        );
        let register = used.register().full_register();
        if !writes || !register.is_gpr64() {
            continue;
        }
        if register == Register::RSP {
            return Err(Obstacle::StackPointer);
        }
        registers.set(register.number(), copied);
    }
    Ok(())
}

/// True when the kernel emulates the instruction with these bytes.
fn is_emulated(bytes: &[u8]) -> bool {
    // `bnd` (f2) is the only prefix of a branch that is surely accepted.
    let branch = bytes.strip_prefix(&[0xf2]).unwrap_or(bytes);
    matches!(
        bytes,
        [0x50..=0x57] | [0x41, 0x50..=0x57] | [0x90] | [0x66, 0x90]
    ) || matches!(branch, [0xeb | 0x70..=0x7f, _])
        || matches!(branch, [0xe9 | 0xe8, _, _, _, _])
        || matches!(branch, [0x0f, 0x80..=0x8f, _, _, _, _])
}

/// Offset of a jump or call of the function that leads behind the entry, up to the place.
fn reached_by(code: &[u8], address: u64, offset: u64) -> Option<u64> {
    if offset == 0 {
        return None;
    }
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let near =
            (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::NearBranch64);
        if near && (1..=offset).contains(&instruction.near_branch_target().wrapping_sub(address)) {
            return Some(instruction.ip().wrapping_sub(address));
        }
    }
    None
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_space_after_operand_separator(true);
    formatter.format(instruction, &mut text);
    text
}
