//! What a hit costs on this kernel, measured on memtrace itself before the target is touched.
//!
//! Two pairs of functions stand for the two kinds of probe there are: one whose probed
//! instruction the kernel emulates, one that it must single-step. They are probed with the real
//! programs, so the figure is what a target pays.

use std::{arch::global_asm, hint::black_box, path::Path, time::Instant};

use memtrace_common::{
    FINGERPRINT_BYTES, Function, THREADS_UNKNOWN, Target, WIDE_ALWAYS, WIDE_BYTES, WIDE_CHECK,
};

use super::{
    AttachPoint, Attachments, KernelSide, ProbeError, Purpose,
    own_code::{OWN_FILE, own_file_offset},
};
use crate::id::{Fingerprint, SpaceId, Tgid};

// Each function returns its second argument. The probed place is the first instruction.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".text",
    ".p2align 4",
    "memtrace_emulated_alloc: nop",
    "mov rax, rsi",
    "ret",
    ".p2align 4",
    "memtrace_emulated_free: nop",
    "ret",
    ".p2align 4",
    "memtrace_stepped_alloc: mov rax, rsi",
    "ret",
    ".p2align 4",
    "memtrace_stepped_free: mov rax, rsi",
    "ret",
);
// `b` is simulated, `mov` is stepped.
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".text",
    ".p2align 4",
    "memtrace_emulated_alloc: b 1f",
    "1: mov x0, x1",
    "ret",
    ".p2align 4",
    "memtrace_emulated_free: b 1f",
    "1: ret",
    ".p2align 4",
    "memtrace_stepped_alloc: mov x0, x1",
    "ret",
    ".p2align 4",
    "memtrace_stepped_free: mov x0, x1",
    "ret",
);

unsafe extern "C" {
    fn memtrace_emulated_alloc(size: u64, address: u64) -> u64;
    fn memtrace_emulated_free(address: u64, unused: u64) -> u64;
    fn memtrace_stepped_alloc(size: u64, address: u64) -> u64;
    fn memtrace_stepped_free(address: u64, unused: u64) -> u64;
}

type Probed = unsafe extern "C" fn(u64, u64) -> u64;

/// Nanoseconds by kind of probe, programs and traps together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HitCosts {
    /// Entry and return of an allocation function, on an emulated instruction.
    pub emulated_pair_ns: f64,
    /// A free function, on an emulated instruction.
    pub emulated_free_ns: f64,
    /// Entry and return, on an instruction that is single-stepped.
    pub stepped_pair_ns: f64,
    /// A free function, single-stepped.
    pub stepped_free_ns: f64,
}

/// What some hits cost more than others, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StackCosts {
    /// One more window of [`FINGERPRINT_BYTES`] is hashed.
    pub window_ns: f64,
    /// A new call path: its context is made, its stack copied.
    pub copy_ns: f64,
}

/// Costs in both modes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calibration {
    /// Every block is recorded.
    pub exact: HitCosts,
    /// Hardly any block is.
    pub sampled: HitCosts,
    /// On top of either.
    pub stacks: StackCosts,
}

/// Bytes between samples while the sampled mode is measured.
const SAMPLE_BYTES: u64 = 1 << 30;

/// Space id used while measuring; targets get ids with their pid in the upper half.
const SPACE: SpaceId = SpaceId(1);
const ROUNDS: u32 = 500;
const WARM_UP: u32 = 64;
/// Stacks copied: the smallest ring buffer has room for them.
const COPIES: u32 = 5;
/// Windows that are hashed in the wide one.
const WINDOWS: f64 = (WIDE_BYTES / FINGERPRINT_BYTES) as f64;

/// Measures. Takes some 10 ms; leaves nothing behind but its probes, which go with the returned
/// attachments (taking probes off is slow, so it is done at the end, with the others).
pub fn calibrate(kernel: &mut KernelSide) -> Result<(Calibration, Attachments), ProbeError> {
    let me = Tgid(std::process::id());
    let mut attachments = Attachments::default();
    let functions: [(Probed, Function); 4] = [
        (memtrace_emulated_alloc, Function::Size0),
        (memtrace_emulated_free, Function::Free0),
        (memtrace_stepped_alloc, Function::Size0),
        (memtrace_stepped_free, Function::Free0),
    ];
    let mut points = Vec::with_capacity(functions.len());
    for (function, convention) in functions {
        points.push(AttachPoint {
            path: Path::new(OWN_FILE),
            offset: own_file_offset(function as usize as u64)?,
            function: convention,
            returns: &[],
            process: Some(me),
            anchor: None,
        });
    }
    kernel
        .attach(&mut attachments, &points, Purpose::Trace)
        .into_iter()
        .collect::<Result<(), _>>()?;
    let calibration = as_target(kernel, SPACE, |kernel| {
        let exact = measure_both();
        let stacks = measure_stacks(kernel)?;
        kernel.set_sampling(SAMPLE_BYTES)?;
        let sampled = measure_both();
        Ok(Calibration {
            exact,
            sampled,
            stacks,
        })
    })?;
    Ok((calibration, attachments))
}

/// Measures with memtrace itself as the target, and leaves nothing of that in the tables.
pub(super) fn as_target<T>(
    kernel: &mut KernelSide,
    space: SpaceId,
    measure: impl FnOnce(&mut KernelSide) -> Result<T, ProbeError>,
) -> Result<T, ProbeError> {
    let me = Tgid(std::process::id());
    kernel.add_target(
        me,
        Target {
            space: space.0,
            image: space.0,
            threads: THREADS_UNKNOWN,
            text_slot: 0,
            borrowed: 0,
            anchor: me.0,
            pad: 0,
        },
    )?;
    let measured = measure(kernel)?;
    kernel.remove_target(me)?;
    kernel.forget_thread(rustix::thread::gettid().as_raw_pid().cast_unsigned())?;
    kernel.forget_space(space)?;
    kernel.reset_counters()?;
    Ok(measured)
}

fn measure_both() -> HitCosts {
    let (emulated_pair_ns, emulated_free_ns) =
        measure(memtrace_emulated_alloc, memtrace_emulated_free);
    let (stepped_pair_ns, stepped_free_ns) = measure(memtrace_stepped_alloc, memtrace_stepped_free);
    HitCosts {
        emulated_pair_ns,
        emulated_free_ns,
        stepped_pair_ns,
        stepped_free_ns,
    }
}

/// Times allocations and frees apart: the median round of each, so that one interruption does
/// not count.
fn measure(alloc: Probed, free: Probed) -> (f64, f64) {
    let mut pairs = Vec::with_capacity(ROUNDS as usize);
    let mut frees = Vec::with_capacity(ROUNDS as usize);
    for round in 0..ROUNDS + WARM_UP {
        let address = 0x1000 + u64::from(round % 16) * 64;
        let start = Instant::now();
        // SAFETY: the functions return their second argument and touch nothing.
        let block = unsafe { alloc(black_box(64), black_box(address)) };
        let middle = Instant::now();
        // SAFETY: as above.
        unsafe { free(black_box(block), 0) };
        let end = Instant::now();
        if round >= WARM_UP {
            pairs.push((middle - start).as_nanos() as f64);
            frees.push((end - middle).as_nanos() as f64);
        }
    }
    (median(pairs), median(frees))
}

/// What call paths cost that are new, or need the wide window.
fn measure_stacks(kernel: &mut KernelSide) -> Result<StackCosts, ProbeError> {
    on_deep_stack(WARM_UP);
    let usual = on_deep_stack(ROUNDS);
    let mut keys = Vec::new();
    kernel.walk_contexts(|key, _| {
        if key.space == SPACE.0 {
            keys.push(key);
        }
    })?;
    let mut copies = Vec::new();
    for _ in 0..COPIES {
        kernel.remove_contexts(&keys)?;
        copies.push(on_deep_stack(1));
    }
    let mut set_wide = |mode| {
        let mut keys = keys.iter();
        keys.try_for_each(|key| kernel.set_wide(Fingerprint(key.fingerprint), mode))
    };
    set_wide(WIDE_ALWAYS)?;
    on_deep_stack(WARM_UP);
    let wide = on_deep_stack(ROUNDS);
    set_wide(WIDE_CHECK)?;
    Ok(StackCosts {
        window_ns: (wide - usual).max(0.0) / WINDOWS,
        copy_ns: (median(copies) - usual).max(0.0),
    })
}

/// Nanoseconds of an allocation, always by one call path, with a stack below that fills the wide
/// window.
#[inline(never)]
fn on_deep_stack(rounds: u32) -> f64 {
    let below = black_box([1_u8; WIDE_BYTES]);
    let mut pairs = Vec::with_capacity(rounds as usize);
    for _ in 0..black_box(rounds) {
        let start = Instant::now();
        // SAFETY: the functions return their second argument and touch nothing.
        let block = unsafe { memtrace_emulated_alloc(black_box(64), black_box(0x1000)) };
        pairs.push(start.elapsed().as_nanos() as f64);
        // SAFETY: as above.
        unsafe { memtrace_emulated_free(black_box(block), 0) };
    }
    black_box(&below);
    median(pairs)
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
