//! Hostile bytes: whatever a target's files and stacks hold, unwinding ends, and soon.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::program::{Program, Run};
use super::support::{Captured, SPACE};
use crate::unwind::elf::{Bytes, Layout};
use crate::unwind::*;

struct Sample {
    run: Run,
    /// The program's own file.
    file: Vec<u8>,
    whole: UnwoundStack,
}

/// One program, run once for all cases.
static SAMPLE: LazyLock<Option<Sample>> = LazyLock::new(|| {
    let program = Program::chain("cc", &["-O2", "-fomit-frame-pointer", "-DSIGNAL"])?;
    let run = program.run(&["3"]);
    let file = std::fs::read(&program.path).unwrap();
    let whole = run.unwinder().unwind(SPACE, &run.captured.raw());
    Some(Sample { run, file, whole })
});

/// Mappings of the sample with its own file's bytes exchanged.
fn with_file(sample: &Sample, file: Vec<u8>) -> Vec<ModuleMapping> {
    let changed = ModuleFile::from_bytes("program", file);
    let mut mappings = sample.run.mappings();
    for mapping in &mut mappings {
        if matches!(&mapping.backing, Backing::File(m) if m.path().ends_with("/program")) {
            mapping.backing = Backing::File(Arc::clone(&changed));
        }
    }
    mappings
}

fn unwind(mappings: &[ModuleMapping], captured: &Captured) -> UnwoundStack {
    let mut unwinder = Unwinder::new(UnwindLimits::default());
    unwinder.update_modules(SPACE, mappings);
    let started = Instant::now();
    let stack = unwinder.unwind(SPACE, &captured.raw());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(stack.frames[0], captured.ip);
    assert!(stack.frames.len() <= MAX_FRAMES);
    let is_code = |address: &u64| {
        mappings
            .iter()
            .any(|m| m.start < *address && *address <= m.end)
    };
    assert!(
        stack.frames[1..].iter().all(is_code),
        "every frame is in executable memory"
    );
    unwinder.capture(SPACE, &stack);
    stack
}

/// Where in the file its unwind tables are.
fn tables(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let bytes = Bytes::Memory(file.into());
    let sections = Layout::read(&bytes).unwrap().sections(&bytes);
    let named = sections.iter().filter(|s| s.name.starts_with(b".eh_frame"));
    named
        .map(|s| s.offset as usize..(s.offset + s.size) as usize)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bytes changed anywhere in the unwind tables: the stack ends, every frame is code.
    #[test]
    fn changed_tables(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200)) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let mut file = sample.file.clone();
        let places: Vec<usize> = tables(&file).into_iter().flatten().collect();
        for (place, value) in changes {
            file[*place.get(&places)] = value;
        }
        unwind(&with_file(sample, file), &sample.run.captured);
    }

    /// Bytes changed anywhere in the headers.
    #[test]
    fn changed_headers(changes in prop::collection::vec((0usize..1024, any::<u8>()), 1..40)) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let mut file = sample.file.clone();
        for (place, value) in changes {
            file[place] = value;
        }
        unwind(&with_file(sample, file), &sample.run.captured);
    }

    /// A file cut at any length.
    #[test]
    fn cut_files(length in any::<prop::sample::Index>()) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let mut file = sample.file.clone();
        file.truncate(length.index(file.len()));
        unwind(&with_file(sample, file), &sample.run.captured);
    }

    /// Any stack with any registers: the frames that come out are code.
    #[test]
    fn random_stacks(
        bytes in prop::collection::vec(any::<u8>(), 0..4096),
        registers in any::<[u64; 3]>(),
        frame in any::<prop::sample::Index>(),
        near in any::<bool>(),
    ) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let frames = &sample.whole.frames;
        let [sp, fp, lr] = registers;
        let fp = if near { sp.wrapping_add(fp % 4096) } else { fp };
        let captured = Captured { ip: *frame.get(frames), sp, fp, lr, bytes, truth: Vec::new() };
        unwind(&sample.run.mappings(), &captured);
    }

    /// A stack made of the program's own code addresses: the worst garbage there is.
    #[test]
    fn stacks_of_code_addresses(
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0u64..3), 0..512),
        fp in 0u64..600,
    ) {
        let Some(sample) = &*SAMPLE else { return Ok(()) };
        let frames = &sample.whole.frames;
        let sp = 0x7ffc_0000_0000;
        let word = |(pick, kind): &(prop::sample::Index, u64)| match kind {
            0 => *pick.get(frames),
            1 => sp + pick.index(600) as u64 * 8,
            _ => 0,
        };
        let bytes = picks.iter().flat_map(|pick| word(pick).to_le_bytes()).collect();
        let captured =
            Captured { ip: frames[0], sp, fp: sp + fp * 8, lr: frames[1], bytes, truth: Vec::new() };
        unwind(&sample.run.mappings(), &captured);
    }

    /// Random bytes as an object: its headers are read without harm.
    #[test]
    fn random_objects(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), magic in any::<bool>()) {
        if magic && bytes.len() >= 64 {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        }
        let module = ModuleFile::from_bytes("random", bytes);
        if let Ok(layout) = module.layout() {
            layout.sections(module.bytes());
            layout.address_of(0);
            layout.offset_of(0);
        }
    }
}

/// Mappings that overlap, are empty or end before they begin do no harm.
#[test]
fn torn_mappings() {
    let Some(sample) = &*SAMPLE else { return };
    let mut mappings = sample.run.mappings();
    let mut more = mappings.clone();
    for (index, mapping) in more.iter_mut().enumerate() {
        match index % 3 {
            0 => mapping.end = mapping.start,
            1 => mapping.start += 0x800,
            _ => mapping.start = mapping.end + 1,
        }
    }
    mappings.extend(more);
    let stack = unwind(&mappings, &sample.run.captured);
    assert_eq!(stack, sample.whole);
}

/// A file that is exchanged or cut under the unwinder is at worst without tables.
#[test]
fn file_cut_while_open() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer"]) else {
        return;
    };
    let run = program.run(&["1"]);
    let mut unwinder = run.unwinder();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&program.path)
        .unwrap();
    file.set_len(4096).unwrap();
    let stack = unwinder.unwind(SPACE, &run.captured.raw());
    assert_eq!(stack.frames[0], run.captured.ip);
    assert_eq!(stack.incomplete, Some(Incomplete::NoUnwindInfo));
}

/// 32-bit objects, text files and devices are told apart from code with tables.
#[test]
fn other_files() {
    let mut elf32 = vec![0; 4096];
    elf32[..6].copy_from_slice(b"\x7fELF\x01\x01");
    assert_eq!(
        ModuleFile::from_bytes("32", elf32).layout(),
        Err(ElfError::OtherClass)
    );
    assert_eq!(
        ModuleFile::from_bytes("t", b"#!/bin/sh\n".to_vec()).layout(),
        Err(ElfError::NotElf)
    );
    let device = std::fs::File::open("/dev/zero").unwrap();
    assert!(matches!(
        ModuleFile::new("z", device),
        Err(ModuleError::NotRegular { .. })
    ));
}
