//! The kernels of the matrix: Debian's, fetched once and kept.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::arch::Arch;
use super::debian::Suite;
use crate::shell::{self, create_dir, say};

/// A kernel's name and the Debian suite that carries it.
struct Known {
    name: &'static str,
    suite: &'static str,
}

/// From the oldest that memtrace supports to the newest there is.
const KNOWN: &[Known] = &[
    Known {
        name: "5.10",
        suite: "bullseye",
    },
    Known {
        name: "6.1",
        suite: "bookworm",
    },
    Known {
        name: "6.12",
        suite: "trixie",
    },
    Known {
        name: "newest",
        suite: "sid",
    },
];

/// The names of all known kernels.
pub fn all() -> Vec<String> {
    KNOWN.iter().map(|known| known.name.to_owned()).collect()
}

/// The kernel `name`: a file, or a known one, fetched when it is not in `cache` yet.
pub fn get(cache: &Path, name: &str, arch: Arch) -> Result<PathBuf> {
    if name.contains('/') {
        return fs::canonicalize(name).with_context(|| format!("kernel {name}"));
    }
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        bail!(
            "kernel {name} is not known: there are {}, or the path of a kernel's file",
            all().join(", ")
        );
    };
    let image = cache.join("kernels").join(arch.name()).join(name);
    if !image.is_file() {
        fetch(cache, known, arch, &image)?;
    }
    Ok(image)
}

/// The cloud flavour: its drivers are those of a virtual machine, built in, and it is small.
fn fetch(cache: &Path, known: &Known, arch: Arch, image: &Path) -> Result<()> {
    let suite = Suite::open(cache, known.suite, arch)?;
    let unpacked = cache.join("unpacked");
    let package = unpack_one(&suite, arch, &unpacked)?;
    if image_below(&unpacked).is_none() {
        // Newer packages only sign and install what this one holds.
        let binary = first(&suite, &package, "linux-binary-")?;
        suite.unpack(&binary, &unpacked)?;
    }
    let found = image_below(&unpacked).with_context(|| format!("{package} holds no kernel"))?;
    if let Some(folder) = image.parent() {
        create_dir(folder)?;
    }
    shell::copy(&found, image)?;
    fs::remove_dir_all(&unpacked).context("what was unpacked cannot be removed")
}

/// Unpacks the newest kernel package that the mirror really has; its name.
///
/// What a suite lists may be gone: the signed package before the unsigned one, and for an
/// architecture that gets no more updates all but the releases' own.
fn unpack_one(suite: &Suite, arch: Arch, to: &Path) -> Result<String> {
    let candidates = candidates(suite, arch)?;
    for package in &candidates {
        say(format!("downloading {package}"));
        let _ = fs::remove_dir_all(to);
        if suite.unpack(package, to).is_ok() {
            return Ok(package.clone());
        }
    }
    bail!("the mirror has none of {}", candidates.join(", "))
}

/// The suite's kernel packages of its newest kernel's series, the likeliest first.
fn candidates(suite: &Suite, arch: Arch) -> Result<Vec<String>> {
    let flavour = format!("-cloud-{}", arch.debian());
    let newest = first(suite, &format!("linux-image{flavour}"), "linux-image-")?;
    let unsigned = format!("{newest}-unsigned");
    let mut older = suite.names(series(&newest))?;
    older.retain(|name| name.ends_with(&flavour) && *name != newest);
    older.sort_by_key(|name| std::cmp::Reverse(numbers(name)));
    Ok([newest, unsigned].into_iter().chain(older).collect())
}

/// `linux-image-5.10.` of `linux-image-5.10.0-46-cloud-amd64`.
fn series(package: &str) -> &str {
    let end = package.match_indices('.').nth(1);
    end.map_or(package, |(at, _)| &package[..=at])
}

/// The numbers in a package's name, for putting versions in order.
fn numbers(package: &str) -> Vec<u32> {
    let digits = package.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|part| part.parse().ok()).collect()
}

fn first(suite: &Suite, package: &str, prefix: &str) -> Result<String> {
    let depends = suite.depends(package)?;
    let mut matching = depends.into_iter().filter(|name| name.starts_with(prefix));
    matching
        .next()
        .with_context(|| format!("{package} depends on no {prefix}*"))
}

fn image_below(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().find_map(|entry| {
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            return image_below(&path);
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        (name.starts_with("vmlinuz") || name.starts_with("vmlinux")).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions are ordered as numbers, within one series.
    #[test]
    fn order_of_packages() {
        let package = "linux-image-5.10.0-46-cloud-amd64";
        assert_eq!(series(package), "linux-image-5.10.");
        assert!(numbers(package) > numbers("linux-image-5.10.0-9-cloud-amd64"));
    }
}
