//! Mappings of a program that is gone before anyone could read them: from what the kernel logged.
//!
//! A program can end between its exec and the first look at `/proc/PID/maps`, or between two looks:
//! what was read then is a part (the program and its loader, say, without the C library).

use std::os::unix::fs::MetadataExt as _;

use super::{Session, SessionError, mappings::TRAMPOLINES};
use crate::{
    id::Tgid,
    probe::LoggedMapping,
    target::open,
    unwind::{Backing, ModuleMapping},
};

impl Session {
    /// Completes what was read of a process's mappings by what the kernel logged.
    pub(super) fn recall(&mut self, tgid: Tgid) -> Result<(), SessionError> {
        let Some(traced) = self.traced.iter().find(|t| t.tgid == tgid) else {
            return Ok(());
        };
        let (space, read) = (traced.image.space, traced.modules.clone());
        let logged = match &self.map_log {
            Some(log) if !traced.launching => log.mappings(tgid),
            _ => return Ok(()),
        };
        let logged: Vec<_> = logged
            .into_iter()
            .map(|mapping| self.logged_module(&mapping))
            .collect();
        let modules = merge(read, logged);
        if modules.is_empty() {
            return Ok(());
        }
        self.set_modules(tgid, space, modules);
        Ok(())
    }

    fn logged_module(&mut self, mapping: &LoggedMapping) -> ModuleMapping {
        let backing = if mapping.path.as_os_str() == TRAMPOLINES {
            Backing::Trampolines
        } else {
            self.logged_file(mapping).unwrap_or(Backing::Anonymous)
        };
        ModuleMapping {
            start: mapping.start,
            end: mapping.end,
            file_offset: match backing {
                Backing::File(_) => mapping.offset,
                _ => 0,
            },
            backing,
        }
    }

    /// The file behind a mapping, if it still is the one that was mapped. A program that `run`
    /// starts sees memtrace's own file system.
    fn logged_file(&mut self, mapping: &LoggedMapping) -> Option<Backing> {
        let file = open::regular(&mapping.path).ok()?;
        let inode = file.metadata().ok()?.ino();
        if inode != mapping.inode {
            return None;
        }
        let name = mapping.path.to_string_lossy().into_owned();
        self.modules.intern(name, file).ok().map(Backing::File)
    }
}

/// One list without overlaps, of two that have none: what the log can name goes first, as it knows
/// what came last. Only what was read can hold the vdso's bytes.
fn merge(mut read: Vec<ModuleMapping>, logged: Vec<ModuleMapping>) -> Vec<ModuleMapping> {
    let (mut named, mut bare): (Vec<_>, Vec<_>) = logged.into_iter().partition(says_something);
    read.retain(|one| !overlaps(one, &named));
    bare.retain(|one| !overlaps(one, &read));
    named.extend(read);
    named.extend(bare);
    named
}

fn overlaps(one: &ModuleMapping, others: &[ModuleMapping]) -> bool {
    others
        .iter()
        .any(|other| one.start < other.end && other.start < one.end)
}

fn says_something(mapping: &ModuleMapping) -> bool {
    !matches!(mapping.backing, Backing::Anonymous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::ModuleFile;

    fn mapping(start: u64, end: u64, path: Option<&str>) -> ModuleMapping {
        ModuleMapping {
            start,
            end,
            file_offset: 0,
            backing: path.map_or(Backing::Anonymous, |path| {
                Backing::File(ModuleFile::from_bytes(path, *b"no ELF"))
            }),
        }
    }

    fn text(mappings: &[ModuleMapping]) -> Vec<(u64, u64, &str)> {
        let path = |m: &ModuleMapping| match &m.backing {
            Backing::File(module) => module.path().to_owned(),
            _ => String::new(),
        };
        let mut all: Vec<_> = mappings.iter().map(|m| (m.start, m.end, path(m))).collect();
        all.sort();
        all.into_iter()
            .map(|(start, end, path)| (start, end, &*path.leak()))
            .collect()
    }

    /// A look that came before the loader had mapped the C library, and found more mappings than
    /// the log has, is completed by the log.
    #[test]
    fn the_log_completes_a_part() {
        let read = vec![
            mapping(10, 20, Some("prog")),
            mapping(40, 50, Some("ld.so")),
            mapping(60, 61, Some("[vdso]")),
            mapping(70, 71, None),
        ];
        let logged = vec![
            mapping(10, 20, Some("prog")),
            mapping(40, 50, Some("ld.so")),
            mapping(60, 61, None),
            mapping(30, 35, Some("libc")),
        ];
        assert_eq!(
            text(&merge(read, logged)),
            [
                (10, 20, "prog"),
                (30, 35, "libc"),
                (40, 50, "ld.so"),
                (60, 61, "[vdso]"),
                (70, 71, ""),
            ]
        );
    }

    /// Files that were read as nothing, because the program was ending, are named by the log; what
    /// the log cannot open stays as it was read.
    #[test]
    fn files_go_before_addresses() {
        let read = vec![mapping(10, 20, None), mapping(30, 40, Some("deleted"))];
        let logged = vec![mapping(10, 20, Some("prog")), mapping(30, 40, None)];
        assert_eq!(
            text(&merge(read, logged)),
            [(10, 20, "prog"), (30, 40, "deleted")]
        );
        assert_eq!(merge(Vec::new(), Vec::new()).len(), 0);
    }
}
