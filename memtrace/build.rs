//! Provides the kernel side to the crate as `$OUT_DIR/memtrace.bpf.o`.
//!
//! Three sources, the first that is there wins:
//! 1. the file that `MEMTRACE_BPF_OBJECT` names (packagers, and tests with an object of their own);
//! 2. `bpf/memtrace.<arch>.bpf.o` beside this file: a published crate carries it, so that
//!    `cargo install` needs no BPF toolchain (`cargo xtask package-object` puts it there);
//! 3. the crate `memtrace-ebpf` of the workspace, built here for `bpfel-unknown-none`.
//!
//! `$OUT_DIR/memtrace.bpf.txt` says which one it was and how it was built. Only the standard
//! library is used: a build dependency would be paid for by everyone who installs memtrace.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "build/kernel_side.rs"]
mod kernel_side;

/// What the object is made from, as told in `memtrace.bpf.txt`.
struct Provided {
    object: PathBuf,
    how: String,
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed=MEMTRACE_BPF_OBJECT");
    if let Err(message) = run() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<(), String> {
    let out = PathBuf::from(var("OUT_DIR")?);
    let here = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let provided = match named_object()? {
        Some(provided) => provided,
        None => match packaged_object(&here, &arch) {
            Some(provided) => provided,
            None => kernel_side::build(&here, &out, &arch)?,
        },
    };
    let object = out.join("memtrace.bpf.o");
    fs::copy(&provided.object, &object)
        .map_err(|e| format!("{} cannot be copied: {e}", provided.object.display()))?;
    let note = out.join("memtrace.bpf.txt");
    fs::write(&note, provided.how).map_err(|e| format!("{}: {e}", note.display()))
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("environment variable {name}: {e} (run by cargo?)"))
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// The object that the caller names.
fn named_object() -> Result<Option<Provided>, String> {
    let Some(path) = env::var_os("MEMTRACE_BPF_OBJECT").filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let object = PathBuf::from(path);
    if !object.is_file() {
        return Err(format!(
            "MEMTRACE_BPF_OBJECT: {} is not a file",
            object.display()
        ));
    }
    watch(&object);
    let how = format!("MEMTRACE_BPF_OBJECT={}\n", object.display());
    Ok(Some(Provided { object, how }))
}

/// The object that a published crate carries.
fn packaged_object(here: &Path, arch: &str) -> Option<Provided> {
    let folder = here.join("bpf");
    if folder.is_dir() {
        // The folder and not the file: cargo takes a missing file for one that always changes.
        watch(&folder);
    }
    let object = folder.join(format!("memtrace.{arch}.bpf.o"));
    if !object.is_file() {
        return None;
    }
    if here.join("../memtrace-ebpf").is_dir() {
        println!(
            "cargo::warning=the packaged {} is used; changes to memtrace-ebpf take effect only \
             without it",
            object.display()
        );
    }
    let how = format!("packaged {}\n", object.display());
    Some(Provided { object, how })
}
