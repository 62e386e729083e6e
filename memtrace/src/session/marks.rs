//! Marks: names that somebody gives to moments of running sessions.
//!
//! Each session listens on a datagram socket in a directory that only root can enter. What comes
//! is bounded; what does not fit is refused in the answer, which is sent when the mark is in a
//! report and in the recording.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::report::layout::clean;

/// Where sessions listen.
pub const DIRECTORY: &str = "/run/memtrace";
/// Bytes of a name; longer ones are refused.
pub const MAX_NAME: usize = 200;
/// Marks of one session; further ones are refused.
const MAX_MARKS: usize = 10_000;
/// Marks taken at once: more wait in the socket.
const AT_ONCE: usize = 16;
/// Sockets that are looked at; a machine has fewer sessions.
const MAX_SOCKETS: usize = 4096;
/// What the answer says when the mark is set.
const SET: &str = "ok";

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or blanks.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("it is longer than {MAX_NAME} bytes")]
    Long,
    /// Not UTF-8.
    #[error("it is not text (UTF-8)")]
    NotText,
    /// What a terminal would obey, or what makes two names look the same.
    #[error("it has control characters")]
    Control,
}

/// The name of a mark without blanks around it.
///
/// # Errors
/// [`NameError`].
pub fn check_name(bytes: &[u8]) -> Result<&str, NameError> {
    if bytes.len() > MAX_NAME {
        return Err(NameError::Long);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| NameError::NotText)?;
    let name = name.trim_matches(' ');
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if clean(name) != name {
        return Err(NameError::Control);
    }
    Ok(name)
}

/// A name that came, to be answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub name: String,
    /// Nothing: this process itself asks, which needs no answer.
    from: Option<SocketAddr>,
}

impl Asked {
    /// A name that this process gives.
    pub fn own(name: String) -> Self {
        Self { name, from: None }
    }
}

/// Where one session listens; the socket goes with it.
#[derive(Debug)]
pub(super) struct MarkSocket {
    socket: UnixDatagram,
    path: PathBuf,
    taken: usize,
}

impl MarkSocket {
    /// Listens in `directory` for this process.
    ///
    /// # Errors
    /// When the directory is not this user's own or cannot be made.
    pub fn listen(directory: &Path) -> io::Result<Self> {
        prepare(directory)?;
        remove_stale(directory);
        let path = directory.join(format!("{}.sock", std::process::id()));
        // Left by an earlier process that had this pid.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            path,
            taken: 0,
        })
    }

    /// The names that have come since the last call. What cannot be set is answered at once.
    pub fn take(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        // One byte more: a longer name is seen to be longer.
        let mut buffer = [0; MAX_NAME + 1];
        for _ in 0..AT_ONCE {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else {
                break;
            };
            let name = check_name(buffer.get(..length).unwrap_or_default());
            match name {
                Ok(_) if self.taken >= MAX_MARKS => {
                    self.answer(&from, &format!("it has {MAX_MARKS} marks already"));
                }
                Ok(name) => {
                    self.taken += 1;
                    let name = name.to_owned();
                    asked.push(Asked {
                        name,
                        from: Some(from),
                    });
                }
                Err(error) => self.answer(&from, &format!("the name is refused: {error}")),
            }
        }
        asked
    }

    /// Tells that these marks are set.
    pub fn confirm(&self, asked: &[Asked]) {
        for from in asked.iter().filter_map(|one| one.from.as_ref()) {
            self.answer(from, SET);
        }
    }

    fn answer(&self, to: &SocketAddr, text: &str) {
        if let Some(path) = to.as_pathname() {
            // Whoever asked may be gone, or not read: the session does not wait.
            let _ = self.socket.send_to(text.as_bytes(), path);
        }
    }
}

impl AsFd for MarkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for MarkSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the directory, or makes sure that it is this user's own.
fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not what a link leads to.
    let found = fs::symlink_metadata(directory)?;
    let own = found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o077 == 0;
    if own {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} is not a directory of root alone (mode 0700)",
            directory.display()
        ),
    ))
}

/// Removes what killed processes left.
fn remove_stale(directory: &Path) {
    let files = files(directory, "sock").into_iter();
    for (pid, path) in files.chain(files_of_askers(directory)) {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = fs::remove_file(path);
        }
    }
}

fn files_of_askers(directory: &Path) -> Vec<(u32, PathBuf)> {
    files(directory, "answer")
}

/// `PID.KIND` in the directory, by pid.
fn files(directory: &Path, kind: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let (pid, end) = name.to_str()?.split_once('.')?;
            (end == kind).then_some((pid.parse().ok()?, entry.path()))
        })
        .take(MAX_SOCKETS)
        .collect();
    found.sort_unstable();
    found
}

/// What became of a mark.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sessions that have it, by the pids of their memtrace.
    pub marked: Vec<u32>,
    /// Sessions that have not, and why.
    pub failed: Vec<(u32, String)>,
}

/// Sends a name to every session that listens in `directory`, or `only` to that of one memtrace, and waits at
/// most `patience` for all of their answers.
///
/// # Errors
/// When this process may not.
pub fn send(
    directory: &Path,
    name: &str,
    only: Option<u32>,
    patience: Duration,
) -> io::Result<Sent> {
    let mut sent = Sent::default();
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sent),
        _ => prepare(directory)?,
    }
    remove_stale(directory);
    let mut sockets = files(directory, "sock");
    sockets.retain(|(pid, _)| only.is_none_or(|only| only == *pid));
    if sockets.is_empty() {
        return Ok(sent);
    }
    let own = directory.join(format!("{}.answer", std::process::id()));
    let _ = fs::remove_file(&own);
    let socket = UnixDatagram::bind(&own)?;
    let _removed_at_the_end = RemoveAtEnd(&own);
    let until = Instant::now() + patience;
    let mut waiting = Vec::new();
    // All are told first: the moment is the same for all.
    for (pid, path) in sockets {
        // A session that does not read must not hold the others up for long.
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        match socket.send_to(name.as_bytes(), &path) {
            Ok(_) => waiting.push((pid, path)),
            // Nobody listens any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = fs::remove_file(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => sent.failed.push((pid, error.to_string())),
        }
    }
    receive(&socket, waiting, until, &mut sent)?;
    sent.marked.sort_unstable();
    sent.failed.sort_unstable();
    Ok(sent)
}

fn receive(
    socket: &UnixDatagram,
    mut waiting: Vec<(u32, PathBuf)>,
    until: Instant,
    sent: &mut Sent,
) -> io::Result<()> {
    let mut answer = [0; 256];
    while !waiting.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // Looks up now and then: a session that ended does not answer any more.
        socket.set_read_timeout(Some(left.min(Duration::from_millis(200))))?;
        let Ok((length, from)) = socket.recv_from(&mut answer) else {
            // One that ended meanwhile has no moment left to be marked.
            waiting.retain(|(_, path)| path.exists());
            continue;
        };
        let asked = waiting
            .iter()
            .position(|(_, path)| from.as_pathname() == Some(path));
        if let Some((pid, _)) = asked.map(|at| waiting.swap_remove(at)) {
            match answer.get(..length) {
                Some(bytes) if bytes == SET.as_bytes() => sent.marked.push(pid),
                bytes => {
                    let why = String::from_utf8_lossy(bytes.unwrap_or_default());
                    sent.failed.push((pid, clean(&why).into_owned()));
                }
            }
        }
    }
    let silent = |(pid, _)| (pid, "it does not answer".to_owned());
    sent.failed.extend(waiting.into_iter().map(silent));
    Ok(())
}

struct RemoveAtEnd<'a>(&'a Path);

impl Drop for RemoveAtEnd<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn directory() -> tempfile::TempDir {
        let found = tempfile::tempdir().unwrap();
        fs::set_permissions(found.path(), fs::Permissions::from_mode(0o700)).unwrap();
        found
    }

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(30);

    // Names are bounded, printable and not empty.
    #[test]
    fn names() {
        assert_eq!(check_name(b" cycle 5 "), Ok("cycle 5"));
        assert_eq!(check_name(b"a\x1b[31m"), Err(NameError::Control));
        assert_eq!(check_name(b"a\nb"), Err(NameError::Control));
        assert_eq!(check_name("a\u{202e}b".as_bytes()), Err(NameError::Control));
        assert_eq!(check_name(b"  "), Err(NameError::Empty));
        assert_eq!(check_name(&[b'x'; 201]), Err(NameError::Long));
        assert_eq!(check_name(&[b'x'; 200]).map(str::len), Ok(200));
        assert_eq!(check_name(&[0xff, b'x']), Err(NameError::NotText));
    }

    // A session that listens gets the name; its answer comes when it says so, not before.
    #[test]
    fn is_set() {
        let directory = directory();
        let mut socket = MarkSocket::listen(directory.path()).unwrap();
        let at = directory.path().to_owned();
        let sender = thread::spawn(move || send(&at, "cycle 5", None, LONG));
        let until = Instant::now() + LONG;
        let asked = loop {
            let asked = socket.take();
            if !asked.is_empty() {
                break asked;
            }
            assert!(Instant::now() < until, "nothing came");
            thread::yield_now();
        };
        assert!(!sender.is_finished());
        assert_eq!(asked[0].name, "cycle 5");
        socket.confirm(&asked);
        let sent = sender.join().unwrap().unwrap();
        assert_eq!(sent.marked, [std::process::id()]);
        assert!(sent.failed.is_empty());
        drop(socket);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    // No directory, an empty one and a socket that nobody reads: nothing is marked, and the socket
    // of a process that is gone goes.
    #[test]
    fn nobody_listens() {
        let directory = directory();
        let missing = directory.path().join("missing");
        assert_eq!(send(&missing, "x", None, SHORT).unwrap(), Sent::default());
        assert!(!missing.exists());
        let stale = [
            directory.path().join("1.sock"),
            directory.path().join("4294967295.sock"),
            directory.path().join("4294967295.answer"),
        ];
        for path in &stale {
            drop(UnixDatagram::bind(path).unwrap());
        }
        assert_eq!(
            send(directory.path(), "x", None, SHORT).unwrap(),
            Sent::default()
        );
        assert!(stale.iter().all(|path| !path.exists()));
    }

    // A session that was not meant is not told.
    #[test]
    fn only_one() {
        let directory = directory();
        let mut socket = MarkSocket::listen(directory.path()).unwrap();
        let sent = send(directory.path(), "x", Some(1), SHORT).unwrap();
        assert_eq!(sent, Sent::default());
        assert!(socket.take().is_empty());
        let own = Some(std::process::id());
        let sent = send(directory.path(), "x", own, SHORT).unwrap();
        assert_eq!(sent.failed.len(), 1, "told, and nobody answered");
        assert_eq!(socket.take()[0].name, "x");
    }

    // A session that does not answer is named, and waited for no longer than told.
    #[test]
    fn silent_session() {
        let directory = directory();
        let _socket = MarkSocket::listen(directory.path()).unwrap();
        let sent = send(directory.path(), "x", None, SHORT).unwrap();
        let silent = (std::process::id(), "it does not answer".to_owned());
        assert_eq!(sent.failed, [silent]);
        assert!(sent.marked.is_empty());
    }

    // A directory that others can enter, or a link to one, is not used.
    #[test]
    fn foreign_directory() {
        let directory = directory();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let link = directory.path().join("link");
        let own = directory.path().join("own");
        DirBuilder::new().mode(0o700).create(&own).unwrap();
        std::os::unix::fs::symlink(&own, &link).unwrap();
        for path in [&open, &link] {
            let denied = io::ErrorKind::PermissionDenied;
            assert_eq!(MarkSocket::listen(path).unwrap_err().kind(), denied);
            assert_eq!(send(path, "x", None, SHORT).unwrap_err().kind(), denied);
        }
        assert!(MarkSocket::listen(&own).is_ok());
    }

    proptest! {
        // Whatever bytes come: a name is refused, or can be printed and fits.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = check_name(&bytes) {
                prop_assert!(!name.is_empty() && name.len() <= MAX_NAME);
                prop_assert_eq!(clean(name), name);
                prop_assert_eq!(check_name(name.as_bytes()), Ok(name));
            }
        }
    }
}
