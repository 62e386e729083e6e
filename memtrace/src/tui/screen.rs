//! The screen's thread: reads keys, draws, writes snapshots.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    mail::{Mail, Mailbox, Request},
    moment::Moment,
    state::State,
    terminal::{self, TerminalError},
    update::{Effect, KeyPress, Message, update},
    view::{self, Theme},
};
use crate::report::{json, output::Destination};

/// Keys taken at once, before the next drawing.
const MAX_EVENTS: usize = 256;
/// The screen's thread has this long to end; a terminal that takes nothing is left then.
const PATIENCE: Duration = Duration::from_secs(1);
/// Nothing needs a look without a reason, but a lost one must not freeze the screen for good.
const FOREVER: Duration = Duration::from_secs(60);

/// How the screen looks and where it writes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Use colours.
    pub color: bool,
    /// The file for snapshots; else one with target and time in its name, where memtrace was
    /// started.
    pub snapshot: Option<PathBuf>,
}

/// The terminal while it is taken over. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct Screen {
    mail: Arc<Mailbox<Mail>>,
    requests: Arc<Mailbox<Vec<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal over and draws an empty screen. Signals must be blocked before, see
    /// [`crate::session::Signals`].
    ///
    /// # Errors
    /// When there is no terminal, or the system has no thread or descriptor left.
    pub fn open(options: Options) -> Result<Self, TerminalError> {
        terminal::require()?;
        let mail = Arc::new(Mailbox::new()?);
        let requests = Arc::new(Mailbox::new()?);
        terminal::take()?;
        let mut screen = Self {
            mail: Arc::clone(&mail),
            requests: Arc::clone(&requests),
            thread: None,
        };
        let body = move || {
            let mut farewell = Farewell {
                requests: &requests,
                has_failed: false,
            };
            if let Err(error) = Worker::new(options, &mail, &requests).and_then(Worker::run) {
                farewell.has_failed = true;
                terminal::give_back();
                // Standard error may be the terminal that failed.
                let _ = writeln!(io::stderr(), "memtrace: the terminal failed: {error}");
            }
        };
        let thread = std::thread::Builder::new()
            .name("screen".into())
            .spawn(body)?;
        screen.thread = Some(thread);
        Ok(screen)
    }

    /// Shows a moment; one that was not drawn yet is replaced.
    pub fn show(&self, moment: Moment) {
        self.mail.put(|mail| mail.moment = Some(Arc::new(moment)));
    }

    /// Tells the user something, until the next key.
    pub fn notice(&self, text: String) {
        self.mail.put(|mail| mail.notice(text));
    }

    /// Nothing more will come: what is shown stays.
    pub fn ended(&self, why: &str) {
        self.mail.put(|mail| mail.ended = Some(why.to_owned()));
    }

    /// The terminal has another size (SIGWINCH).
    pub fn resized(&self) {
        // Whatever wakes it makes it look at the size.
        self.mail.put(|_| {});
    }

    /// The program was stopped and goes on (SIGCONT).
    pub fn resumed(&self) {
        self.mail.put(|mail| mail.resumed = true);
    }

    /// What the user asks for, since the last call; [`Screen::as_fd`] says when.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.take()
    }

    /// Waits until the user asks for something or `other` can be read.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_or(&self, other: impl AsFd) -> io::Result<()> {
        self.wait_at_most(other, FOREVER)
    }

    /// The same, at most so long.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_at_most(&self, other: impl AsFd, time: Duration) -> io::Result<()> {
        wait_for(&[self.as_fd(), other.as_fd()], time).map(drop)
    }
}

impl AsFd for Screen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.mail.put(|mail| mail.close = true);
        let until = Instant::now() + PATIENCE;
        let mut is_gone = false;
        while !is_gone && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let _ = wait_for(&[self.requests.as_fd()], left);
            let last = self.requests.take();
            is_gone = last
                .iter()
                .any(|one| matches!(one, Request::Gone | Request::Failed));
        }
        // A thread that is stuck in a write to its terminal ends with the process.
        if is_gone && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        terminal::give_back();
    }
}

/// Says that the thread is gone, also when it panicked.
struct Farewell<'a> {
    requests: &'a Mailbox<Vec<Request>>,
    has_failed: bool,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        let last = if self.has_failed || std::thread::panicking() {
            Request::Failed
        } else {
            Request::Gone
        };
        self.requests.put(|requests| requests.push(last));
    }
}

/// Waits until one can be read, at most so long; which can.
fn wait_for(fds: &[BorrowedFd<'_>], time: Duration) -> io::Result<Vec<PollFlags>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => Ok(polled.iter().map(PollFd::revents).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![PollFlags::empty(); fds.len()]),
        Err(errno) => Err(errno.into()),
    }
}

struct Worker<'a> {
    options: Options,
    mail: &'a Mailbox<Mail>,
    requests: &'a Mailbox<Vec<Request>>,
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    state: State,
}

impl<'a> Worker<'a> {
    fn new(
        options: Options,
        mail: &'a Mailbox<Mail>,
        requests: &'a Mailbox<Vec<Request>>,
    ) -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        let size = terminal.size()?;
        Ok(Self {
            options,
            mail,
            requests,
            terminal,
            state: State::new((size.width, size.height)),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let theme = Theme::new(self.options.color);
        // `--color always` with NO_COLOR set: what memtrace decided counts, not the library.
        ratatui::crossterm::style::force_color_output(self.options.color);
        loop {
            self.draw(theme)?;
            let ready = wait_for(&[io::stdin().as_fd(), self.mail.as_fd()], FOREVER)?;
            let input = ready.first().copied().unwrap_or(PollFlags::empty());
            if input.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return Ok(());
            }
            if input.contains(PollFlags::IN) {
                self.read_keys()?;
            }
            if self.read_mail()? {
                return Ok(());
            }
        }
    }

    fn draw(&mut self, theme: Theme) -> io::Result<()> {
        // Given back because the program is ending: nothing may be written over what comes now.
        if !terminal::is_taken() {
            return Ok(());
        }
        let size = self.terminal.size()?;
        if (size.width, size.height) != self.state.size {
            self.take(Message::Resize(size.width, size.height));
        }
        let state = &self.state;
        self.terminal
            .draw(|frame| view::draw(frame, state, theme))?;
        Ok(())
    }

    fn read_keys(&mut self) -> io::Result<()> {
        for _ in 0..MAX_EVENTS {
            if !event::poll(Duration::ZERO)? {
                break;
            }
            let message = match event::read()? {
                Event::Key(key) => key_press(key).map(Message::Key),
                Event::Paste(text) => Some(Message::Paste(text)),
                _ => None,
            };
            if let Some(message) = message {
                self.take(message);
            }
        }
        Ok(())
    }

    /// True when the screen is to be closed.
    fn read_mail(&mut self) -> io::Result<bool> {
        let mail = self.mail.take();
        if mail.close {
            return Ok(true);
        }
        if mail.resumed {
            terminal::take()?;
            self.terminal.clear()?;
        }
        let moment = mail.moment.map(Message::Moment);
        let ended = mail.ended.map(Message::Ended);
        let notices = mail.notices.into_iter().map(Message::Notice);
        for message in moment.into_iter().chain(ended).chain(notices) {
            self.take(message);
        }
        Ok(false)
    }

    fn take(&mut self, message: Message) {
        match update(&mut self.state, message) {
            None => {}
            Some(Effect::Quit) => self.ask(Request::Quit),
            Some(Effect::Mark(name)) => self.ask(Request::Mark(name)),
            Some(Effect::Seek(seek)) => self.ask(Request::Seek(seek)),
            Some(Effect::Write(moment)) => {
                let said = self.write(&moment);
                self.take(Message::Written(said));
            }
        }
    }

    /// Asks whoever feeds the screen.
    fn ask(&self, request: Request) {
        self.requests.put(|requests| {
            // Who feeds it may be busy: the keys of a minute are not kept.
            if requests.len() < MAX_EVENTS || request == Request::Quit {
                requests.push(request);
            }
        });
    }

    /// Writes a snapshot; what to tell the user.
    fn write(&self, moment: &Moment) -> String {
        let path = self
            .options
            .snapshot
            .clone()
            .unwrap_or_else(|| snapshot_name(moment));
        let mut bytes = Vec::new();
        if let Err(error) = json::pretty(&moment.report, &mut bytes) {
            return format!("cannot write a snapshot: {error}");
        }
        match Destination::Replace(path.clone()).write(&bytes) {
            Ok(_) => format!("written to {}", path.display()),
            Err(error) => error.to_string(),
        }
    }
}

/// `memtrace-pid-1234-20260102T030435Z.json`.
fn snapshot_name(moment: &Moment) -> PathBuf {
    let report = &moment.report;
    let safe = |text: &str| -> String {
        let name = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        name.take(40).collect()
    };
    let clock = report.taken_at.split('.').next().unwrap_or_default();
    let time: String = clock.chars().filter(char::is_ascii_alphanumeric).collect();
    let time = time.trim_end_matches('Z');
    let (kind, value) = (safe(report.target.kind), safe(&report.target.value));
    Path::new(&format!("memtrace-{kind}-{value}-{time}Z.json")).to_owned()
}

/// A key of the terminal library as one of ours.
fn key_press(key: KeyEvent) -> Option<KeyPress> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key
        .modifiers
        .intersects(KeyModifiers::ALT | KeyModifiers::SUPER)
    {
        return None;
    }
    Some(match key.code {
        KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) => KeyPress::Control(c),
        KeyCode::Char(c) => KeyPress::Char(c),
        KeyCode::Enter => KeyPress::Enter,
        KeyCode::Esc => KeyPress::Escape,
        KeyCode::Tab => KeyPress::Tab,
        KeyCode::BackTab => KeyPress::BackTab,
        KeyCode::Backspace => KeyPress::Backspace,
        KeyCode::Up => KeyPress::Up,
        KeyCode::Down => KeyPress::Down,
        KeyCode::Left => KeyPress::Left,
        KeyCode::Right => KeyPress::Right,
        KeyCode::PageUp => KeyPress::PageUp,
        KeyCode::PageDown => KeyPress::PageDown,
        KeyCode::Home => KeyPress::Home,
        KeyCode::End => KeyPress::End,
        _ => return None,
    })
}
