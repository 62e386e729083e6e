//! Small programs that copy their own stack, compiled as users compile theirs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::support::{Captured, Map, SPACE, parse_maps};
use crate::report::model::Frame;
use crate::symbolize::{StackToName, Symbolizer};
use crate::unwind::*;

/// Source of the chain program: the tests look its lines up.
pub(crate) const CHAIN: &str = include_str!("sources/chain.c");
/// Source of the C++ program.
pub(crate) const NAMES: &str = include_str!("sources/names.cc");
/// Source of the C++ program whose functions are inlined.
pub(crate) const INLINED: &str = include_str!("sources/inlined.cc");
const HEADER: &str = include_str!("sources/capture.h");

/// A compiled program; its files are gone when it is dropped.
pub(crate) struct Program {
    dir: TempDir,
    pub path: PathBuf,
}

/// What a program's run left.
pub(crate) struct Run {
    pub captured: Captured,
    maps: Vec<Map>,
    mappings: Vec<ModuleMapping>,
}

impl Program {
    /// Compiles the chain program; `None` when there is no such compiler.
    pub fn chain(compiler: &str, flags: &[&str]) -> Option<Self> {
        Self::compile(compiler, "chain.c", CHAIN, flags)
    }

    pub fn compile(compiler: &str, name: &str, source: &str, flags: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("capture.h"), HEADER).unwrap();
        fs::write(dir.path().join(name), source).unwrap();
        let path = dir.path().join("program");
        let status = Command::new(compiler)
            .current_dir(dir.path())
            .args(["-w", "-o", "program", name])
            .args(if flags.contains(&"-g0") {
                [].iter()
            } else {
                ["-g"].iter()
            })
            .args(flags)
            .status();
        match status {
            Ok(status) => assert!(status.success(), "{compiler} {flags:?}"),
            Err(_) => {
                eprintln!("no {compiler} here: not tested");
                return None;
            }
        }
        Some(Self { dir, path })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a tool on the program's files.
    pub fn tool(&self, tool: &str, arguments: &[&str]) {
        let status = Command::new(tool)
            .current_dir(self.dir())
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success(), "{tool} {arguments:?}");
    }

    /// Runs it until it has copied its stack.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let (copy, maps) = (self.dir().join("copy"), self.dir().join("maps"));
        let status = Command::new(&self.path)
            .args([&copy, &maps])
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        let copy = fs::read(copy).unwrap();
        let word = |i: usize| u64::from_le_bytes(copy[i * 8..i * 8 + 8].try_into().unwrap());
        let captured = Captured {
            ip: word(0),
            sp: word(1),
            fp: word(2),
            lr: word(3),
            bytes: copy[32..].to_vec(),
            truth: Vec::new(),
        };
        let maps = parse_maps(&fs::read_to_string(maps).unwrap());
        Run {
            captured,
            mappings: open(&maps),
            maps,
        }
    }
}

/// Opens the files of executable mappings.
fn open(maps: &[Map]) -> Vec<ModuleMapping> {
    let mut store = ModuleStore::default();
    let executable = maps
        .iter()
        .filter(|m| m.executable && m.path != "[vsyscall]");
    let mut backing = |m: &Map| match m.path.starts_with('/') {
        true => Backing::File(
            store
                .intern(&*m.path, File::open(&m.path).unwrap())
                .unwrap(),
        ),
        false => Backing::Anonymous,
    };
    executable
        .map(|m| ModuleMapping {
            start: m.start,
            end: m.end,
            file_offset: m.offset,
            backing: backing(m),
        })
        .collect()
}

impl Run {
    /// The executable mappings, their files opened when it ran.
    pub fn mappings(&self) -> Vec<ModuleMapping> {
        self.mappings.clone()
    }

    /// The same, the files opened once more.
    pub fn opened_again(&self) -> Vec<ModuleMapping> {
        open(&self.maps)
    }

    /// An unwinder that knows the program.
    pub fn unwinder(&self) -> Unwinder {
        let mut unwinder = Unwinder::new(UnwindLimits::default());
        unwinder.update_modules(SPACE, &self.mappings());
        unwinder
    }

    /// Its stack, and its frames named.
    pub fn named(&self) -> (UnwoundStack, Vec<Frame>) {
        let mut unwinder = self.unwinder();
        let stack = unwinder.unwind(SPACE, &self.captured.raw());
        let frames = unwinder.capture(SPACE, &stack);
        (stack, name(&frames))
    }
}

/// Names frames, with time enough.
pub(crate) fn name(frames: &[CapturedFrame]) -> Vec<Frame> {
    let stack = StackToName { frames, jit: None };
    Symbolizer::new().symbolize_one(stack, Duration::from_secs(120))
}

/// Line of the source that has this text, from 1.
pub(crate) fn line_of(source: &str, text: &str) -> u32 {
    let mut lines = source
        .lines()
        .zip(1..)
        .filter(|(line, _)| line.contains(text));
    let (_, line) = lines
        .next()
        .unwrap_or_else(|| panic!("no line has {text:?}"));
    assert!(lines.next().is_none(), "two lines have {text:?}");
    line
}

/// Function names of frames, `?` where there is none.
pub(crate) fn functions(frames: &[Frame]) -> Vec<&str> {
    frames
        .iter()
        .map(|f| f.function.as_deref().unwrap_or("?"))
        .collect()
}
