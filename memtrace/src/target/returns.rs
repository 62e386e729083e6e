//! Where a function returns: its return instructions, to be probed one by one.
//!
//! A return probe puts the kernel's trampoline in the place of the return address, and an exception
//! that is thrown through it finds no caller there: the program is terminated (R25). C++'s
//! `operator new` throws. So functions that can throw have their return instructions probed, which
//! costs a second trap each time, and writes nothing to the stack. They are found by following the
//! function's jumps, also those that leave it: allocators jump to their slow paths. x86-64 only; on
//! aarch64 the return probe stays, as the address it replaces is in a register.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};

use super::object::{Machine, Object, Wanted};

/// Instructions followed at most.
const MAX_INSTRUCTIONS: usize = 20_000;
/// Return instructions probed at most.
const MAX_RETURNS: usize = 48;
/// Bytes read at once.
const CHUNK: u64 = 512;

/// Functions that do not come back, called at the ends of others.
const NEVER_RETURN: &[&str] = &[
    "__cxa_throw",
    "__cxa_rethrow",
    "__cxa_throw_bad_array_new_length",
    "_Unwind_Resume",
    "_ZSt17__throw_bad_allocv",
    "_ZSt28__throw_bad_array_new_lengthv",
    "_ZSt9terminatev",
    "__clang_call_terminate",
    "__stack_chk_fail",
    "abort",
    "exit",
    "_exit",
];

/// Why the return instructions are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReturnsError {
    /// A jump through a register or a table.
    #[error("jump to an unknown place at {0:#x}")]
    UnknownJump(u64),
    /// A jump into another object.
    #[error("jump to {0} in another object")]
    Leaves(String),
    /// Bytes that are no instruction, or none at all.
    #[error("no code at {0:#x}")]
    NoCode(u64),
    /// More code than is followed.
    #[error("too much code")]
    TooMuch,
    /// It ends in no return at all.
    #[error("none found")]
    Nothing,
}

/// Whether a function by this name can throw.
pub(super) fn may_throw(name: &str) -> bool {
    /// Allocators' own functions that do as `operator new`.
    const OWN: &[&str] = &[
        "tc_new",
        "tc_newarray",
        "tc_new_aligned",
        "tc_newarray_aligned",
        "mi_new",
        "mi_new_n",
        "mi_new_aligned",
        "mi_new_realloc",
        "mi_new_reallocn",
        "mi_heap_alloc_new",
        "mi_heap_alloc_new_n",
    ];
    let operator = name.starts_with("_Znw") || name.starts_with("_Zna");
    // Any other C++ function is the user's own: who knows.
    (name.starts_with("_Z") && !(operator && name.contains("RKSt9nothrow_t")))
        || OWN.contains(&name)
}

/// File offsets of the instructions that the function at an address returns with.
pub(super) fn find(object: &Object, address: u64) -> Result<Vec<u64>, ReturnsError> {
    if object.machine() != Machine::X86_64 {
        return Ok(Vec::new());
    }
    let places = Walk {
        object,
        seen: BTreeSet::new(),
        open: vec![address],
        returns: BTreeSet::new(),
    }
    .run()?;
    let offsets: Option<Vec<u64>> = places.iter().map(|at| object.offset_of(*at)).collect();
    match offsets {
        Some(offsets) if !offsets.is_empty() => Ok(offsets),
        _ => Err(ReturnsError::Nothing),
    }
}

struct Walk<'a> {
    object: &'a Object,
    seen: BTreeSet<u64>,
    open: Vec<u64>,
    returns: BTreeSet<u64>,
}

impl Walk<'_> {
    fn run(mut self) -> Result<BTreeSet<u64>, ReturnsError> {
        while let Some(start) = self.open.pop() {
            self.follow(start)?;
        }
        Ok(self.returns)
    }

    /// Follows straight-line code up to its end, or to where it was followed before.
    fn follow(&mut self, start: u64) -> Result<(), ReturnsError> {
        let mut at = start;
        loop {
            let code = self.read(at).ok_or(ReturnsError::NoCode(at))?;
            let mut decoder = Decoder::with_ip(64, &code, at, DecoderOptions::NONE);
            let chunk = at;
            while decoder.can_decode() {
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    // Cut off at the end of the chunk: read on from there.
                    break;
                }
                if !self.seen.insert(instruction.ip()) {
                    return Ok(());
                }
                if self.seen.len() > MAX_INSTRUCTIONS || self.returns.len() > MAX_RETURNS {
                    return Err(ReturnsError::TooMuch);
                }
                at = instruction.next_ip();
                if !self.step(&instruction)? {
                    return Ok(());
                }
            }
            if at == chunk {
                return Err(ReturnsError::NoCode(at));
            }
        }
    }

    /// Bytes of code; less than a chunk at the end of a segment.
    fn read(&self, address: u64) -> Option<Vec<u8>> {
        let mut length = CHUNK;
        while length > 0 {
            if let Ok(code) = self.object.read_address(address, length)
                && !code.is_empty()
            {
                return self.object.is_code(address).then_some(code);
            }
            length /= 2;
        }
        None
    }

    /// True when the next instruction follows.
    fn step(&mut self, instruction: &Instruction) -> Result<bool, ReturnsError> {
        let ip = instruction.ip();
        Ok(match instruction.flow_control() {
            FlowControl::Next | FlowControl::IndirectCall => true,
            FlowControl::Call => {
                let name = self.object.plt_target(instruction.near_branch_target());
                !name.is_some_and(|name| NEVER_RETURN.contains(&name.as_str()))
            }
            FlowControl::ConditionalBranch => {
                self.open.push(instruction.near_branch_target());
                true
            }
            FlowControl::UnconditionalBranch => {
                self.jump(instruction.near_branch_target())?;
                false
            }
            FlowControl::Return => {
                if !matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16) {
                    return Err(ReturnsError::UnknownJump(ip));
                }
                self.returns.insert(ip);
                false
            }
            FlowControl::IndirectBranch => return Err(ReturnsError::UnknownJump(ip)),
            _ => false,
        })
    }

    /// A jump for good: within the object, or to one of its functions by the linkage table.
    fn jump(&mut self, to: u64) -> Result<(), ReturnsError> {
        let Some(name) = self.object.plt_target(to) else {
            self.open.push(to);
            return Ok(());
        };
        if NEVER_RETURN.contains(&name.as_str()) {
            return Ok(());
        }
        let found = self.object.find_symbols(&Wanted::names([name.as_str()]));
        let symbol = found
            .ok()
            .and_then(|found| found.symbols.into_iter().find(|s| s.name == name));
        match symbol {
            Some(symbol) => self.open.push(symbol.address),
            None => return Err(ReturnsError::Leaves(name)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C++'s throwing forms and allocators' own; malloc and the nothrow forms cannot.
    #[test]
    fn who_can_throw() {
        for name in [
            "_Znwm",
            "_ZnamSt11align_val_t",
            "_Znwm12__hot_cold_t",
            "tc_new",
            "mi_new_n",
            "_ZN4pool4takeEm",
        ] {
            assert!(may_throw(name), "{name}");
        }
        for name in [
            "malloc",
            "_ZnwmRKSt9nothrow_t",
            "_ZnamSt11align_val_tRKSt9nothrow_t",
            "tc_new_nothrow",
            "mi_new_nothrow",
        ] {
            assert!(!may_throw(name), "{name}");
        }
    }

    /// Debian's allocators, where they are installed: every throwing operator new has its return
    /// instructions found, and each is one.
    #[test]
    fn real_libraries() {
        for library in [
            "libjemalloc.so.2",
            "libtcmalloc_minimal.so.4",
            "libmimalloc.so.2.0",
            "libstdc++.so.6",
        ] {
            let path = format!("/usr/lib/x86_64-linux-gnu/{library}");
            let Ok(object) = Object::open(path.as_ref()) else {
                continue;
            };
            let names = ["_Znwm", "_Znam", "_ZnwmSt11align_val_t"];
            for symbol in object.find_symbols(&Wanted::names(names)).unwrap().symbols {
                let found = find(&object, symbol.address)
                    .unwrap_or_else(|error| panic!("{library} {}: {error}", symbol.name));
                for offset in found {
                    let bytes = object.read_at(offset, 3).unwrap();
                    let ret = matches!(bytes[..], [0xc3, ..] | [0xf3 | 0xf2, 0xc3, _] | [0xc2, ..]);
                    assert!(ret, "{library} {}: {bytes:x?} at {offset:#x}", symbol.name);
                }
            }
        }
    }
}
