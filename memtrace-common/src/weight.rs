//! What one sampled block stands for (R22).
//!
//! A block of `size` bytes is sampled with probability `p = 1 − exp(−size / rate)`, so it stands
//! for `1/p` objects. Both sides compute the same number from the same table, and the free
//! subtracts exactly what the allocation added.

use crate::ONE_OBJECT;

/// Table steps for one unit of `size / rate`.
const STEPS: u64 = 64;
/// Beyond this ratio a block is sampled with a probability of 1 − 1e-7: it stands for itself.
const MAX_RATIO: u64 = 16;
/// Entries of the table. A power of two, so that the index can be masked for the verifier.
const ENTRIES: usize = (STEPS * MAX_RATIO) as usize;

/// `1 / (1 − exp(−x))` in units of 1/[`ONE_OBJECT`] for `x = index / STEPS`.
/// One entry more than there are steps, so that the step after the last can be read.
static WEIGHTS: [u32; ENTRIES + 1] = weights();

const _: () = assert!(ENTRIES.is_power_of_two());

const fn weights() -> [u32; ENTRIES + 1] {
    // exp(-1/64) to double precision; powers of it by repeated multiplication.
    const STEP: f64 = 0.984_496_437_005_408_4;
    let mut table = [0_u32; ENTRIES + 1];
    let mut power = STEP;
    let mut index = 1;
    while index <= ENTRIES {
        table[index] = (ONE_OBJECT as f64 / (1.0 - power) + 0.5) as u32;
        power *= STEP;
        index += 1;
    }
    table
}

/// Objects, in units of 1/[`ONE_OBJECT`], that a sampled block of `size` bytes stands for when
/// the mean distance between samples is `rate` bytes. Exactly [`ONE_OBJECT`] for rates 0 and 1.
///
/// Relative error below 0.02% against the formula above.
#[must_use]
#[inline(always)]
pub fn objects_q16(size: u64, rate: u64) -> u64 {
    if rate <= 1 || size == 0 || size / MAX_RATIO >= rate {
        return ONE_OBJECT;
    }
    // size < 2^48 and rate < 2^40 are enforced where they are set, so the shifts cannot overflow.
    if size < rate / 2 {
        // 1/x + 1/2 + x/12: the series' next term is below 0.0002 here.
        return (rate << 16) / size + ONE_OBJECT / 2 + (size << 16) / rate / 12;
    }
    let scaled = (size << 16) / rate * STEPS;
    let index = (scaled >> 16) as usize;
    let fraction = scaled & 0xffff;
    let low = entry(index & (ENTRIES - 1));
    let high = entry((index & (ENTRIES - 1)) + 1);
    low - (((low - high) * fraction) >> 16)
}

/// A table entry; `index` is at most [`ENTRIES`].
#[inline(always)]
fn entry(index: usize) -> u64 {
    // SAFETY: the callers mask the index. Read as volatile so that the table stays in memory,
    // where the verifier can check the access.
    u64::from(unsafe { core::ptr::read_volatile(WEIGHTS.as_ptr().add(index)) })
}

/// Bytes that a sampled block of `size` bytes stands for.
#[must_use]
#[inline(always)]
pub fn bytes(size: u64, objects_q16: u64) -> u64 {
    if objects_q16 == ONE_OBJECT {
        return size;
    }
    // size < 2^48; for small sizes objects are many, for large ones few: the product of both is
    // about max(size, rate) << 16 and stays below 2^64.
    (size * objects_q16) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weight is within 0.03% of 1/(1−exp(−size/rate)) over seven orders of magnitude.
    #[test]
    fn weight_follows_the_formula() {
        extern crate std;
        for rate in [2_u64, 1 << 10, 512 << 10, 1 << 30] {
            let mut size = 1_u64;
            while size < rate * 20 {
                let x = size as f64 / rate as f64;
                let expected = 1.0 / (1.0 - (-x).exp());
                let got = objects_q16(size, rate) as f64 / ONE_OBJECT as f64;
                std::assert!(
                    (got / expected - 1.0).abs() < 3e-4,
                    "size {size} rate {rate}: {got} instead of {expected}"
                );
                size = (size * 3 / 2).max(size + 1);
            }
        }
    }

    /// Exact mode counts every block as itself.
    #[test]
    fn exact_mode_has_weight_one() {
        for size in [0_u64, 1, 4096, 1 << 47] {
            assert_eq!(objects_q16(size, 1), ONE_OBJECT);
            assert_eq!(objects_q16(size, 0), ONE_OBJECT);
            assert_eq!(bytes(size, ONE_OBJECT), size);
        }
    }
}
