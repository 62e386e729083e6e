//! Context fingerprints: which call path is this, without unwinding.
//!
//! The narrow fingerprint hashes the words in the top 512 bytes of the user stack that point into
//! code. A new one has its stack copied, once. Paths that look alike in the narrow window are told
//! apart by a wide one: its hash is compared at the first hits of a context and now and then
//! after, and from the first difference on the fingerprint is widened, in two steps: most paths
//! differ within the middle window, whose hash costs a quarter, and is checked in the same way.

mod copy;
mod window;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_get_prandom_u32},
    programs::ProbeContext,
};
use memtrace_common::{
    Context, ContextKey, Counter, Function, HEAP_FINGERPRINT, PROBE_BITS, WIDE_ALWAYS, WIDE_CHECK,
    WIDE_MIDDLE, WIDE_SLOTS,
    heap::FOLLOW_FORK,
    thread::{Call, Thread},
};

use crate::{
    account::new_context,
    maps::{CONTEXTS, CONTINUE, KNOWN, WIDE, count},
    registers::{Place, RETURN_POPS, Registers, registers},
    selection,
    thread::{self, call_at},
};

use self::window::{hash_middle, hash_narrow, hash_wider, mix};
pub use self::window::{nonzero, slot_of};

/// Index of the program that goes on where a plain hit ends.
pub const DEEP: u32 = 0;
/// Index of the program that a free ends in when it is sent with its path.
pub const FREE_PATH: u32 = 1;
/// Index of no program.
const NOWHERE: u32 = u32::MAX;

/// Hits of a new context that are all checked.
const PROBATION: u64 = 16;
/// Hits between checks at most, on average.
const MAX_CHECK_DISTANCE: u64 = 256;

/// Computes the context of an outermost call and makes it known if it is new. May continue in
/// [`deep`] and not return.
#[inline(always)]
pub fn fingerprint(ctx: &ProbeContext, thread: &mut Thread, call: &mut Call, function: Function) {
    let regs = registers(ctx);
    let narrow = finish(
        hash_narrow(thread, regs.sp(), mix(function as u64 + 1, regs.lr())),
        HEAP_FINGERPRINT,
    );
    call.context = narrow;
    call.return_to = if RETURN_POPS == 0 {
        regs.lr()
    } else {
        thread.window[0]
    };
    if hit(thread.space, narrow) {
        return;
    }
    // SAFETY: the array's entry is a program of the same type, put there before the attach.
    // When it fails the call is counted under the narrow fingerprint.
    unsafe { CONTINUE.tail_call(ctx, DEEP) };
}

/// Counts a hit of a narrow fingerprint; true when that is all there is to do: the context is
/// known, neither due for a check nor ambiguous, and its stack was sent.
#[inline(always)]
fn hit(space: u64, narrow: u64) -> bool {
    let width = width_of(narrow);
    width != WIDE_MIDDLE && width != WIDE_ALWAYS && is_settled(space, narrow, width == WIDE_CHECK)
}

/// Which of the `WIDE_*` holds for a narrow fingerprint.
#[inline(always)]
fn width_of(narrow: u64) -> u32 {
    WIDE.get(wide_slot(narrow)).copied().unwrap_or(WIDE_CHECK)
}

/// Counts a hit; true when the context is known, its stack was sent, and no check is due.
#[inline(always)]
fn is_settled(space: u64, fingerprint: u64, checked: bool) -> bool {
    let key = ContextKey { space, fingerprint };
    let Some(context) = CONTEXTS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: a map value; the count is a hint, a lost update does no harm.
    let context = unsafe { &mut *context };
    context.hits += 1;
    let due = checked && context.hits >= context.next_check;
    !due && context.copy_wanted == 0
}

/// The index is below 2^12; never 0xffff…
#[inline(always)]
fn wide_slot(fingerprint: u64) -> u32 {
    fingerprint as u32 & (WIDE_SLOTS as u32 - 1)
}

/// 0 is kept for "unattributed"; `probe` is one of the `*_FINGERPRINT` constants.
#[inline(always)]
fn finish(hash: u64, probe: u64) -> u64 {
    hash & !PROBE_BITS | 1 << 63 | probe
}

/// The tail of an entry whose context is new, due for a check, or ambiguous.
#[inline(always)]
pub fn deep(ctx: &ProbeContext) {
    let Some(thread) = thread::known(bpf_get_current_pid_tgid() as u32) else {
        return keep_own_stack(ctx);
    };
    if thread.depth == 0 {
        return;
    }
    // SAFETY: a pointer into this thread's own state.
    let call = unsafe { &mut *call_at(thread, thread.depth - 1) };
    let place = Place::of(registers(ctx));
    call.context = settle(thread, &place, place.sp, call.context, call.function);
}

/// Does nothing, but for what the kernel makes of a program that has this somewhere. From 6.13 on it
/// gives programs a stack for each CPU, in the belief that what runs at a uprobe cannot be preempted;
/// where it can, the next thread's program writes over that stack, and the kernel panics (seen in
/// 7.2). A program with a jump to another keeps the thread's own stack. So each program at a uprobe
/// has one, if only where it has nothing to do.
#[inline(always)]
pub fn keep_own_stack(ctx: &impl EbpfContext) {
    // SAFETY: there is no such entry, and nothing happens.
    unsafe { CONTINUE.tail_call(ctx, NOWHERE) };
}

/// The context of a place that is not a function's entry, made known if it is new. `what` tells
/// apart what the probe stands for, `probe` is one of the `*_FINGERPRINT` constants. The windows
/// begin at `from`: the stack pointer, or the first page above it that is there.
#[inline(always)]
pub fn of_place(thread: &mut Thread, place: &Place, from: u64, what: u32, probe: u64) -> u64 {
    let seed = mix(u64::from(what) + 1, place.lr);
    let narrow = finish(hash_narrow(thread, from, mix(seed, place.ip)), probe);
    if hit(thread.space, narrow) {
        return narrow;
    }
    settle(thread, place, from, narrow, what)
}

/// The fingerprint to count under, after a look at the wider windows; 0 when the table is full.
#[inline(always)]
fn settle(thread: &mut Thread, place: &Place, from: u64, narrow: u64, function: u32) -> u64 {
    let mut width = width_of(narrow);
    let probe = narrow & PROBE_BITS;
    if width == WIDE_MIDDLE {
        let middle = finish(mix(narrow, hash_middle(thread, from)), probe);
        if is_settled(thread.space, middle, true) {
            return middle;
        }
    }
    let hashes = hash_wider(thread, from);
    let key = |width| ContextKey {
        space: thread.space,
        fingerprint: match width {
            WIDE_MIDDLE => finish(mix(narrow, hashes.middle), probe),
            WIDE_ALWAYS => finish(mix(narrow, hashes.wide), probe),
            _ => narrow,
        },
    };
    let image = thread.image;
    let mut chosen = key(width);
    let Some(mut context) = find_or_create(chosen, image, hashes.wide) else {
        // Counted as unattributed, and freed from there: this context may find room later.
        return 0;
    };
    // From the narrow window to the middle one, and from there to the wide one.
    for _ in 0..2 {
        if width != WIDE_CHECK && width != WIDE_MIDDLE {
            break;
        }
        schedule_check(context);
        if context.wide_hash == hashes.wide {
            break;
        }
        width += 1;
        let _ = WIDE.set(wide_slot(narrow), width, 0);
        count(Counter::AmbiguousContexts, 1);
        let wider = key(width);
        let Some(other) = find_or_create(wider, image, hashes.wide) else {
            return chosen.fingerprint;
        };
        chosen = wider;
        context = other;
    }
    if context.copy_wanted != 0 {
        if copy::send(thread, place, chosen.fingerprint, narrow, function) {
            context.copy_wanted = 0;
            remember(image, chosen.fingerprint, hashes.wide);
        } else {
            count(Counter::StackCopyLost, 1);
        }
    }
    chosen.fingerprint
}

#[inline(always)]
fn find_or_create(key: ContextKey, image: u64, wide_hash: u64) -> Option<&'static mut Context> {
    if CONTEXTS.get_ptr_mut(key).is_none() {
        let new = match known_in(image, key.fingerprint) {
            // Compared with the wide window of the path that was copied.
            Some(wide_hash) => new_context(wide_hash, 0),
            None => new_context(wide_hash, 1),
        };
        // -EEXIST: another thread was faster, its entry serves.
        let _ = CONTEXTS.insert(key, new, u64::from(BPF_NOEXIST));
    }
    let Some(context) = CONTEXTS.get_ptr_mut(key) else {
        count(Counter::ContextTableFull, 1);
        return None;
    };
    // SAFETY: a map value; concurrent writers set the same words or use atomic additions.
    Some(unsafe { &mut *context })
}

/// The hash of the wide window of a call path whose stack was copied from another process of the
/// image, before or after that forked this one.
#[inline(always)]
fn known_in(image: u64, fingerprint: u64) -> Option<u64> {
    if selection().modes & FOLLOW_FORK == 0 {
        return None;
    }
    let key = ContextKey {
        space: image,
        fingerprint,
    };
    // SAFETY: copied at once.
    unsafe { KNOWN.get(key) }.copied()
}

#[inline(always)]
fn remember(image: u64, fingerprint: u64, wide_hash: u64) {
    if selection().modes & FOLLOW_FORK == 0 {
        return;
    }
    let key = ContextKey {
        space: image,
        fingerprint,
    };
    let _ = KNOWN.insert(key, wide_hash, 0);
}

/// All of the first hits, then at random distances that grow with the hits.
#[inline(always)]
fn schedule_check(context: &mut Context) {
    let hits = context.hits;
    let distance = if hits < PROBATION {
        1
    } else {
        // SAFETY: a helper without arguments.
        let random = u64::from(unsafe { bpf_get_prandom_u32() });
        let mean = if hits / 4 < MAX_CHECK_DISTANCE {
            hits / 4
        } else {
            MAX_CHECK_DISTANCE
        };
        1 + random % (2 * mean)
    };
    context.next_check = hits + distance;
}
