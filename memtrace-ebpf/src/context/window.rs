//! Hashing the code addresses in windows of the user stack.

use core::ops::Range;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use memtrace_common::{
    Counter, FINGERPRINT_BYTES, MIDDLE_BYTES, NO_SLOT, TEXT_SLOTS, TextTable, WIDE_BYTES,
    thread::{Thread, WINDOW_WORDS},
};

use crate::maps::{SLOTS, TEXT, TEXT_GENERATION, count};

const PAGE: u64 = 4096;
/// Narrow windows in the middle one.
const MIDDLE_WINDOWS: usize = MIDDLE_BYTES / FINGERPRINT_BYTES;
/// And in the wide one.
const WIDE_WINDOWS: usize = WIDE_BYTES / FINGERPRINT_BYTES;
const TEXT_SLOT_BITS: u32 = TEXT_SLOTS.trailing_zeros();

/// Mixes a word in. Multiplication spreads upwards, the shift brings it back down.
#[inline(always)]
pub fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
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

/// All ones when `x`, below 2^63, is zero, else 0. In assembly for the same reason.
#[inline(always)]
fn mask_if_zero(x: u64) -> u64 {
    let mut result = x;
    // SAFETY: computes on a register only.
    unsafe {
        core::arch::asm!(
            "{r} += -1",
            "{r} s>>= 63",
            r = inout(reg) result,
            options(nostack),
        );
    }
    result
}

/// `value` where `mask` is all ones, else 0. In assembly so that the mask is the second operand: newer
/// verifiers (6.18) follow both values of a mask that is the first one, and with it every combination.
#[inline(always)]
fn masked(value: u64, mask: u64) -> u64 {
    let mut result = value;
    // SAFETY: computes on registers only.
    unsafe {
        core::arch::asm!(
            "{r} &= {m}",
            r = inout(reg) result,
            m = in(reg) mask,
            options(nostack),
        );
    }
    result
}

/// An order-sensitive sum of hashes: each word is mixed with its number among the code words, so
/// that the multiplications do not wait for one another.
#[derive(Clone, Copy)]
struct Hash {
    sum: u64,
    /// The number of the next word, spread.
    number: u64,
}

impl Hash {
    #[inline(always)]
    fn begin(seed: u64) -> Self {
        Self {
            sum: seed,
            number: 0,
        }
    }

    /// Takes the word in when `mask` is all ones, does nothing when it is 0: without a branch, of which
    /// the verifier would follow every combination (Linux 5.10 gives up).
    #[inline(always)]
    fn add(&mut self, word: u64, mask: u64) {
        let hash = mix(word, self.number);
        self.sum = self.sum.wrapping_add(masked(hash, mask));
        self.number = self.number.wrapping_add(masked(SPREAD, mask));
    }

    #[inline(always)]
    fn value(self) -> u64 {
        mix(self.sum, self.number)
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

/// Hashes the code addresses in the window. Four words a turn: counting turns is dear, too.
#[inline(always)]
fn hash_window(thread: &Thread, text: &TextTable, hash: &mut Hash) {
    for turn in 0..WINDOW_WORDS / 4 {
        for index in 0..4 {
            let word = thread.window[turn * 4 + index];
            hash.add(word, mask_if_zero(distance_from_code(text, word)));
        }
    }
}

/// Hash of the narrow window, at the stack pointer.
#[inline(always)]
pub fn hash_narrow(thread: &mut Thread, sp: u64, seed: u64) -> u64 {
    if thread.text_slot == NO_SLOT
        && let Some(slot) = slot_of(thread.image)
    {
        thread.text_slot = slot;
    }
    if !read_window(thread, sp) {
        read_rest_of_page(thread, sp);
    }
    let mut hash = Hash::begin(seed);
    if let Some(text) = trusted_text(thread) {
        hash_window(thread, text, &mut hash);
    } else {
        for index in 0..WINDOW_WORDS {
            let word = thread.window[index];
            hash.add(word, may_be_code(word, sp).wrapping_neg());
        }
    }
    hash.value()
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
pub struct Wider {
    pub middle: u64,
    pub wide: u64,
}

#[inline(always)]
pub fn hash_wider(thread: &mut Thread, sp: u64) -> Wider {
    let Some(text) = trusted_text(thread) else {
        return Wider { middle: 0, wide: 0 };
    };
    let mut hash = Hash::begin(0);
    let goes_on = hash_windows(thread, text, sp, 0..MIDDLE_WINDOWS, &mut hash);
    let middle = hash.value();
    if goes_on {
        hash_windows(thread, text, sp, MIDDLE_WINDOWS..WIDE_WINDOWS, &mut hash);
    }
    let wide = hash.value();
    Wider { middle, wide }
}

/// The first of [`Wider`] alone.
#[inline(always)]
pub fn hash_middle(thread: &mut Thread, sp: u64) -> u64 {
    let Some(text) = trusted_text(thread) else {
        return 0;
    };
    let mut hash = Hash::begin(0);
    hash_windows(thread, text, sp, 0..MIDDLE_WINDOWS, &mut hash);
    hash.value()
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
