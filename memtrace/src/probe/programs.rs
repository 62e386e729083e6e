//! The programs that probes run, loaded when they are first needed.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::{Ebpf, programs::UProbe};

use super::ProbeError;

/// A program's descriptor.
pub(super) fn loaded<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<BorrowedFd<'a>, ProbeError> {
    let fd = load(ebpf, name)?.fd().map_err(ProbeError::program(name))?;
    Ok(fd.as_fd())
}

/// A program, loaded if it was not.
pub(super) fn load<'a>(
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
