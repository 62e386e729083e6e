//! The tests as a guest can run them: built here, with the programs that they trace.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::arch::Arch;
use super::guest::Placed;
use crate::shell::{capture, cargo, say};
use crate::{test, workspace::Workspace};

/// The tests whose numbers must be the same in every kernel, in the order they run.
const SUITES: &[&str] = &["exact", "allocators", "stacks"];
/// Allocators that tests preload, where they look for them.
const PRELOADED: &[&str] = &[
    "libjemalloc.so.2",
    "libtcmalloc_minimal.so.4",
    "libmimalloc.so.2.0",
];
/// Real programs, and where they are.
const DISTRIBUTED: &[&str] = &["/usr/bin/redis-server"];
/// Emulation is about sixteen times slower than this machine; deadlines are stretched so.
const SLOWNESS: &str = "16";

/// What to put into the guest, and what to run there.
pub struct Suite {
    pub command: String,
    pub files: Vec<Placed>,
}

/// Runs the tests on this machine first: that builds the programs they trace, and what fails here
/// need not be tried elsewhere.
pub fn prepare(workspace: &Workspace, arch: Arch) -> Result<Suite> {
    ensure!(
        arch.is_host(),
        "the tests' programs are built for this machine: say what to run with --command"
    );
    say("the tests on this machine's own kernel, for the programs and for comparison");
    test::kernel_suites(workspace, SUITES)?;
    let mut files = test_binaries(workspace)?;
    files.extend(programs(workspace)?);
    files.extend(sources(workspace)?);
    files.extend(preloaded(arch));
    files.extend(distributed());
    let command = command();
    Ok(Suite { command, files })
}

/// Runs every suite, whatever the ones before said, and fails when one did.
fn command() -> String {
    let suites = SUITES.join(" ");
    format!(
        "export MEMTRACE_BIN=/t/memtrace MEMTRACE_TEST_SLOW={SLOWNESS}\n\
         export MEMTRACE_TEST_PROGRAMS=/t/programs MEMTRACE_TEST_SOURCES=/t/sources\n\
         failed=0\n\
         for suite in {suites}; do \"/t/tests/$suite\" --test-threads=1 || failed=1; done\n\
         exit $failed\n"
    )
}

fn test_binaries(workspace: &Workspace) -> Result<Vec<Placed>> {
    let mut command = cargo(workspace);
    command.args(["test", "--no-run", "--message-format=json"]);
    command.args(["--package", "memtrace-tests"]);
    let messages = capture(&mut command)?;
    let built: Vec<(String, PathBuf)> = messages.lines().filter_map(executable).collect();
    let find = |suite: &str| {
        let file = built.iter().find(|(name, _)| name == suite);
        let (_, file) = file.with_context(|| format!("there is no test {suite}"))?;
        let file = file.clone();
        let path = format!("/t/tests/{suite}");
        Ok(Placed { file, path })
    };
    SUITES.iter().copied().map(find).collect()
}

/// The name and the file, when the line is cargo's word on a built test.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let file = PathBuf::from(message["executable"].as_str()?);
    let name = message["target"]["name"].as_str()?.to_owned();
    Some((name, file))
}

/// The traced programs as the tests built them: those of C beside each other, those of Rust in
/// cargo's folders, of which only the programs go along.
fn programs(workspace: &Workspace) -> Result<Vec<Placed>> {
    let folder = workspace.target.join("test-programs");
    let mut found = executables(&folder, "/t/programs")?;
    for entry in fs::read_dir(&folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let release = entry.path().join("release");
        if release.is_dir() {
            found.extend(executables(
                &release,
                &format!("/t/programs/{name}/release"),
            )?);
        }
    }
    Ok(found)
}

/// The executable files directly in `folder`.
fn executables(folder: &Path, to: &str) -> Result<Vec<Placed>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{}: the tests built no programs", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_file() && about.permissions().mode() & 0o100 != 0 {
            let path = format!("{to}/{}", entry.file_name().to_string_lossy());
            let file = entry.path();
            found.push(Placed { file, path });
        }
    }
    Ok(found)
}

/// The sources tell the tests which line a stack must name. Without the Rust crate's manifest,
/// whose absence tells them to take its programs as they are.
fn sources(workspace: &Workspace) -> Result<Vec<Placed>> {
    let root = workspace.root.join("tests/programs");
    let mut placed = Vec::new();
    for folder in ["", "rust/src/bin"] {
        let folder = root.join(folder);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let files = entries.flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.is_file()) {
            let name = file.strip_prefix(&root).unwrap_or(&file).display();
            let path = format!("/t/sources/{name}");
            placed.push(Placed { path, file });
        }
    }
    Ok(placed)
}

/// Programs of the distribution that tests trace.
fn distributed() -> Vec<Placed> {
    let programs = DISTRIBUTED.iter().map(PathBuf::from);
    programs
        .filter(|file| file.is_file())
        .map(|file| Placed {
            path: file.display().to_string(),
            file,
        })
        .collect()
}

fn preloaded(arch: Arch) -> Vec<Placed> {
    let folders = arch.library_folders();
    let files = PRELOADED.iter().filter_map(|library| {
        let mut places = folders.iter().map(|folder| Path::new(folder).join(library));
        places.find(|file| file.is_file())
    });
    files
        .map(|file| Placed {
            path: file.display().to_string(),
            file,
        })
        .collect()
}
