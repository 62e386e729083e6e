//! The architectures of the matrix: their names everywhere, and the machine that QEMU imitates.
use std::env::consts::ARCH;

use clap::ValueEnum;

/// An architecture that memtrace runs on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

/// How QEMU starts a machine of an architecture.
pub struct Machine {
    pub program: &'static str,
    /// The Debian package of `program`.
    pub package: &'static str,
    pub options: &'static [&'static str],
    /// Where the kernel logs.
    pub log: &'static str,
    /// Where the command's output goes: a line of its own where the machine has two.
    pub output: &'static str,
}

impl Arch {
    /// This machine's.
    pub fn host() -> Self {
        if Self::Aarch64.is_host() {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    pub fn is_host(self) -> bool {
        self.name() == ARCH
    }

    /// Where this machine keeps the architecture's shared libraries.
    pub fn library_folders(self) -> Vec<String> {
        let name = self.name();
        if self.is_host() {
            let triple = format!("{name}-linux-gnu");
            let folders = [format!("/usr/lib/{triple}"), format!("/lib/{triple}")];
            let plain = ["/usr/lib64", "/lib64", "/usr/lib", "/lib"];
            folders.into_iter().chain(plain.map(String::from)).collect()
        } else {
            vec![format!("/usr/{name}-linux-gnu/lib")]
        }
    }

    pub fn machine(self) -> Machine {
        match self {
            // Without la57 and cx16: old QEMUs get them wrong enough for newer kernels to panic.
            Self::X86_64 => Machine {
                program: "qemu-system-x86_64",
                package: "qemu-system-x86",
                options: &["-machine", "q35", "-cpu", "max,la57=off,-cx16"],
                log: "ttyS0",
                output: "ttyS1",
            },
            Self::Aarch64 => Machine {
                program: "qemu-system-aarch64",
                package: "qemu-system-arm",
                options: &["-machine", "virt,gic-version=3", "-cpu", "cortex-a57"],
                log: "ttyAMA0",
                output: "ttyAMA0",
            },
        }
    }
}
