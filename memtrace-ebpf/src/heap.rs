//! Allocator calls: entry, return, free. The order of things here is semantics R1–R11.

use aya_ebpf::{
    helpers::bpf_probe_read_user,
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{
    Counter, Function, HEAP_FINGERPRINT, LiveValue, MAX_CALLS,
    events::{EACH_CALL, EACH_CALL_WITH_PATH, NO_CALLS, OLD_KNOWN},
    thread::{Call, EPOCH_SHIFT, RECORD, TAKEN, Thread},
};

use crate::{
    account, calls,
    context::{self, FREE_PATH, keep_own_stack},
    maps::{CONTINUE, count},
    registers::{Place, RETURN_POPS, Registers, argument, registers, return_address, untagged},
    sampling, settings,
    thread::{self, Vanished, drop_vanished, is_trampoline},
};

/// Requested bytes by calling convention.
#[inline(always)]
fn requested(ctx: &ProbeContext, function: Function) -> u64 {
    match function {
        Function::Size0 => argument(ctx, 0),
        Function::Size1 | Function::Realloc | Function::Xallocx => argument(ctx, 1),
        Function::Size2 | Function::PosixMemalign => argument(ctx, 2),
        Function::Size3 => argument(ctx, 3),
        Function::Size4 => argument(ctx, 4),
        Function::Size5 => argument(ctx, 5),
        Function::Calloc => product(argument(ctx, 0), argument(ctx, 1)),
        Function::ReallocArray => product(argument(ctx, 1), argument(ctx, 2)),
        _ => 0,
    }
}

/// Bytes of an array. One that overflows fails in the allocator, whatever comes out here (R6); only
/// 0 must not: a failed realloc to nothing is a free (R4).
#[inline(always)]
fn product(a: u64, b: u64) -> u64 {
    const LOW: u64 = u32::MAX as u64;
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    // The product's upper half, by hand: the compiler's own way is a library call.
    let carried = small.wrapping_mul(large & LOW) >> 32;
    let high = small.wrapping_mul(large >> 32).wrapping_add(carried);
    if small > LOW || high > LOW {
        return u64::MAX;
    }
    a.wrapping_mul(b)
}

#[inline(always)]
fn takes_old_block(function: Function) -> bool {
    matches!(
        function,
        Function::Realloc | Function::ReallocArray | Function::Xallocx
    )
}

/// Entry of an allocation function.
#[inline(always)]
pub fn enter(ctx: &ProbeContext, function: Function) {
    let Some(thread) = thread::current() else {
        return;
    };
    let calls = calls::wanted();
    thread.hits.entries += 1;
    let sp = registers(ctx).sp();
    let resizes = takes_old_block(function);
    let compared = resizes && RETURN_POPS != 0;
    let returns_to = if thread.depth > 0 || settings().regions != 0 || compared {
        return_address(ctx)
    } else {
        0
    };
    let size = requested(ctx, function);
    if compared && is_same_call(ctx, thread, sp, size, returns_to) {
        return;
    }
    let tail_called = thread.depth > 0 && is_trampoline(returns_to);
    let vanished = if tail_called {
        Vanished::Below
    } else {
        Vanished::BelowAtOrOverwritten
    };
    drop_vanished(thread, sp, vanished);
    thread.last_freed = 0;
    let depth = thread.depth;
    if depth >= MAX_CALLS as u32 {
        count(Counter::NestingTooDeep, 1);
        return;
    }
    // SAFETY: a pointer into this thread's own state.
    let call = unsafe { &mut *thread::call_at(thread, depth) };
    call.sp = sp;
    call.size = size;
    call.function = function as u32;
    call.flags = 0;
    call.old_address = 0;
    call.inner_address = 0;
    call.return_to = returns_to;
    if calls != NO_CALLS {
        call.ip = registers(ctx).ip();
    }
    if matches!(function, Function::PosixMemalign) {
        call.out_pointer = argument(ctx, 0);
    }
    if resizes {
        take_old(thread, call, untagged(argument(ctx, 0)), depth);
    }
    thread.depth = depth + 1;
    if depth > 0 {
        // R9: a nested call counts with and under the outermost one.
        // SAFETY: as above.
        let outer = unsafe { &*thread::call_at(thread, depth - 1) };
        call.flags |= outer.flags & !TAKEN;
        call.context = outer.context;
        return;
    }
    if let Some(epoch) = sampling::decide(thread, size) {
        call.flags |= RECORD | epoch << EPOCH_SHIFT;
        if calls == EACH_CALL {
            call.context = 0;
        } else {
            context::fingerprint(ctx, thread, call, function);
        }
    }
}

/// Whether a resizing function was jumped to by one whose return instructions are probed (mimalloc's
/// `mi_new_reallocn` ends in a jump to `mi_new_realloc`): it has that one's place on the stack, its
/// return address and its block, and what ends it ends both. It goes on under the first one's name.
/// The same when a call that an exception ended is tried again: its block is still in flight. Where
/// return addresses come in a register, no return instruction is probed.
#[inline(always)]
fn is_same_call(
    ctx: &ProbeContext,
    thread: &mut Thread,
    sp: u64,
    size: u64,
    returns_to: u64,
) -> bool {
    if thread.depth == 0 {
        return false;
    }
    let index = thread.depth - 1;
    // SAFETY: a pointer into this thread's own state.
    let top = unsafe { &*thread::call_at(thread, index) };
    top.sp == sp
        && top.return_to == returns_to
        && top.size == size
        && top.old_address != 0
        && top.old_address == untagged(argument(ctx, 0))
}

/// Whether the function was jumped to by one whose return is probed (glibc's `realloc(NULL, n)`
/// ends in a jump to `malloc`): it has the same stack pointer as the call before it, but that one
/// has not vanished. The kernel has put its trampoline in the place of the return address.
#[inline(always)]
fn returns_to_trampoline(ctx: &ProbeContext) -> bool {
    is_trampoline(return_address(ctx))
}

/// R4: the old block leaves the table before the allocator can give its address to another thread.
#[inline(always)]
fn take_old(thread: &mut Thread, call: &mut Call, old: u64, depth: u32) {
    if old == 0 {
        return;
    }
    call.old_address = old;
    if let Some(value) = account::take(thread.space, old) {
        call.old = value;
        call.flags |= TAKEN;
        return;
    }
    let taken_by_outer = depth > 0 && {
        // SAFETY: a pointer into this thread's own state.
        let outer = unsafe { &mut *thread::call_at(thread, depth - 1) };
        forget_inner(outer, old) || outer.old_address == old
    };
    if !taken_by_outer {
        thread.hits.unmatched += 1;
    }
}

/// Clears a block that waits in its outer call; true when it was that one.
#[inline(always)]
fn forget_inner(call: &mut Call, address: u64) -> bool {
    let found = call.inner_address == address;
    if found {
        call.inner_address = 0;
    }
    found
}

/// Return of an allocation function.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) {
    let tid = aya_ebpf::helpers::bpf_get_current_pid_tgid() as u32;
    // No state: the call began before the attach.
    let Some(thread) = thread::known(tid) else {
        return keep_own_stack(ctx);
    };
    thread.hits.returns += 1;
    // SAFETY: the kernel passes valid registers for the program's whole run.
    let sp = unsafe { &*ctx.regs }.sp().wrapping_sub(RETURN_POPS);
    if !end_call(thread, sp, ctx.ret()) {
        count(Counter::OrphanReturns, 1);
    }
}

/// A return instruction of a function that can throw: what unwinds its stack must find the real
/// return addresses there (R25). Other functions can lead to the same instruction: those that were
/// called from elsewhere have another stack pointer, those whose return is probed have the
/// trampoline to return to.
#[inline(always)]
pub fn leave_at_return(ctx: &ProbeContext) {
    let tid = aya_ebpf::helpers::bpf_get_current_pid_tgid() as u32;
    let Some(thread) = thread::known(tid) else {
        return keep_own_stack(ctx);
    };
    thread.hits.stepped_returns += 1;
    if thread.depth == 0 || returns_to_trampoline(ctx) {
        return;
    }
    let regs = registers(ctx);
    end_call(thread, regs.sp(), regs.result());
}

/// Ends the call that was entered with this stack pointer; false when there is none.
#[inline(always)]
fn end_call(thread: &mut Thread, sp: u64, value: u64) -> bool {
    drop_vanished(thread, sp, Vanished::Below);
    let depth = thread.depth;
    if depth == 0 {
        return false;
    }
    // SAFETY: a pointer into this thread's own state.
    let call = unsafe { &mut *thread::call_at(thread, depth - 1) };
    if call.sp != sp {
        return false;
    }
    thread.depth = depth - 1;
    let address = untagged(result(value, call));
    if call.inner_address != 0 && call.inner_address != address && call.flags & RECORD != 0 {
        // R9: a block of its own, whatever became of the outer call.
        let (inner, size, epoch) = (
            call.inner_address,
            call.inner_size,
            call.flags >> EPOCH_SHIFT,
        );
        account::record(thread.space, inner, size, call.context, epoch, 0);
    }
    match address {
        0 => failed(thread.space, call),
        address => succeeded(thread, call, address),
    }
    if calls::wanted() != NO_CALLS && thread.depth == 0 && call.flags & (RECORD | TAKEN) != 0 {
        calls::returned(thread.space, call, address);
    }
    true
}

/// Address of the block the call made, 0 when it failed (R1, R7).
#[inline(always)]
fn result(value: u64, call: &Call) -> u64 {
    if call.function == Function::PosixMemalign as u32 {
        if value as u32 != 0 {
            return 0;
        }
        // SAFETY: the helper checks the address.
        return unsafe { bpf_probe_read_user(call.out_pointer as *const u64) }.unwrap_or_else(
            |_| {
                count(Counter::OutPointerUnreadable, 1);
                0
            },
        );
    }
    if call.function == Function::Xallocx as u32 {
        // In place or not at all: the result is the block's usable size.
        return if value >= call.size {
            call.old_address
        } else {
            0
        };
    }
    value
}

/// R4: by the result, never by the size alone.
#[inline(always)]
fn failed(space: u64, call: &mut Call) {
    if call.flags & TAKEN == 0 {
        return;
    }
    if call.size == 0 && call.function != Function::Xallocx as u32 {
        account::freed(space, &call.old);
    } else {
        account::put_back(space, call.old_address, &call.old);
    }
}

#[inline(always)]
fn succeeded(thread: &mut Thread, call: &mut Call, address: u64) {
    let space = thread.space;
    let mut born_ns = 0;
    if call.flags & TAKEN != 0 {
        account::freed(space, &call.old);
        born_ns = call.old.born_ns; // R5
    }
    if call.flags & RECORD == 0 {
        return;
    }
    let epoch = call.flags >> EPOCH_SHIFT;
    if thread.depth == 0 {
        account::record(space, address, call.size, call.context, epoch, born_ns);
        return;
    }
    // R9: whether this block is the outer call's own is known when that returns.
    // SAFETY: a pointer into this thread's own state.
    let outer = unsafe { &mut *thread::call_at(thread, thread.depth - 1) };
    if outer.inner_address != 0 && outer.inner_address != address {
        account::record(
            space,
            outer.inner_address,
            outer.inner_size,
            outer.context,
            epoch,
            0,
        );
    }
    outer.inner_address = address;
    outer.inner_size = call.size;
}

/// Entry of a free function (R2, R3).
#[inline(always)]
pub fn free(ctx: &ProbeContext, n: usize) {
    let address = untagged(argument(ctx, n));
    if address == 0 {
        return;
    }
    let Some(thread) = thread::current() else {
        return;
    };
    let calls = calls::wanted();
    thread.hits.frees += 1;
    if thread.depth > 0 && freed_in_flight(ctx, thread, address) {
        return;
    }
    let last_freed = thread.last_freed;
    thread.last_freed = address;
    let what = [Function::Free0 as u32 + n as u32, calls as u32];
    if let Some(value) = account::take(thread.space, address) {
        account::freed(thread.space, &value);
        if calls != NO_CALLS {
            tell_free(ctx, thread, what, address, &value);
        }
    } else if last_freed != address {
        thread.hits.unmatched += 1;
        if calls != NO_CALLS && !is_filtered() {
            tell_free(ctx, thread, what, address, &LiveValue::default());
        }
    }
}

/// Sends a free on its own; with its path in [`free_path`], from where this does not return.
#[inline(always)]
fn tell_free(
    ctx: &ProbeContext,
    thread: &mut Thread,
    [function, calls]: [u32; 2],
    address: u64,
    old: &LiveValue,
) {
    let ip = registers(ctx).ip();
    // No block was born at the beginning of time.
    let flags = if old.born_ns == 0 { 0 } else { OLD_KNOWN };
    if calls == EACH_CALL_WITH_PATH as u32 && thread.depth < MAX_CALLS as u32 {
        // SAFETY: a pointer into this thread's own state, to a call that is not in flight.
        let free = unsafe { &mut *thread::call_at(thread, thread.depth) };
        free.ip = ip;
        free.old_address = address;
        free.old = *old;
        free.function = function;
        free.flags = flags;
        // SAFETY: the array's entry is a program of the same type, put there before the attach.
        unsafe { CONTINUE.tail_call(ctx, FREE_PATH) };
    }
    calls::freed(thread.space, [function, flags], [0, ip, address], old);
}

/// The tail of a free that is sent with its path.
#[inline(always)]
pub fn free_path(ctx: &ProbeContext) {
    let tid = aya_ebpf::helpers::bpf_get_current_pid_tgid() as u32;
    let Some(thread) = thread::known(tid) else {
        return keep_own_stack(ctx);
    };
    let place = Place::of(registers(ctx));
    let function = Function::Free0 as u32;
    let path = context::of_place(thread, &place, place.sp, function, HEAP_FINGERPRINT);
    // SAFETY: a pointer into this thread's own state.
    let free = unsafe { &*thread::call_at(thread, thread.depth) };
    let what = [free.function, free.flags];
    calls::freed(
        thread.space,
        what,
        [path, free.ip, free.old_address],
        &free.old,
    );
}

/// Whether blocks of some sizes are not recorded: a free of an unknown one may be of those.
#[inline(always)]
fn is_filtered() -> bool {
    settings().min_size != 0 || settings().max_size != u64::MAX
}

/// A free inside an allocation call of a block that this call holds: realloc's old one, or one
/// that a nested call just made.
#[inline(always)]
fn freed_in_flight(ctx: &ProbeContext, thread: &mut Thread, address: u64) -> bool {
    drop_vanished(thread, registers(ctx).sp(), Vanished::Below);
    for index in 0..MAX_CALLS as u32 {
        if index >= thread.depth {
            return false;
        }
        // SAFETY: a pointer into this thread's own state.
        let call = unsafe { &mut *thread::call_at(thread, index) };
        if forget_inner(call, address) || call.old_address == address {
            return true;
        }
    }
    false
}
