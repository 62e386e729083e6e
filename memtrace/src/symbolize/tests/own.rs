//! This process's own stacks, named; deadlines, memory, code made at run time.

use std::hint::black_box;
use std::time::Duration;

use super::super::*;
use crate::unwind::tests::support::{Captured, SPACE, capture_here, own_unwinder};

#[inline(never)]
fn leaf() -> Captured {
    black_box(capture_here!())
}

#[inline(always)]
fn inlined_caller() -> Captured {
    black_box(leaf())
}

#[inline(never)]
fn caller() -> Captured {
    black_box(inlined_caller())
}

fn own_frames(captured: &Captured) -> Vec<Frame> {
    let mut unwinder = own_unwinder();
    let stack = unwinder.unwind(SPACE, &captured.raw());
    let frames = unwinder.capture(SPACE, &stack);
    Symbolizer::new().symbolize_one(
        StackToName {
            frames: &frames,
            jit: None,
        },
        Duration::from_secs(60),
    )
}

/// This process's own stack comes out with functions, files and lines, inlined ones marked.
#[test]
fn own_stack_by_name_file_and_line() {
    let captured = caller();
    let frames = own_frames(&captured);
    let line_of = |text: &str| 1 + SOURCE.lines().position(|l| l.contains(text)).unwrap() as u32;
    let expected = [
        ("support::registers", "support.rs", None, true),
        ("own::leaf", "support.rs", None, false),
        (
            "own::inlined_caller",
            "symbolize/tests/own.rs",
            Some(line_of("black_box(leaf")),
            true,
        ),
        (
            "own::caller",
            "symbolize/tests/own.rs",
            Some(line_of("black_box(inlined_caller")),
            false,
        ),
        (
            "own::own_stack_by_name_file_and_line",
            "symbolize/tests/own.rs",
            None,
            false,
        ),
    ];
    for (frame, (function, file, line, inlined)) in frames.iter().zip(expected) {
        assert!(
            frame.function.as_ref().unwrap().ends_with(function),
            "{frame:?}"
        );
        assert!(frame.file.as_ref().unwrap().ends_with(file), "{frame:?}");
        assert!(
            line.is_none() || frame.line == line,
            "{frame:?}, not {line:?}"
        );
        assert_eq!(frame.inlined, inlined, "{frame:?}");
        assert!(frame.module.is_some() && frame.offset.is_some() && frame.build_id.is_some());
    }
    let last = frames.last().unwrap();
    assert!(
        last.function.as_ref().unwrap().contains("clone"),
        "{last:?}"
    );
}

const SOURCE: &str = include_str!("own.rs");

fn own_captured() -> Vec<CapturedFrame> {
    let captured = caller();
    let mut unwinder = own_unwinder();
    let stack = unwinder.unwind(SPACE, &captured.raw());
    unwinder.capture(SPACE, &stack)
}

/// A batch ends at its deadline with a reason on every frame; the next one has the names.
#[test]
fn deadlines_are_kept() {
    let frames = own_captured();
    let mut symbolizer = Symbolizer::new();
    let stack = StackToName {
        frames: &frames,
        jit: None,
    };
    let started = Instant::now();
    let late = symbolizer.symbolize_one(stack, Duration::ZERO);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(late.len(), frames.len());
    assert!(
        late.iter()
            .all(|f| f.reason.as_deref() == Some("not named in time")),
        "{late:?}"
    );
    assert_eq!(symbolizer.counters().late, frames.len() as u64);
    let named = symbolizer.symbolize_one(stack, Duration::from_secs(60));
    assert!(named[0].function.is_some() && named.iter().all(|f| f.reason.is_none()));
}

/// Every answer is remembered: a second batch asks for nothing.
#[test]
fn answers_are_remembered() {
    let frames = own_captured();
    let mut symbolizer = Symbolizer::new();
    let stack = StackToName {
        frames: &frames,
        jit: None,
    };
    let first = symbolizer.symbolize(&[stack, stack], Duration::from_secs(60));
    assert_eq!(first[0], first[1]);
    let counters = symbolizer.counters();
    assert_eq!(symbolizer.remembered(), frames.len());
    assert_eq!(symbolizer.symbolize(&[stack], Duration::ZERO)[0], first[0]);
    assert_eq!(symbolizer.counters(), counters);
}

/// Code made at run time is named by the perf map, with the call's own address, and made printable.
#[test]
fn code_made_at_run_time() {
    let frame = |address| CapturedFrame {
        address,
        module: None,
        file_offset: None,
    };
    let frames = [frame(0x1000), frame(0x2000), frame(0x3000)];
    let names = |address| match address {
        0x1000 => Some("JS:top".to_owned()),
        0x1fff => Some("JS:\u{1b}[2Jcaller".to_owned()),
        _ => None,
    };
    let mut symbolizer = Symbolizer::new();
    let stack = StackToName {
        frames: &frames,
        jit: Some(&names),
    };
    let named = symbolizer.symbolize_one(stack, Duration::ZERO);
    assert_eq!(named[0].function.as_deref(), Some("JS:top"));
    assert_eq!(named[1].function.as_deref(), Some("JS:\u{fffd}[2Jcaller"));
    assert_eq!(
        named[2].reason.as_deref(),
        Some("in no file and no perf map")
    );
    assert_eq!(named[2].address, "0x3000");
    let stack = StackToName {
        frames: &frames,
        jit: None,
    };
    let named = symbolizer.symbolize_one(stack, Duration::ZERO);
    assert_eq!(
        named[0].reason.as_deref(),
        Some("code made at run time, no perf map")
    );
}

/// Nothing to name is no stacks and no thread.
#[test]
fn nothing_to_name() {
    let mut symbolizer = Symbolizer::new();
    assert!(symbolizer.symbolize(&[], Duration::ZERO).is_empty());
    let none = StackToName {
        frames: &[],
        jit: None,
    };
    assert_eq!(symbolizer.symbolize(&[none], Duration::ZERO), [vec![]]);
    assert!(symbolizer.worker.is_none());
}
