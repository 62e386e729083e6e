//! This process as a target: its mappings, and copies of its own stack.

use std::arch::asm;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::id::SpaceId;
use crate::unwind::*;

/// The address space tests use.
pub(crate) const SPACE: SpaceId = SpaceId(1);
/// What the kernel side copies at most.
pub(crate) const COPY: usize = 32 << 10;

/// A copy of this thread's stack with the registers that go with it.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub ip: u64,
    pub sp: u64,
    pub fp: u64,
    pub lr: u64,
    pub bytes: Vec<u8>,
    /// What the C library's own unwinder says, from the capturing function's caller on.
    pub truth: Vec<u64>,
}

impl Captured {
    pub fn raw(&self) -> RawStack<'_> {
        RawStack {
            ip: self.ip,
            sp: self.sp,
            fp: self.fp,
            lr: self.lr,
            bytes: &self.bytes,
        }
    }
}

/// Captures the caller's registers and stack: always inlined, so that they are its own.
macro_rules! capture_here {
    () => {{
        let (ip, sp, fp, lr) = $crate::unwind::tests::support::registers();
        $crate::unwind::tests::support::copy(ip, sp, fp, lr)
    }};
}
pub(crate) use capture_here;

/// Registers of the function this is inlined into.
#[inline(always)]
pub(crate) fn registers() -> (u64, u64, u64, u64) {
    let (ip, sp, fp, lr): (u64, u64, u64, u64);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads registers only.
    unsafe {
        asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp",
             out(reg) ip, out(reg) sp, out(reg) fp, options(nomem, nostack));
        lr = 0;
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads registers only.
    unsafe {
        asm!("adr {}, .", "mov {}, sp", "mov {}, x29", "mov {}, x30",
             out(reg) ip, out(reg) sp, out(reg) fp, out(reg) lr, options(nomem, nostack));
    }
    (ip, sp, fp, lr)
}

/// Copies the stack from `sp` and asks the C library for the truth.
#[inline(never)]
pub(crate) fn copy(ip: u64, sp: u64, fp: u64, lr: u64) -> Captured {
    let mut truth = vec![std::ptr::null_mut(); 2048];
    // SAFETY: the buffer is as long as is said.
    let count = unsafe { libc::backtrace(truth.as_mut_ptr(), truth.len() as i32) };
    // This function's and the capturing function's own frames go.
    let truth = truth[2..count as usize].iter().map(|p| *p as u64).collect();
    let end = maps()
        .into_iter()
        .find(|m| m.start <= sp && sp < m.end)
        .unwrap()
        .end;
    let mut bytes = vec![0; COPY.min((end - sp) as usize)];
    // Read by the kernel, so that no reference to live stack memory is made.
    File::open("/proc/self/mem")
        .unwrap()
        .read_exact_at(&mut bytes, sp)
        .unwrap();
    Captured {
        ip,
        sp,
        fp,
        lr,
        bytes,
        truth,
    }
}

/// A line of `/proc/self/maps`.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub start: u64,
    pub end: u64,
    pub executable: bool,
    pub offset: u64,
    pub path: String,
}

/// This process's mappings.
pub(crate) fn maps() -> Vec<Map> {
    parse_maps(&fs::read_to_string("/proc/self/maps").unwrap())
}

/// The lines of a `/proc/PID/maps`.
pub(crate) fn parse_maps(text: &str) -> Vec<Map> {
    let hex = |s: &str| u64::from_str_radix(s, 16).unwrap();
    text.lines()
        .map(|line| {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next().unwrap().split_once('-').unwrap();
            let executable = fields.next().unwrap().contains('x');
            let offset = hex(fields.next().unwrap());
            let path = fields.nth(2).unwrap_or_default().to_owned();
            Map {
                start: hex(start),
                end: hex(end),
                executable,
                offset,
                path,
            }
        })
        .collect()
}

/// This process's executable mappings, opened.
pub(crate) fn own_mappings() -> Vec<ModuleMapping> {
    let mut store = ModuleStore::default();
    maps()
        .into_iter()
        .filter(|m| m.executable)
        .map(|m| ModuleMapping {
            start: m.start,
            end: m.end,
            file_offset: m.offset,
            backing: backing(&mut store, &m),
        })
        .collect()
}

fn backing(store: &mut ModuleStore, map: &Map) -> Backing {
    match map.path.as_str() {
        "[vdso]" => {
            let mut bytes = vec![0; (map.end - map.start) as usize];
            File::open("/proc/self/mem")
                .unwrap()
                .read_exact_at(&mut bytes, map.start)
                .unwrap();
            Backing::File(store.intern_bytes("[vdso]", bytes))
        }
        "[uprobes]" => Backing::Trampolines,
        path if path.starts_with('/') => {
            Backing::File(store.intern(path, File::open(path).unwrap()).unwrap())
        }
        _ => Backing::Anonymous,
    }
}

/// An unwinder that knows this process.
pub(crate) fn own_unwinder() -> Unwinder {
    let mut unwinder = Unwinder::new(UnwindLimits::default());
    unwinder.update_modules(SPACE, &own_mappings());
    unwinder
}
