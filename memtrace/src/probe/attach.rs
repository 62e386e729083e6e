//! Probes on functions: which program goes where, and taking them off again.

use std::{num::NonZeroU32, path::Path};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope},
    },
};
use memtrace_common::Function;

use super::ProbeError;
use crate::id::Tgid;

/// One place to probe.
#[derive(Clone, Copy, Debug)]
pub struct AttachPoint<'a> {
    /// The object's file, as memtrace can open it.
    pub path: &'a Path,
    /// File offset of the instruction that the probe replaces.
    pub offset: u64,
    /// Calling convention.
    pub function: Function,
    /// File offsets of the instructions that the function returns with, where its return address
    /// must stay what it is; empty: the kernel's return probe.
    pub returns: &'a [u64],
    /// Only in this process; `None` for every process that maps the file.
    pub process: Option<Tgid>,
}

/// Threads that take probes off.
const DETACH_AT_ONCE: usize = 128;

/// Probes that are on. Dropping takes them off.
#[derive(Default)]
pub struct Attachments {
    links: Vec<UProbeLink>,
}

impl Drop for Attachments {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Attachments {
    /// Probes that are on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether none is on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Takes all probes off. Each waits until no processor can be in it any more, some 50 ms:
    /// they wait together, not too many at once.
    pub fn detach(&mut self) {
        while !self.links.is_empty() {
            let rest = self.links.len().saturating_sub(DETACH_AT_ONCE);
            std::thread::scope(|scope| {
                for link in self.links.drain(rest..) {
                    scope.spawn(move || drop(link));
                }
            });
        }
    }

    /// Puts a probe on; for an allocation function the return first, so that no entry is
    /// recorded whose return cannot be seen.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        point: &AttachPoint<'_>,
    ) -> Result<(), ProbeError> {
        if !point.returns.is_empty() {
            for offset in point.returns {
                let point = AttachPoint {
                    offset: *offset,
                    ..*point
                };
                self.attach_one(ebpf, "leave_at_return", &point)?;
            }
        } else if needs_return(point.function) {
            self.attach_one(ebpf, "leave", point)?;
        }
        self.attach_one(ebpf, program_name(point.function), point)
    }

    pub(super) fn attach_one(
        &mut self,
        ebpf: &mut Ebpf,
        name: &'static str,
        point: &AttachPoint<'_>,
    ) -> Result<(), ProbeError> {
        let program = loaded(ebpf, name)?;
        let scope = match point.process.and_then(|tgid| NonZeroU32::new(tgid.0)) {
            Some(pid) => UProbeScope::OneProcess(pid),
            None => UProbeScope::AllProcesses,
        };
        let attach_error = |source| ProbeError::Attach {
            path: point.path.to_path_buf(),
            offset: point.offset,
            source: Box::new(source),
        };
        let id = program
            .attach(
                UProbeAttachLocation::AbsoluteOffset(point.offset),
                point.path,
                scope,
            )
            .map_err(attach_error)?;
        self.links
            .push(program.take_link(id).map_err(attach_error)?);
        Ok(())
    }
}

/// The program, loaded if it was not.
pub(super) fn loaded<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut UProbe, ProbeError> {
    let program: &mut UProbe = ebpf
        .program_mut(name)
        .ok_or(ProbeError::Missing(name))?
        .try_into()
        .map_err(ProbeError::program(name))?;
    if program.fd().is_err() {
        program.load().map_err(ProbeError::program(name))?;
    }
    Ok(program)
}

/// Whether a function's result matters.
fn needs_return(function: Function) -> bool {
    (function as u8) < Function::Free0 as u8
}

fn program_name(function: Function) -> &'static str {
    match function {
        Function::Size0 => "enter_size0",
        Function::Size1 => "enter_size1",
        Function::Size2 => "enter_size2",
        Function::Size3 => "enter_size3",
        Function::Size4 => "enter_size4",
        Function::Size5 => "enter_size5",
        Function::Calloc => "enter_calloc",
        Function::Realloc => "enter_realloc",
        Function::ReallocArray => "enter_reallocarray",
        Function::PosixMemalign => "enter_posix_memalign",
        Function::Xallocx => "enter_xallocx",
        Function::Free0 => "free_0",
        Function::Free1 => "free_1",
        Function::Free2 => "free_2",
        Function::Free3 => "free_3",
        Function::Free4 => "free_4",
        Function::Free5 => "free_5",
    }
}
