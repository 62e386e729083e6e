//! `run`: a program that waits before its first instruction until the probes are on.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    },
    process::ExitStatus,
};

use rustix::{
    event::{PollFd, PollFlags},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open},
};

use super::signals::{Signals, unblock_all};
use crate::id::Tgid;

/// A program that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A name or argument cannot be passed on.
    #[error("cannot run {0:?}: it contains a zero byte")]
    ZeroByte(OsString),
    /// The system refused.
    #[error("cannot run {}: {source}", program.display())]
    System {
        /// As typed.
        program: OsString,
        /// Why.
        source: io::Error,
    },
}

/// A child that waits to become the program.
pub struct Launched {
    program: OsString,
    pid: Pid,
    go: Option<File>,
    failed: File,
    status: Option<ExitStatus>,
}

impl Launched {
    /// Forks a child that waits.
    ///
    /// The child does nothing between fork and exec but read, unblock signals and exec: no
    /// allocation of its own can be taken for the program's.
    pub fn new(program: &OsStr, arguments: &[OsString]) -> Result<Self, LaunchError> {
        let system = |source: io::Error| LaunchError::System {
            program: program.into(),
            source,
        };
        let strings = std::iter::once(program)
            .chain(arguments.iter().map(OsString::as_os_str))
            .map(|text| {
                CString::new(text.as_bytes()).map_err(|_| LaunchError::ZeroByte(text.into()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| system(e.into()))?;
        let (failed, fail) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| system(e.into()))?;
        // SAFETY: the child calls async-signal-safe functions only, then execs or exits.
        match unsafe { libc::fork() } {
            -1 => Err(system(io::Error::last_os_error())),
            // The child's copy of `go` must close, or it would wait for itself.
            0 => {
                drop(go);
                become_program(&pointers, &wait, &fail)
            }
            pid => Ok(Self {
                program: program.into(),
                pid: Pid::from_raw(pid).ok_or_else(|| system(io::Error::last_os_error()))?,
                go: Some(File::from(go)),
                failed: File::from(failed),
                status: None,
            }),
        }
    }

    /// The child's id, now and after the exec.
    #[must_use]
    pub fn tgid(&self) -> Tgid {
        Tgid(self.pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// Lets the program begin; returns when it has, or with the reason why it could not.
    pub fn start(&mut self) -> Result<(), LaunchError> {
        let program = self.program.clone();
        let system = |source| LaunchError::System {
            program: program.clone(),
            source,
        };
        if let Some(mut go) = self.go.take() {
            go.write_all(b"g").map_err(system)?;
        }
        let mut errno = [0; 4];
        match self.failed.read_exact(&mut errno) {
            // Closed by a successful exec.
            Err(_) => Ok(()),
            Ok(()) => {
                let _ = self.wait();
                Err(system(io::Error::from_raw_os_error(i32::from_ne_bytes(
                    errno,
                ))))
            }
        }
    }

    /// Passes a signal on.
    pub fn signal(&self, number: i32) {
        if self.status.is_none()
            && let Some(signal) = Signal::from_named_raw(number)
        {
            // It may have ended in between: nothing is lost.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Sleeps until it has ended (true) or a signal has arrived (false).
    pub fn wait_or(&self, signals: &Signals) -> io::Result<bool> {
        let pidfd = match pidfd_open(self.pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // Ended and waited for.
            Err(rustix::io::Errno::SRCH) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = [
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds[0].revents().contains(PollFlags::IN)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Its status, once it has ended.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let (_, status) = rustix::process::waitpid(Some(self.pid), WaitOptions::empty())?
            .ok_or_else(|| io::Error::other("the program has no status"))?;
        let status = ExitStatus::from_raw(status.as_raw());
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // A child that never began: memtrace failed before. One that runs is left alone.
        if self.go.is_some() && self.status.is_none() {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            let _ = self.wait();
        }
    }
}

/// The child's side.
fn become_program(arguments: &[*const libc::c_char], wait: &OwnedFd, fail: &OwnedFd) -> ! {
    let mut byte = [0_u8; 1];
    // SAFETY: a buffer of one byte.
    if unsafe { libc::read(wait.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } != 1 {
        // memtrace has gone.
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(127) };
    }
    unblock_all();
    // SAFETY: Rust ignores SIGPIPE; a program expects the default.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if let Some(program) = arguments.first() {
        // SAFETY: null-terminated strings in a null-terminated array.
        unsafe { libc::execvp(*program, arguments.as_ptr()) };
    }
    let errno = io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(0)
        .to_ne_bytes();
    // SAFETY: four bytes, then the end of this process.
    unsafe {
        libc::write(fail.as_raw_fd(), errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}
