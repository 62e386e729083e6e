//! Evidence in the code itself, for functions without unwind tables: nothing is believed on the
//! word of a frame pointer alone, which such code often uses for something else.

use super::arch::{self, Registers};
use super::space::{Backing, Mapped, Space};

/// How far behind a function's first instruction it may set up its frame.
const PROLOGUE_WITHIN: u64 = 128;
/// How far back the place where a function sets up its frame is looked for.
const REACH: u64 = 32 << 10;

/// Whether an address is code of a known mapping.
pub(super) fn is_code(space: &Space, return_address: u64) -> bool {
    let found = space
        .find(return_address.wrapping_sub(1))
        .map(|m| &m.backing);
    matches!(found, Some(Backing::File(_) | Backing::Anonymous))
}

/// Whether an address is code of an object.
pub(super) fn is_object_code(space: &Space, return_address: u64) -> bool {
    let found = space
        .find(return_address.wrapping_sub(1))
        .map(|m| &m.backing);
    matches!(found, Some(Backing::File(_)))
}

/// Whether a function can return to an address: code, right behind a call where it can be read.
pub(super) fn follows_call(space: &Space, return_address: u64) -> bool {
    match space.find(return_address.wrapping_sub(1)) {
        Some(Mapped {
            backing: Backing::Anonymous,
            ..
        }) => true,
        Some(mapped) => {
            call_before(mapped, return_address).is_some_and(|c| arch::ends_with_call(&c))
        }
        None => false,
    }
}

/// Whether code goes on as the C library's does after main.
pub(super) fn is_start_routine(mapped: &Mapped, return_address: u64) -> bool {
    let mut code = [0; 8];
    read(mapped, mapped.offset(return_address), &mut code) && arch::is_exit_of_result(&code)
}

/// Whether the function at `ip` has set up the frame that its frame pointer shows, as far as its
/// code tells: before `ip` a frame is set up, and either the caller called the function that does
/// so, or no function ends in between.
pub(super) fn has_own_frame(space: &Space, at: &Mapped, ip: u64, caller: &Registers) -> bool {
    let here = at.offset(ip);
    let start = here.saturating_sub(REACH).max(at.offset(at.at.start));
    let mut code = vec![0; usize::try_from(here.saturating_sub(start)).unwrap_or(0)];
    if !read(at, start, &mut code) {
        return false;
    }
    let Some(prologue) = arch::last_prologue(&code) else {
        return false;
    };
    let set_up = start + prologue as u64;
    let called = call_target(space, at, caller.ip);
    let by_caller = called.is_some_and(|t| t <= set_up && set_up - t <= PROLOGUE_WITHIN);
    by_caller || !code.get(prologue..).is_some_and(arch::has_function_end)
}

/// The offset in the same object that was called directly from before a return address.
fn call_target(space: &Space, at: &Mapped, return_address: u64) -> Option<u64> {
    let from = space
        .find(return_address.wrapping_sub(1))
        .filter(|from| is_same_object(from, at))?;
    let code = call_before(from, return_address)?;
    from.offset(return_address)
        .checked_add_signed(arch::call_distance(&code)?)
}

fn is_same_object(a: &Mapped, b: &Mapped) -> bool {
    match (&a.backing, &b.backing) {
        (Backing::File(a), Backing::File(b)) => a.identity() == b.identity(),
        _ => false,
    }
}

fn call_before(mapped: &Mapped, return_address: u64) -> Option<[u8; arch::CALL_BYTES]> {
    let mut code = [0; arch::CALL_BYTES];
    let end = mapped
        .offset(return_address.wrapping_sub(1))
        .wrapping_add(1);
    read(mapped, end.checked_sub(arch::CALL_BYTES as u64)?, &mut code).then_some(code)
}

fn read(mapped: &Mapped, offset: u64, code: &mut [u8]) -> bool {
    match &mapped.backing {
        Backing::File(module) => module.bytes().read_into(offset, code),
        Backing::Anonymous | Backing::Trampolines => false,
    }
}
