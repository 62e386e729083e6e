//! Hostile files: a batch ends with a name or a reason for every frame, and the session goes on.

use std::fs::{self, OpenOptions};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::*;
use crate::unwind::tests::program::{Program, functions};
use crate::unwind::{Bytes, Layout};

struct Sample {
    file: Vec<u8>,
    offsets: Vec<u64>,
}

/// A small program's file and offsets of its code.
static SAMPLE: LazyLock<Option<Sample>> = LazyLock::new(|| {
    let program = Program::chain("cc", &["-O2", "-fomit-frame-pointer"])?;
    let run = program.run(&["0"]);
    let mut unwinder = run.unwinder();
    let space = crate::unwind::tests::support::SPACE;
    let stack = unwinder.unwind(space, &run.captured.raw());
    let frames = unwinder.capture(space, &stack);
    let of_program = frames.iter().filter(|f| {
        f.module
            .as_ref()
            .is_some_and(|m| m.path().ends_with("/program"))
    });
    let offsets = of_program.filter_map(|f| f.file_offset).collect();
    Some(Sample {
        file: fs::read(&program.path).unwrap(),
        offsets,
    })
});

fn frames_of(file: Vec<u8>, offsets: &[u64]) -> Vec<CapturedFrame> {
    let module = ModuleFile::from_bytes("hostile", file);
    let frame = |offset: &u64| CapturedFrame {
        address: 0x1000 + offset,
        module: Some(Arc::clone(&module)),
        file_offset: Some(*offset),
    };
    offsets.iter().map(frame).collect()
}

/// Names frames and checks that each has a name or a reason.
fn name_all(frames: &[CapturedFrame]) -> Vec<Frame> {
    let mut symbolizer = Symbolizer::new();
    let started = Instant::now();
    let stack = StackToName { frames, jit: None };
    let named = symbolizer.symbolize_one(stack, Duration::from_secs(20));
    assert!(started.elapsed() < Duration::from_secs(25));
    assert!(named.len() >= frames.len());
    for frame in &named {
        assert!(
            frame.function.is_some() != frame.reason.is_some(),
            "{frame:?}"
        );
        let texts = [&frame.function, &frame.file, &frame.module, &frame.reason];
        assert!(
            texts
                .into_iter()
                .flatten()
                .all(|t| !t.contains(char::is_control)),
            "{frame:?}"
        );
        assert_ne!(frame.reason.as_deref(), Some("not named in time"));
    }
    named
}

/// Ranges of the file that hold what names are made of.
fn interesting(file: &[u8]) -> Vec<usize> {
    let bytes = Bytes::Memory(file.into());
    let sections = Layout::read(&bytes).unwrap().sections(&bytes);
    let headers = sections
        .iter()
        .flat_map(|s| s.header_offset..s.header_offset + 64);
    let wanted = sections
        .iter()
        .filter(|s| s.name.starts_with(b".debug_") || s.name == b".symtab" || s.name == b".strtab");
    let content = wanted.flat_map(|s| s.offset..s.offset + s.size);
    headers.chain(content).map(|at| at as usize).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes changed in symbols, DWARF and section headers.
    #[test]
    fn changed_names(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..100)) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let mut file = sample.file.clone();
        let places = interesting(&file);
        for (place, value) in changes {
            file[*place.get(&places)] = value;
        }
        name_all(&frames_of(file, &sample.offsets));
    }

    /// A file cut anywhere, and offsets anywhere.
    #[test]
    fn cut_files(length in any::<prop::sample::Index>(), offsets in any::<[u64; 4]>()) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let mut file = sample.file.clone();
        file.truncate(length.index(file.len()));
        let mut all = sample.offsets.clone();
        all.extend(offsets);
        name_all(&frames_of(file, &all));
    }
}

/// A file cut while its names are being read is not mapped by anyone: no SIGBUS, a reason.
#[test]
fn file_cut_while_open() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer"]) else {
        return;
    };
    let run = program.run(&["0"]);
    let space = crate::unwind::tests::support::SPACE;
    let mut unwinder = run.unwinder();
    let stack = unwinder.unwind(space, &run.captured.raw());
    let frames = unwinder.capture(space, &stack);
    let mut symbolizer = Symbolizer::new();
    let (first, rest) = frames.split_first().unwrap();
    let one = StackToName {
        frames: std::slice::from_ref(first),
        jit: None,
    };
    let named = symbolizer.symbolize_one(one, Duration::from_secs(60));
    assert_eq!(functions(&named), ["leaf"]);
    OpenOptions::new()
        .write(true)
        .open(&program.path)
        .unwrap()
        .set_len(100)
        .unwrap();
    // The rest is named from the copy made for the first, or has a reason.
    name_all(rest);
    let all = StackToName {
        frames: rest,
        jit: None,
    };
    symbolizer.symbolize_one(all, Duration::from_secs(60));
}

/// Compressed sections that claim gigabytes, or hold more than they claim, are left out or cut.
#[test]
fn compressed_bombs() {
    let Some(program) = Program::chain("cc", &["-O2", "-Wl,--compress-debug-sections=zlib"]) else {
        return;
    };
    let file = fs::read(&program.path).unwrap();
    let run = program.run(&["0"]);
    let offset = run.mappings()[0].file_offset + 16;
    let bytes = Bytes::Memory(file.as_slice().into());
    let sections = Layout::read(&bytes).unwrap().sections(&bytes);
    for claimed in [1u64 << 60, u64::MAX, 1 << 36, 8, 0] {
        let mut file = file.clone();
        for section in sections.iter().filter(|s| s.name.starts_with(b".debug_")) {
            let at = section.offset as usize + 8;
            file[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
        }
        name_all(&frames_of(file, &[offset]));
    }
}

/// Links to other files are not followed, whatever they name: a pipe there would block for ever.
#[test]
fn links_are_not_followed() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer"]) else {
        return;
    };
    let pipe = program.dir().join("pipe");
    program.tool("mkfifo", &["pipe"]);
    let mut link = pipe.to_str().unwrap().as_bytes().to_vec();
    link.resize((link.len() + 1).next_multiple_of(4), 0);
    link.extend([0; 24]);
    fs::write(program.dir().join("link"), link).unwrap();
    for section in [".gnu_debuglink", ".gnu_debugaltlink", ".debug_sup"] {
        program.tool("cp", &["program", "linked"]);
        program.tool(
            "objcopy",
            &["--add-section", &format!("{section}=link"), "linked"],
        );
        let file = fs::read(program.dir().join("linked")).unwrap();
        let Some(sample) = &*SAMPLE else { return };
        let named = name_all(&frames_of(file, &sample.offsets[..1]));
        assert_eq!(functions(&named), ["leaf"], "{section}");
    }
}

/// Functions inlined into each other without end do not overflow the reader's stack: the symbols
/// remain.
#[test]
fn endless_nesting() {
    let source = r#"
        .file 1 "deep.s"
        .text
        .globl deep
        .type deep, @function
deep:   .loc 1 7
        nop
        nop
        .size deep, . - deep
        .section .debug_abbrev, "", @progbits
        .byte 1, 0x11, 1, 0x11, 1, 0x12, 7, 0x10, 0x17, 0, 0
        .byte 2, 0x2e, 1, 0x03, 8, 0x11, 1, 0x12, 7, 0, 0
        .byte 3, 0x1d, 1, 0, 0
        .byte 0
        .section .debug_info, "", @progbits
        .long end - start
start:  .short 4
        .long 0
        .byte 8
        .byte 1
        .quad deep, 2
        .long 0
        .byte 2
        .asciz "deep_by_dwarf"
        .quad deep, 2
        .fill NESTED, 1, 3
        .fill NESTED + 2, 1, 0
end:
    "#;
    for (nested, name) in [(1000, "deep_by_dwarf"), (3_000_000, "deep")] {
        let source = source.replace("NESTED", &nested.to_string());
        let flags = ["-shared", "-nostdlib", "-g0"];
        let Some(program) = Program::compile("cc", "deep.s", &source, &flags) else {
            return;
        };
        let file = fs::read(&program.path).unwrap();
        let module = ModuleFile::from_bytes("deep", file.clone());
        let text = module.layout().unwrap().sections(module.bytes());
        let text = text.iter().find(|s| s.name == b".text").unwrap().offset;
        let named = name_all(&frames_of(file, &[text]));
        assert_eq!(functions(&named), [name]);
    }
}
