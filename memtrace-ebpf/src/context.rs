//! Context fingerprints: which call path is this, without unwinding.
//!
//! The narrow fingerprint hashes the words in the top 512 bytes of the user stack that point into
//! code. A new one has its stack copied, once. Paths that look alike in the narrow window are told
//! apart by a wide one: its hash is compared at the first hits of a context and now and then
//! after, and from the first difference on the fingerprint is widened, in two steps: most paths
//! differ within the middle window, whose hash costs a quarter, and is checked in the same way.

use core::ops::Range;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_get_prandom_u32, generated::bpf_probe_read_user},
    programs::ProbeContext,
};
use memtrace_common::{
    Context, ContextHeader, ContextKey, Counter, EventKind, FINGERPRINT_BYTES, Function,
    HEAP_FINGERPRINT, MAX_CALLS, MIDDLE_BYTES, NO_SLOT, PROBE_BITS, STACK_COPY_BYTES, TEXT_SLOTS,
    TextTable, WIDE_ALWAYS, WIDE_BYTES, WIDE_CHECK, WIDE_MIDDLE, WIDE_SLOTS,
    events::MAX_EVENT_BYTES,
    heap::FOLLOW_FORK,
    thread::{Call, Thread, WINDOW_WORDS},
};

use crate::{
    account::new_context,
    event,
    maps::{CONTEXTS, CONTINUE, EVENTS, KNOWN, SLOTS, TEXT, TEXT_GENERATION, WIDE, count},
    registers::{Place, RETURN_POPS, Registers, registers},
    selection,
    thread::{self, call_at},
};

/// Index of the program that goes on where a plain hit ends.
pub const DEEP: u32 = 0;
/// Index of the program that a free ends in when it is sent with its path.
pub const FREE_PATH: u32 = 1;
/// Index of no program.
const NOWHERE: u32 = u32::MAX;

const PAGE: u64 = 4096;
/// Narrow windows in the middle one.
const MIDDLE_WINDOWS: usize = MIDDLE_BYTES / FINGERPRINT_BYTES;
/// And in the wide one.
const WIDE_WINDOWS: usize = WIDE_BYTES / FINGERPRINT_BYTES;
const TEXT_SLOT_BITS: u32 = TEXT_SLOTS.trailing_zeros();
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

/// Mixes a word in. Multiplication spreads upwards, the shift brings it back down.
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

/// 0 is kept for "unattributed"; `probe` is one of the `*_FINGERPRINT` constants.
#[inline(always)]
fn finish(hash: u64, probe: u64) -> u64 {
    hash & !PROBE_BITS | 1 << 63 | probe
}

/// Reads one window of user stack into the thread's buffer; false when it is not all there.
#[inline(always)]
fn read_window(thread: &mut Thread, address: u64) -> bool {
    let buffer = thread.window.as_mut_ptr().cast();
    let source = address as *const core::ffi::c_void;
    // SAFETY: the buffer holds FINGERPRINT_BYTES; the helper checks the source.
    unsafe { bpf_probe_read_user(buffer, FINGERPRINT_BYTES as u32, source.cast()) == 0 }
}

/// Near the end of the stack: what is left of the page, with zeros behind it.
#[inline(always)]
fn read_rest_of_page(thread: &mut Thread, address: u64) {
    let buffer = thread.window.as_mut_ptr();
    for index in 0..WINDOW_WORDS {
        // SAFETY: the index is below WINDOW_WORDS. Volatile, or it becomes a loop of bytes.
        unsafe { core::ptr::write_volatile(buffer.add(index), 0) };
    }
    let source = address as *const core::ffi::c_void;
    let rest = (PAGE - (address & (PAGE - 1))) & (FINGERPRINT_BYTES as u64 - 1);
    // SAFETY: `rest` is below FINGERPRINT_BYTES; the helper checks the source.
    if rest == 0 || unsafe { bpf_probe_read_user(buffer.cast(), rest as u32, source.cast()) } != 0 {
        count(Counter::StackReadFailed, 1);
    }
}

/// 1 when `x` is not zero, else 0, without a branch: the verifier follows every path of every
/// word, and the processor mispredicts. In assembly because the compiler makes a branch of
/// anything else.
#[inline(always)]
pub fn nonzero(x: u64) -> u64 {
    let mut result = x;
    // SAFETY: computes on registers only.
    unsafe {
        core::arch::asm!(
            "{t} = {r}",
            "{t} = -{t}",
            "{r} |= {t}",
            "{r} >>= 63",
            r = inout(reg) result,
            t = out(reg) _,
            options(nostack),
        );
    }
    result
}

/// Spreads a word's number over all bits. In the top byte alone it left call paths of the same return
/// addresses in another order alike: one in ten of a thousand permutations.
const SPREAD: u64 = 0xd6e8_feb8_6659_fd93;

/// An order-sensitive sum of hashes: each word is mixed with its number among the code words, so
/// that the multiplications do not wait for one another.
struct Hash {
    sum: u64,
    words: u64,
}

impl Hash {
    /// Takes the word in when `take` is 1, does nothing when it is 0: without a branch, of which
    /// the verifier would follow every combination (Linux 5.10 gives up).
    #[inline(always)]
    fn add(&mut self, word: u64, take: u64) {
        self.sum = self
            .sum
            .wrapping_add(mix(word, self.words.wrapping_mul(SPREAD)) & take.wrapping_neg());
        self.words += take;
    }
}

/// The text table of an image, once user space has given it one.
#[inline(always)]
pub fn slot_of(image: u64) -> Option<u32> {
    // SAFETY: copied at once.
    unsafe { SLOTS.get(image) }.copied()
}

/// The thread's text table when it describes the present mappings.
#[inline(always)]
fn trusted_text(thread: &Thread) -> Option<&'static TextTable> {
    // SAFETY: a map value; user space replaces it whole, a torn read only weakens one hash.
    let text = unsafe { &*TEXT.get_ptr(thread.text_slot)? };
    let current = *TEXT_GENERATION.get(thread.text_slot)?;
    (text.generation == current).then_some(text)
}

/// Hashes the code addresses in the window.
#[inline(always)]
fn hash_window(thread: &Thread, text: &TextTable, hash: &mut Hash) {
    for index in 0..WINDOW_WORDS {
        let word = thread.window[index];
        hash.add(word, 1 - nonzero(distance_from_code(text, word)));
    }
}

/// Hash of the narrow window, at the stack pointer.
#[inline(always)]
fn hash_narrow(thread: &mut Thread, sp: u64, seed: u64) -> u64 {
    if thread.text_slot == NO_SLOT
        && let Some(slot) = slot_of(thread.image)
    {
        thread.text_slot = slot;
    }
    if !read_window(thread, sp) {
        read_rest_of_page(thread, sp);
    }
    let mut hash = Hash {
        sum: seed,
        words: 0,
    };
    if let Some(text) = trusted_text(thread) {
        hash_window(thread, text, &mut hash);
    } else {
        for index in 0..WINDOW_WORDS {
            let word = thread.window[index];
            hash.add(word, may_be_code(word, sp));
        }
    }
    mix(hash.sum, hash.words)
}

/// 0 when the word points into code.
#[inline(always)]
fn distance_from_code(text: &TextTable, word: u64) -> u64 {
    let granule = word >> (text.shift & 63);
    // SAFETY: the mask keeps the index inside the table.
    let tag = unsafe { *text.tags.as_ptr().add(granule as usize & (TEXT_SLOTS - 1)) };
    ((granule >> TEXT_SLOT_BITS) + 1) ^ u64::from(tag)
}

/// Without a table of the present mappings: 1 for anything that is no small number and no address of
/// the stack. Heap pointers get in and make too many contexts, for the milliseconds until user
/// space has read the mappings; too few would mix call paths.
#[inline(always)]
fn may_be_code(word: u64, sp: u64) -> u64 {
    const STACK_BITS: u32 = 25;
    let from_stack = word.wrapping_sub(sp).wrapping_add(1 << (STACK_BITS - 1)) >> STACK_BITS;
    nonzero(word >> 16) & nonzero(from_stack) & (1 - nonzero(word >> 56))
}

/// Hashes of the middle and the wide window, as far as the stack goes. Without a table of the mappings
/// there is nothing to compare: the narrow fingerprint already holds every word.
#[derive(Clone, Copy)]
struct Wider {
    middle: u64,
    wide: u64,
}

#[inline(always)]
fn hash_wider(thread: &mut Thread, sp: u64) -> Wider {
    let Some(text) = trusted_text(thread) else {
        return Wider { middle: 0, wide: 0 };
    };
    let mut hash = Hash { sum: 0, words: 0 };
    let goes_on = hash_windows(thread, text, sp, 0..MIDDLE_WINDOWS, &mut hash);
    let middle = mix(hash.sum, hash.words);
    if goes_on {
        hash_windows(thread, text, sp, MIDDLE_WINDOWS..WIDE_WINDOWS, &mut hash);
    }
    let wide = mix(hash.sum, hash.words);
    Wider { middle, wide }
}

/// The first of [`Wider`] alone.
#[inline(always)]
fn hash_middle(thread: &mut Thread, sp: u64) -> u64 {
    let Some(text) = trusted_text(thread) else {
        return 0;
    };
    let mut hash = Hash { sum: 0, words: 0 };
    hash_windows(thread, text, sp, 0..MIDDLE_WINDOWS, &mut hash);
    mix(hash.sum, hash.words)
}

/// Hashes some of the windows from `sp` on; false when the stack ended in them.
#[inline(always)]
fn hash_windows(
    thread: &mut Thread,
    text: &TextTable,
    sp: u64,
    windows: Range<usize>,
    hash: &mut Hash,
) -> bool {
    count(Counter::MoreWindows, windows.len() as u64);
    for window in windows {
        if !read_window(thread, sp + (window * FINGERPRINT_BYTES) as u64) {
            return false;
        }
        hash_window(thread, text, hash);
    }
    true
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
        if send_copy(thread, place, chosen.fingerprint, narrow, function) {
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

/// Sends registers and stack to user space; false when the ring buffer has no room.
#[inline(always)]
fn send_copy(
    thread: &mut Thread,
    place: &Place,
    fingerprint: u64,
    narrow: u64,
    function: u32,
) -> bool {
    let Some(mut record) = EVENTS.reserve_bytes(MAX_EVENT_BYTES, 0) else {
        return false;
    };
    let base = record.as_mut_ptr();
    // SAFETY: the record is MAX_EVENT_BYTES long: the header's size plus STACK_COPY_BYTES.
    let stack_len = copy_stack(unsafe { base.add(size_of::<ContextHeader>()) }, place.sp);
    let header: *mut ContextHeader = base.cast();
    let common = event::header(EventKind::Context, bpf_get_current_pid_tgid(), thread.space);
    // SAFETY: the record begins with room for the header, 8-byte aligned. Field by field: the whole
    // has no room on the program's stack.
    unsafe {
        (*header).header = common;
        (*header).image = thread.image;
        (*header).fingerprint = fingerprint;
        (*header).narrow = narrow;
        (*header).ip = place.ip;
        (*header).sp = place.sp;
        (*header).fp = place.fp;
        (*header).lr = place.lr;
        (*header).stack_len = stack_len;
        (*header).function = function;
    }
    for index in 0..MAX_CALLS {
        let call = &thread.calls[index];
        let known = u64::from((index as u32) < thread.depth);
        // SAFETY: as above; volatile, or it becomes a loop of bytes.
        unsafe {
            let slot: *mut u64 = (&raw mut (*header).pending[index]).cast();
            core::ptr::write_volatile(slot, call.sp * known);
            core::ptr::write_volatile(slot.add(1), call.return_to * known);
        }
    }
    record.submit(0);
    count(Counter::StackCopies, 1);
    true
}

/// Reads memory of the target; false when it is not all there, then zeros are written.
#[inline(always)]
fn read_user(target: *mut u8, length: u32, source: u64) -> bool {
    let source = source as *const core::ffi::c_void;
    // SAFETY: the callers have room for `length`; the helper checks the source.
    unsafe { bpf_probe_read_user(target.cast(), length, source.cast()) == 0 }
}

/// Copies the stack block by block; the number of bytes up to the last that could be read. Pages
/// that no function has touched yet (of a large array) cannot be read and are zeros: the helper
/// fills what it fails to read with them.
#[inline(always)]
fn copy_stack(target: *mut u8, sp: u64) -> u32 {
    const BLOCKS: u64 = STACK_COPY_BYTES as u64 / PAGE;
    // Of every block that much lies on its first page.
    let rest = PAGE - (sp & (PAGE - 1));
    let mut copied = 0;
    for block in 0..BLOCKS {
        let offset = block * PAGE;
        let source = sp + offset;
        // SAFETY: offset + PAGE stays within STACK_COPY_BYTES.
        let place = unsafe { target.add(offset as usize) };
        if read_user(place, PAGE as u32, source) {
            copied = offset + PAGE;
            continue;
        }
        if rest == PAGE {
            continue;
        }
        let rest = rest & (PAGE - 1);
        if read_user(place, rest as u32, source) {
            copied = offset + rest;
        }
        // The last block's would have no room as far as the verifier can tell.
        if block + 1 < BLOCKS {
            // SAFETY: `rest` is below PAGE, and another block follows.
            let behind = unsafe { place.add(rest as usize) };
            if read_user(behind, (PAGE - rest) as u32, source + rest) {
                copied = offset + PAGE;
            }
        }
    }
    copied as u32
}
