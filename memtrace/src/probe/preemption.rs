//! Whether the kernel can be preempted within itself.
//!
//! Where it can, a program at one of its functions is skipped while another thread's run of it waits
//! on the same CPU, see [`super::missed`].

use std::{fs::File, io::Read, path::Path, sync::LazyLock};

use flate2::read::GzDecoder;

use super::features::parse_release;

/// Configurations of kernels have some 300 KiB.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What there is to be known about it.
struct Sources<'a> {
    /// `uname -r`, the first two numbers.
    version: (u32, u32),
    /// `uname -v`
    build: &'a str,
    /// `/proc/cmdline`
    command_line: &'a str,
    /// What the kernel was built with, where that can be read.
    config: Option<&'a str>,
}

/// Set to anything, the kernel is taken for one that can be.
const PREEMPTIBLE: &str = "MEMTRACE_PREEMPTIBLE";

/// Whether the running kernel can be.
pub(super) fn is_possible() -> bool {
    static POSSIBLE: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os(PREEMPTIBLE).is_some() || of_this_kernel());
    *POSSIBLE
}

fn of_this_kernel() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let build = uname.version().to_string_lossy();
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let config = config(&release);
    is_preemptible(&Sources {
        version: parse_release(&release),
        build: &build,
        command_line: &command_line,
        config: config.as_deref(),
    })
}

fn is_preemptible(sources: &Sources<'_>) -> bool {
    let mut words = sources.build.split_whitespace();
    let Some(model) = words.find(|word| word.starts_with("PREEMPT")) else {
        return false;
    };
    if model != "PREEMPT_DYNAMIC" {
        return true;
    }
    let mut arguments = sources.command_line.split_whitespace();
    match arguments.find_map(|argument| argument.strip_prefix("preempt=")) {
        Some("none" | "voluntary") => return false,
        Some("full" | "lazy") => return true,
        _ => {}
    }
    let Some(config) = sources.config else {
        // From 7.0 on the kinds that cannot be are gone, on the architectures that memtrace knows.
        return sources.version >= (7, 0);
    };
    let set = |name: &str| {
        config
            .lines()
            .any(|line| line.strip_prefix(name) == Some("=y"))
    };
    set("CONFIG_PREEMPT") || set("CONFIG_PREEMPT_LAZY")
}

fn config(release: &str) -> Option<String> {
    let read = |from: &mut dyn Read| {
        let mut text = String::new();
        from.take(MAX_CONFIG_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    };
    if let Ok(file) = File::open("/proc/config.gz") {
        return read(&mut GzDecoder::new(file));
    }
    let places = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ];
    let mut files = places.iter().filter_map(|path| regular(Path::new(path)));
    files.find_map(|mut file| read(&mut file))
}

/// A plain file, opened: nothing that could block.
fn regular(path: &Path) -> Option<File> {
    let is_file = path.metadata().is_ok_and(|found| found.is_file());
    is_file.then(|| File::open(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 7.2.13-1 (2026-11-01)";

    fn dynamic(command_line: &str, config: Option<&str>, version: (u32, u32)) -> bool {
        is_preemptible(&Sources {
            version,
            build: DYNAMIC,
            command_line,
            config,
        })
    }

    /// Kernels built for one model say so; one without a word about it cannot be preempted.
    #[test]
    fn one_model() {
        let of = |build| {
            is_preemptible(&Sources {
                version: (6, 12),
                build,
                command_line: "preempt=none",
                config: None,
            })
        };
        assert!(!of("#1 SMP Debian 5.10.251-1 (2026-02-01)"));
        assert!(of("#1 SMP PREEMPT Debian 6.1.1"));
        assert!(of("#1 SMP PREEMPT_RT Debian 6.12.1"));
        assert!(of("#1 SMP PREEMPT_LAZY 7.1"));
    }

    /// What the command line says holds, then what the kernel was built with, then its age.
    #[test]
    fn chosen_at_boot() {
        let none = "CONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT_NONE=y\nCONFIG_PREEMPTION=y\n";
        let lazy = "CONFIG_PREEMPT_LAZY=y\nCONFIG_PREEMPTION=y\n";
        let full = "# CONFIG_PREEMPT_LAZY is not set\nCONFIG_PREEMPT=y\n";
        assert!(dynamic("quiet preempt=full ro", Some(none), (6, 12)));
        assert!(!dynamic("preempt=voluntary", Some(full), (6, 12)));
        assert!(!dynamic("quiet", Some(none), (7, 2)));
        assert!(dynamic("quiet", Some(lazy), (6, 18)));
        assert!(dynamic("preempt=odd", Some(full), (6, 1)));
        assert!(dynamic("", None, (7, 0)));
        assert!(!dynamic("", None, (6, 18)));
    }
}
