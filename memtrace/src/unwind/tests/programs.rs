//! Stacks of real programs, as compilers and C libraries make them.

use super::program::{CHAIN, INLINED, NAMES, Program, functions, line_of};
use super::support::SPACE;
use crate::unwind::*;

/// What users ship: optimised, no frame pointers.
const SHIPPED: &[&str] = &["-O2", "-fomit-frame-pointer"];

/// Functions of the chain program from the innermost, with the text of the line they are at.
const CHAIN_FRAMES: &[(&str, &str)] = &[
    ("leaf", "    CAPTURE();"),
    ("middle", "// middle calls\n"),
    ("middle", "// middle calls itself"),
    ("middle", "// middle calls itself"),
    ("inlined", "// inlined calls"),
    ("outer", "// outer calls"),
    ("main", "// main calls"),
];

fn line(text: &str) -> u32 {
    match text.strip_suffix('\n') {
        Some(end) => CHAIN.lines().position(|l| l.ends_with(end)).unwrap() as u32 + 1,
        None => line_of(CHAIN, text),
    }
}

/// Runs the chain program three deep and expects every frame with its line, up to main and beyond.
fn expect_chain(compiler: &str, flags: &[&str]) {
    let Some(program) = Program::chain(compiler, flags) else {
        return;
    };
    let (stack, frames) = program.run(&["2"]).named();
    let context = format!("{compiler} {flags:?}: {:?} {stack:x?}", functions(&frames));
    assert!(frames.len() >= CHAIN_FRAMES.len(), "{context}");
    for (frame, (function, text)) in frames.iter().zip(CHAIN_FRAMES) {
        assert_eq!(frame.function.as_deref(), Some(*function), "{context}");
        assert_eq!(frame.line, Some(line(text)), "{function}: {context}");
        assert!(
            frame.file.as_deref().unwrap().ends_with("/chain.c"),
            "{context}"
        );
        assert_eq!(frame.inlined, *function == "inlined", "{context}");
    }
    assert_eq!(stack.incomplete, None, "{context}");
}

/// -O2 without frame pointers, dynamic and static: every frame with its line, to the first.
#[test]
fn optimised_without_frame_pointers() {
    expect_chain("cc", SHIPPED);
    expect_chain("cc", &["-O2", "-fomit-frame-pointer", "-static"]);
    expect_chain("cc", &["-Os", "-fomit-frame-pointer", "-no-pie"]);
}

/// Unoptimised code with frame pointers.
#[test]
fn with_frame_pointers() {
    expect_chain("cc", &["-O1", "-fno-omit-frame-pointer"]);
}

/// musl's own functions have no unwind information: main's caller ends the stack all the same.
#[test]
fn musl_dynamic_and_static() {
    expect_chain("musl-gcc", SHIPPED);
    expect_chain("musl-gcc", &["-O2", "-fomit-frame-pointer", "-static"]);
}

/// Programs of other linkers, whose segments share pages, and with other section layouts.
#[test]
fn other_linkers() {
    for linker in ["-fuse-ld=lld", "-fuse-ld=gold"] {
        let found = std::process::Command::new("cc")
            .args([linker, "-Wl,--version"])
            .output();
        if found.is_ok_and(|o| o.status.success()) {
            expect_chain("cc", &["-O2", "-fomit-frame-pointer", linker]);
        }
    }
    expect_chain(
        "cc",
        &["-O2", "-fomit-frame-pointer", "-Wl,-z,noseparate-code"],
    );
}

/// Without .eh_frame but with .debug_frame, as musl is shipped with its debug information.
#[test]
fn only_debug_frame() {
    expect_chain(
        "cc",
        &[
            "-O2",
            "-fomit-frame-pointer",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ],
    );
}

/// Without a search table in the file one is built.
#[test]
fn without_eh_frame_hdr() {
    expect_chain(
        "cc",
        &["-O2", "-fomit-frame-pointer", "-Wl,--no-eh-frame-hdr"],
    );
}

/// Without any unwind information frame pointers lead through.
#[test]
fn frame_pointers_only() {
    let flags = [
        "-O1",
        "-fno-omit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-g0",
    ];
    let Some(program) = Program::chain("cc", &flags) else {
        return;
    };
    let (stack, frames) = program.run(&["2"]).named();
    let names = functions(&frames);
    assert_eq!(
        names[..6],
        ["leaf", "middle", "middle", "middle", "outer", "main"],
        "{names:?}"
    );
    assert_eq!(stack.incomplete, None, "{names:?}");
}

/// Neither unwind information nor frame pointers: no frame is made up.
#[test]
fn nothing_to_go_by() {
    let flags = [
        "-O2",
        "-fomit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-g0",
    ];
    let Some(program) = Program::chain("cc", &flags) else {
        return;
    };
    let (stack, frames) = program.run(&["2"]).named();
    assert_eq!(functions(&frames), ["leaf"]);
    assert_eq!(stack.incomplete, Some(Incomplete::NoUnwindInfo));
}

/// A probe at the entry of a function without unwind information (musl's malloc): its caller is at
/// the stack pointer.
#[cfg(target_arch = "x86_64")]
#[test]
fn entry_of_an_uncovered_function() {
    let flags = ["-O2", "-fomit-frame-pointer", "-DAT_ENTRY"];
    let Some(program) = Program::chain("cc", &flags) else {
        return;
    };
    let (stack, frames) = program.run(&["0"]).named();
    let names = functions(&frames);
    assert_eq!(
        names[..5],
        ["probed", "leaf", "middle", "inlined", "outer"],
        "{names:?}"
    );
    assert_eq!(frames[1].line, Some(line("// leaf calls")));
    assert_eq!(stack.incomplete, None);
}

/// A signal handler's stack goes on with what the signal interrupted.
#[test]
fn through_a_signal_frame() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer", "-DSIGNAL"]) else {
        return;
    };
    let (stack, frames) = program.run(&[]).named();
    let names = functions(&frames);
    assert_eq!(names[..2], ["leaf", "handler"], "{names:?}");
    let interrupted = names
        .iter()
        .position(|n| *n == "middle")
        .unwrap_or_else(|| panic!("{names:?}"));
    assert_eq!(
        frames[interrupted].line,
        Some(line("// middle raises")),
        "{names:?}"
    );
    assert_eq!(
        names[interrupted + 1..interrupted + 4],
        ["inlined", "outer", "main"]
    );
    assert_eq!(stack.incomplete, None, "{names:?}");
}

/// A handler on a stack of its own: the copy does not hold the other stack, and says so.
#[test]
fn signal_on_its_own_stack() {
    let flags = ["-O2", "-fomit-frame-pointer", "-DSIGNAL", "-DALTSTACK"];
    let Some(program) = Program::chain("cc", &flags) else {
        return;
    };
    let (stack, frames) = program.run(&[]).named();
    assert_eq!(functions(&frames)[..2], ["leaf", "handler"]);
    assert_eq!(stack.incomplete, Some(Incomplete::CopyTooShort));
}

/// Code made at run time with frame pointers is walked through, into the program below it.
#[test]
fn through_code_made_at_run_time() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer", "-DJIT"]) else {
        return;
    };
    let (stack, frames) = program.run(&[]).named();
    let names = functions(&frames);
    assert_eq!(
        names[..5],
        ["leaf", "?", "middle", "inlined", "outer"],
        "{names:?}"
    );
    assert_eq!(
        frames[1].reason.as_deref(),
        Some("code made at run time, no perf map")
    );
    assert_eq!(frames[1].module, None);
    assert_eq!(stack.incomplete, None, "{names:?}");
}

/// An expression that never ends is broken unwind information, not a hang.
#[cfg(target_arch = "x86_64")]
#[test]
fn endless_expression() {
    let flags = ["-O2", "-fomit-frame-pointer", "-DHOSTILE_EXPRESSION"];
    let Some(program) = Program::chain("cc", &flags) else {
        return;
    };
    let (stack, frames) = program.run(&[]).named();
    assert_eq!(functions(&frames), ["leaf", "go_on", "hostile"]);
    assert_eq!(stack.incomplete, Some(Incomplete::BadUnwindInfo));
}

/// A stack deeper than the copy ends where the copy does, one of too many frames at the limit.
#[test]
fn deep_stacks() {
    let cases = [
        ("-O0", Incomplete::CopyTooShort),
        ("-O2", Incomplete::TooDeep),
    ];
    for (level, incomplete) in cases {
        let flags = [level, "-fomit-frame-pointer"];
        let Some(program) = Program::chain("cc", &flags) else {
            return;
        };
        let (stack, frames) = program.run(&["5000"]).named();
        assert_eq!(
            stack.incomplete,
            Some(incomplete),
            "{level}: {} frames",
            frames.len()
        );
        assert!(functions(&frames)[1..].iter().all(|n| *n == "middle"));
        assert!(frames.len() > 100 && frames.len() <= MAX_FRAMES);
    }
}

/// C++ names with their templates and parameters, the lambda inside, lines of all of them.
#[test]
fn cpp_names() {
    let flags = ["-O2", "-fomit-frame-pointer", "-std=c++17"];
    let Some(program) = Program::compile("c++", "names.cc", NAMES, &flags) else {
        return;
    };
    let (stack, frames) = program.run(&[]).named();
    let names = functions(&frames);
    assert_eq!(names[0], "shop::Cart<long>::add(long const&)", "{names:?}");
    assert_eq!(frames[0].line, Some(line_of(NAMES, "// add captures")));
    assert!(
        names[1].starts_with("shop::fill(") && names[1].contains("lambda"),
        "{names:?}"
    );
    let fill = frames.iter().position(|f| {
        f.function.as_deref()
            == Some("shop::fill(shop::Cart<long>&, std::vector<int, std::allocator<int> >&)")
    });
    let main = names
        .iter()
        .position(|n| *n == "main")
        .unwrap_or_else(|| panic!("{names:?}"));
    assert!(fill.is_some_and(|fill| fill < main), "{names:?}");
    assert_eq!(frames[main].line, Some(line_of(NAMES, "// main calls")));
    assert_eq!(stack.incomplete, None);
}

/// Inlined lambdas say whose they are, and every inlined function's name is readable, whatever GCC's
/// mangling holds behind it.
#[test]
fn inlined_cpp_names() {
    let flags = ["-O2", "-fomit-frame-pointer", "-std=c++17"];
    let Some(program) = Program::compile("g++", "inlined.cc", INLINED, &flags) else {
        return;
    };
    let (_, frames) = program.run(&[]).named();
    let names = functions(&frames);
    let fill = "fill(std::vector<int, std::allocator<int> >&)";
    for wanted in ["Item::Item(int)", fill] {
        assert!(names.contains(&wanted), "no {wanted} in {names:#?}");
    }
    for begin in ["fill(", "operator() in fill("] {
        let whose = |name: &&&str| name.starts_with(begin) && name.ends_with("::operator()");
        assert!(names.iter().any(|name| whose(&name)), "{names:#?}");
    }
    let shared = |name: &&&str| name.starts_with("std::make_shared<Item, int&>");
    assert!(names.iter().any(|name| shared(&name)), "{names:#?}");
    let bare = |name: &&&str| **name == "operator()" || name.starts_with("_Z");
    assert_eq!(names.iter().find(bare), None, "{names:#?}");
}

/// A copy cut at any length gives the beginning of the whole stack, and says that it is cut.
#[test]
fn a_cut_copy_gives_a_prefix() {
    let modes: [&[&str]; 4] = [
        SHIPPED,
        &[
            "-O1",
            "-fno-omit-frame-pointer",
            "-fno-asynchronous-unwind-tables",
            "-g0",
        ],
        &["-O2", "-DSIGNAL"],
        &["-O2", "-fomit-frame-pointer", "-DJIT"],
    ];
    for flags in modes {
        let Some(program) = Program::chain("cc", flags) else {
            return;
        };
        let run = program.run(&["3"]);
        let mut unwinder = run.unwinder();
        let whole = unwinder.unwind(SPACE, &run.captured.raw());
        assert_eq!(whole.incomplete, None);
        let mut cut = run.captured.clone();
        while cut.bytes.pop().is_some() {
            let stack = unwinder.unwind(SPACE, &cut.raw());
            assert!(
                whole.frames.starts_with(&stack.frames),
                "{flags:?} at {}",
                cut.bytes.len()
            );
            let complete = stack.frames.len() == whole.frames.len();
            assert_eq!(
                stack.incomplete.is_none(),
                complete,
                "{flags:?} at {}",
                cut.bytes.len()
            );
        }
    }
}
