//! Two mailboxes between the session's thread and the screen's: bounded, and nobody waits.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};

use super::{moment::Moment, replay::Seek};

/// Notices that wait for the screen; older ones go first.
const MAX_NOTICES: usize = 16;

/// What the screen asks of whoever feeds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Go to another moment of a recording.
    Seek(Seek),
    /// Name this moment.
    Mark(String),
    /// The user wants to end.
    Quit,
    /// There is no terminal any more.
    Gone,
    /// The screen's thread failed, and said so.
    Failed,
}

/// What came for the screen since it last looked. The newest moment replaces those not seen.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub moment: Option<Arc<Moment>>,
    pub notices: VecDeque<String>,
    /// Nothing more will come, and why.
    pub ended: Option<String>,
    /// The program was stopped and goes on: the terminal must be taken over again.
    pub resumed: bool,
    pub close: bool,
}

/// Something to put into and to poll for.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    content: Mutex<T>,
    bell: OwnedFd,
}

impl<T: Default> Mailbox<T> {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            content: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Changes what is in it and rings.
    pub fn put(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
        // Full means that it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Takes all that is in it.
    pub fn take(&self) -> T {
        // The bell first: what comes after it rings again.
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        std::mem::take(&mut *self.lock())
    }

    /// What a panic left is still whole: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Mail {
    pub fn notice(&mut self, text: String) {
        if self.notices.len() >= MAX_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is not fetched does not pile up, and the newest is what is kept.
    #[test]
    fn notices_are_bounded() {
        let mailbox = Mailbox::<Mail>::new().unwrap();
        for n in 0..100 {
            mailbox.put(|mail| mail.notice(n.to_string()));
        }
        let mail = mailbox.take();
        assert_eq!(mail.notices.len(), MAX_NOTICES);
        assert_eq!(mail.notices.back().unwrap(), "99");
        assert!(mailbox.take().notices.is_empty());
    }

    // It can be polled for exactly while something is in it.
    #[test]
    fn it_rings_until_taken() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mailbox = Mailbox::<Mail>::new().unwrap();
        let rings = || {
            let now = Timespec::default();
            poll(&mut [PollFd::new(&mailbox, PollFlags::IN)], Some(&now)).unwrap() == 1
        };
        assert!(!rings());
        mailbox.put(|mail| mail.resumed = true);
        mailbox.put(|mail| mail.close = true);
        assert!(rings());
        assert!(mailbox.take().resumed);
        assert!(!rings());
    }
}
