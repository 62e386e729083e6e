//! Real pre-fork servers, whose workers leak and are replaced.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use memtrace_tests::{Program, Running, Tracer, deadline, require_kernel};

/// The application: each request leaks one block, in a library of C.
const APPLICATION: &str = r#"
import ctypes, os
leak = ctypes.CDLL(os.environ["LIBRARY"]).leak_request
leak.argtypes = [ctypes.c_size_t]
leak.restype = ctypes.c_void_p
def app(environ, start_response):
    leak(10007)
    start_response("200 OK", [("Content-Length", "2"), ("Connection", "close")])
    return [b"ok"]
"#;
const REQUESTS: u64 = 40;
/// A worker serves so many, then another one takes its place.
const OF_A_WORKER: &str = "10";

/// One request, whose answer is waited for. A worker that has served its last one may close a
/// connection that nobody has accepted: then it was not served, and is asked again.
fn serve(socket: &Path) {
    let until = deadline(120);
    loop {
        let mut answer = String::new();
        let asked = UnixStream::connect(socket).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        if asked.is_ok() && answer.ends_with("ok") {
            return;
        }
        assert!(answer.is_empty(), "{answer}");
        assert!(std::time::Instant::now() < until, "no answer: {asked:?}");
        std::thread::yield_now();
    }
}

/// gunicorn's workers leak a block with each request and are replaced after ten: the function is
/// found, to the byte, over all generations, and the master has nothing to do with it.
#[test]
fn gunicorn_replaces_its_workers() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    std::fs::write(folder.path().join("leaky.py"), APPLICATION).unwrap();
    let library = Program::c("served").shared_object().build();
    let mut command = Command::new("gunicorn");
    command
        .args(["--workers", "2", "--max-requests", OF_A_WORKER, "--bind"])
        .arg(format!("unix:{}", socket.display()))
        .args(["--timeout", "120", "leaky:app"])
        .current_dir(folder.path())
        .env("LIBRARY", &library);
    let mut server = Running::spawn(&mut command);
    server.stderr_line(deadline(60), "a worker", |line| {
        line.contains("Booting worker")
    });
    let mut tracer = Tracer::attach_with(server.pid(), &["--follow"]);
    for _ in 0..REQUESTS {
        serve(&socket);
    }
    let report = tracer.finish();
    let leaks: Vec<_> = report
        .stacks
        .iter()
        .filter(|stack| stack.frames.iter().any(|f| f.name() == "leak_request"))
        .collect();
    let sum = |of: fn(&memtrace_tests::Stack) -> u64| leaks.iter().map(|stack| of(stack)).sum();
    let (objects, bytes): (u64, u64) =
        (sum(|s| s.outstanding_objects), sum(|s| s.outstanding_bytes));
    let described: Vec<_> = leaks.iter().map(|stack| stack.describe()).collect();
    assert_eq!(
        (objects, bytes),
        (REQUESTS, REQUESTS * 10_007),
        "{:?} {:?}\n{}",
        report.losses,
        report.notes,
        described.join("\n")
    );
    assert!(
        leaks
            .iter()
            .all(|stack| stack.complete && stack.pid != server.pid())
    );
    // Two at a time and ten requests each: no worker has served all.
    assert!(leaks.len() >= 4, "{} workers", leaks.len());
    assert!(report.processes.iter().any(|one| one.state == "exited"));
    assert_eq!(report.process(server.pid()).state, "running");
    server.signal(libc::SIGTERM);
    server.wait(deadline(60)).assert_code(0);
}
