//! What a traced system call or page fault costs on this kernel, measured on memtrace itself.

use std::{hint::black_box, time::Instant};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::{
    KernelSide, ProbeError,
    calibrate::{as_target, median},
};
use crate::id::SpaceId;

/// Space id used while measuring.
const SPACE: SpaceId = SpaceId(2);
const ROUNDS: usize = 200;
const PAGES: usize = 64;

/// Nanoseconds that tracing adds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryCosts {
    /// To a system call that changes mappings.
    pub region_ns: f64,
    /// To a page fault.
    pub fault_ns: f64,
}

/// Measures what is attached: once as any other process, once as a target. Some milliseconds.
pub fn calibrate_memory(kernel: &mut KernelSide) -> Result<MemoryCosts, ProbeError> {
    let untraced = (calls(), faults());
    let traced = as_target(kernel, SPACE, |_| {
        // The first ones make the contexts.
        let _ = (calls(), faults());
        Ok((calls(), faults()))
    })?;
    Ok(MemoryCosts {
        region_ns: (traced.0 - untraced.0).max(0.0),
        fault_ns: (traced.1 - untraced.1).max(0.0),
    })
}

/// Nanoseconds of a call that maps or unmaps: the median round.
fn calls() -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        if let Some(place) = map(1) {
            unmap(place, 1);
        }
        start.elapsed().as_nanos() as f64 / 2.0
    });
    median(rounds.collect())
}

/// Nanoseconds of a first touch.
fn faults() -> f64 {
    let Some(place) = map(PAGES) else {
        return 0.0;
    };
    let bytes = place.cast::<u8>();
    let page = rustix::param::page_size();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS / 8 {
        let start = Instant::now();
        // Not unrolled: each copy of the store would be a call path of its own, and new ones are dear.
        for at in 0..black_box(PAGES) {
            // SAFETY: within the mapping made above, which is writable.
            unsafe { bytes.add(at * page).write_volatile(1) };
        }
        rounds.push(start.elapsed().as_nanos() as f64 / PAGES as f64);
        // SAFETY: nothing else is in the mapping.
        let _ = unsafe { madvise(place, PAGES * page, Advice::LinuxDontNeed) };
    }
    unmap(place, PAGES);
    median(rounds)
}

fn map(pages: usize) -> Option<*mut std::ffi::c_void> {
    let length = pages * rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping where the kernel likes.
    unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::PRIVATE) }.ok()
}

fn unmap(place: *mut std::ffi::c_void, pages: usize) {
    let length = pages * rustix::param::page_size();
    // SAFETY: made by `map`, used by nobody else.
    let _ = unsafe { munmap(place, length) };
}
