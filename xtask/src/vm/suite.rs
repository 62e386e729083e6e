//! The tests as a guest can run them: built here, with the programs that they trace.
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::arch::Arch;
use super::cross;
use super::guest::Placed;
use super::tally::SUITE;
use crate::shell::{self, capture, cargo, create_dir, say};
use crate::test::{self, crosscheck};
use crate::workspace::Workspace;

/// The tests whose numbers must be the same in every kernel, in the order they run.
const SUITES: [&str; 8] = [
    "exact",
    "allocators",
    "stacks",
    "regions",
    "faults",
    "losses",
    "lifecycle",
    "oom",
];
/// Allocators that tests preload, where they look for them.
const PRELOADED: &[&str] = &[
    "libjemalloc.so.2",
    "libtcmalloc_minimal.so.4",
    "libmimalloc.so.2.0",
];
/// Real programs, and where they are.
const DISTRIBUTED: &[&str] = &["/usr/bin/redis-server", "/usr/bin/python3"];
/// Says by how much deadlines are to be stretched: twice what a loop of the shell takes here against the
/// 0.14 s that it takes on the machine that memtrace is developed on, and at least four times. Measured
/// before each suite, because an emulated machine is as slow as the real one is busy.
const SLOWNESS: &str = r#"slowness() {
    read start _ < /proc/uptime
    round=0
    while [ $round -lt 100000 ]; do round=$((round + 1)); done
    read end _ < /proc/uptime
    awk "BEGIN { n = int(($end - $start) / 0.14 * 2) + 1; print n < 4 ? 4 : n }"
}
"#;

/// Which tests to run.
#[derive(Args)]
pub struct Choice {
    /// Run only these suites: exact, allocators, stacks, regions, faults, losses, lifecycle, oom
    #[arg(long = "suite", value_name = "SUITE", value_delimiter = ',', value_parser = SUITES)]
    suites: Vec<String>,
    /// Run only the tests with this in their names
    #[arg(long = "test", value_name = "NAME")]
    test: Option<String>,
    /// Do not run the suites on this machine first: the programs they trace are built already
    #[arg(long)]
    prepared: bool,
}

impl Choice {
    fn suites(&self, arch: Arch) -> Vec<&str> {
        if self.suites.is_empty() {
            let mut suites = SUITES.to_vec();
            // Page faults are traced on x86-64 only.
            suites.retain(|suite| arch == Arch::X86_64 || *suite != "faults");
            return suites;
        }
        self.suites.iter().map(String::as_str).collect()
    }
}

/// What to put into the guest, and what to run there.
pub struct Suite {
    pub command: String,
    pub files: Vec<Placed>,
}

/// Runs the tests on this machine first: that builds the programs they trace, and what fails here
/// need not be tried elsewhere.
pub fn prepare(workspace: &Workspace, arch: Arch, choice: &Choice) -> Result<Suite> {
    let suites = choice.suites(arch);
    if !choice.prepared {
        say("the tests on this machine's own kernel, for the programs and for comparison");
        test::kernel_suites(workspace, &suites)?;
    }
    let mut files = test_binaries(workspace, &suites, arch)?;
    files.extend(sources(workspace)?);
    let mut without = "";
    if arch.is_host() {
        files.extend(programs(&workspace.target.join("test-programs"))?);
        files.extend(preloaded(&arch.library_folders()));
        files.extend(distributed()?);
    } else {
        files.extend(programs(&cross::programs(workspace, arch)?)?);
        files.extend(preloaded(&[cross::preloaded(workspace, arch)?]));
        without = cross::WITHOUT;
    }
    let command = command(&suites, choice.test.as_deref(), without);
    Ok(Suite { command, files })
}

/// Says what doctor finds, then runs every suite, whatever the ones before said, and fails when one
/// did.
fn command(suites: &[&str], test: Option<&str>, without: &str) -> String {
    let suites = suites.join(" ");
    let test = test.unwrap_or_default();
    let slowness = env::var("MEMTRACE_TEST_SLOW").unwrap_or_else(|_| "$(slowness)".to_owned());
    format!(
        "{SLOWNESS}\
         export MEMTRACE_BIN=/t/memtrace\n\
         export MEMTRACE_TEST_PROGRAMS=/t/programs MEMTRACE_TEST_SOURCES=/t/sources\n\
         failed=0\n\
         /t/memtrace doctor || failed=1\n\
         for suite in {suites}; do\n\
         export MEMTRACE_TEST_SLOW={slowness}\n\
         echo \"{SUITE}$suite\"\n\
         echo \"deadlines $MEMTRACE_TEST_SLOW times as long\"\n\
         \"/t/tests/$suite\" --test-threads=1 --show-output {without} {test} || failed=1\n\
         done\n\
         exit $failed\n"
    )
}

/// Without their debugging information, which is most of them: the guest's files are in its memory.
fn test_binaries(workspace: &Workspace, suites: &[&str], arch: Arch) -> Result<Vec<Placed>> {
    let mut command = if arch.is_host() {
        cargo(workspace)
    } else {
        cross::cargo_for(workspace, arch)?
    };
    command.args(["test", "--no-run", "--message-format=json"]);
    command.args(["--package", "memtrace-tests"]);
    if !arch.is_host() {
        command.args(["--target", &crosscheck::triple(arch.name())]);
    }
    let messages = capture(&mut command)?;
    let built: Vec<(String, PathBuf)> = messages.lines().filter_map(executable).collect();
    let folder = workspace.target.join("vm/tests").join(arch.name());
    create_dir(&folder)?;
    let strip = if arch.is_host() {
        "strip".to_owned()
    } else {
        format!("{}-linux-gnu-strip", arch.name())
    };
    let find = |suite: &str| {
        let file = built.iter().find(|(name, _)| name == suite);
        let (_, file) = file.with_context(|| format!("there is no test {suite}"))?;
        let stripped = folder.join(suite);
        let mut strip = Command::new(&strip);
        shell::run(strip.arg("-o").arg(&stripped).arg(file))?;
        let path = format!("/t/tests/{suite}");
        Ok(Placed {
            file: stripped,
            path,
        })
    };
    suites.iter().copied().map(find).collect()
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
fn programs(folder: &Path) -> Result<Vec<Placed>> {
    let mut found = executables(folder, "/t/programs")?;
    for entry in fs::read_dir(folder)?.flatten() {
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

/// Programs of the distribution that tests trace, and what Python needs to start.
fn distributed() -> Result<Vec<Placed>> {
    let programs = DISTRIBUTED.iter().map(PathBuf::from);
    let mut files: Vec<Placed> = programs
        .filter(|file| file.is_file())
        .map(in_place)
        .collect();
    let python = fs::canonicalize("/usr/bin/python3").unwrap_or_default();
    let version = python.file_name().unwrap_or_default();
    let library = Path::new("/usr/lib").join(version);
    for folder in ["", "collections", "encodings", "importlib"] {
        let Ok(entries) = fs::read_dir(library.join(folder)) else {
            continue;
        };
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "py") {
                files.push(in_place(file));
            }
        }
    }
    Ok(files)
}

/// A file that has the same place in the guest.
fn in_place(file: PathBuf) -> Placed {
    Placed {
        path: file.display().to_string(),
        file,
    }
}

fn preloaded(folders: &[String]) -> Vec<Placed> {
    let files = PRELOADED.iter().filter_map(|library| {
        let mut places = folders.iter().map(|folder| Path::new(folder).join(library));
        places.find(|file| file.is_file())
    });
    files
        .map(|file| Placed {
            path: format!(
                "/usr/lib/{}",
                file.file_name().unwrap_or_default().display()
            ),
            file,
        })
        .collect()
}
