//! What every Rust target program shares: the protocol of `truth.h`, without an allocation.

use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The allocator under test: libc's, jemalloc with its prefix, or mimalloc.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A function that allocates, and what it holds.
pub struct Site {
    function: &'static str,
    outstanding_bytes: AtomicI64,
    outstanding_objects: AtomicI64,
    allocated_bytes: AtomicI64,
    allocated_objects: AtomicI64,
}

impl Site {
    /// A site that has nothing yet.
    pub const fn new(function: &'static str) -> Self {
        Self {
            function,
            outstanding_bytes: AtomicI64::new(0),
            outstanding_objects: AtomicI64::new(0),
            allocated_bytes: AtomicI64::new(0),
            allocated_objects: AtomicI64::new(0),
        }
    }

    /// One block of so many bytes was allocated.
    pub fn took(&self, bytes: usize) {
        self.outstanding_bytes.fetch_add(bytes as i64, Relaxed);
        self.outstanding_objects.fetch_add(1, Relaxed);
        self.allocated_bytes.fetch_add(bytes as i64, Relaxed);
        self.allocated_objects.fetch_add(1, Relaxed);
    }

    /// One block of so many bytes was freed.
    pub fn gave(&self, bytes: usize) {
        self.outstanding_bytes.fetch_sub(bytes as i64, Relaxed);
        self.outstanding_objects.fetch_sub(1, Relaxed);
    }
}

fn say(text: &[u8]) {
    // SAFETY: the pointer and length are of one live slice.
    let n = unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
    assert_eq!(n, text.len() as isize);
}

fn wait_line() {
    if std::env::var_os("TRUTH_NOWAIT").is_some() {
        return;
    }
    let mut c = 0u8;
    // SAFETY: one byte is read into one live byte.
    while unsafe { libc::read(0, (&raw mut c).cast(), 1) } == 1 && c != b'\n' {}
}

/// Says `ready PID` and waits for a line.
pub fn ready() {
    let mut text = [0u8; 64];
    let mut rest = &mut text[..];
    let _ = writeln!(rest, "ready {}", std::process::id());
    let left = rest.len();
    say(&text[..64 - left]);
    wait_line();
}

/// Prints the truth and waits for a line.
pub fn end(sites: &[&Site]) {
    let mut text = [0u8; 8192];
    let mut rest = &mut text[..];
    let _ = write!(rest, "{{\"pid\":{},\"sites\":[", std::process::id());
    for (i, site) in sites.iter().enumerate() {
        let _ = write!(
            rest,
            "{}{{\"function\":\"{}\",\"exact\":true,\"outstanding_bytes\":{},\"outstanding_objects\":{},\"allocated_bytes\":{},\"allocated_objects\":{}}}",
            if i > 0 { "," } else { "" },
            site.function,
            site.outstanding_bytes.load(Relaxed),
            site.outstanding_objects.load(Relaxed),
            site.allocated_bytes.load(Relaxed),
            site.allocated_objects.load(Relaxed),
        );
    }
    let _ = writeln!(rest, "]}}");
    let left = rest.len();
    say(&text[..8192 - left]);
    wait_line();
}
