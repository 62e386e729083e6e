//! Takes the terminal over and gives it back: at the end, on a panic, and on every signal that ends
//! or stops the program and can be caught.
//!
//! What [`crate::session::Signals`] takes over (SIGTERM, SIGHUP, SIGINT, SIGQUIT) ends the screen in
//! the ordinary way. The handlers here are for the others.

use std::{
    io::{self, IsTerminal as _},
    mem::MaybeUninit,
    sync::{
        Once, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Alternate screen, no cursor, no wrapping at the edge, pasted text marked as such.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h\x1b[2J\x1b[H";
/// The reverse of [`ENTER`], and no colours.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l";
/// A terminal that takes nothing is not waited for longer, in milliseconds.
const PATIENCE_MS: i32 = 500;

/// Signals whose default ends the program, and that nobody else handles.
const DEADLY: [i32; 17] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGTTIN,
    libc::SIGTSTP,
];

/// How the terminal was before. Written once: the program takes over one terminal.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();
/// What the deadly signals did before, in the order of [`DEADLY`].
static OLD_ACTIONS: OnceLock<Vec<libc::sigaction>> = OnceLock::new();
/// Whether the terminal is taken over now.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOKS: Once = Once::new();

/// There is no terminal to draw on.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// A stream is something else.
    #[error(
        "top draws on a terminal, and {0} is none: run it in one, or use `memtrace --pid PID` or \
         `memtrace report FILE` for reports"
    )]
    NotATerminal(&'static str),
    /// The terminal cannot move its cursor.
    #[error(
        "top cannot draw on this terminal (TERM is {0}): use another one, or `memtrace --pid PID` \
         for reports"
    )]
    Dumb(String),
    /// A system call failed.
    #[error("cannot take the terminal over: {0}")]
    System(#[from] io::Error),
}

/// Finds out whether there is a terminal, before anything is traced.
///
/// # Errors
/// [`TerminalError`] where top cannot draw.
pub fn require() -> Result<(), TerminalError> {
    if !io::stdout().is_terminal() {
        return Err(TerminalError::NotATerminal("standard output"));
    }
    if !io::stdin().is_terminal() {
        return Err(TerminalError::NotATerminal("standard input"));
    }
    match std::env::var("TERM") {
        Ok(term) if term.is_empty() => Err(TerminalError::Dumb("empty".to_owned())),
        Ok(term) if term == "dumb" => Err(TerminalError::Dumb(term)),
        Ok(_) => Ok(()),
        Err(_) => Err(TerminalError::Dumb("not set".to_owned())),
    }
}

/// Takes the terminal over; also again after the program was stopped.
///
/// # Errors
/// What the system says.
pub(super) fn take() -> io::Result<()> {
    let mut now = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr writes a whole termios or fails.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, now.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it succeeded.
    let now = unsafe { now.assume_init() };
    let before = BEFORE.get_or_init(|| now);
    HOOKS.call_once(install_hooks);
    let mut raw = *before;
    // SAFETY: changes the termios it is given.
    unsafe { libc::cfmakeraw(&raw mut raw) };
    IS_TAKEN.store(true, Ordering::SeqCst);
    // SAFETY: `raw` is a whole termios.
    if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const raw) } != 0 {
        let error = io::Error::last_os_error();
        give_back();
        return Err(error);
    }
    write_all(ENTER);
    Ok(())
}

/// Whether it is taken over and may be drawn on.
pub(super) fn is_taken() -> bool {
    IS_TAKEN.load(Ordering::SeqCst)
}

/// Gives the terminal back as it was; nothing when it is not taken over. Async-signal-safe.
pub(super) fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    if let Some(before) = BEFORE.get() {
        let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut background = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `before` is a whole termios, the sets are initialised before they are read, and
        // all calls are async-signal-safe. SIGTTOU is blocked: from the background it would stop
        // the program here. Keys nobody has read are not for the shell.
        unsafe {
            libc::sigemptyset(background.as_mut_ptr());
            libc::sigaddset(background.as_mut_ptr(), libc::SIGTTOU);
            libc::pthread_sigmask(libc::SIG_BLOCK, background.as_ptr(), old.as_mut_ptr());
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before);
            libc::tcflush(libc::STDIN_FILENO, libc::TCIFLUSH);
            libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut());
        }
    }
    write_all(LEAVE);
}

/// Writes to the terminal, without waiting for one that takes nothing. Async-signal-safe.
fn write_all(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut fd = libc::pollfd {
            fd: libc::STDOUT_FILENO,
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        if unsafe { libc::poll(&raw mut fd, 1, PATIENCE_MS) } <= 0 {
            return;
        }
        // SAFETY: the pointer and length are those of a live slice.
        let written =
            unsafe { libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written @ 1..) => bytes = bytes.get(written..).unwrap_or_default(),
            _ => return,
        }
    }
}

fn install_hooks() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // First, or the message would be on the screen that goes away.
        give_back();
        before(panic);
    }));
    let old = DEADLY.iter().map(|signal| old_action(*signal)).collect();
    if OLD_ACTIONS.set(old).is_ok() {
        DEADLY.iter().for_each(|signal| handle(*signal));
    }
}

fn old_action(signal: i32) -> libc::sigaction {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; `old` is written whole, and all zero is a whole sigaction (the default).
    unsafe {
        libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr());
        old.assume_init()
    }
}

fn handle(signal: i32) {
    let handler: extern "C" fn(i32, *const libc::siginfo_t, *const libc::c_void) = on_deadly;
    // SAFETY: all zero is a whole sigaction; the handler has the form that SA_SIGINFO asks for and
    // does async-signal-safe calls only. It runs on the alternate stack where the standard library
    // made one (stack overflow).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Gives the terminal back and lets the signal do its work: an instruction that faulted faults
/// again, under the handler there was before; what was sent is sent again, with nobody handling it.
extern "C" fn on_deadly(signal: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
    give_back();
    // SAFETY: the kernel passes a whole siginfo that lives as long as the handler runs.
    let code = unsafe { (*info).si_code };
    let at = DEADLY.iter().position(|known| *known == signal);
    let old = OLD_ACTIONS.get().zip(at).and_then(|(old, at)| old.get(at));
    // SAFETY: sigaction, signal and raise are async-signal-safe; `old` is what the system gave.
    unsafe {
        match old {
            // Stopped here; the handler stays for the next time. SIGCONT draws again.
            _ if signal == libc::SIGTSTP || signal == libc::SIGTTIN => {
                libc::raise(libc::SIGSTOP);
            }
            // The kernel's own: the same instruction comes next.
            Some(old) if code > 0 && code != libc::SI_KERNEL => {
                libc::sigaction(signal, old, std::ptr::null_mut());
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    const FOLDER: &str = "MEMTRACE_TEST_TERMINAL_IN";

    fn settings(to: &Path) {
        let file = fs::File::create(to).unwrap();
        let done = Command::new("stty").arg("-g").stdout(file).status();
        assert!(done.unwrap().success(), "stty");
    }

    /// The half of the test that runs in the terminal.
    fn take_and_panic(folder: &Path) {
        settings(&folder.join("before"));
        take().unwrap();
        settings(&folder.join("during"));
        let panicked = std::panic::catch_unwind(|| panic!("on purpose"));
        assert!(panicked.is_err());
        settings(&folder.join("after"));
        fs::write(folder.join("given_back"), [u8::from(!is_taken())]).unwrap();
    }

    // A panic gives the terminal back before its message is printed: settings, screen and cursor.
    #[test]
    fn a_panic_gives_the_terminal_back() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return take_and_panic(Path::new(&folder));
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("memtrace-panic-{}", std::process::id());
        let tmux = |args: &[&str]| {
            let output = Command::new("timeout")
                .args(["60", "tmux", "-u", "-L", &socket])
                .args(args)
                .output()
                .unwrap();
            let failed = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "tmux {args:?}: {failed}");
            String::from_utf8(output.stdout).unwrap()
        };
        let script = format!(
            "RUST_BACKTRACE=0 {FOLDER}='{}' '{}' --exact tui::terminal::tests::a_panic_gives_the_terminal_back \
             --nocapture; tmux -L {socket} wait-for -S done; exec cat",
            folder.path().display(),
            std::env::current_exe().unwrap().display(),
        );
        tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            &script,
        ]);
        tmux(&["wait-for", "done"]);
        let flags = tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]);
        let screen = tmux(&["capture-pane", "-p"]);
        tmux(&["kill-server"]);
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert_ne!(read("before"), read("during"), "it was not taken over");
        assert_eq!(read("before"), read("after"), "{screen}");
        assert_eq!(read("given_back"), [1]);
        assert_eq!(flags.trim(), "01", "{screen}");
        assert!(screen.contains("on purpose"), "{screen}");
    }
}
