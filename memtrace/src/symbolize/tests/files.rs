//! Names out of files as distributions make them: compressed, stripped, with debug files apart.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::super::*;
use crate::unwind::tests::program::{CHAIN, Program, functions, line_of, name};
use crate::unwind::tests::support::SPACE;
use crate::unwind::{Backing, UnwindLimits, Unwinder};

const FLAGS: [&str; 2] = ["-O2", "-fomit-frame-pointer"];

/// The program's run, its own file exchanged for another one of the same code.
fn frames_with(program: &Program, module: &Arc<ModuleFile>) -> Vec<CapturedFrame> {
    let run = program.run(&["0"]);
    let mut mappings = run.mappings();
    for mapping in &mut mappings {
        if matches!(&mapping.backing, Backing::File(m) if m.path().ends_with("/program")) {
            mapping.backing = Backing::File(Arc::clone(module));
        }
    }
    let mut unwinder = Unwinder::new(UnwindLimits::default());
    unwinder.update_modules(SPACE, &mappings);
    let stack = unwinder.unwind(SPACE, &run.captured.raw());
    unwinder.capture(SPACE, &stack)
}

fn open(path: &Path, shown: &str) -> Arc<ModuleFile> {
    ModuleFile::new(shown, File::open(path).unwrap()).unwrap()
}

fn directory(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn expect_lines(frames: &[Frame]) {
    let names = functions(frames);
    assert_eq!(
        names[..5],
        ["leaf", "middle", "inlined", "outer", "main"],
        "{frames:?}"
    );
    assert_eq!(frames[3].line, Some(line_of(CHAIN, "// outer calls")));
    assert!(frames[3].file.as_ref().unwrap().ends_with("chain.c"));
}

/// Debug information compressed by either method is read.
#[test]
fn compressed_sections() {
    for kind in ["zlib", "zstd"] {
        let flag = format!("-Wl,--compress-debug-sections={kind}");
        let supported = std::process::Command::new("ld").arg("--help").output();
        if kind == "zstd"
            && !supported.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("zstd"))
        {
            continue;
        }
        let Some(program) = Program::chain("cc", &[FLAGS[0], FLAGS[1], &flag]) else {
            return;
        };
        expect_lines(&program.run(&["0"]).named().1);
    }
}

/// A stripped program has its names in a debug file inside of the target's root, by build id or by
/// link; a debug file of another build is not believed.
#[test]
fn debug_file_in_the_targets_root() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    let root = program.dir().join("root");
    program.tool("cp", &["program", "full"]);
    program.tool(
        "objcopy",
        &["--only-keep-debug", "program", "program.debug"],
    );
    program.tool(
        "objcopy",
        &[
            "--strip-all",
            "--add-gnu-debuglink=program.debug",
            "program",
        ],
    );
    let stripped = || open(&program.path, "/app/bin/program");

    let module = stripped();
    fs::create_dir_all(root.join("app/bin/.debug")).unwrap();
    find_debug_file(directory(&root), &module);
    assert!(module.debug_file_searched() && module.debug_file().is_none());
    let frames = name(&frames_with(&program, &module));
    assert_eq!(frames[0].function, None, "{frames:?}");
    assert!(frames[0].reason.is_some());

    let build_id = module.build_id().unwrap().to_owned();
    let by_id = root.join("usr/lib/debug/.build-id").join(&build_id[..2]);
    fs::create_dir_all(&by_id).unwrap();
    let by_id = by_id.join(format!("{}.debug", &build_id[2..]));
    for place in [
        root.join("app/bin/program.debug"),
        root.join("app/bin/.debug/program.debug"),
        by_id,
    ] {
        fs::copy(program.dir().join("program.debug"), &place).unwrap();
        let module = stripped();
        find_debug_file(directory(&root), &module);
        assert!(module.debug_file().is_some(), "{place:?}");
        expect_lines(&name(&frames_with(&program, &module)));
        // Of another build: the same path, another id.
        fs::copy("/proc/self/exe", &place).unwrap();
        let module = stripped();
        find_debug_file(directory(&root), &module);
        assert!(
            module.debug_file().is_none(),
            "{place:?} is of another build"
        );
        fs::remove_file(&place).unwrap();
    }
}

/// A pipe where the debug file should be holds nobody up; a link cannot lead out of the root.
#[test]
fn traps_in_the_targets_root() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    let root = program.dir().join("root");
    program.tool(
        "objcopy",
        &["--only-keep-debug", "program", "program.debug"],
    );
    let module = || open(&program.path, "/program");
    let build_id = module().build_id().unwrap().to_owned();
    let dir = root.join("usr/lib/debug/.build-id").join(&build_id[..2]);
    fs::create_dir_all(&dir).unwrap();
    let place = dir.join(format!("{}.debug", &build_id[2..]));

    program.tool("mkfifo", &[place.to_str().unwrap()]);
    let trapped = module();
    find_debug_file(directory(&root), &trapped);
    assert!(trapped.debug_file().is_none());

    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(program.dir().join("program.debug"), &place).unwrap();
    let trapped = module();
    find_debug_file(directory(&root), &trapped);
    assert!(
        trapped.debug_file().is_none(),
        "the link leads out of the root"
    );
    // The same link, seen from a root in which it leads to a file, is followed.
    let inside = root.join(program.dir().strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::copy(
        program.dir().join("program.debug"),
        inside.join("program.debug"),
    )
    .unwrap();
    let found = module();
    find_debug_file(directory(&root), &found);
    assert!(found.debug_file().is_some());
}

/// Stripped with nothing else to go by: dynamic symbols where there are some, else a reason.
#[test]
fn stripped() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    program.tool("strip", &["--strip-all", "program"]);
    let (stack, frames) = program.run(&["0"]).named();
    assert_eq!(stack.incomplete, None, "unwinding needs no symbols");
    for frame in &frames[..4] {
        assert_eq!(frame.function, None);
        assert_eq!(frame.reason.as_deref(), Some("no symbols (stripped)"));
        assert!(frame.module.is_some() && frame.offset.is_some());
    }
    assert!(
        functions(&frames)
            .iter()
            .any(|f| f.contains("__libc_start")),
        "{frames:?}"
    );
}

/// Without debug information there are names, but no lines.
#[test]
fn symbols_only() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer", "-g0"]) else {
        return;
    };
    let frames = program.run(&["0"]).named().1;
    assert_eq!(functions(&frames)[..4], ["leaf", "middle", "outer", "main"]);
    assert!(
        frames[..4]
            .iter()
            .all(|f| f.file.is_none() && f.line.is_none() && f.reason.is_none())
    );
}

/// Without section headers unwinding goes on by the program headers, and names say what is missing.
#[test]
fn no_section_headers() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    let mut bytes = fs::read(&program.path).unwrap();
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let module = ModuleFile::from_bytes("/program", bytes);
    let frames = name(&frames_with(&program, &module));
    assert!(frames.len() > 5, "{frames:?}");
    assert_eq!(frames[0].reason.as_deref(), Some("no section headers"));
    assert!(
        functions(&frames)
            .iter()
            .any(|f| f.contains("__libc_start")),
        "{frames:?}"
    );
}

/// A file that was deleted, and one replaced under its path, keep the names they had.
#[test]
fn deleted_and_replaced_files() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    let module = open(&program.path, "/program");
    let frames = frames_with(&program, &module);
    fs::remove_file(&program.path).unwrap();
    fs::write(&program.path, b"something else").unwrap();
    expect_lines(&name(&frames));
}

/// The vDSO is named from its bytes, as libraries are from their files.
#[test]
fn bytes_without_a_file() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    let module = ModuleFile::from_bytes("[vdso]", fs::read(&program.path).unwrap());
    let frames = name(&frames_with(&program, &module));
    expect_lines(&frames);
    assert_eq!(frames[0].module.as_deref(), Some("[vdso]"));
}
