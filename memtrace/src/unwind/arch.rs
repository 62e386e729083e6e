//! What differs between x86-64 and aarch64: registers, plain rules, calls as they look in memory.

use framehop::Unwinder as _;
use gimli::Register;

use super::RawStack;

/// The registers that unwinding needs, in the caller-to-be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    pub ip: u64,
    pub sp: u64,
    pub fp: u64,
    /// Link register; not used on x86-64.
    pub lr: u64,
}

/// A plain row of the unwind table: no expression, only offsets. Offsets are from the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlainRow {
    pub cfa_register: Register,
    pub cfa_offset: i64,
    /// Where the caller's frame pointer is; `None` when it is unchanged or lost.
    pub fp: Option<i64>,
    /// Where the return address is; `None` when it is still in the link register.
    pub ra: Option<i64>,
}

/// The unwinder of one frame.
#[derive(Default)]
pub(super) struct Framehop {
    unwinder: framehop::UnwinderNative<std::sync::Arc<[u8]>, framehop::MayAllocateDuringUnwind>,
    cache: framehop::CacheNative<framehop::MayAllocateDuringUnwind>,
}

impl Framehop {
    pub fn add(&mut self, module: framehop::Module<std::sync::Arc<[u8]>>) {
        self.unwinder.add_module(module);
        self.forget();
    }

    pub fn remove(&mut self, start: u64) {
        self.unwinder.remove_module(start);
        self.forget();
    }

    /// A new cache with every change of the modules: framehop's own check of stale rules counts
    /// changes in 16 bits, which a node with short-lived processes wraps.
    pub fn forget(&mut self) {
        self.cache = Default::default();
    }

    /// Steps one frame; `code` is where the frame's code lies in framehop's modules.
    pub fn step(
        &mut self,
        code: u64,
        exact: bool,
        registers: &mut Registers,
        mask: u64,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, framehop::Error> {
        let address = match exact {
            true => framehop::FrameAddress::from_instruction_pointer(code),
            // The caller passes the return address minus one; framehop subtracts it itself.
            false => framehop::FrameAddress::from_return_address(code + 1)
                .ok_or(framehop::Error::ReturnAddressIsNull)?,
        };
        let mut native = registers.to_framehop(mask);
        let found = self
            .unwinder
            .unwind_frame(address, &mut native, &mut self.cache, read)?;
        if let Some(return_address) = found {
            registers.take_framehop(&native);
            registers.ip = return_address;
        }
        Ok(found)
    }
}

#[cfg(target_arch = "x86_64")]
mod native {
    use framehop::x86_64::UnwindRegsX86_64;

    use super::*;

    pub const SP: Register = gimli::X86_64::RSP;
    pub const FP: Register = gimli::X86_64::RBP;
    pub const RA: Register = gimli::X86_64::RA;
    /// Bytes of code that tell whether a call ends there.
    pub const CALL_BYTES: usize = 7;

    impl Registers {
        pub fn to_framehop(self, _mask: u64) -> UnwindRegsX86_64 {
            UnwindRegsX86_64::new(self.ip, self.sp, self.fp)
        }

        pub fn take_framehop(&mut self, native: &UnwindRegsX86_64) {
            self.sp = native.sp();
            self.fp = native.bp();
        }

        /// Makes `address` what the function returns to.
        pub fn set_return(&mut self, address: u64) {
            self.ip = address;
        }

        /// The stack pointer when the function just left was entered.
        pub fn entry_sp(&self) -> u64 {
            self.sp.wrapping_sub(8)
        }

        pub fn by_number(&self, register: Register) -> Option<u64> {
            match register {
                RA => Some(self.ip),
                SP => Some(self.sp),
                FP => Some(self.fp),
                _ => None,
            }
        }
    }

    /// True when framehop turns this row into a rule that it can cache. For all others it reads
    /// the stack while it evaluates, and when a read fails because the copy ended it remembers the
    /// frame-pointer rule for that address.
    pub fn is_cacheable(row: &PlainRow) -> bool {
        let fits =
            |offset: i64| offset % 8 == 0 && i16::try_from((row.cfa_offset + offset) / 8).is_ok();
        let sized = row.cfa_offset % 8 == 0 && u16::try_from(row.cfa_offset / 8).is_ok();
        row.ra == Some(-8)
            && sized
            && match row.cfa_register {
                SP => row.cfa_offset >= 8 && row.fp.is_none_or(fits),
                FP => row.cfa_offset == 16 && row.fp == Some(-16),
                _ => false,
            }
    }

    /// Whether a call instruction ends with `code`'s last byte: `call rel32` or `call r/m64`.
    pub fn ends_with_call(code: &[u8]) -> bool {
        let Some(code) = code.last_chunk::<7>() else {
            return false;
        };
        let group5 = |at: usize, len: usize| {
            let modrm = code[at + 1];
            code[at] == 0xff && modrm >> 3 & 7 == 2 && indirect_len(modrm, code.get(at + 2)) == len
        };
        code[2] == 0xe8 || (2..=7).any(|len| group5(7 - len, len))
    }

    /// Length of `ff /2` with this ModRM byte, without a REX prefix.
    fn indirect_len(modrm: u8, sib: Option<&u8>) -> usize {
        let has_sib = modrm >> 6 != 3 && modrm & 7 == 4;
        let no_base = has_sib && sib.is_some_and(|sib| sib & 7 == 5);
        let displacement = match (modrm >> 6, modrm & 7) {
            (0, 5) => 4,
            (0, _) if no_base => 4,
            (1, _) => 1,
            (2, _) => 4,
            _ => 0,
        };
        2 + usize::from(has_sib) + displacement
    }

    /// How far a direct call at the end of `code` goes, from the address it returns to.
    pub fn call_distance(code: &[u8; CALL_BYTES]) -> Option<i64> {
        let [_, _, 0xe8, distance @ ..] = *code else {
            return None;
        };
        Some(i64::from(i32::from_le_bytes(distance)))
    }

    /// Where `code` last does `push %rbp; mov %rsp, %rbp`.
    pub fn last_prologue(code: &[u8]) -> Option<usize> {
        let sets_frame =
            |w: &[u8]| matches!(w, [0x55, 0x48, 0x89, 0xe5] | [0x55, 0x48, 0x8b, 0xec]);
        code.windows(4).rposition(sets_frame)
    }

    /// Whether a function ends in `code`: padding by `int3`, or by long no-ops behind a return.
    pub fn has_function_end(code: &[u8]) -> bool {
        let ends = |w: &[u8]| {
            matches!(
                w,
                [0xcc, 0xcc, ..]
                    | [0xc3, 0x66, 0x66 | 0x2e | 0x0f, ..]
                    | [0xc3, 0x0f, 0x1f, ..]
                    | [0xc3, 0x90, 0x90, ..]
                    | [0xc3, 0x55, 0x48, ..]
                    | [0xc3, 0xf3, 0x0f, 0x1e]
            )
        };
        code.windows(4).any(ends)
    }

    /// Whether `code` goes on as `exit(main(…))` does: musl's start code, which has no unwind
    /// information, hands main's result over and calls exit.
    pub fn is_exit_of_result(code: &[u8]) -> bool {
        matches!(code, [0x89, 0xc7, 0xe8, ..])
    }

    /// Where a function that was just entered returns to: the word at the stack pointer.
    pub fn return_at_entry(
        registers: &Registers,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<Registers> {
        let ip = read(registers.sp).ok()?;
        Some(Registers {
            ip,
            sp: registers.sp.checked_add(8)?,
            ..*registers
        })
    }
}

#[cfg(target_arch = "aarch64")]
mod native {
    use framehop::aarch64::{PtrAuthMask, UnwindRegsAarch64};

    use super::*;

    pub const SP: Register = gimli::AArch64::SP;
    pub const FP: Register = gimli::AArch64::X29;
    pub const RA: Register = gimli::AArch64::X30;
    /// Bytes of code that tell whether a call ends there.
    pub const CALL_BYTES: usize = 4;

    impl Registers {
        pub fn to_framehop(self, mask: u64) -> UnwindRegsAarch64 {
            UnwindRegsAarch64::new_with_ptr_auth_mask(PtrAuthMask(mask), self.lr, self.sp, self.fp)
        }

        pub fn take_framehop(&mut self, native: &UnwindRegsAarch64) {
            self.sp = native.sp();
            self.fp = native.fp();
            self.lr = native.lr();
        }

        /// Makes `address` what the function returns to.
        pub fn set_return(&mut self, address: u64) {
            self.ip = address;
            self.lr = address;
        }

        /// The stack pointer when the function just left was entered.
        pub fn entry_sp(&self) -> u64 {
            self.sp
        }

        pub fn by_number(&self, register: Register) -> Option<u64> {
            match register {
                SP => Some(self.sp),
                FP => Some(self.fp),
                RA => Some(self.lr),
                _ => None,
            }
        }
    }

    /// True when framehop turns this row into a rule that it can cache (see the x86-64 one).
    pub fn is_cacheable(row: &PlainRow) -> bool {
        let fits =
            |offset: i64| offset % 8 == 0 && i16::try_from((row.cfa_offset + offset) / 8).is_ok();
        match (row.cfa_register, row.fp, row.ra) {
            (SP, fp, ra) => {
                row.cfa_offset % 16 == 0
                    && u16::try_from(row.cfa_offset / 16).is_ok()
                    && (fp.is_none() || ra.is_some())
                    && fp.is_none_or(fits)
                    && ra.is_none_or(fits)
            }
            (FP, Some(fp), Some(ra)) => {
                row.cfa_offset % 8 == 0
                    && u16::try_from(row.cfa_offset / 8).is_ok()
                    && fits(fp)
                    && fits(ra)
            }
            _ => false,
        }
    }

    /// Whether a call instruction ends with `code`'s last byte: `bl`, `blr`, `blraa` and the like.
    pub fn ends_with_call(code: &[u8]) -> bool {
        let Some(code) = code.last_chunk::<4>() else {
            return false;
        };
        let word = u32::from_le_bytes(*code);
        word >> 26 == 0b10_0101
            || word & 0xffff_fc1f == 0xd63f_0000
            || word & 0xfeff_f800 == 0xd63f_0800
    }

    /// How far a direct call at the end of `code` goes, from the address it returns to.
    pub fn call_distance(code: &[u8; CALL_BYTES]) -> Option<i64> {
        let word = u32::from_le_bytes(*code);
        // Twenty-six bits, signed, in words, from the call itself.
        let distance = (word << 6).cast_signed() >> 4;
        (word >> 26 == 0b10_0101).then_some(i64::from(distance) - 4)
    }

    /// Where `code` last does `stp x29, x30, [sp, …]`.
    pub fn last_prologue(code: &[u8]) -> Option<usize> {
        let stores = |w: &[u8]| {
            let word = u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
            word & 0xfe40_7fff == 0xa800_7bfd
        };
        code.chunks_exact(4).rposition(stores).map(|at| at * 4)
    }

    /// Whether a function ends in `code`: a return with a function's beginning or padding behind it.
    pub fn has_function_end(code: &[u8]) -> bool {
        let word = |w: &[u8]| u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
        let words: Vec<u32> = code.chunks_exact(4).map(word).collect();
        let starts = |w: u32| matches!(w, 0 | 0xd503_201f | 0xd503_233f | 0xd503_245f);
        words
            .windows(2)
            .any(|w| w[0] == 0xd65f_03c0 && starts(w[1]))
    }

    /// Here two calls behind each other look like `exit(main(…))`: only a frame pointer of zero
    /// marks the start code.
    pub fn is_exit_of_result(_code: &[u8]) -> bool {
        false
    }

    /// Where a function that was just entered returns to: the link register.
    pub fn return_at_entry(
        registers: &Registers,
        _read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<Registers> {
        (registers.lr != 0).then_some(Registers {
            ip: registers.lr,
            ..*registers
        })
    }
}

pub(super) use native::{
    CALL_BYTES, FP, RA, SP, call_distance, ends_with_call, has_function_end, is_cacheable,
    is_exit_of_result, last_prologue, return_at_entry,
};

impl Registers {
    pub fn of(raw: &RawStack<'_>) -> Self {
        Self {
            ip: raw.ip,
            sp: raw.sp,
            fp: raw.fp,
            lr: raw.lr,
        }
    }

    /// The registers of the frame at a frame pointer: `[fp]` is the caller's, `[fp + 8]` the return
    /// address, on both machines.
    pub fn by_frame_pointer(
        &self,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Self, ()> {
        let fp = read(self.fp)?;
        let ip = read(self.fp.wrapping_add(8))?;
        Ok(Self {
            ip,
            sp: self.fp.wrapping_add(16),
            fp,
            lr: ip,
        })
    }
}
