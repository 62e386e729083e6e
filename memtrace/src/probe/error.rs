//! What can go wrong between memtrace and the kernel, with what to do about it.

use std::path::PathBuf;

/// An error of the kernel side's handle.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The object file could not be parsed, or its maps not created.
    #[error("cannot load memtrace's kernel side: {0}; `memtrace doctor` says what is missing")]
    Load(#[from] aya::EbpfError),
    /// The kernel rejected a program.
    #[error(
        "the kernel rejected program `{program}`: {}; please report this with the output of `memtrace doctor`",
        reason(source)
    )]
    Program {
        /// Its name.
        program: &'static str,
        /// The verifier's or the system call's word.
        source: Box<aya::programs::ProgramError>,
    },
    /// A place that needs a program which was rejected, as said of another place.
    #[error("no probe in {}: program `{program}` was rejected", path.display())]
    NotLoaded {
        /// Its name.
        program: &'static str,
        /// The object as opened.
        path: PathBuf,
    },
    /// What the user asked for cannot be had on this kernel.
    #[error(
        "`--probe {probe}` does not work on this kernel (Linux {kernel}): {}; heap tracing does not need it",
        why.summary()
    )]
    Unsupported {
        /// Its name in `--probe`.
        probe: &'static str,
        /// The kernel's release.
        kernel: String,
        /// What the kernel said.
        why: Box<ProbeError>,
    },
    /// A map access failed.
    #[error("kernel map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The system call's word.
        source: Box<aya::maps::MapError>,
    },
    /// A program or map that must be in the object is not.
    #[error(
        "memtrace's kernel object lacks `{0}`: object and program are of different builds; rebuild with `cargo xtask build`"
    )]
    Missing(&'static str),
    /// A uprobe could not be placed.
    #[error("cannot place a probe in {} at offset {offset:#x}: {source}", path.display())]
    Attach {
        /// The object as opened.
        path: PathBuf,
        /// The file offset.
        offset: u64,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// A system call of memtrace's own failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The error.
        source: std::io::Error,
    },
    /// The kernel's tracepoints are not as the kernel side needs them.
    #[error("{0}")]
    Tracepoint(String),
}

impl ProbeError {
    /// Says that what `--probe` names cannot be had here.
    pub(crate) fn unsupported(probe: &'static str) -> impl FnOnce(Self) -> Self {
        move |why| Self::Unsupported {
            probe,
            kernel: rustix::system::uname().release().to_string_lossy().into(),
            why: Box::new(why),
        }
    }

    /// Whether the kernel said that there is no such process: it has ended, or is about to.
    #[must_use]
    pub fn is_no_such_process(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(one) = error {
            let io: Option<&std::io::Error> = one.downcast_ref();
            if io.is_some_and(|io| io.raw_os_error() == Some(libc::ESRCH)) {
                return true;
            }
            error = one.source();
        }
        false
    }

    /// Why something cannot be had, without what to do about it where that is no fault: an older kernel
    /// refuses a program for what it does not have yet. The verifier's word can be many lines; the first
    /// says what failed.
    #[must_use]
    pub(crate) fn summary(&self) -> String {
        let text = match self {
            Self::Program { program, source } => {
                format!(
                    "the kernel rejected program `{program}`: {}",
                    reason(source)
                )
            }
            other => other.to_string(),
        };
        text.lines().next().unwrap_or_default().to_owned()
    }

    pub(super) fn map(map: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |source| Self::Map {
            map,
            source: Box::new(source),
        }
    }

    pub(super) fn program(program: &'static str) -> impl Fn(aya::programs::ProgramError) -> Self {
        move |source| Self::Program {
            program,
            source: Box::new(source),
        }
    }

    pub(super) fn system(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::System {
            what: what.into(),
            source,
        }
    }
}

/// The end of the verifier's log, which says what it did not like; the whole is megabytes.
fn reason(error: &aya::programs::ProgramError) -> String {
    let aya::programs::ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    let said: Vec<_> = log
        .lines()
        .filter(|line| !line.starts_with("processed ") && !line.starts_with("verification time"))
        .filter(|line| !line.starts_with("stack depth") && !line.trim().is_empty())
        .collect();
    let last = said
        .get(said.len().saturating_sub(2)..)
        .unwrap_or_default()
        .join("; ");
    if last.is_empty() {
        io_error.to_string()
    } else {
        format!("{io_error}: {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected() -> ProbeError {
        ProbeError::program("fault")(aya::programs::ProgramError::NotLoaded)
    }

    /// A probe that this kernel does not have is not to be reported as a fault; a rejected program is.
    #[test]
    fn what_is_to_be_reported() {
        assert!(rejected().to_string().contains("please report"));
        let unsupported = ProbeError::unsupported("fault")(rejected()).to_string();
        assert!(!unsupported.contains("report"), "{unsupported}");
        for part in ["`--probe fault`", "program `fault`", "heap tracing"] {
            assert!(unsupported.contains(part), "{unsupported}");
        }
    }
}
