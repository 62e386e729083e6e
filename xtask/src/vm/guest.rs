//! The guest's file system: busybox, an init, and the programs with all that they need.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::arch::Arch;
use super::cpio::Archive;
use super::debian::Suite;
use super::libraries;
use crate::apt;

const INIT: &str = include_str!("init.sh");

/// A file of this machine and where it will be in the guest.
#[derive(Clone)]
pub struct Placed {
    pub file: PathBuf,
    pub path: String,
}

impl Placed {
    /// `FILE` goes to /t under its own name, `FILE:/PATH` to that path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (file, path) = match text.rsplit_once(":/") {
            Some((file, path)) => (PathBuf::from(file), format!("/{path}")),
            None => {
                let file = PathBuf::from(text);
                let name = file.file_name().ok_or("a file without a name")?;
                let path = format!("/t/{}", name.to_string_lossy());
                (file, path)
            }
        };
        Ok(Self { file, path })
    }
}

/// The archive that the kernel boots into.
pub fn archive(busybox: &Path, command: &str, files: &[Placed], arch: Arch) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    // One folder for each kind, as on any current system: paths found by either name are one.
    for kind in ["bin", "sbin", "lib", "lib64"] {
        archive.link(&format!("/{kind}"), &format!("usr/{kind}"));
    }
    archive.link("/usr/sbin", "bin");
    for folder in [
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/proc",
        "/sys",
        "/dev",
    ] {
        archive.folder(folder);
    }
    for folder in ["/etc", "/root", "/run", "/t", "/tmp", "/var"] {
        archive.folder(folder);
    }
    archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("/usr/bin/busybox", &read(busybox)?);
    archive.link("/usr/bin/sh", "busybox");
    archive.file("/init", INIT.as_bytes());
    archive.file("/command", command.as_bytes());
    for placed in files {
        add(&mut archive, &placed.file, &placed.path, arch)?;
    }
    Ok(archive.finish())
}

/// Adds a file, or a folder with all in it, and what the programs among them need.
fn add(archive: &mut Archive, file: &Path, path: &str, arch: Arch) -> Result<()> {
    if file.is_dir() {
        let entries = fs::read_dir(file).with_context(|| file.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let path = format!("{path}/{}", name.to_string_lossy());
            add(archive, &entry.path(), &path, arch)?;
        }
        return Ok(());
    }
    let path = real(path);
    if archive.contains(&path) {
        return Ok(());
    }
    archive.file(&path, &read(file)?);
    for needed in libraries::of(file, arch)? {
        add(archive, &needed.file, &needed.path, arch)?;
    }
    Ok(())
}

/// The path below /usr where it leads through one of the links.
fn real(path: &str) -> String {
    let linked = ["/bin/", "/sbin/", "/lib/", "/lib64/"];
    if linked.iter().any(|folder| path.starts_with(folder)) {
        format!("/usr{path}")
    } else {
        path.to_owned()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// A static busybox: this system's own, or for another architecture one fetched once.
pub fn busybox(cache: &Path, arch: Arch) -> Result<PathBuf> {
    if arch.is_host() {
        apt::ensure(&["busybox-static"], "the guest's shell")?;
        return Ok(PathBuf::from("/bin/busybox"));
    }
    let folder = cache.join("busybox").join(arch.name());
    let found = |folder: &Path| {
        let places = ["usr/bin/busybox", "bin/busybox"];
        places
            .map(|place| folder.join(place))
            .into_iter()
            .find(|file| file.is_file())
    };
    if found(&folder).is_none() {
        Suite::open(cache, "bookworm", arch)?.unpack("busybox-static", &folder)?;
    }
    found(&folder).context("the package busybox-static holds no busybox")
}
