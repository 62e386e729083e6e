//! Stripped programs, and folders with their symbols or others'.

use std::fs;

use super::*;
use crate::unwind::tests::program::{CHAIN, Program, functions, line_of};
use crate::unwind::tests::support::SPACE;
use crate::unwind::{Backing, UnwindLimits, Unwinder};

const FLAGS: [&str; 2] = ["-O2", "-fomit-frame-pointer"];

/// The frames of a run as a recording has them: named while there was only the stripped program. The
/// program with its symbols is `full` beside it, its debug information alone `full.debug`.
fn recorded(program: &Program) -> Vec<Frame> {
    program.tool("cp", &["program", "full"]);
    program.tool("objcopy", &["--only-keep-debug", "program", "full.debug"]);
    program.tool("objcopy", &["--strip-all", "program"]);
    linked(program)
}

fn linked(program: &Program) -> Vec<Frame> {
    let file = fs::File::open(&program.path).unwrap();
    let module = ModuleFile::new("/app/bin/program", file).unwrap();
    let run = program.run(&["0"]);
    let mut mappings = run.mappings();
    for mapping in &mut mappings {
        if matches!(&mapping.backing, Backing::File(m) if m.path().ends_with("/program")) {
            mapping.backing = Backing::File(Arc::clone(&module));
        }
    }
    let mut unwinder = Unwinder::new(UnwindLimits::default());
    unwinder.update_modules(SPACE, &mappings);
    let stack = unwinder.unwind(SPACE, &run.captured.raw());
    let captured = unwinder.capture(SPACE, &stack);
    let request = StackToName {
        frames: &captured,
        jit: None,
    };
    Symbolizer::new().symbolize_one(request, Duration::from_secs(60))
}

fn folder(program: &Program, name: &str) -> PathBuf {
    let folder = program.dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn rename(folder: &Path, frames: &[Frame]) -> (Vec<Frame>, Vec<String>) {
    let mut frames = frames.to_vec();
    let lines = DebugDir::open(folder).unwrap().rename(&mut [&mut frames]);
    assert!(lines.iter().all(|line| !line.contains('\n')));
    (frames, lines)
}

#[track_caller]
fn expect_names(frames: &[Frame], before: &[Frame]) {
    let names = functions(frames);
    assert_eq!(
        names[..5],
        ["leaf", "middle", "inlined", "outer", "main"],
        "{frames:?}"
    );
    assert!(frames[2].inlined);
    assert_eq!(frames[3].line, Some(line_of(CHAIN, "// outer calls")));
    assert!(frames[3].file.as_ref().unwrap().ends_with("chain.c"));
    assert!(frames[..5].iter().all(|frame| frame.reason.is_none()));
    // Where it is stays as it was recorded.
    assert_eq!(frames[0].address, before[0].address);
    assert_eq!(frames[0].offset, before[0].offset);
    assert_eq!(frames[0].module, before[0].module);
    assert_eq!(frames[3].address, frames[2].address);
    assert_eq!(frames.len(), before.len() + 1, "one was inlined");
}

/// A debug file, or the program with its symbols, under any name and anywhere in the folder, or by build
/// id, gives functions, files, lines and what is inlined.
#[test]
fn by_build_id() {
    let Some(program) = Program::chain("cc", &FLAGS) else {
        return;
    };
    let before = recorded(&program);
    assert_eq!(before[0].function, None, "{before:?}");
    let id = before[0].build_id.clone().unwrap();
    let (first, rest) = id.split_at(2);
    let by_id = format!("ids/.build-id/{first}");
    for (from, to) in [
        ("full", "plain/program".to_owned()),
        ("full.debug", "other/deep/in/it/x".to_owned()),
        ("full.debug", format!("{by_id}/{rest}.debug")),
    ] {
        let path = program.dir().join(&to);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(program.dir().join(from), &path).unwrap();
        let top = program.dir().join(to.split('/').next().unwrap());
        let (frames, lines) = rename(&top, &before);
        expect_names(&frames, &before);
        assert_eq!(lines, [""; 0]);
        // What is as good as it can be stays.
        assert_eq!(rename(&top, &frames).0, frames);
    }
    // A stripped copy beside it is of the same build and knows nothing.
    fs::copy(&program.path, program.dir().join("other/a")).unwrap();
    expect_names(&rename(&program.dir().join("other"), &before).0, &before);
}

/// Symbols of another build, or of nobody knows which, are named and not used.
#[test]
fn another_build() {
    let (Some(program), Some(other), Some(nameless)) = (
        Program::chain("cc", &FLAGS),
        Program::chain("cc", &["-O1", FLAGS[1]]),
        Program::chain("cc", &[FLAGS[0], FLAGS[1], "-Wl,--build-id=none"]),
    ) else {
        return;
    };
    let before = recorded(&program);
    let id = before[0].build_id.clone().unwrap();
    let folder = folder(&program, "wrong");
    fs::copy(&other.path, folder.join("program.debug")).unwrap();
    let (frames, lines) = rename(&folder, &before);
    assert_eq!(frames, before);
    let of_program = |lines: &[String]| -> Vec<String> {
        let of = lines
            .iter()
            .filter(|line| line.contains("/app/bin/program"));
        of.cloned().collect()
    };
    let told = of_program(&lines);
    assert_eq!(told.len(), 1, "{lines:?}");
    assert!(
        told[0].contains("is of another build") && told[0].contains(&id),
        "{told:?}"
    );
    fs::remove_file(folder.join("program.debug")).unwrap();
    fs::copy(&nameless.path, folder.join("program")).unwrap();
    let (frames, lines) = rename(&folder, &before);
    assert_eq!(frames, before);
    assert!(
        of_program(&lines)[0].contains("has no build id"),
        "{lines:?}"
    );
    fs::remove_file(folder.join("program")).unwrap();
    // Nothing that is ELF, and things that would block.
    fs::write(folder.join("program"), "text").unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        folder.join("program.debug"),
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    let (frames, lines) = rename(&folder, &before);
    assert_eq!(frames, before);
    assert!(lines[0].starts_with("no file in "), "{lines:?}");
}

/// Without a build id the checksum of the debug link says which file it is; without a link none is.
#[test]
fn by_debug_link() {
    let flags = [FLAGS[0], FLAGS[1], "-Wl,--build-id=none"];
    let Some(program) = Program::chain("cc", &flags) else {
        return;
    };
    let folder = folder(&program, "linked");
    let before = recorded(&program);
    fs::copy(
        program.dir().join("full.debug"),
        folder.join("program.debug"),
    )
    .unwrap();
    let (frames, lines) = rename(&folder, &before);
    assert_eq!(frames, before);
    assert!(
        lines[0].contains("neither a build id nor a debug link"),
        "{lines:?}"
    );
    program.tool("cp", &["full.debug", "program.dbg"]);
    program.tool("objcopy", &["--add-gnu-debuglink=program.dbg", "program"]);
    let before = linked(&program);
    let (frames, lines) = rename(&folder, &before);
    assert_eq!(lines, [""; 0]);
    expect_names(&frames, &before);
    fs::write(
        folder.join("program.debug"),
        fs::read(&program.path).unwrap(),
    )
    .unwrap();
    let (frames, lines) = rename(&folder, &before);
    assert_eq!(frames, before);
    assert!(lines[0].contains("has not the checksum"), "{lines:?}");
}

/// What is no folder is told.
#[test]
fn no_folder() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = |path: &Path| DebugDir::open(path).err().unwrap().to_string();
    assert!(error(&file).contains("is not a folder"));
    assert!(error(&directory.path().join("none")).contains("cannot look into"));
}
