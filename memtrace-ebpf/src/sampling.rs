//! Which allocations count: the size filter and sampling by bytes (R22).

use aya_ebpf::helpers::bpf_get_prandom_u32;
use memtrace_common::{MAX_SAMPLING_EPOCHS, thread::Thread};

use crate::{context::nonzero, maps::SAMPLING, settings};

/// ln 2 in units of 2^-32.
const LN_2: u64 = 2_977_044_472;

/// The sampling epoch when this allocation is to be recorded.
#[inline(always)]
pub fn decide(thread: &mut Thread, size: u64) -> Option<u32> {
    let settings = settings();
    if size < settings.min_size || size > settings.max_size {
        return None;
    }
    let sampling = SAMPLING.get_ptr(0)?;
    // SAFETY: the single entry of an array map; user space replaces it whole.
    let epoch = unsafe { (*sampling).epoch } & (MAX_SAMPLING_EPOCHS as u64 - 1);
    // SAFETY: the mask above keeps the index inside the array.
    let rate = unsafe { core::ptr::read((*sampling).rates.as_ptr().add(epoch as usize)) };
    if rate <= 1 {
        return Some(epoch as u32);
    }
    if thread.sample_epoch != epoch + 1 {
        thread.sample_epoch = epoch + 1;
        thread.until_sample = distance(rate);
    }
    // Sizes up to 2^48 and distances below 2^46 cannot overflow.
    thread.until_sample -= (size & ((1 << 48) - 1)) as i64;
    if thread.until_sample >= 0 {
        return None;
    }
    thread.until_sample = distance(rate);
    Some(epoch as u32)
}

/// An exponentially distributed distance in bytes with the mean `rate` (below 2^40):
/// −ln(u)·rate for a uniform u in (0, 1].
#[inline(always)]
fn distance(rate: u64) -> i64 {
    // SAFETY: a helper without arguments.
    let random = u64::from(unsafe { bpf_get_prandom_u32() }) + 1;
    let negative_log2_q16 = (32 << 16) - log2_q16(random);
    let negative_ln_q16 = (negative_log2_q16 * LN_2) >> 32;
    ((rate * negative_ln_q16) >> 16) as i64
}

/// log2 of 1 ..= 2^32 in units of 2^-16, bit by bit and without a branch (the verifier would
/// follow each): the kernel has no logarithm.
#[inline(always)]
fn log2_q16(value: u64) -> u64 {
    let mut rest = value;
    let mut whole = 0;
    let mut shift = 32;
    while shift > 0 {
        let step = nonzero(rest >> shift) * shift;
        rest >>= step;
        whole += step;
        shift /= 2;
    }
    // Squaring a mantissa in [1, 2) doubles its logarithm; each overflow past 2 is a bit.
    let mut mantissa = (value << (32 - whole)) >> 1;
    let mut fraction = 0;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        let overflow = mantissa >> 32;
        mantissa >>= overflow & 1;
        fraction = fraction << 1 | overflow;
    }
    whole << 16 | fraction
}
