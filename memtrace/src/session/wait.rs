//! Waiting: what wakes a session, and what is due before.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Arrived, Session, SessionError, Signals, process::Traced};
use crate::id::Tgid;

/// Why [`Session::wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The time is reached.
    Time,
    /// A signal arrived.
    Signal(Arrived),
    /// No traced process is left.
    AllEnded,
    /// The bell of [`Session::wait_or`] can be read.
    Bell,
    /// An OOM kill or the crossing of a threshold waits to be told.
    Incident,
    /// Somebody names this moment: the report that is due now has the mark.
    Mark,
    /// [`Session::take_events`] has some; whether more are to be read already.
    Events {
        /// Do not put the others out yet.
        more: bool,
    },
}

/// What can be read beside what the kernel sends.
#[derive(Clone, Copy, Default)]
struct Rings {
    bell: bool,
    mark: bool,
}

impl Session {
    /// Handles events until `until`, a signal, or the end of the last target.
    pub fn wait(&mut self, until: Instant, signals: &mut Signals) -> Result<Wake, SessionError> {
        self.wait_or(until, signals, None)
    }

    /// The same, or until `bell` can be read.
    pub fn wait_or(
        &mut self,
        until: Instant,
        signals: &mut Signals,
        bell: Option<BorrowedFd<'_>>,
    ) -> Result<Wake, SessionError> {
        let mut rings = Rings::default();
        loop {
            let more = self.handle_events()?;
            self.refresh_due()?;
            self.reap()?;
            self.settle(false)?;
            if let Some(signal) = signals.take() {
                return Ok(Wake::Signal(signal));
            }
            if self.has_events() {
                return Ok(Wake::Events { more });
            }
            if rings.bell {
                return Ok(Wake::Bell);
            }
            let is_over = self.is_over();
            if self.make_incidents(is_over)? {
                return Ok(Wake::Incident);
            }
            if is_over {
                return Ok(Wake::AllEnded);
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Wake::Time);
            }
            if rings.mark {
                return Ok(Wake::Mark);
            }
            let due = self.next_deadline(until).saturating_duration_since(now);
            // With more to read only a look: a busy target must not keep the user waiting.
            let time = if more { Duration::ZERO } else { due };
            if !more || bell.is_some() || self.mark_socket.is_some() {
                rings = self.poll(time, signals, bell)?;
            }
        }
    }

    /// Sleeps until something can be read, or for `time`; what rings.
    fn poll(
        &self,
        time: Duration,
        signals: &Signals,
        bell: Option<BorrowedFd<'_>>,
    ) -> Result<Rings, SessionError> {
        let (has_bell, has_marks) = (bell.is_some(), self.mark_socket.is_some());
        let bell = bell.unwrap_or(signals.as_fd());
        let marks = self.mark_socket.as_ref().map(AsFd::as_fd);
        let mut fds = vec![
            PollFd::from_borrowed_fd(bell, PollFlags::IN),
            PollFd::from_borrowed_fd(marks.unwrap_or(signals.as_fd()), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        fds.extend(
            self.traced
                .iter()
                .filter_map(|t| t.pidfd.as_ref())
                .map(|pidfd| PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)),
        );
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let rings = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                Ok(Rings {
                    bell: has_bell && rings(0),
                    mark: has_marks && rings(1),
                })
            }
            Err(rustix::io::Errno::INTR) => Ok(Rings::default()),
            Err(errno) => Err(SessionError::System {
                what: "poll",
                source: errno.into(),
            }),
        }
    }

    fn next_deadline(&self, until: Instant) -> Instant {
        self.traced
            .iter()
            .filter_map(Traced::next_refresh)
            .chain(self.incident_due())
            .chain(self.follow.due())
            .fold(until, Instant::min)
    }

    /// Re-reads the mappings of processes that announced a new one.
    fn refresh_due(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        let due: Vec<Tgid> = self
            .traced
            .iter_mut()
            .filter_map(|t| t.take_refresh(now).then_some(t.tgid))
            .collect();
        due.into_iter().try_for_each(|tgid| self.refresh(tgid))
    }
}
