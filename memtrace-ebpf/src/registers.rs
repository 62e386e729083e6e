//! Registers of the probed thread, by architecture.

use aya_ebpf::{bindings::pt_regs, programs::ProbeContext};

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
