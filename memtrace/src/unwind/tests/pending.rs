//! Return addresses that a return probe has replaced (R26).

use super::program::{Program, Run};
use super::support::SPACE;
use crate::unwind::*;

/// Where the kernel's mapping lies in these tests: outside of everything.
const TRAMPOLINE: u64 = 0x7fff_ffff_e000;

fn run() -> Option<Run> {
    Some(Program::chain("cc", &["-O2", "-fomit-frame-pointer"])?.run(&["3"]))
}

fn with_trampolines(run: &Run) -> Unwinder {
    let mut unwinder = Unwinder::new(UnwindLimits::default());
    let mut mappings = run.mappings();
    mappings.push(ModuleMapping {
        start: TRAMPOLINE,
        end: TRAMPOLINE + 0x1000,
        file_offset: 0,
        backing: Backing::Trampolines,
    });
    unwinder.update_modules(SPACE, &mappings);
    unwinder
}

/// The slots of the stack's return addresses: where changing the word changes that frame.
fn slots(unwinder: &mut Unwinder, run: &Run, whole: &UnwoundStack) -> Vec<(usize, u64)> {
    let mut found = Vec::new();
    for at in (0..run.captured.bytes.len() - 7).step_by(8) {
        let mut changed = run.captured.clone();
        changed.bytes[at..at + 8].copy_from_slice(&TRAMPOLINE.to_le_bytes());
        let stack = unwinder.unwind(SPACE, &changed.raw());
        let original = &run.captured.bytes[at..at + 8];
        let frame = stack.frames.len();
        if frame < whole.frames.len() && original == whole.frames[frame].to_le_bytes() {
            assert_eq!(
                stack.incomplete,
                Some(Incomplete::NoUnwindInfo),
                "no record: incomplete"
            );
            assert!(whole.frames.starts_with(&stack.frames));
            found.push((frame, run.captured.sp + at as u64));
        }
    }
    found
}

fn hijacked(run: &Run, slots: &[(usize, u64)]) -> super::support::Captured {
    let mut changed = run.captured.clone();
    for (_, slot) in slots {
        let at = (slot - changed.sp) as usize;
        changed.bytes[at..at + 8].copy_from_slice(&TRAMPOLINE.to_le_bytes());
    }
    changed
}

fn records(whole: &UnwoundStack, slots: &[(usize, u64)]) -> Vec<PendingReturn> {
    let record = |(frame, slot): &(usize, u64)| PendingReturn {
        slot_address: *slot,
        original: whole.frames[*frame],
    };
    slots.iter().map(record).collect()
}

/// With records the stack is whole, whether one or every return address was replaced and whether
/// or not the kernel's mapping is known; without, it ends at the first replaced one, incomplete.
#[test]
fn replaced_return_addresses() {
    let Some(run) = run() else { return };
    let mut knowing = with_trampolines(&run);
    let mut unknowing = run.unwinder();
    let whole = knowing.unwind(SPACE, &run.captured.raw());
    assert_eq!(whole.incomplete, None);
    let slots = slots(&mut knowing, &run, &whole);
    assert_eq!(
        slots.len(),
        whole.frames.len() - 1,
        "every return address has its slot"
    );
    let all = records(&whole, &slots);
    for unwinder in [&mut knowing, &mut unknowing] {
        for slot in &slots {
            let changed = hijacked(&run, &[*slot]);
            let stack = unwinder.unwind_with_pending(SPACE, &changed.raw(), &all);
            assert_eq!(stack, whole);
        }
        let changed = hijacked(&run, &slots);
        assert_eq!(
            unwinder.unwind_with_pending(SPACE, &changed.raw(), &all),
            whole
        );
        let stack = unwinder.unwind_with_pending(SPACE, &changed.raw(), &all[..2]);
        assert_eq!(stack.frames[..], whole.frames[..3]);
        assert_eq!(stack.incomplete, Some(Incomplete::NoUnwindInfo));
    }
}

/// A record that outlived its call (longjmp) does not change a return address that is intact, and
/// of two records for one slot the one whose original is code counts (a probed tail call).
#[test]
fn stale_and_chained_records() {
    let Some(run) = run() else { return };
    let mut unwinder = with_trampolines(&run);
    let whole = unwinder.unwind(SPACE, &run.captured.raw());
    let slots = slots(&mut unwinder, &run, &whole);
    let stale: Vec<_> = slots
        .iter()
        .map(|(_, slot)| PendingReturn {
            slot_address: *slot,
            original: whole.frames[0],
        })
        .collect();
    assert_eq!(
        unwinder.unwind_with_pending(SPACE, &run.captured.raw(), &stale),
        whole
    );
    let mut chained = vec![PendingReturn {
        slot_address: slots[1].1,
        original: TRAMPOLINE,
    }];
    chained.extend(records(&whole, &slots));
    let changed = hijacked(&run, &slots);
    assert_eq!(
        unwinder.unwind_with_pending(SPACE, &changed.raw(), &chained),
        whole
    );
}
