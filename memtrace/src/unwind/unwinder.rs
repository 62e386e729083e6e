//! Stack copies to raw stacks.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::id::SpaceId;

use super::arch::{self, Registers};
use super::code;
use super::images::{ImageId, Images, UnwindCounters, UnwindLimits};
use super::module::ModuleFile;
use super::rules::{Rule, StepError};
use super::space::{Backing, MAX_MAPPINGS, Mapped, ModuleMapping, Space};
use super::stack::StackCopy;
use super::{CapturedFrame, Incomplete, MAX_FRAMES, NoCfi, RawStack, UnwoundStack};

/// A call in flight whose return address a return probe has replaced (R26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingReturn {
    /// The stack pointer when the function was entered. On x86-64 that is where its return address
    /// lies.
    pub slot_address: u64,
    /// Where it really returns to.
    pub original: u64,
}

/// Unwinds stack copies; knows every traced address space's executable mappings.
///
/// One for a session: unwind tables are shared by all processes that map an object.
#[derive(Default)]
pub struct Unwinder {
    pub(super) spaces: HashMap<SpaceId, Space>,
    images: Images,
    unknown: Option<u64>,
    depth: u64,
}

impl Unwinder {
    /// An unwinder without address spaces.
    pub fn new(limits: UnwindLimits) -> Self {
        Self {
            images: Images::new(limits),
            ..Self::default()
        }
    }

    /// Takes an address space's executable mappings, all of them, replacing what was known.
    ///
    /// Objects' tables are read when a stack first leads through them. Mappings that are gone stay
    /// known to [`Self::resolve`], so that stacks of an unloaded library can be named.
    pub fn update_modules(&mut self, space: SpaceId, mappings: &[ModuleMapping]) {
        let kept = mappings.get(..MAX_MAPPINGS).unwrap_or(mappings);
        self.images.counters.mappings_dropped += (mappings.len() - kept.len()) as u64;
        let images = &mut self.images;
        let new = kept.iter().map(|mapping| {
            let image = match &mapping.backing {
                Backing::File(module) => Some(images.id_of(module)),
                Backing::Anonymous | Backing::Trampolines => None,
            };
            Mapped::new(mapping, image)
        });
        let new = new.collect();
        self.spaces.entry(space).or_default().update(new);
        self.sweep();
    }

    /// A forked address space begins with its parent's mappings.
    pub fn fork_space(&mut self, parent: SpaceId, child: SpaceId) {
        if let Some(space) = self.spaces.get(&parent) {
            let copy = space.clone();
            self.spaces.insert(child, copy);
        }
    }

    /// Forgets an address space. Capture the stacks that will be shown first.
    pub fn remove_space(&mut self, space: SpaceId) {
        self.spaces.remove(&space);
        if self.spaces.len() * 4 < self.spaces.capacity() {
            self.spaces.shrink_to_fit();
        }
        self.sweep();
    }

    /// Whether mappings of this address space are known.
    pub fn knows(&self, space: SpaceId) -> bool {
        self.spaces.contains_key(&space)
    }

    /// Forgets objects of processes that are gone, once there are twice as many as were left the
    /// last time.
    fn sweep(&mut self) {
        if !self.images.is_crowded() {
            return;
        }
        let used: HashSet<_> = self.spaces.values().flat_map(Space::images).collect();
        self.images.sweep(&used);
    }

    /// Unwinds a copy without return probes on the stack.
    pub fn unwind(&mut self, space: SpaceId, raw: &RawStack<'_>) -> UnwoundStack {
        self.unwind_with_pending(space, raw, &[])
    }

    /// Unwinds a copy; where a return address was replaced by a return probe's trampoline, the
    /// original is taken from `pending`. Without a record the stack ends there, incomplete.
    ///
    /// Never fails and never panics: what is broken makes the stack incomplete.
    pub fn unwind_with_pending(
        &mut self,
        space: SpaceId,
        raw: &RawStack<'_>,
        pending: &[PendingReturn],
    ) -> UnwoundStack {
        self.unknown = None;
        let empty = Space::default();
        let space = self.spaces.get(&space).unwrap_or(&empty);
        let mut walk = Walk {
            images: &mut self.images,
            space,
            pending,
            copy: StackCopy::new(raw),
            frames: Vec::with_capacity(32),
            current: None,
            unknown: None,
            depth: 0,
        };
        // The tables are a target's bytes. What they can do to their parser ends here.
        let ended = catch_unwind(AssertUnwindSafe(|| walk.run(raw)));
        let Walk {
            frames,
            current,
            unknown,
            depth,
            ..
        } = walk;
        self.unknown = unknown;
        self.depth = depth;
        let incomplete = ended.unwrap_or_else(|_| {
            if let Some(image) = current {
                self.images.condemn(image);
            }
            Some(Incomplete::BadUnwindInfo)
        });
        UnwoundStack {
            frames: frames.into(),
            incomplete,
        }
    }

    /// The address outside every known mapping that ended the last unwinding. When there is one,
    /// the mappings may be out of date: update them and unwind again, once.
    pub fn unknown_address(&self) -> Option<u64> {
        self.unknown
    }

    /// The object and the offset in its file that an address belongs to, or belonged to before it
    /// was unmapped. For a return address ask for the address minus one.
    pub fn resolve(&self, space: SpaceId, address: u64) -> Option<(Arc<ModuleFile>, u64)> {
        let mapped = self.spaces.get(&space)?.find_ever(address)?;
        match &mapped.backing {
            Backing::File(module) => Some((Arc::clone(module), mapped.offset(address))),
            Backing::Anonymous | Backing::Trampolines => None,
        }
    }

    /// A stack with its objects, to be named later, when the target may be gone.
    pub fn capture(&self, space: SpaceId, stack: &UnwoundStack) -> Vec<CapturedFrame> {
        let frame = |(index, address): (usize, &u64)| {
            // A call can be its function's, and its mapping's, last instruction.
            let back = u64::from(index > 0);
            let found = self.resolve(space, address.wrapping_sub(back));
            let (module, file_offset) = match found {
                Some((module, offset)) => (Some(module), Some(offset.wrapping_add(back))),
                None => (None, None),
            };
            CapturedFrame {
                address: *address,
                module,
                file_offset,
            }
        };
        stack.frames.iter().enumerate().map(frame).collect()
    }

    /// Bytes of stack between the first frame and the last of the stack unwound last.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Why an object has no unwind tables; `None` when it has or none were needed yet.
    pub fn missing_tables(&self, module: &ModuleFile) -> Option<NoCfi> {
        self.images.missing(module)
    }

    /// What the tables take and where they failed.
    pub fn counters(&self) -> UnwindCounters {
        self.images.counters
    }
}

/// Where a step led.
enum Next {
    /// The registers in the caller; `true` when it was interrupted and not calling.
    Caller(Registers, bool),
    /// The frame is the thread's first.
    Root,
    /// It cannot go on.
    End(Incomplete),
}

/// Frames larger than this are not searched for return addresses.
const MAX_FRAME: u64 = 8 << 10;

/// One unwinding.
struct Walk<'a> {
    images: &'a mut Images,
    space: &'a Space,
    pending: &'a [PendingReturn],
    copy: StackCopy<'a>,
    frames: Vec<u64>,
    /// The object whose tables are being read.
    current: Option<ImageId>,
    unknown: Option<u64>,
    depth: u64,
}

impl Walk<'_> {
    fn run(&mut self, raw: &RawStack<'_>) -> Option<Incomplete> {
        let mut registers = Registers::of(raw);
        let mut exact = true;
        self.frames.push(registers.ip);
        while self.frames.len() < MAX_FRAMES {
            let first = self.frames.len() == 1;
            let (mut caller, signal) = match self.step(&registers, exact, first) {
                Next::Caller(caller, signal) => (caller, signal),
                Next::Root => return None,
                Next::End(incomplete) => return Some(incomplete),
            };
            caller = self.repaired(caller);
            if caller.ip == 0 {
                return None;
            }
            if signal {
                // The handler may have run on a stack of its own.
                self.copy.goes_on_at(caller.sp);
            } else if !grows(&registers, &caller, first) {
                return Some(Incomplete::BadUnwindInfo);
            }
            let lookup = caller.ip.wrapping_sub(u64::from(!signal));
            match self.space.find(lookup).map(|m| &m.backing) {
                Some(Backing::File(_) | Backing::Anonymous) => self.frames.push(caller.ip),
                Some(Backing::Trampolines) => return Some(Incomplete::NoUnwindInfo),
                None => {
                    self.unknown = Some(caller.ip);
                    return Some(Incomplete::NoUnwindInfo);
                }
            }
            self.depth = caller.sp.wrapping_sub(raw.sp);
            (registers, exact) = (caller, signal);
        }
        Some(Incomplete::TooDeep)
    }

    fn step(&mut self, registers: &Registers, exact: bool, first: bool) -> Next {
        let address = registers.ip.wrapping_sub(u64::from(!exact));
        let space = self.space;
        let Some(mapped) = space.find(address) else {
            self.unknown = Some(registers.ip);
            return Next::End(Incomplete::NoUnwindInfo);
        };
        self.current = mapped.image;
        let Some((id, cfi)) = mapped.image.and_then(|id| Some((id, self.images.cfi(id)?))) else {
            return self.step_without_tables(registers, mapped, first);
        };
        let stated = mapped.stated(address);
        let rule = self.images.rule(id, &cfi, stated);
        match rule {
            Rule::Root => Next::Root,
            Rule::Uncovered => self.step_without_tables(registers, mapped, first),
            Rule::Broken => Next::End(Incomplete::BadUnwindInfo),
            Rule::Plain => {
                let code = Images::code(id, &cfi, stated);
                self.step_by_framehop(code, exact, registers)
            }
            Rule::Evaluate => {
                let read = &mut |address| self.copy.read(address);
                match self.images.rules.step(&cfi, stated, registers, read) {
                    Ok(step) => Next::Caller(step.registers, step.signal),
                    Err(StepError::Read) => Next::End(self.copy.why()),
                    Err(StepError::Rule) => Next::End(Incomplete::BadUnwindInfo),
                }
            }
        }
    }

    fn step_by_framehop(&mut self, code: u64, exact: bool, registers: &Registers) -> Next {
        let mut caller = *registers;
        let mask = self.mask();
        let read = &mut |address| self.copy.read(address);
        match self
            .images
            .framehop
            .step(code, exact, &mut caller, mask, read)
        {
            Ok(Some(_)) => Next::Caller(caller, false),
            Ok(None) => Next::Root,
            Err(framehop::Error::CouldNotReadStack(_)) => Next::End(self.copy.why()),
            Err(framehop::Error::ReturnAddressIsNull) => Next::Root,
            Err(_) => Next::End(Incomplete::BadUnwindInfo),
        }
    }

    /// Code that no table covers: made at run time, or assembly, or a libc built without tables.
    /// A frame is only believed when its return address is code, right behind a call.
    fn step_without_tables(&mut self, at: &Registers, mapped: &Mapped, first: bool) -> Next {
        let made_at_run_time = matches!(mapped.backing, Backing::Anonymous);
        // Probes lie at entries of functions, before the stack pointer moves.
        if first
            && !made_at_run_time
            && let Some(caller) = arch::return_at_entry(at, &mut |a| self.copy.read(a))
            && let caller = self.repaired(caller)
            && code::follows_call(self.space, caller.ip)
        {
            return Next::Caller(caller, false);
        }
        // The ABIs mark the outermost frame by a frame pointer of zero.
        if !first && (at.fp == 0 || code::is_start_routine(mapped, at.ip)) {
            return Next::Root;
        }
        if !at.fp.is_multiple_of(8) || at.fp < at.sp || !self.copy.could_hold(at.fp) {
            return Next::End(Incomplete::NoUnwindInfo);
        }
        let caller = match at.by_frame_pointer(&mut |a| self.copy.read(a)) {
            Ok(caller) => self.repaired(caller),
            Err(()) => return Next::End(self.copy.why()),
        };
        let own = made_at_run_time
            || self.no_return_address_between(at.sp, at.fp)
            || code::has_own_frame(self.space, mapped, at.ip, &caller);
        match caller.ip {
            0 if own => Next::Root,
            _ if own && code::follows_call(self.space, caller.ip) => Next::Caller(caller, false),
            _ => Next::End(Incomplete::NoUnwindInfo),
        }
    }

    /// Whether a frame can have been skipped when a frame pointer leads from one address of the stack
    /// to the other: its return address would lie between them.
    fn no_return_address_between(&self, sp: u64, fp: u64) -> bool {
        let mut slots = (sp..fp).step_by(8);
        fp - sp <= MAX_FRAME
            && !slots.any(|slot| {
                let word = self.copy.read(slot).unwrap_or(0);
                code::follows_call(self.space, word)
            })
    }

    /// Puts the original in the place of a trampoline's address.
    fn repair(&self, caller: &mut Registers) {
        // A record that outlived its call (longjmp) does not change an address that is code.
        if self.pending.is_empty() || code::is_object_code(self.space, caller.ip) {
            return;
        }
        let slot = caller.entry_sp();
        let mut records = self.pending.iter().filter(|p| p.slot_address == slot);
        // A probed function that was tail-called has a record whose original is the trampoline.
        let record = records.find(|p| code::is_code(self.space, p.original));
        if let Some(record) = record {
            caller.set_return(record.original);
        }
    }

    fn repaired(&self, caller: Registers) -> Registers {
        let mut caller = self.unsigned(caller);
        self.repair(&mut caller);
        caller
    }

    /// Without the signature that aarch64 can put into a return address's upper bits.
    fn unsigned(&self, mut caller: Registers) -> Registers {
        let mask = self.mask();
        caller.ip &= mask;
        caller.lr &= mask;
        caller
    }

    fn mask(&self) -> u64 {
        if cfg!(target_arch = "aarch64") {
            u64::MAX
                .checked_shr(self.space.highest().leading_zeros())
                .unwrap_or(u64::MAX)
        } else {
            u64::MAX
        }
    }
}

/// Every caller's frame lies above its callee's, except for a leaf that has no frame.
fn grows(from: &Registers, to: &Registers, first: bool) -> bool {
    to.sp > from.sp || (cfg!(target_arch = "aarch64") && first && to.sp == from.sp)
}
