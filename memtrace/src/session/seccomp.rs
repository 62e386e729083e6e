//! Processes under a seccomp filter that a return probe would kill are left alone (R25).

use super::{Session, SessionError};
use crate::{
    probe::{Confinement, Features, KernelSide, ReturnProbes},
    target::process::{Process, Seccomp},
};

impl Session {
    /// Refuses a process that would not survive its probes.
    pub(super) fn check_seccomp(&mut self, process: &Process) -> Result<(), SessionError> {
        let confinement = match self.proc.seccomp(process) {
            Seccomp::Off => return Ok(()),
            Seccomp::Strict => Confinement::Strict,
            Seccomp::Filter => Confinement::Filter,
        };
        if !self.return_probes.kill(&mut self.kernel, confinement)? {
            return Ok(());
        }
        Err(SessionError::Seccomp(format!(
            "process {} ({}) runs under a seccomp filter, and this kernel ({}) makes return probes \
             a system call that such a filter kills a process for: memtrace leaves it alone; update \
             the kernel (6.14 and later let it pass), or start the program without its filter",
            process.tgid,
            process.comm,
            Features::detect().release,
        )))
    }
}

/// Refuses probes for every process that maps a file, on kernels where they would kill some.
pub(super) fn check_shared(
    probes: &mut ReturnProbes,
    kernel: &mut KernelSide,
) -> Result<(), SessionError> {
    for confinement in [Confinement::Strict, Confinement::Filter] {
        if probes.kill(kernel, confinement)? {
            return Err(SessionError::Seccomp(format!(
                "this kernel ({}) kills processes under a seccomp filter when they meet a return \
                 probe, and probes that follow processes are met by every process of the machine: \
                 update the kernel (6.14 and later let them pass), or name processes with --pid",
                Features::detect().release,
            )));
        }
    }
    Ok(())
}
