//! The programs that probes run, loaded when they are first needed.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::{
    Ebpf,
    programs::{Program, UProbe},
};

use super::{KernelSide, ProbeError};

impl KernelSide {
    /// Loads every program that a probe can need; the names of those that the kernel refuses.
    pub fn refused_probes(&mut self) -> Vec<String> {
        let mut refused = Vec::new();
        for (name, program) in self.ebpf.programs_mut() {
            if let Program::UProbe(program) = program
                && program.fd().is_err()
                && program.load().is_err()
            {
                refused.push(name.to_owned());
            }
        }
        refused
    }
}

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
