use super::*;
use std::os::unix::fs::symlink;

/// A fake /proc with one process whose files the test gives.
fn fake(stat: &[u8], status: &[u8]) -> (tempfile::TempDir, ProcFs) {
    let dir = tempfile::tempdir().unwrap();
    let process = dir.path().join("42");
    std::fs::create_dir(&process).unwrap();
    std::fs::write(process.join("stat"), stat).unwrap();
    std::fs::write(process.join("status"), status).unwrap();
    let proc = ProcFs::new(dir.path());
    (dir, proc)
}

fn stat(comm: &str, state: char, flags: u64) -> Vec<u8> {
    format!(
        "42 ({comm}) {state} 7 42 42 0 -1 {flags} 1 2 3 4 150 50 0 0 20 0 3 0 98765 1000 25 0 0\n"
    )
    .into_bytes()
}

const STATUS: &[u8] = b"Name:\ta b\nTgid:\t42\nPid:\t42\nUid:\t1000\t1001\t1000\t1000\n\
    NSpid:\t42\t7\nVmRSS:\t    2048 kB\nThreads:\t3\nSeccomp:\t2\n";

/// Every field is taken from its place, also when the name holds spaces and parentheses.
#[test]
fn reads_all_fields_of_a_hostile_name() {
    let (dir, proc) = fake(&stat("a) R 1 (b\x1b", 'S', 0), STATUS);
    symlink("/usr/bin/x (deleted)", dir.path().join("42/exe")).unwrap();
    std::fs::create_dir(dir.path().join("42/ns")).unwrap();
    symlink("pid:[4026531836]", dir.path().join("42/ns/pid")).unwrap();
    let p = proc.read(Tgid(42)).unwrap();
    assert_eq!(p.comm, "a) R 1 (b\\u{1b}");
    assert_eq!(
        (p.parent, p.threads, p.start_ticks, p.uid),
        (Tgid(7), 3, 98765, 1001)
    );
    assert_eq!(
        p.cpu_time_ns,
        200 * 1_000_000_000 / rustix::param::clock_ticks_per_second()
    );
    assert_eq!(p.rss_bytes, Some(2 << 20));
    assert_eq!((p.namespace_pids.clone(), p.inner_pid()), (vec![42, 7], 7));
    assert_eq!(p.pid_namespace, Some(4_026_531_836));
    assert_eq!(
        (p.exe_text(), p.exe_deleted),
        ("/usr/bin/x".to_owned(), true)
    );
    assert_eq!((p.seccomp, p.state), (Seccomp::Filter, State::Alive));
    p.check_traceable().unwrap();
}

/// Kernel threads and zombies are refused by name.
#[test]
fn refuses_kernel_threads_and_zombies() {
    let (_dir, proc) = fake(&stat("kworker/0:1", 'S', 0x0020_0040), STATUS);
    let error = proc.read(Tgid(42)).unwrap().check_traceable().unwrap_err();
    assert!(
        matches!(error, ProcessError::KernelThread { .. }),
        "{error}"
    );
    let (_dir, proc) = fake(&stat("gone", 'Z', 0), STATUS);
    let error = proc.read(Tgid(42)).unwrap().check_traceable().unwrap_err();
    assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
}

/// A 32-bit program is refused with its path.
#[test]
fn refuses_32_bit_programs() {
    let (dir, proc) = fake(&stat("old", 'S', 0), STATUS);
    let program = dir.path().join("program");
    std::fs::write(&program, b"\x7fELF\x01\x01\x01").unwrap();
    symlink(&program, dir.path().join("42/exe")).unwrap();
    let error = proc.read(Tgid(42)).unwrap().check_traceable().unwrap_err();
    assert!(error.to_string().contains("32-bit program"), "{error}");
    assert!(error.to_string().contains("/program"), "{error}");
}

/// A thread's number is answered with its process's.
#[test]
fn names_the_process_of_a_thread() {
    let (_dir, proc) = fake(
        &stat("x", 'S', 0),
        b"Name:\tx\nTgid:\t40\nUid:\t0\t0\t0\t0\n",
    );
    let error = proc.read(Tgid(42)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "42 is a thread of process 40: use --pid 40"
    );
}

/// Missing and broken files are errors that say so.
#[test]
fn missing_and_broken_files() {
    let (_dir, proc) = fake(b"42 (x", STATUS);
    assert!(matches!(
        proc.read(Tgid(42)),
        Err(ProcessError::Malformed { .. })
    ));
    assert!(matches!(
        proc.read(Tgid(43)),
        Err(ProcessError::NotFound { .. })
    ));
    let (_dir, proc) = fake(&stat("x", 'S', 0), b"\xff\xfe");
    assert!(matches!(
        proc.read(Tgid(42)),
        Err(ProcessError::Malformed { .. })
    ));
}

/// The real /proc is understood: this test process is alive, 64-bit and listed.
#[test]
fn reads_this_process() {
    let proc = ProcFs::default();
    let own = Tgid(std::process::id());
    let p = proc.read(own).unwrap();
    assert_eq!(p.class, Some(Class::Bits64));
    assert!(p.rss_bytes.unwrap() > 0 && p.start_ticks > 0 && p.pid_namespace.is_some());
    assert!(proc.list().unwrap().contains(&own));
    p.check_traceable().unwrap();
}

proptest::proptest! {
    /// No bytes in stat and status make the reader panic.
    #[test]
    fn any_bytes_are_survived(stat: Vec<u8>, status: Vec<u8>) {
        let _ = Stat::parse(&stat);
        let _ = Status::parse(&status);
    }
}
