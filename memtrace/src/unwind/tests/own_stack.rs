//! Stacks of this process against what the C library's unwinder says.

use std::hint::black_box;

use super::support::{Captured, SPACE, capture_here, own_unwinder};

#[inline(never)]
fn leaf() -> Captured {
    black_box(capture_here!())
}

#[inline(never)]
fn middle(depth: u32) -> Captured {
    let captured = if depth == 0 {
        leaf()
    } else {
        middle(depth - 1)
    };
    black_box(captured)
}

/// A stack is what the C library's unwinder says, to the thread's first function.
#[test]
fn whole_stack_equals_the_c_librarys() {
    let captured = middle(3);
    let stack = own_unwinder().unwind(SPACE, &captured.raw());
    assert_eq!(stack.frames[0], captured.ip);
    assert_eq!(stack.frames[1..], captured.truth[..]);
    assert_eq!(stack.incomplete, None);
    assert!(captured.truth.len() > 5);
}

/// A stack of this thread for other tests.
pub(crate) fn deep() -> Captured {
    middle(20)
}

/// The capture ties every frame to its object, by offsets in the files.
#[test]
fn capture_ties_frames_to_objects() {
    let captured = deep();
    let mut unwinder = own_unwinder();
    let stack = unwinder.unwind(SPACE, &captured.raw());
    let frames = unwinder.capture(SPACE, &stack);
    assert_eq!(frames.len(), stack.frames.len());
    let exe = std::fs::read_link("/proc/self/exe").unwrap();
    for (frame, address) in frames.iter().zip(&*stack.frames) {
        assert_eq!(frame.address, *address);
        let module = frame.module.as_ref().unwrap();
        assert!(frame.file_offset.unwrap() < module.bytes().len());
    }
    assert_eq!(
        frames[0].module.as_ref().unwrap().path(),
        exe.to_str().unwrap()
    );
    assert!(
        frames
            .last()
            .unwrap()
            .module
            .as_ref()
            .unwrap()
            .path()
            .contains("libc")
    );
}
