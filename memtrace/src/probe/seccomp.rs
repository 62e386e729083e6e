//! Whether a return probe kills a process that runs under a seccomp filter (R25).
//!
//! Since Linux 6.11 the trampoline of return probes on x86-64 is a system call, and before 6.14
//! (and what was mended after it) a filter was asked about it like about any other: a process
//! whose filter does not know the call dies at its first traced return. Which kernels do so is not
//! to be read off their numbers, so it is tried: a child of memtrace's own goes under a strict
//! filter and calls a probed function.

use std::{
    arch::global_asm,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use memtrace_common::Function;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus},
};

use super::{
    AttachPoint, Attachments, KernelSide, ProbeError, Purpose,
    own_code::{OWN_FILE, own_file_offset},
};
use crate::id::Tgid;

// Begins with the five-byte `nop` that Linux 6.18 turns into a system call of its own for the
// entry probe: that one is tried too.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".text",
    ".p2align 4",
    "memtrace_confined: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
    "mov rax, rdi",
    "ret",
);
#[cfg(target_arch = "aarch64")]
global_asm!(".text", ".p2align 4", "memtrace_confined: nop", "ret");

unsafe extern "C" {
    /// Returns its argument.
    fn memtrace_confined(argument: u64) -> u64;
}

/// How a process is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// `SECCOMP_MODE_STRICT`.
    Strict,
    /// `SECCOMP_MODE_FILTER`.
    Filter,
}

/// What return probes do to confined processes on this kernel; tried when first asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnProbes {
    strict: Option<bool>,
    filter: Option<bool>,
}

impl ReturnProbes {
    /// Whether a return probe kills a process confined so. Trying takes about 0.1 s, once.
    pub fn kill(
        &mut self,
        kernel: &mut KernelSide,
        confinement: Confinement,
    ) -> Result<bool, ProbeError> {
        let known = match confinement {
            Confinement::Strict => &mut self.strict,
            Confinement::Filter => &mut self.filter,
        };
        match *known {
            Some(kills) => Ok(kills),
            None => Ok(*known.insert(kills(kernel, confinement)?)),
        }
    }
}

/// Calls of the probed function: the second and later ones go the way the kernel optimised.
const CALLS: u64 = 4;
/// The child's exit codes.
const SURVIVED: i32 = 0;
const NOT_CONFINED: i32 = 10;
const ORPHANED: i32 = 11;
/// The child does next to nothing; longer than this it hangs.
const PATIENCE: Duration = Duration::from_secs(5);

fn kills(kernel: &mut KernelSide, confinement: Confinement) -> Result<bool, ProbeError> {
    let error = |source| ProbeError::system("trying a return probe under seccomp", source);
    let mut child = Child::start(confinement).map_err(error)?;
    let mut attachments = Attachments::default();
    let point = AttachPoint {
        path: Path::new(OWN_FILE),
        offset: own_file_offset(memtrace_confined as *const () as u64)?,
        function: Function::Size0,
        returns: &[],
        process: Some(child.tgid()),
        anchor: None,
    };
    kernel
        .attach(&mut attachments, &[point], Purpose::Floor)
        .into_iter()
        .collect::<Result<(), _>>()?;
    judge(child.finish().map_err(error)?).map_err(error)
}

/// What the child's end means.
fn judge(status: WaitStatus) -> io::Result<bool> {
    // Filters that refuse instead of killing make the trampoline return to nowhere: also a signal.
    if status.terminating_signal().is_some() {
        return Ok(true);
    }
    match status.exit_status() {
        Some(SURVIVED) => Ok(false),
        Some(NOT_CONFINED) => Err(io::Error::other("the kernel refuses the filter")),
        _ => Err(io::Error::other(
            "the child that tries it ended unexpectedly",
        )),
    }
}

/// The child that is put at risk.
struct Child {
    pid: Pid,
    go: Option<std::fs::File>,
    ended: bool,
}

impl Child {
    /// Forks a child that waits for its probe.
    fn start(confinement: Confinement) -> io::Result<Self> {
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the child calls async-signal-safe functions only, and exits.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // The child's copy of `go` must close, or it would wait for itself.
            0 => {
                drop(go);
                be_confined(confinement, &wait)
            }
            pid => Ok(Self {
                pid: Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)?,
                go: Some(go.into()),
                ended: false,
            }),
        }
    }

    fn tgid(&self) -> Tgid {
        Tgid(self.pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// Lets it run, and waits for its end.
    fn finish(&mut self) -> io::Result<WaitStatus> {
        if let Some(mut go) = self.go.take() {
            go.write_all(b"g")?;
        }
        let pidfd = rustix::process::pidfd_open(self.pid, PidfdFlags::empty())?;
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&patience)))? == 0 {
            return Err(io::Error::other("the child that tries it hangs"));
        }
        self.wait()
    }

    fn wait(&mut self) -> io::Result<WaitStatus> {
        let waited = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty())
        })?;
        self.ended = true;
        waited
            .map(|(_, status)| status)
            .ok_or_else(|| io::Error::other("the child that tries it has no status"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            let _ = self.wait();
        }
    }
}

/// The child's side: async-signal-safe calls only.
fn be_confined(confinement: Confinement, wait: &OwnedFd) -> ! {
    let mut byte = [0_u8; 1];
    // SAFETY: a buffer of one byte.
    if unsafe { libc::read(wait.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } != 1 {
        exit(ORPHANED);
    }
    if !confine(confinement) {
        exit(NOT_CONFINED);
    }
    for argument in 0..CALLS {
        // SAFETY: returns its argument and touches nothing.
        if unsafe { memtrace_confined(argument) } != argument {
            exit(ORPHANED);
        }
    }
    exit(SURVIVED)
}

/// Ends this process by the one call that strict mode knows.
fn exit(code: i32) -> ! {
    loop {
        // SAFETY: ends the only thread of this process.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
}

/// Puts this process under the filter.
fn confine(confinement: Confinement) -> bool {
    let filter = exits_only();
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: plain values, and a filter that lives through the call. No core is dumped by a death
    // that is expected.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let done = match confinement {
            Confinement::Strict => libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT),
            Confinement::Filter => {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                )
            }
        };
        done == 0
    }
}

/// A filter that kills at everything but the end.
fn exits_only() -> [libc::sock_filter; 5] {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        line(LOAD_NUMBER, 0, 0, 0),
        line(JUMP_IF, 2, 0, libc::SYS_exit as u32),
        line(JUMP_IF, 1, 0, libc::SYS_exit_group as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child under either confinement that is not probed survives: only the probe can kill it.
    #[test]
    fn unprobed_child_survives() {
        for confinement in [Confinement::Strict, Confinement::Filter] {
            let mut child = Child::start(confinement).unwrap();
            let status = child.finish().unwrap();
            assert!(!judge(status).unwrap(), "{confinement:?}: {status:?}");
        }
    }

    /// The filter kills at a call that it does not know, and that death is recognised.
    #[test]
    fn death_is_recognised() {
        // SAFETY: the child calls async-signal-safe functions only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            confine(Confinement::Filter);
            // SAFETY: no arguments.
            unsafe { libc::syscall(libc::SYS_getppid) };
            exit(SURVIVED);
        }
        let mut child = Child {
            pid: Pid::from_raw(pid).unwrap(),
            go: None,
            ended: false,
        };
        assert!(judge(child.wait().unwrap()).unwrap());
    }

    /// A child that memtrace forgets ends with it.
    #[test]
    fn forgotten_child_ends() {
        let child = Child::start(Confinement::Filter).unwrap();
        let pid = child.pid;
        drop(child);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
