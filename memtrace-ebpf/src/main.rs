//! memtrace's kernel side: folds allocator calls into a table of live blocks and counters per
//! call path, and tells user space about new call paths and the life of processes.
//!
//! Written for the verifier of Linux 5.10: bounded loops, no fetching atomics, no helper newer
//! than that, everything inlined.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod calls;
mod context;
mod event;
mod fault;
mod heap;
mod lifecycle;
mod maps;
mod oom;
mod region;
mod registers;
mod sampling;
mod thread;

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint, tracepoint, uprobe, uretprobe},
    programs::{
        FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
        TracePointContext,
    },
};
use memtrace_common::{
    Function, RegionCall, Selection, Settings,
    events::{FAULT_ADDRESS_OFFSET, FAULT_ERROR_OFFSET},
};

/// Set by the loader before the programs are verified.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    min_size: 0,
    max_size: u64::MAX,
    regions: 0,
};

/// As above.
#[unsafe(no_mangle)]
static SELECTION: Selection = Selection {
    modes: 0,
    comm: [0; 2],
};

/// As above: [`memtrace_common::events::NO_CALLS`] and its like.
#[unsafe(no_mangle)]
static CALLS: u64 = 0;

/// As [`settings`].
#[inline(always)]
fn selection() -> Selection {
    // SAFETY: a plain static.
    unsafe { core::ptr::read_volatile(&raw const SELECTION) }
}

/// The settings, read as volatile: the compiler must not know the value, the verifier does.
#[inline(always)]
fn settings() -> Settings {
    // SAFETY: a plain static.
    unsafe { core::ptr::read_volatile(&raw const SETTINGS) }
}

macro_rules! entries {
    ($($name:ident $function:ident,)+) => {$(
        #[uprobe]
        fn $name(ctx: ProbeContext) -> u32 {
            heap::enter(&ctx, Function::$function);
            0
        }
    )+};
}

macro_rules! frees {
    ($($name:ident $argument:literal,)+) => {$(
        #[uprobe]
        fn $name(ctx: ProbeContext) -> u32 {
            heap::free(&ctx, $argument);
            0
        }
    )+};
}

// One program for each calling convention: kernels before 5.15 give a program no way to tell
// which probe it runs for.
entries! {
    enter_size0 Size0,
    enter_size1 Size1,
    enter_size2 Size2,
    enter_size3 Size3,
    enter_size4 Size4,
    enter_size5 Size5,
    enter_calloc Calloc,
    enter_realloc Realloc,
    enter_reallocarray ReallocArray,
    enter_posix_memalign PosixMemalign,
    enter_xallocx Xallocx,
}

frees! {
    free_0 0,
    free_1 1,
    free_2 2,
    free_3 3,
    free_4 4,
    free_5 5,
}

#[uretprobe]
fn leave(ctx: RetProbeContext) -> u32 {
    heap::leave(&ctx);
    0
}

#[uprobe]
fn leave_at_return(ctx: ProbeContext) -> u32 {
    heap::leave_at_return(&ctx);
    0
}

#[uprobe]
fn deep(ctx: ProbeContext) -> u32 {
    context::deep(&ctx);
    0
}

#[uprobe]
fn free_path(ctx: ProbeContext) -> u32 {
    heap::free_path(&ctx);
    0
}

/// Does nothing: what the bench measures a trap with.
#[uprobe]
fn empty(_ctx: ProbeContext) -> u32 {
    0
}

/// As `empty`, for the return.
#[uretprobe]
fn empty_return(_ctx: RetProbeContext) -> u32 {
    0
}

#[tracepoint]
fn task_newtask(ctx: TracePointContext) -> u32 {
    lifecycle::newtask(&ctx);
    0
}

#[tracepoint]
fn sched_process_exec(ctx: TracePointContext) -> u32 {
    lifecycle::exec(&ctx);
    0
}

#[tracepoint]
fn sched_process_exit(_ctx: TracePointContext) -> u32 {
    lifecycle::exit();
    0
}

#[tracepoint]
fn cgroup_attach_task(ctx: TracePointContext) -> u32 {
    lifecycle::moved(&ctx);
    0
}

/// `int security_mmap_file(struct file *, unsigned long prot, unsigned long flags)`, checked in
/// 5.10 to 6.18.
#[fentry(function = "security_mmap_file")]
fn mmap_file(ctx: FEntryContext) -> u32 {
    lifecycle::mmap_file(&ctx);
    0
}

/// The same by a kprobe, for kernels that can be preempted (see below).
#[kprobe]
fn file_is_mapped(ctx: ProbeContext) -> u32 {
    lifecycle::file_is_mapped(&ctx);
    0
}

/// Where `mmap_file` cannot be had: a tracepoint of one system call makes every system call of
/// the machine, and so every return probe of newer kernels, some 60 ns slower.
#[tracepoint]
fn sys_enter_mmap(ctx: TracePointContext) -> u32 {
    lifecycle::mmap(&ctx);
    0
}

/// `oom:mark_victim`.
#[tracepoint]
fn mark_victim(ctx: TracePointContext) -> u32 {
    oom::mark_victim(&ctx);
    0
}

macro_rules! region_calls {
    ($($enter:ident $leave:ident $call:ident,)+) => {$(
        #[fentry]
        fn $enter(_ctx: FEntryContext) -> u32 {
            region::begin(RegionCall::$call);
            0
        }

        #[fexit]
        fn $leave(ctx: FExitContext) -> u32 {
            region::end(RegionCall::$call, registers::of_system_call(&ctx), ctx.arg(1));
            0
        }
    )+};
}

// `long __x64_sys_mmap(const struct pt_regs *)` and its like (`__arm64_sys_…`), checked in 5.10 to
// 6.18. They cost nothing to other system calls.
region_calls! {
    enter_mmap leave_mmap Mmap,
    enter_munmap leave_munmap Munmap,
    enter_mremap leave_mremap Mremap,
    enter_brk leave_brk Brk,
    enter_madvise leave_madvise Madvise,
    enter_mprotect leave_mprotect Mprotect,
}

/// `sys_enter(struct pt_regs *, long id)`: where functions of the kernel cannot be probed. Makes
/// every system call of the machine slower.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn sys_enter(ctx: RawTracePointContext) -> u32 {
    if let Some(call) = region::call_of(ctx.arg(1)) {
        region::begin(call);
    }
    0
}

/// `sys_exit(struct pt_regs *, long result)`
#[raw_tracepoint(tracepoint = "sys_exit")]
fn sys_exit(ctx: RawTracePointContext) -> u32 {
    region::leave(ctx.arg(0), ctx.arg(1));
    0
}

macro_rules! region_probes {
    ($($enter:ident $leave:ident $call:ident,)+) => {$(
        #[kprobe]
        fn $enter(_ctx: ProbeContext) -> u32 {
            region::begin(RegionCall::$call);
            0
        }

        #[kretprobe]
        fn $leave(ctx: RetProbeContext) -> u32 {
            region::end(RegionCall::$call, registers::of_task(), ctx.ret());
            0
        }
    )+};
}

// The same by kprobes, for kernels that can be preempted: they skip a program at a function, or a raw
// tracepoint, while another thread's run of it waits on the same CPU. A kprobe's is not interrupted.
// Load on Linux 5.15 and later.
region_probes! {
    entered_mmap returned_mmap Mmap,
    entered_munmap returned_munmap Munmap,
    entered_mremap returned_mremap Mremap,
    entered_brk returned_brk Brk,
    entered_madvise returned_madvise Madvise,
    entered_mprotect returned_mprotect Mprotect,
}

/// `page_fault_user(unsigned long address, struct pt_regs *, unsigned long error_code)`, x86 only.
#[raw_tracepoint(tracepoint = "page_fault_user")]
fn page_fault_user(ctx: RawTracePointContext) -> u32 {
    fault::user(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// The same for pages that the kernel touches for the program, in `read` and its like. Loads on
/// Linux 5.15 and later.
#[raw_tracepoint(tracepoint = "page_fault_kernel")]
fn page_fault_kernel(ctx: RawTracePointContext) -> u32 {
    fault::kernel(ctx.arg(0), ctx.arg(2));
    0
}

/// `exceptions:page_fault_user`, for kernels that can be preempted: perf is not interrupted either.
#[tracepoint]
fn fault_in_program(ctx: TracePointContext) -> u32 {
    let field = |offset| lifecycle::field(&ctx, offset);
    let (address, error) = (field(FAULT_ADDRESS_OFFSET), field(FAULT_ERROR_OFFSET));
    fault::user(address, registers::of_task(), error);
    0
}

/// `exceptions:page_fault_kernel`, likewise.
#[tracepoint]
fn fault_in_kernel(ctx: TracePointContext) -> u32 {
    let field = |offset| lifecycle::field(&ctx, offset);
    fault::kernel(field(FAULT_ADDRESS_OFFSET), field(FAULT_ERROR_OFFSET));
    0
}

/// `handle_mm_fault(struct vm_area_struct *, unsigned long address, unsigned int flags, …)`, checked in
/// 5.10 to 6.18: where the kernel has no tracepoints of page faults. Loads on Linux 5.15 and later.
#[kprobe]
fn fault_in_function(ctx: ProbeContext) -> u32 {
    if let (Some(address), Some(flags)) = (ctx.arg(1), ctx.arg::<u32>(2)) {
        fault::by_function(address, u64::from(flags));
    }
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// GPL-compatible, which the helpers that read user memory demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
