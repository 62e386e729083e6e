//! Registers of the probed thread, by architecture.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs},
    programs::{FExitContext, ProbeContext},
};

/// Registers an unwinder needs, and the n-th argument.
pub trait Registers {
    /// Instruction pointer.
    fn ip(&self) -> u64;
    /// Stack pointer.
    fn sp(&self) -> u64;
    /// Frame pointer register.
    fn fp(&self) -> u64;
    /// Link register, 0 where there is none.
    fn lr(&self) -> u64;
    /// What a function that is about to return gives back.
    fn result(&self) -> u64;
}

/// What the stack pointer at return is above the stack pointer at entry: the return address is
/// popped where it is on the stack.
#[cfg(bpf_target_arch = "x86_64")]
pub const RETURN_POPS: u64 = 8;
/// See above; the link register holds the return address here.
#[cfg(bpf_target_arch = "aarch64")]
pub const RETURN_POPS: u64 = 0;

#[cfg(bpf_target_arch = "x86_64")]
impl Registers for pt_regs {
    #[inline(always)]
    fn ip(&self) -> u64 {
        self.rip
    }
    #[inline(always)]
    fn sp(&self) -> u64 {
        self.rsp
    }
    #[inline(always)]
    fn fp(&self) -> u64 {
        self.rbp
    }
    #[inline(always)]
    fn lr(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn result(&self) -> u64 {
        self.rax
    }
}

#[cfg(bpf_target_arch = "aarch64")]
impl Registers for pt_regs {
    #[inline(always)]
    fn ip(&self) -> u64 {
        self.pc
    }
    #[inline(always)]
    fn sp(&self) -> u64 {
        self.sp
    }
    #[inline(always)]
    fn fp(&self) -> u64 {
        self.regs[29]
    }
    #[inline(always)]
    fn lr(&self) -> u64 {
        self.regs[30]
    }
    #[inline(always)]
    fn result(&self) -> u64 {
        self.regs[0]
    }
}

/// Where a thread is in its program.
#[derive(Clone, Copy)]
pub struct Place {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register.
    pub fp: u64,
    /// Link register, 0 where there is none.
    pub lr: u64,
}

impl Place {
    /// From the registers of a probe.
    #[inline(always)]
    pub fn of(regs: &pt_regs) -> Self {
        Self {
            ip: regs.ip(),
            sp: regs.sp(),
            fp: regs.fp(),
            lr: regs.lr(),
        }
    }

    /// From the user's registers as the kernel keeps them.
    #[cfg(bpf_target_arch = "x86_64")]
    #[inline(always)]
    pub fn read(regs: *const pt_regs) -> Self {
        Self {
            ip: word(regs, offset_of!(pt_regs, rip)),
            sp: word(regs, offset_of!(pt_regs, rsp)),
            fp: word(regs, offset_of!(pt_regs, rbp)),
            lr: 0,
        }
    }

    /// See above.
    #[cfg(bpf_target_arch = "aarch64")]
    #[inline(always)]
    pub fn read(regs: *const pt_regs) -> Self {
        Self {
            ip: word(regs, offset_of!(pt_regs, pc)),
            sp: word(regs, offset_of!(pt_regs, sp)),
            fp: word(regs, 29 * 8),
            lr: word(regs, 30 * 8),
        }
    }
}

/// The registers of a system call, the only argument of its function. Not loaded as an argument: where
/// the kernel's type information has that structure by name only (`mremap` and others in 5.10) the
/// verifier refuses to.
#[inline(always)]
pub fn of_system_call(ctx: &FExitContext) -> *const pt_regs {
    word(ctx.as_ptr().cast(), 0) as *const pt_regs
}

/// The registers with which the current thread entered the kernel. Loads on Linux 5.15 and later.
#[inline(always)]
pub fn of_task() -> *const pt_regs {
    // SAFETY: helpers that give the current task and its registers.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs }
}

/// A word of registers that the kernel keeps; 0 when it cannot be read.
#[inline(always)]
fn word(regs: *const pt_regs, offset: usize) -> u64 {
    let place = regs.cast::<u8>().wrapping_add(offset).cast::<u64>();
    let mut word = 0_u64;
    // SAFETY: eight bytes for eight; the helper checks the address and writes zeros where it cannot
    // read. No branch on that: the verifier would follow both ways of every word.
    unsafe { bpf_probe_read_kernel((&raw mut word).cast(), 8, place.cast()) };
    word
}

/// The first five arguments of a system call, from the registers it was entered with.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn system_call_arguments(regs: *const pt_regs) -> [u64; 5] {
    [
        word(regs, offset_of!(pt_regs, rdi)),
        word(regs, offset_of!(pt_regs, rsi)),
        word(regs, offset_of!(pt_regs, rdx)),
        word(regs, offset_of!(pt_regs, r10)),
        word(regs, offset_of!(pt_regs, r8)),
    ]
}

/// See above. The first one's register takes the result; a copy lies behind the registers.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn system_call_arguments(regs: *const pt_regs) -> [u64; 5] {
    [
        word(regs, size_of::<pt_regs>()),
        word(regs, 8),
        word(regs, 16),
        word(regs, 24),
        word(regs, 32),
    ]
}

/// The number of the system call that the thread is in; negative when it is in none.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn system_call_number(regs: *const pt_regs) -> i64 {
    word(regs, offset_of!(pt_regs, orig_rax)).cast_signed()
}

/// See above: behind the registers and the first argument.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn system_call_number(regs: *const pt_regs) -> i64 {
    i64::from(word(regs, size_of::<pt_regs>() + 8) as u32 as i32)
}

/// The probed thread's registers.
#[inline(always)]
pub fn registers(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: the kernel passes valid registers for the program's whole run.
    unsafe { &*ctx.regs }
}

/// The n-th integer argument.
#[inline(always)]
pub fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    ctx.arg(n).unwrap_or(0)
}

/// An address as the memory system sees it: without the tag byte of aarch64 (R29).
#[inline(always)]
pub fn untagged(address: u64) -> u64 {
    if cfg!(bpf_target_arch = "aarch64") {
        address & ((1 << 56) - 1)
    } else {
        address
    }
}

/// Where the probed function will return to; all ones when that cannot be read.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn return_address(ctx: &ProbeContext) -> u64 {
    let slot = registers(ctx).sp() as *const u64;
    // SAFETY: the helper checks the address.
    unsafe { aya_ebpf::helpers::bpf_probe_read_user(slot) }.unwrap_or(u64::MAX)
}

/// See above.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn return_address(ctx: &ProbeContext) -> u64 {
    registers(ctx).lr()
}
