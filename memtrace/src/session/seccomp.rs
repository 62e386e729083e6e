//! Processes under a seccomp filter that a return probe would kill are left alone (R25).

use super::{Session, SessionError};
use crate::{
    probe::{Confinement, Features},
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
