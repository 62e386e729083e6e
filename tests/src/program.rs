//! Building the target programs, once for each content of source and flags.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program to build: its source, compiler and flags.
#[derive(Clone, Debug)]
pub struct Program {
    source: String,
    compiler: String,
    flags: Vec<String>,
    suffix: &'static str,
}

impl Program {
    fn new(source: &str, compiler: &str, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self {
            source: source.to_owned(),
            compiler: compiler.to_owned(),
            flags,
            suffix: "",
        }
    }

    /// `NAME.c` with gcc: optimised, with line numbers, without frame pointers.
    pub fn c(name: &str) -> Self {
        Self::new(
            &format!("{name}.c"),
            "gcc",
            &[
                "-O2",
                "-g",
                "-fomit-frame-pointer",
                "-Wall",
                "-Wextra",
                "-pthread",
            ],
        )
    }

    /// `NAME.cpp` with g++, the same way.
    pub fn cpp(name: &str) -> Self {
        Self::new(
            &format!("{name}.cpp"),
            "g++",
            &[
                "-O2",
                "-g",
                "-fomit-frame-pointer",
                "-Wall",
                "-Wextra",
                "-std=c++17",
            ],
        )
    }

    /// With musl's C library.
    #[must_use]
    pub fn musl(mut self) -> Self {
        self.compiler = "musl-gcc".to_owned();
        self
    }

    /// Linked statically.
    #[must_use]
    pub fn fully_static(self) -> Self {
        self.flag("-static").flag("-DTRUTH_STATIC")
    }

    /// As a shared object.
    #[must_use]
    pub fn shared_object(mut self) -> Self {
        self.suffix = ".so";
        self.flag("-shared").flag("-fPIC")
    }

    /// One more flag for the compiler.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Builds it, unless that was done before, and says where it is. Panics when it cannot be built.
    #[track_caller]
    pub fn build(&self) -> PathBuf {
        self.try_build().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_build(&self) -> Result<PathBuf, String> {
        let sources = sources();
        let source = sources.join(&self.source);
        let mut key = DefaultHasher::new();
        (
            &self.compiler,
            &self.flags,
            read(&source),
            read(&sources.join("truth.h")),
        )
            .hash(&mut key);
        let stem = source.file_stem().unwrap().to_string_lossy();
        let built = programs_dir().join(format!("{stem}-{:016x}{}", key.finish(), self.suffix));
        self.leave_recipe(&built)?;
        if built.exists() {
            return Ok(built);
        }
        // Built under another name: tests in other processes may want it too.
        let partial = built.with_extension(format!("partial-{}", unique()));
        let output = Command::new(&self.compiler)
            .args(&self.flags)
            .arg("-o")
            .args([&partial, &source])
            .output()
            .map_err(|error| format!("{}: {error} (is it installed?)", self.compiler))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} {}: {stderr}", self.compiler, source.display()));
        }
        // The first one stays: the file may run already, and is another once it is replaced.
        let named = std::fs::hard_link(&partial, &built);
        let _ = std::fs::remove_file(&partial);
        match named {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(format!("{}: {error}", built.display()))
            }
            _ => Ok(built),
        }
    }

    /// Writes down how the program is built, beside it: `cargo xtask vm` builds it so for another
    /// architecture, whose machine has no compiler.
    fn leave_recipe(&self, built: &Path) -> Result<(), String> {
        let recipe = PathBuf::from(format!("{}.recipe", built.display()));
        if recipe.exists() {
            return Ok(());
        }
        let words = [&self.compiler, &self.source].into_iter();
        let words: Vec<&str> = words.chain(&self.flags).map(String::as_str).collect();
        std::fs::write(&recipe, words.join("\n"))
            .map_err(|error| format!("{}: {error}", recipe.display()))
    }

    /// A program of the Rust crate in `programs/rust`, with `jemalloc`, `mimalloc` or libc's malloc ("").
    #[track_caller]
    pub fn rust(name: &str, allocator: &str) -> PathBuf {
        let crate_dir = sources().join("rust");
        let folder = if allocator.is_empty() {
            "rust"
        } else {
            allocator
        };
        let folder = programs_dir().join(format!("cargo-{folder}"));
        let built = folder.join("release").join(name);
        if !crate_dir.join("Cargo.toml").exists() && built.exists() {
            return built;
        }
        // cargo locks the folder itself; what is fresh it leaves alone.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--manifest-path",
            ])
            .arg(crate_dir.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&folder)
            .args(["--features", allocator, "--bins"])
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "programs/rust with `{allocator}`: {stderr}"
        );
        built
    }
}

/// The line of a program's source that carries the mark `@name`, counted from 1.
#[track_caller]
pub fn line_of(source: &str, mark: &str) -> u32 {
    let text = String::from_utf8(read(&sources().join(source))).unwrap();
    let at = text
        .lines()
        .position(|line| {
            line.split_whitespace()
                .any(|word| word.strip_prefix('@') == Some(mark))
        })
        .unwrap_or_else(|| panic!("no @{mark} in {source}"));
    u32::try_from(at).unwrap() + 1
}

/// A library of Debian's for `LD_PRELOAD`; panics with the package's name when it is not installed.
#[track_caller]
pub fn preload(library: &str) -> PathBuf {
    let package = match library {
        "libjemalloc.so.2" => "libjemalloc2",
        "libtcmalloc_minimal.so.4" => "libtcmalloc-minimal4",
        _ => "libmimalloc2.0",
    };
    [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(library))
    .find(|path| path.exists())
    .unwrap_or_else(|| panic!("{library} is not here: apt-get install {package}"))
}

/// The workspace's target folder: where this test itself was built.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().unwrap().to_owned()
}

/// `target/debug` or `target/release`.
pub(crate) fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let deps = exe.parent().unwrap();
    let profile = if deps.ends_with("deps") {
        deps.parent().unwrap()
    } else {
        deps
    };
    profile.to_owned()
}

fn programs_dir() -> PathBuf {
    let folder = std::env::var_os("MEMTRACE_TEST_PROGRAMS")
        .map_or_else(|| target_dir().join("test-programs"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn sources() -> PathBuf {
    std::env::var_os("MEMTRACE_TEST_SOURCES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("programs"),
        PathBuf::from,
    )
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A number no other build at this moment has.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
