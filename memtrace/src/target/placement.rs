//! Where in a function its probe costs least.
//!
//! The kernel *emulates* some instructions at a probe and must *single-step* every other one out of
//! line, a second trap that makes the probe up to twenty times dearer (measured: 10,200 ns against
//! 580 ns for `free`). So a probe belongs on the first instruction that is emulated, as long as
//! everything that is read there is what it was at the entry: the arguments, the stack pointer, and
//! the return address where a return probe looks for it. Everything before that instruction is
//! straight-line code: jumps and calls are themselves emulated.

mod aarch64;
mod x86;

use memtrace_common::Function;

use crate::target::object::Machine;

/// Bytes of a function that are worth reading: jumps back into the first instructions come from
/// nearby.
pub const CODE_CAP: u64 = 16 * 1024;

/// How far behind the entry a probe is placed at most.
const DISTANCE_CAP: u64 = 128;

/// Where a probe goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Bytes behind the function's entry.
    pub offset: u64,
    /// How the arguments stand at that place. The function's own calling convention, except where
    /// its one argument was moved to another argument's register before: mimalloc's `malloc` has
    /// its size in the second register at its first jump, as if it were `Size1`.
    pub function: Function,
    /// The instruction there, in Intel's or Arm's syntax.
    pub instruction: String,
    /// True when the kernel emulates that instruction; else each hit costs a second trap.
    pub emulated: bool,
    /// Where the instruction jumps to when it is an unconditional jump: the function does nothing
    /// else, so a probe there sees every call of this one.
    pub jumps_to: Option<u64>,
    /// Why there, for people.
    pub reason: String,
}

/// Places the probe of a function whose code (all of it, or its first [`CODE_CAP`] bytes) stands
/// at `address`.
#[must_use]
pub fn place(machine: Machine, function: Function, code: &[u8], address: u64) -> Placement {
    match machine {
        Machine::X86_64 => x86::place(function, code, address),
        Machine::Aarch64 => aarch64::place(function, code, address),
    }
}

/// Which argument of the call each register holds.
#[derive(Clone, Debug)]
struct Registers {
    /// By register number.
    holds: [Option<u8>; 32],
    /// Numbers of the argument registers.
    arguments: [usize; 6],
    /// Their names.
    names: [&'static str; 6],
}

impl Registers {
    /// As at the entry.
    fn new(arguments: [usize; 6], names: [&'static str; 6]) -> Self {
        let mut holds = [None; 32];
        for (index, register) in (0..).zip(arguments) {
            if let Some(held) = holds.get_mut(register) {
                *held = Some(index);
            }
        }
        Self {
            holds,
            arguments,
            names,
        }
    }

    fn get(&self, register: usize) -> Option<u8> {
        self.holds.get(register).copied().flatten()
    }

    fn set(&mut self, register: usize, value: Option<u8>) {
        if let Some(held) = self.holds.get_mut(register) {
            *held = value;
        }
    }

    /// True when argument `index` still stands in its own register.
    fn intact(&self, index: u8) -> bool {
        self.arguments
            .get(usize::from(index))
            .is_some_and(|r| self.get(*r) == Some(index))
    }

    /// The calling convention that the kernel side can use here, or the register it would miss.
    fn convention(&self, function: Function) -> Result<Function, &'static str> {
        let name = |index: u8| {
            self.names
                .get(usize::from(index))
                .copied()
                .unwrap_or_default()
        };
        let (wanted, conventions) = match function {
            Function::Size0 => (0, SIZES),
            Function::Size1 => (1, SIZES),
            Function::Size2 => (2, SIZES),
            Function::Size3 => (3, SIZES),
            Function::Size4 => (4, SIZES),
            Function::Size5 => (5, SIZES),
            Function::Free0 => (0, FREES),
            Function::Free1 => (1, FREES),
            Function::Free2 => (2, FREES),
            Function::Free3 => (3, FREES),
            Function::Free4 => (4, FREES),
            Function::Free5 => (5, FREES),
            Function::Calloc | Function::Realloc => {
                let lost = (0..2).find(|index| !self.intact(*index));
                return lost.map_or(Ok(function), |index| Err(name(index)));
            }
            Function::ReallocArray | Function::PosixMemalign | Function::Xallocx => {
                let lost = (0..3).find(|index| !self.intact(*index));
                return lost.map_or(Ok(function), |index| Err(name(index)));
            }
        };
        if self.intact(wanted) {
            return Ok(function);
        }
        let moved = self.arguments.iter().zip(conventions);
        moved
            .filter(|(register, _)| self.get(**register) == Some(wanted))
            .map(|(_, convention)| convention)
            .next()
            .ok_or(name(wanted))
    }
}

const SIZES: [Function; 6] = [
    Function::Size0,
    Function::Size1,
    Function::Size2,
    Function::Size3,
    Function::Size4,
    Function::Size5,
];
const FREES: [Function; 6] = [
    Function::Free0,
    Function::Free1,
    Function::Free2,
    Function::Free3,
    Function::Free4,
    Function::Free5,
];

/// Why the search ended without an instruction that is emulated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    /// An argument register is overwritten.
    Argument(&'static str),
    /// The stack pointer moves.
    StackPointer,
    /// The return address register changes (aarch64).
    ReturnAddress,
    /// Control leaves by something that is not emulated.
    Leaves,
    /// An atomic operation: what follows may already be seen by other threads (R3).
    Atomic,
    /// An instruction that could not be decoded.
    Unknown,
    /// Nothing within reach.
    TooFar,
    /// A jump in the function leads to the place or between the entry and it.
    Reached(u64),
    /// No code was given.
    NoCode,
}

impl Obstacle {
    /// The reason for a probe at the entry that is single-stepped.
    fn reason(&self) -> String {
        let before = "before any instruction the kernel emulates";
        match self {
            Self::Argument(name) => format!("{name} changes {before}"),
            Self::StackPointer => format!("the stack pointer moves {before}"),
            Self::ReturnAddress => format!("the return address register changes {before}"),
            Self::Leaves => format!("the code leaves the straight line {before}"),
            Self::Atomic => format!("an atomic operation stands {before}"),
            Self::Unknown => format!("an instruction that is not understood stands {before}"),
            Self::TooFar => {
                format!("no instruction the kernel emulates in the first {DISTANCE_CAP} bytes")
            }
            Self::Reached(from) => {
                format!("the emulated instruction is also reached by a jump at +{from:#x}")
            }
            Self::NoCode => "the function's code cannot be read".to_owned(),
        }
    }
}

/// A place that was found.
struct Found {
    offset: u64,
    function: Function,
    instruction: String,
    jumps_to: Option<u64>,
}

/// The probe on the emulated instruction, or at the entry when there is none.
fn decide(function: Function, first: String, found: Result<Found, Obstacle>) -> Placement {
    match found {
        Err(obstacle) => Placement {
            offset: 0,
            function,
            instruction: first,
            emulated: false,
            jumps_to: None,
            reason: format!("single-stepped: {}", obstacle.reason()),
        },
        Ok(found) => {
            let reason = if found.offset == 0 {
                "the kernel emulates the first instruction"
            } else if found.function == function {
                "first instruction the kernel emulates; arguments and stack are still the caller's"
            } else {
                "first instruction the kernel emulates; the argument was moved to another's register"
            };
            Placement {
                offset: found.offset,
                function: found.function,
                instruction: found.instruction,
                emulated: true,
                jumps_to: found.jumps_to,
                reason: reason.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
