//! Building `memtrace-ebpf`: finding the compiler and the linker, and running cargo inside cargo.
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Provided, var, watch};

/// The only BPF target there is to choose: every machine memtrace runs on is little endian.
const BPF_TARGET: &str = "bpfel-unknown-none";
/// What to say last in every error about a missing tool.
const SETUP: &str = "`cargo xtask setup` installs what is missing and says what it chose";

/// Builds the workspace's kernel side.
///
/// Into a target folder of its own below `OUT_DIR`, because the outer cargo holds the lock of the
/// usual one for as long as this script runs.
pub fn build(here: &Path, out: &Path, arch: &str) -> Result<Provided, String> {
    let workspace = here.parent().ok_or("memtrace has no parent folder")?;
    let ebpf = workspace.join("memtrace-ebpf");
    if !ebpf.join("Cargo.toml").is_file() {
        return Err(format!(
            "this crate carries no kernel object for {arch} (bpf/memtrace.{arch}.bpf.o), and its \
             source memtrace-ebpf is not beside it:\nbuild from the repository, or name an object \
             in MEMTRACE_BPF_OBJECT"
        ));
    }
    watch_sources(workspace);
    let toolchain = Toolchain::find()?;
    let linker = find_linker(workspace, out)?;
    watch(&linker);
    let target_dir = out.join("bpf-target");
    let mut command = toolchain.command(&linker, arch)?;
    command
        .current_dir(&ebpf)
        .arg("--target-dir")
        .arg(&target_dir);
    run_build(&mut command)?;
    let built = target_dir.join(BPF_TARGET).join("release/memtrace-ebpf");
    let (object, stripped) = strip(&toolchain, &built, out);
    let how = format!(
        "built with {}, linked with {}, {stripped}\n",
        toolchain.name,
        linker.display(),
    );
    Ok(Provided { object, how })
}

/// Everything the object is made from. The lock file too: it decides aya-ebpf's version.
fn watch_sources(workspace: &Path) {
    for crate_name in ["memtrace-ebpf", "memtrace-common"] {
        watch(&workspace.join(crate_name).join("src"));
        watch(&workspace.join(crate_name).join("Cargo.toml"));
    }
    watch(&workspace.join("Cargo.toml"));
    watch(&workspace.join("Cargo.lock"));
}

/// A compiler that can build for BPF.
struct Toolchain {
    name: String,
    cargo: PathBuf,
    rustc: PathBuf,
    /// Whether `core` must be built from the compiler's source first.
    build_std: bool,
}

impl Toolchain {
    /// The active toolchain when it has the source of `core`, else the distribution's compiler
    /// with `core` prebuilt for BPF (Debian: rustc-web).
    fn find() -> Result<Self, String> {
        let active = Self {
            name: "the active toolchain and -Z build-std".to_owned(),
            cargo: PathBuf::from(var("CARGO")?),
            rustc: PathBuf::from(var("RUSTC")?),
            build_std: true,
        };
        let distribution = Self {
            name: "/usr/bin/rustc and its prebuilt core".to_owned(),
            cargo: PathBuf::from("/usr/bin/cargo"),
            rustc: PathBuf::from("/usr/bin/rustc"),
            build_std: false,
        };
        let source = "lib/rustlib/src/rust/library/core/Cargo.toml";
        let prebuilt = format!("lib/rustlib/{BPF_TARGET}");
        if sysroot(&active.rustc).is_some_and(|root| root.join(source).is_file()) {
            return Ok(active);
        }
        if distribution.cargo.is_file()
            && sysroot(&distribution.rustc).is_some_and(|root| root.join(prebuilt).is_dir())
        {
            return Ok(distribution);
        }
        Err(format!(
            "no compiler here can build for BPF: install the source of the standard library \
             (`rustup component add rust-src`),\nor Debian's rustc-web, cargo-web and \
             libstd-rust-web-dev-bpf\n{SETUP}"
        ))
    }

    /// The inner cargo, in an environment that the outer one has left no trace in.
    fn command(&self, linker: &Path, arch: &str) -> Result<Command, String> {
        let mut command = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            if is_from_outer_cargo(&name) {
                command.env_remove(name);
            }
        }
        command
            .env("RUSTC", &self.rustc)
            // Lets a stable compiler take -Z build-std and aya-ebpf's use of unstable features.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(arch))
            // bpf-linker optimizes the whole program itself; rustc's own LTO only gets in its way.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("PATH", path_with(linker)?)
            .args(["build", "--release", "--target", BPF_TARGET]);
        if self.build_std {
            command.args(["-Z", "build-std=core"]);
        }
        Ok(command)
    }
}

/// Kernels up to 5.10 refuse the atomics of newer instruction sets, hence v2; debug information
/// is what the linker makes BTF of.
fn rust_flags(arch: &str) -> OsString {
    let flags = [
        "-Ctarget-cpu=v2",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    OsString::from(flags.join("\u{1f}"))
}

/// Whether the variable is about the outer build and would bend the inner one.
fn is_from_outer_cargo(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let exact = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC",
        "RUSTDOC",
        "RUSTC_LINKER",
        "TARGET",
    ];
    let prefixes = [
        "CARGO_ENCODED_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "RUSTC_W",
        "DEP_",
    ];
    exact.contains(&&*name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// Where a bpf-linker may be, in order: the one that setup put into a target folder (the one this
/// build goes to, or the workspace's), PATH, cargo's folder of binaries.
fn find_linker(workspace: &Path, out: &Path) -> Result<PathBuf, String> {
    let installed = "bpf-linker/bin";
    let mut folders: Vec<PathBuf> = out.ancestors().map(|dir| dir.join(installed)).collect();
    folders.push(workspace.join("target").join(installed));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    if let Some(home) = env::var_os("CARGO_HOME") {
        folders.push(Path::new(&home).join("bin"));
    }
    folders.extend(env::home_dir().map(|home| home.join(".cargo/bin")));
    let mut candidates = folders.into_iter().map(|folder| folder.join("bpf-linker"));
    candidates
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("bpf-linker, which links the kernel side, is not found\n{SETUP}"))
}

fn path_with(linker: &Path) -> Result<OsString, String> {
    let folder = linker.parent().map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(folder.into_iter().chain(env::split_paths(&path)))
        .map_err(|e| format!("PATH cannot hold {}: {e}", linker.display()))
}

/// Runs the inner cargo; its words are shown only when it fails.
fn run_build(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|e| format!("{} cannot be run: {e}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "the kernel side does not build ({}):\n{words}",
        output.status
    ))
}

/// The object without its DWARF, which the kernel never reads and which is most of it; BTF stays.
///
/// Where no tool can do that, it stays as it was linked: it is larger and works as well.
fn strip(toolchain: &Toolchain, built: &Path, out: &Path) -> (PathBuf, String) {
    let stripped = out.join("stripped.bpf.o");
    let own = sysroot(&toolchain.rustc).unwrap_or_default();
    let host = env::var("HOST").unwrap_or_default();
    let shipped = own.join("lib/rustlib").join(host).join("bin/rust-objcopy");
    let debian = PathBuf::from("/usr/lib/llvm-22/bin/llvm-objcopy");
    for tool in [shipped, debian, PathBuf::from("llvm-objcopy")] {
        let mut command = Command::new(&tool);
        // The toolchain's own tool finds its LLVM there.
        command.env("LD_LIBRARY_PATH", own.join("lib"));
        command.arg("--strip-debug").arg(built).arg(&stripped);
        if command.output().is_ok_and(|output| output.status.success()) {
            return (stripped, format!("stripped with {}", tool.display()));
        }
    }
    (built.to_path_buf(), "not stripped".to_owned())
}
