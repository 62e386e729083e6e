//! Blocks into and out of the live table, and their contexts' counters.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use memtrace_common::{
    Context, ContextKey, Counter, LiveKey, LiveValue, MAX_SAMPLING_EPOCHS, weight,
};

use crate::maps::{CONTEXTS, LIVE, SAMPLING, add, count};

/// `-EEXIST`
const EXISTS: i32 = -17;

/// The mean distance between samples in an epoch.
#[inline(always)]
fn rate_of(epoch: usize) -> u64 {
    let Some(sampling) = SAMPLING.get_ptr(0) else {
        return 1;
    };
    // SAFETY: the mask keeps the index inside the array (its length is a power of two).
    unsafe {
        core::ptr::read(
            (*sampling)
                .rates
                .as_ptr()
                .add(epoch & (MAX_SAMPLING_EPOCHS - 1)),
        )
    }
}
const _: () = assert!(MAX_SAMPLING_EPOCHS.is_power_of_two());

/// The weight of a block: objects in 1/65536, and bytes.
#[inline(always)]
fn weigh(value: &LiveValue) -> (u64, u64) {
    let objects = weight::objects_q16(value.size(), rate_of(value.epoch()));
    (objects, weight::bytes(value.size(), objects))
}

/// Counters of a context; those of the "unattributed" one when it has none.
#[inline(always)]
fn counters(space: u64, fingerprint: u64) -> Option<*mut Context> {
    let key = ContextKey { space, fingerprint };
    if let Some(context) = CONTEXTS.get_ptr_mut(key) {
        return Some(context);
    }
    let unattributed = ContextKey {
        space,
        fingerprint: 0,
    };
    if CONTEXTS.get_ptr_mut(unattributed).is_none() {
        let _ = CONTEXTS.insert(unattributed, new_context(0, 0), u64::from(BPF_NOEXIST));
    }
    CONTEXTS.get_ptr_mut(unattributed)
}

/// A context without counts. Written word by word: the compiler's memset is a loop of bytes,
/// which the verifier walks one by one.
#[inline(always)]
pub fn new_context(wide_hash: u64, copy_wanted: u64) -> Context {
    let mut context = core::mem::MaybeUninit::<Context>::uninit();
    let words: *mut u64 = context.as_mut_ptr().cast();
    // SAFETY: eight words are the whole of it (asserted below).
    unsafe {
        for index in 0..8 {
            core::ptr::write_volatile(words.add(index), 0);
        }
        let context = context.as_mut_ptr();
        (*context).wide_hash = wide_hash;
        (*context).copy_wanted = copy_wanted;
    }
    // SAFETY: every word was written.
    unsafe { context.assume_init() }
}
const _: () = assert!(size_of::<Context>() == 8 * 8);

/// Counts a block as freed under the context that allocated it.
#[inline(always)]
pub fn freed(space: u64, value: &LiveValue) {
    let Some(context) = counters(space, value.context) else {
        return;
    };
    let (objects, bytes) = weigh(value);
    // SAFETY: a map value's fields; concurrent writers use atomic additions only.
    unsafe {
        add(&raw mut (*context).freed_bytes, bytes);
        add(&raw mut (*context).freed_objects, objects);
    }
}

#[inline(always)]
fn allocated(space: u64, value: &LiveValue) {
    let Some(context) = counters(space, value.context) else {
        return;
    };
    let (objects, bytes) = weigh(value);
    // SAFETY: as above.
    unsafe {
        add(&raw mut (*context).allocated_bytes, bytes);
        add(&raw mut (*context).allocated_objects, objects);
    }
}

/// A new block: `born_ns` 0 means now.
#[inline(always)]
pub fn record(space: u64, address: u64, size: u64, context: u64, epoch: u32, born_ns: u64) {
    if size > LiveValue::SIZE_MASK {
        count(Counter::SizeTooLarge, 1);
        return;
    }
    let born_ns = if born_ns == 0 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    } else {
        born_ns
    };
    let key = LiveKey { space, address };
    let value = LiveValue {
        context,
        size_and_epoch: size | u64::from(epoch) << 48,
        born_ns,
    };
    match LIVE.insert(key, value, u64::from(BPF_NOEXIST)) {
        Ok(()) => {}
        Err(EXISTS) => {
            // R11: the block that was there is gone, its free was not seen.
            count(Counter::MissedFrees, 1);
            if let Some(old) = take(space, address) {
                freed(space, &old);
            }
            if LIVE.insert(key, value, 0).is_err() {
                return lost(size);
            }
        }
        Err(_) => return lost(size),
    }
    allocated(space, &value);
}

#[inline(always)]
fn lost(size: u64) {
    count(Counter::LiveTableFull, 1);
    count(Counter::LiveTableFullBytes, size);
}

/// Takes a block out of the live table; `None` when it is not there, or when another thread was
/// faster. The value is copied before the removal, after which the memory can be anyone's.
#[inline(always)]
pub fn take(space: u64, address: u64) -> Option<LiveValue> {
    let key = LiveKey { space, address };
    // SAFETY: copied at once; an entry is only reused after the removal below.
    let value = *unsafe { LIVE.get(key) }?;
    LIVE.remove(key).ok()?;
    Some(value)
}

/// Puts a block back that a failed realloc had taken out (R4).
#[inline(always)]
pub fn put_back(space: u64, address: u64, value: &LiveValue) {
    if LIVE.insert(LiveKey { space, address }, value, 0).is_err() {
        // Its context still counts it as outstanding: without the entry its free could not.
        freed(space, value);
        lost(value.size());
    }
}
