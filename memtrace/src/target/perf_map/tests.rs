use super::*;
use proptest::prelude::*;
use std::io::Write;

fn file(text: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text).unwrap();
    file
}

fn found(text: &[u8], addresses: &[u64]) -> JitNames {
    search(&file(text), addresses.iter().copied(), CHUNK, BYTES_CAP).unwrap()
}

/// Both spellings of numbers, ranges with open ends, and the last line that fits wins.
#[test]
fn the_last_line_wins() {
    let text =
        b"1000 10 old\n0x1000 0x20 new name(int, char)\r\n2000 8 Other\nffffffffffffff00 10 end\n";
    let names = found(
        text,
        &[
            0xfff,
            0x1000,
            0x101f,
            0x1020,
            0x2007,
            0x2008,
            0xffff_ffff_ffff_ff0f,
        ],
    );
    let expected = [
        (0x1000, "new name(int, char)"),
        (0x101f, "new name(int, char)"),
        (0x2007, "Other"),
        (0xffff_ffff_ffff_ff0f, "end"),
    ];
    let expected = expected.map(|(a, n)| (a, n.to_owned()));
    assert_eq!(names.names, BTreeMap::from(expected));
    assert!(names.present && !names.truncated && names.skipped == 0);
}

/// A line that is still being written is not used: its size or name may be cut.
#[test]
fn an_unfinished_last_line_is_ignored() {
    assert_eq!(
        found(b"1000 10 good\n1000 100 torn", &[0x1000]).names[&0x1000],
        "good"
    );
    assert!(found(b"1000 10 torn", &[0x1000]).names.is_empty());
    assert!(found(b"", &[0x1000]).names.is_empty());
}

/// Nonsense is skipped and counted, and names cannot carry control characters to a terminal.
#[test]
fn nonsense_is_skipped() {
    let text = b"zz 10 a\n1000 zz b\n1000 0 c\n1000 fffffffffffffff d\n+1000 10 e\n\n1000\n1000 10 \x1b[31mx\n-1 1 f\nffffffffffffffff 2 g\n";
    let names = found(text, &[0x1000, u64::MAX]);
    assert_eq!(
        names.names,
        BTreeMap::from([(0x1000, "\\u{1b}[31mx".to_owned())])
    );
    assert!(names.skipped >= 2, "{names:?}");
}

/// Lines longer than any sane one are cut, and do not disturb their neighbours.
#[test]
fn long_lines_are_cut() {
    let mut text = b"1000 10 ".to_vec();
    text.resize(text.len() + (3 << 20), b'n');
    text.extend(b"\n2000 10 after\n");
    let names = found(&text, &[0x1000, 0x2000]);
    assert_eq!(names.names[&0x2000], "after");
    assert_eq!(names.names[&0x1000].len(), LINE_CAP - "1000 10 ".len());
}

/// Beyond the cap nothing is read, a line cut by it is not used, and that is said.
#[test]
fn the_cap_is_said() {
    let text = b"1000 10 old\n2000 10 new\n";
    let names = search(&file(text), [0x1000, 0x2000], CHUNK, 16).unwrap();
    assert_eq!(names.names.keys().copied().collect::<Vec<_>>(), [0x2000]);
    assert!(names.truncated);
    assert!(!search(&file(text), [0x2000], CHUNK, 16).unwrap().truncated);
}

/// A sparse map of 4 GiB is answered from its newest part, quickly and without memory.
#[test]
fn giant_maps_are_bounded() {
    let mut file = file(b"1000 10 too far away\n");
    file.set_len(4 << 30).unwrap();
    io::Seek::seek(&mut file, io::SeekFrom::End(0)).unwrap();
    file.write_all(b"\n2000 10 near\n").unwrap();
    let names = search(&file, [0x2000], CHUNK, BYTES_CAP).unwrap();
    assert_eq!(names.names[&0x2000], "near");
    assert!(!names.truncated);
}

fn process(tgid: u32, uid: u32) -> Process {
    Process {
        tgid: Tgid(tgid),
        parent: Tgid(1),
        comm: "x".into(),
        exe: None,
        exe_deleted: false,
        state: crate::target::process::State::Alive,
        kernel_thread: false,
        start_ticks: 1,
        uid,
        threads: 1,
        class: None,
        seccomp: crate::target::process::Seccomp::Off,
        rss_bytes: None,
        cpu_time_ns: 0,
        children_cpu_time_ns: 0,
        namespace_pids: vec![tgid, 7],
        pid_namespace: None,
    }
}

/// A fake /proc with the root of process 42, whose pid inside is 7.
fn fake() -> (tempfile::TempDir, ProcFs, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let tmp = dir.path().join("42/root/tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let proc = ProcFs::new(dir.path());
    (dir, proc, tmp.join("perf-7.map"))
}

/// The map is found in the process's own root under its inner pid; none is no error.
#[test]
fn found_in_the_process_root() {
    let (_dir, proc, path) = fake();
    let uid = rustix::process::getuid().as_raw();
    let none = lookup(&proc, &process(42, uid), [0x1000]).unwrap();
    assert!(!none.present && none.names.is_empty());
    std::fs::write(&path, "1000 10 jitted\n").unwrap();
    let names = lookup(&proc, &process(42, uid), [0x1000]).unwrap();
    assert_eq!(names.names[&0x1000], "jitted");
    assert_eq!(path_of(&process(42, uid)), Path::new("/tmp/perf-7.map"));
}

/// A symbolic link, a FIFO and a stranger's file in its place are refused by name.
#[test]
fn traps_are_refused() {
    let (dir, proc, path) = fake();
    let uid = rustix::process::getuid().as_raw();
    std::fs::write(dir.path().join("secret"), "1000 10 secret\n").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), &path).unwrap();
    let error = lookup(&proc, &process(42, uid), [0x1000])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("symbolic link") && error.contains("perf-7.map"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let error = lookup(&proc, &process(42, uid), [0x1000])
        .unwrap_err()
        .to_string();
    assert!(error.contains("FIFO"), "{error}");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "1000 10 x\n").unwrap();
    if uid == 0 {
        rustix::fs::chown(&path, Some(rustix::fs::Uid::from_raw(12345)), None).unwrap();
        let error = lookup(&proc, &process(42, 1000), [0x1000])
            .unwrap_err()
            .to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
    }
}

proptest! {
    /// Against a forward reading that keeps the last match, in pieces of every size.
    #[test]
    fn agrees_with_a_forward_reading(
        lines in proptest::collection::vec((0_u64..64, 0_u64..16, "[a-z]{1,6}", any::<bool>()), 0..60),
        chunk in 1_u64..200,
    ) {
        let mut text = Vec::new();
        let mut expected = BTreeMap::new();
        for (start, size, name, prefix) in lines {
            let zero = if prefix { "0x" } else { "" };
            writeln!(text, "{zero}{start:x} {zero}{size:x} {name}").unwrap();
            for address in start..start + size {
                expected.insert(address, name.clone());
            }
        }
        let addresses: Vec<u64> = (0..80).collect();
        let names = search(&file(&text), addresses, chunk, BYTES_CAP).unwrap();
        prop_assert_eq!(names.names, expected);
    }

    /// No bytes make the reader panic or loop.
    #[test]
    fn any_bytes_are_survived(text: Vec<u8>, addresses: Vec<u64>, chunk in 1_u64..50) {
        let _ = search(&file(&text), addresses, chunk, BYTES_CAP);
    }
}
