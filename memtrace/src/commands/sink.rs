//! A stream of lines to standard output or a file, that a reader who does not read cannot hold up.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};

use crate::{
    report::{json::is_closed_pipe, output::Delivery},
    session::{Arrived, Signals},
};

/// What a pipe that can be written to takes at once (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// See the module.
pub(super) struct Sink {
    file: File,
    path: Option<PathBuf>,
    /// Every write ends by itself.
    is_regular: bool,
    buffer: Vec<u8>,
    gave_up: bool,
}

impl Sink {
    /// Standard output, or a file that is made anew.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let file = match path {
            Some(path) => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
            None => File::from(
                io::stdout()
                    .as_fd()
                    .try_clone_to_owned()
                    .context("cannot write to standard output")?,
            ),
        };
        let is_regular = file.metadata().is_ok_and(|found| found.is_file());
        Ok(Self {
            file,
            path: path.map(Path::to_owned),
            is_regular,
            buffer: Vec::new(),
            gave_up: false,
        })
    }

    /// Where lines are put that wait to be written.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Whether lines were dropped because nobody took them when the session was to end.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Writes all that waits. Signals that arrive while nobody reads go to `signalled`; when that says
    /// that the session is to end, the rest is given up.
    pub fn flush(
        &mut self,
        signals: &mut Signals,
        mut signalled: impl FnMut(Arrived) -> bool,
    ) -> anyhow::Result<Delivery> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() && !self.gave_up {
            let size = if self.is_regular { rest.len() } else { CHUNK };
            let chunk = rest.get(..size).unwrap_or(rest);
            if !self.is_regular && !wait_writable(&self.file, signals)? {
                while let Some(signal) = signals.take() {
                    self.gave_up |= signalled(signal);
                }
                continue;
            }
            match self.file.write(chunk) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if is_closed_pipe(&error) => {
                    self.buffer.clear();
                    return Ok(Delivery::ReaderGone);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) => {
                    let place = match &self.path {
                        Some(path) => path.display().to_string(),
                        None => "to standard output".to_owned(),
                    };
                    return Err(error).with_context(|| format!("cannot write {place}"));
                }
            }
        }
        self.buffer.clear();
        Ok(Delivery::Written)
    }
}

/// Waits until something can be written (true), or a signal has arrived (false).
fn wait_writable(file: &File, signals: &Signals) -> anyhow::Result<bool> {
    loop {
        let mut fds = [
            PollFd::new(file, PollFlags::OUT),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}
