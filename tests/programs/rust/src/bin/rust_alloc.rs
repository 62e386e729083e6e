//! Rust's ways to allocate, each in a function of its own; built with each of the allocators.
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::rc::Rc;

use truth_programs::{Site, end, ready};

static BOXED: Site = Site::new("leak_box");
static VECTOR: Site = Site::new("leak_vec");
static GROWN: Site = Site::new("grow_vec");
static ZEROED: Site = Site::new("leak_zeroed");
static ALIGNED: Site = Site::new("leak_aligned");
static ALIGNED_GROWN: Site = Site::new("grow_aligned");
static SHARED: Site = Site::new("leak_rc");
static RAW: Site = Site::new("leak_raw");
static SHRUNK: Site = Site::new("shrink_raw");
static TEXT: Site = Site::new("leak_string");

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn leak_box() -> *mut [u8; 100] {
    let p = Box::into_raw(black_box(Box::new([7u8; 100])));
    BOXED.took(100);
    p
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn leak_vec(n: usize) {
    let v: Vec<u64> = Vec::with_capacity(n);
    VECTOR.took(v.capacity() * 8);
    black_box(v.leak());
}

#[unsafe(no_mangle)]
#[inline(never)]
fn grow_vec(v: &mut Vec<u32>) {
    let before = v.capacity();
    v.push(1);
    black_box(v.as_ptr());
    if v.capacity() != before {
        if before > 0 {
            GROWN.gave(before * 4);
        }
        GROWN.took(v.capacity() * 4);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn leak_zeroed(n: usize) {
    let v = vec![0u8; n];
    ZEROED.took(v.capacity());
    black_box(v.leak());
}

#[unsafe(no_mangle)]
#[inline(never)]
fn leak_aligned(n: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let p = unsafe { alloc(Layout::from_size_align_unchecked(n, 128)) };
    ALIGNED.took(n);
    black_box(p)
}

/// Above the allocator's natural alignment a realloc is alloc, copy and dealloc for some.
#[unsafe(no_mangle)]
#[inline(never)]
fn grow_aligned(p: *mut u8, n: usize, to: usize) -> *mut u8 {
    // SAFETY: `p` was allocated with this layout.
    let p = unsafe { realloc(p, Layout::from_size_align_unchecked(n, 128), to) };
    ALIGNED.gave(n);
    ALIGNED_GROWN.took(to);
    black_box(p)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn leak_rc(n: usize) -> Rc<[u8]> {
    let shared: Rc<[u8]> = Rc::from(black_box(&[1u8; 4096][..n]));
    // Two counters before the bytes, rounded up to their alignment.
    SHARED.took((16 + n).next_multiple_of(8));
    black_box(shared)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn leak_raw(n: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let p = unsafe { alloc_zeroed(Layout::from_size_align_unchecked(n, 8)) };
    RAW.took(n);
    black_box(p)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn shrink_raw(p: *mut u8, n: usize, to: usize) -> *mut u8 {
    // SAFETY: `p` was allocated with this layout.
    let p = unsafe { realloc(p, Layout::from_size_align_unchecked(n, 8), to) };
    RAW.gave(n);
    SHRUNK.took(to);
    black_box(p)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn leak_string(n: usize) {
    let text = black_box("x").repeat(n);
    TEXT.took(text.capacity());
    black_box(text.leak());
}

fn main() {
    ready();
    for i in 1..=120usize {
        let give = i % 3 == 0;
        let p = leak_box();
        if give {
            // SAFETY: it came from a box.
            drop(unsafe { Box::from_raw(p) });
            BOXED.gave(100);
        }
        leak_vec(i);
        let mut v = Vec::new();
        for _ in 0..i * 10 {
            grow_vec(&mut v);
        }
        if give {
            GROWN.gave(v.capacity() * 4);
            drop(v);
        } else {
            black_box(v.leak());
        }
        leak_zeroed(i * 9);
        let p = leak_aligned(i * 13);
        if give {
            let p = grow_aligned(p, i * 13, i * 50);
            if i % 2 == 0 {
                // SAFETY: allocated with this layout.
                unsafe { dealloc(p, Layout::from_size_align_unchecked(i * 50, 128)) };
                ALIGNED_GROWN.gave(i * 50);
            }
        }
        let shared = leak_rc(i);
        if give {
            drop(shared);
            SHARED.gave((16 + i).next_multiple_of(8));
        } else {
            std::mem::forget(shared);
        }
        let p = leak_raw(i * 21);
        if give {
            let p = shrink_raw(p, i * 21, i * 2);
            if i % 2 == 0 {
                // SAFETY: allocated with this layout.
                unsafe { dealloc(p, Layout::from_size_align_unchecked(i * 2, 8)) };
                SHRUNK.gave(i * 2);
            }
        }
        leak_string(i);
    }
    end(&[
        &BOXED, &VECTOR, &GROWN, &ZEROED, &ALIGNED, &ALIGNED_GROWN, &SHARED, &RAW, &SHRUNK, &TEXT,
    ]);
}
