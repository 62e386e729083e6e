//! What a program needs beside it to start: its loader and its shared libraries.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::arch::Arch;
use crate::shell::capture;

/// A file of this machine and the path at which the program will look for it.
pub struct Needed {
    pub file: PathBuf,
    pub path: String,
}

/// The direct needs of `file`; none for a script or a static program.
///
/// Read with binutils' readelf and not by running the loader as `ldd` does: the program may be
/// of another architecture.
pub fn of(file: &Path, arch: Arch) -> Result<Vec<Needed>> {
    let mut command = Command::new("readelf");
    command
        .env("LC_ALL", "C")
        .args(["-W", "-l", "-d"])
        .arg(file);
    let Ok(text) = capture(&mut command) else {
        return Ok(Vec::new());
    };
    let loader = text
        .lines()
        .find_map(|line| between(line, "program interpreter: ", "]"));
    let libraries = text
        .lines()
        .filter_map(|line| between(line, "Shared library: [", "]"))
        // musl's libc is its loader; another libc.so is a text for the linker.
        .filter(|name| *name != "libc.so");
    loader
        .into_iter()
        .chain(libraries)
        .map(|name| find(name, arch).with_context(|| format!("{} needs it", file.display())))
        .collect()
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// Finds a library by name, or the loader by its path.
fn find(name: &str, arch: Arch) -> Result<Needed> {
    let own = Path::new(name);
    if own.is_absolute() && arch.is_host() && own.is_file() {
        let path = name.to_owned();
        return Ok(Needed {
            file: own.to_path_buf(),
            path,
        });
    }
    let base = own.file_name().context("a library without a name")?;
    let folders = arch.library_folders();
    let found = folders
        .iter()
        .map(|folder| Path::new(folder).join(base))
        .find(|candidate| candidate.is_file());
    let file = found.with_context(|| {
        format!(
            "{name} for {} is not in {}",
            arch.name(),
            folders.join(", ")
        )
    })?;
    let path = if own.is_absolute() {
        name.to_owned()
    } else {
        format!("/usr/lib/{}-linux-gnu/{name}", arch.name())
    };
    Ok(Needed { file, path })
}
