//! Which files a program will map when it starts: asked of its own loader.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Interpreters of interpreters are followed so far.
const MAX_SCRIPTS: usize = 4;

/// The program's file and the libraries it is linked with, environment (`LD_PRELOAD`) included.
///
/// What cannot be found out is left out: the objects are found again once they are mapped, only
/// later.
pub(super) fn of_program(name: &OsStr) -> Vec<PathBuf> {
    let Some(mut program) = find(name) else {
        return Vec::new();
    };
    for _ in 0..MAX_SCRIPTS {
        match interpreter_of_script(&program) {
            Some(interpreter) => program = interpreter,
            None => break,
        }
    }
    let mut files = listed_by_loader(&program);
    files.push(program);
    files
}

/// As execvp looks programs up.
fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// The interpreter in a script's first line; for `env NAME` that program.
fn interpreter_of_script(program: &Path) -> Option<PathBuf> {
    let mut head = [0; 256];
    let length = File::open(program).ok()?.read(&mut head).ok()?;
    let line = head
        .get(..length)?
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split_ascii_whitespace();
    let interpreter = words.next()?;
    if Path::new(interpreter).file_name() == Some(OsStr::new("env")) {
        return find(OsStr::new(
            words.find(|word| !word.starts_with('-') && !word.contains('='))?,
        ));
    }
    Some(PathBuf::from(interpreter))
}

/// Asks the program's loader, which prints the libraries instead of starting the program. For a
/// static program there is none to ask.
fn listed_by_loader(program: &Path) -> Vec<PathBuf> {
    let Some(loader) = loader_of(program) else {
        return Vec::new();
    };
    let output = Command::new(&loader)
        .arg("--list")
        .arg(program)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(listed_path)
        .collect()
}

/// `libc.so.6 => /lib/libc.so.6 (0x…)` or `/lib/ld.so (0x…)`.
fn listed_path(line: &str) -> Option<PathBuf> {
    let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
    let path = path.rsplit_once(" (0x").map_or(path, |(path, _)| path);
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn loader_of(program: &Path) -> Option<PathBuf> {
    use crate::target::object::Object;
    const PT_INTERP: u32 = 3;
    let object = Object::open(program).ok()?;
    let header = object.program_header(PT_INTERP)?;
    let bytes = object
        .read_at(header.offset, header.file_size.min(4096))
        .ok()?;
    let path = bytes.split(|byte| *byte == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of both kinds give their path; others give nothing.
    #[test]
    fn loader_lines() {
        let path = |line| listed_path(line).map(|path| path.display().to_string());
        assert_eq!(
            path("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)").as_deref(),
            Some("/lib/x86_64-linux-gnu/libc.so.6")
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(path("\tlibmissing.so => not found"), None);
    }

    /// A script's interpreter is found, also behind env.
    #[test]
    fn scripts() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let script = directory.path().join("script");
        std::fs::write(&script, "#!/usr/bin/env -S sh -e\n").expect("written");
        assert!(interpreter_of_script(&script).is_some_and(|path| path.ends_with("sh")));
        std::fs::write(&script, "#! /bin/sh -x\n").expect("written");
        assert_eq!(
            interpreter_of_script(&script),
            Some(PathBuf::from("/bin/sh"))
        );
        std::fs::write(&script, "no script").expect("written");
        assert_eq!(interpreter_of_script(&script), None);
    }
}
