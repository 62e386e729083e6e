//! Keys and values of the maps that fold heap calls.

use crate::{MAX_SAMPLING_EPOCHS, TEXT_SLOTS};

/// How a probed function takes its arguments and gives its result; not its name.
///
/// The number is part of the in-kernel call record and of [`crate::ContextHeader`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    /// `void *f(size_t size, …)`: malloc, valloc, operator new, mallocx, …
    Size0 = 0,
    /// `void *f(x, size_t size, …)`: aligned_alloc, memalign, …
    Size1 = 1,
    /// Size in the third argument (custom allocators).
    Size2 = 2,
    /// Size in the fourth argument (custom allocators).
    Size3 = 3,
    /// Size in the fifth argument (custom allocators).
    Size4 = 4,
    /// Size in the sixth argument (custom allocators).
    Size5 = 5,
    /// `void *calloc(size_t n, size_t size)`
    Calloc = 6,
    /// `void *realloc(void *old, size_t size)`
    Realloc = 7,
    /// `void *reallocarray(void *old, size_t n, size_t size)`
    ReallocArray = 8,
    /// `int posix_memalign(void **out, size_t align, size_t size)`
    PosixMemalign = 9,
    /// `size_t xallocx(void *ptr, size_t size, size_t extra, int flags)`: in place, returns a size.
    Xallocx = 10,
    /// `void f(void *ptr, …)`: free, operator delete, sdallocx, …
    Free0 = 16,
    /// Pointer in the second argument (custom allocators).
    Free1 = 17,
    /// Pointer in the third argument (custom allocators).
    Free2 = 18,
    /// Pointer in the fourth argument (custom allocators).
    Free3 = 19,
    /// Pointer in the fifth argument (custom allocators).
    Free4 = 20,
    /// Pointer in the sixth argument (custom allocators).
    Free5 = 21,
}

/// Key of the LIVE table: one block in one address space.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LiveKey {
    /// The address space's id (see [`Target::space`]).
    pub space: u64,
    /// Address of the block as the program sees it, tag bits stripped.
    pub address: u64,
}

/// A live block. 24 bytes so that key, value and the kernel's own header fit 96 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveValue {
    /// Fingerprint of the context that allocated it.
    pub context: u64,
    /// Requested size in the low 48 bits, sampling epoch in the high 16 (see [`Sampling`]).
    pub size_and_epoch: u64,
    /// Monotonic nanoseconds of the first allocation (kept through realloc, R5).
    pub born_ns: u64,
}

impl LiveValue {
    /// Mask of the size's bits in [`LiveValue::size_and_epoch`].
    pub const SIZE_MASK: u64 = (1 << 48) - 1;

    /// Requested size in bytes.
    #[must_use]
    #[inline(always)]
    pub const fn size(&self) -> u64 {
        self.size_and_epoch & Self::SIZE_MASK
    }

    /// Index into [`Sampling::rates`] at the time of the allocation.
    #[must_use]
    #[inline(always)]
    pub const fn epoch(&self) -> usize {
        (self.size_and_epoch >> 48) as usize
    }
}

/// Key of the CONTEXTS table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContextKey {
    /// The address space's id.
    pub space: u64,
    /// The fingerprint; 0 collects what could not be attributed.
    pub fingerprint: u64,
}

/// Counters of one context. The freed side stands first: the kernel copies values upwards, so a
/// reader never sees a free without its allocation.
///
/// Bytes are requested bytes (weighted when sampling), objects are in units of
/// 1/[`crate::ONE_OBJECT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Bytes freed that this context had allocated.
    pub freed_bytes: u64,
    /// Objects freed that this context had allocated.
    pub freed_objects: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Objects allocated.
    pub allocated_objects: u64,
    /// Hash of the wide window at the first hit.
    pub wide_hash: u64,
    /// Calls seen with this fingerprint (not only successful ones).
    pub hits: u64,
    /// Hit number at which the wide window is checked next.
    pub next_check: u64,
    /// 1 while the stack copy is still wanted (a full ring drops it), else 0.
    pub copy_wanted: u64,
}

/// A traced process, keyed by its thread group id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Id of its address space: never reused, new after exec (R14, R15). 0 is no space.
    pub space: u64,
    /// The address space that its mappings were forked from, its own when none: call paths and
    /// text tables are those of the image.
    pub image: u64,
    /// Threads that have not ended, when nothing else tells the end of the process; above
    /// [`THREADS_UNKNOWN`] when nobody counted them.
    pub threads: u64,
    /// Index of its [`TextTable`]; [`NO_SLOT`]: the one that the SLOTS table has for its image.
    pub text_slot: u32,
    /// 1 for a process that only borrows the space of another (vfork, `CLONE_VM`), else 0.
    pub borrowed: u32,
    /// The thread that its probes hang on: user space is told when it ends. 0 when the probes are
    /// those of the file, for every process.
    pub anchor: u32,
    /// Explicit padding.
    pub pad: u32,
}

/// No [`TextTable`] of its own.
pub const NO_SLOT: u32 = u32::MAX;
/// A number of threads that is never counted down to nothing.
pub const THREADS_UNKNOWN: u64 = 1 << 40;

/// Which processes become targets by themselves. Set before the programs are verified, as
/// [`Settings`] are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// `FOLLOW_*` and `WATCH_*`.
    pub modes: u64,
    /// The name of programs that are traced from their exec on, padded with zeros; nothing: none.
    pub comm: [u64; 2],
}

/// Children of targets are targets.
pub const FOLLOW_FORK: u64 = 1;
/// A target that becomes another program stays one.
pub const FOLLOW_EXEC: u64 = 2;
/// User space is told of every program that begins and is no target.
pub const WATCH_EXEC: u64 = 4;
/// Every program that begins is a target.
pub const FOLLOW_ALL: u64 = 8;

/// Which addresses of one address space are code.
///
/// Direct-mapped: granule `g = address >> shift` is code when `tags[g % TEXT_SLOTS] == g / TEXT_SLOTS + 1`.
/// A missing granule only weakens the fingerprint; a wrong one would make a new context of every call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TextTable {
    /// The mapping generation (`TEXT_GENERATION[slot]`) the table was made from; while it is
    /// older, every word that is not a small number or a stack address is hashed.
    pub generation: u32,
    /// log2 of the granule in bytes.
    pub shift: u32,
    /// Tags, 0 where no granule is.
    pub tags: [u32; TEXT_SLOTS],
}

/// Byte sampling (R22). Single instance.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Current epoch: index into `rates`.
    pub epoch: u64,
    /// Mean bytes between samples per epoch; 0 and 1 record everything.
    pub rates: [u64; MAX_SAMPLING_EPOCHS],
}

/// What the kernel side is told at load time; constant afterwards, so that the verifier drops
/// what is not needed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Blocks smaller than this are not recorded.
    pub min_size: u64,
    /// Blocks larger than this are not recorded.
    pub max_size: u64,
    /// 1 when the call paths of mapping system calls are wanted, else 0.
    pub regions: u64,
}

const _: () = assert!(size_of::<LiveKey>() == 16);
const _: () = assert!(size_of::<LiveValue>() == 24);
const _: () = assert!(size_of::<ContextKey>() == 16);
const _: () = assert!(size_of::<Context>() == 64);
const _: () = assert!(size_of::<Target>() == 40);
const _: () = assert!(size_of::<TextTable>() == 8 + 4 * TEXT_SLOTS);
const _: () = assert!(size_of::<Sampling>() == 8 + 8 * MAX_SAMPLING_EPOCHS);
const _: () = assert!(size_of::<Selection>() == 24);
const _: () = assert!(size_of::<Settings>() == 24);
