//! Bad input and trouble: one clear line that names the thing and the remedy, or it is survived.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::{
    Ended, Program, Report, Running, Target, Tracer, assert_exact, deadline, memtrace,
    memtrace_bin, require_kernel,
};

#[track_caller]
fn run(args: &[&str]) -> Ended {
    Running::spawn(&mut memtrace(args)).wait(deadline(90))
}

/// The kernel's own thread, as every machine numbers it outside of a pid namespace.
const KTHREADD: &str = "2";

/// Usage errors are exit code 2, and name what was wrong.
#[test]
fn usage_errors() {
    for (args, word) in [
        (&["--pid", "1", "--no-such-option"][..], "--no-such-option"),
        (&["--pid", "elephant"], "elephant"),
        (&["--pid", "0"], "0"),
        (&["--pid", "1", "--interval", "soon"], "soon"),
        (&["--pid", "1", "--interval", "0s"], "0s"),
        (&["--pid", "1", "--min-size", "big"], "big"),
        (&["--pid", "1", "--format", "hologram"], "hologram"),
        (&["--pid", "1", "--group-by", "moon"], "moon"),
        (&["--pid", "1", "--fail-on", "sunshine"], "sunshine"),
        (&["--pid", "1", "--alloc-fn", "noargument:x"], "noargument"),
        (&["--pid", "1", "--sample-bytes", "-5"], "-5"),
        (&["run"], "run"),
    ] {
        let ended = run(args);
        ended.assert_code(2);
        assert!(ended.stderr.contains(word), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
}

/// A pid that does not exist.
#[test]
fn pid_that_does_not_exist() {
    require_kernel!();
    // A pid that was free a moment ago: that of a child that has been waited for.
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id().to_string();
    child.wait().unwrap();
    run(&["--pid", &pid]).assert_fails_with_one_line(&[&pid]);
    // The largest number that is taken, one more than any pid.
    run(&["--pid", "4194304"]).assert_fails_with_one_line(&["4194304"]);
    // The next attempt is to have the name that this one did not use.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.memtrace");
    let record = ["--pid", &pid, "--record", file.to_str().unwrap()];
    run(&record).assert_fails_with_one_line(&[&pid]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A kernel thread.
#[test]
fn kernel_thread() {
    require_kernel!();
    run(&["--pid", KTHREADD]).assert_fails_with_one_line(&[KTHREADD, "kernel thread"]);
}

/// A thread's id that is not a process's.
#[test]
fn thread_id_is_not_a_pid() {
    require_kernel!();
    let target = Target::spawn(&Program::c("threads").build(), &["parked"]);
    let pid = target.pid();
    let tid = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|tid| *tid != pid.to_string())
        .expect("it has threads");
    run(&["--pid", &tid]).assert_fails_with_one_line(&[&tid, &pid.to_string()]);
}

/// Without root: one line that says what is missing.
#[test]
fn without_root() {
    require_kernel!();
    let target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("memtrace");
    fs::copy(memtrace_bin(), &binary).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary);
    command.args(["--pid", &target.pid().to_string()]);
    let ended = Running::spawn(&mut command).wait(deadline(90));
    ended.assert_fails_with_one_line(&["sudo"]);
}

/// Doctor's checks by name, with how they came out.
fn checks(json: &str) -> Vec<(String, String)> {
    let doctor: serde_json::Value = serde_json::from_str(json).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    doctor["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (text(&check["name"]), text(&check["status"])))
        .collect()
}

/// Doctor without root, in text and JSON: it fails at the privileges only, and says that it could not look at
/// somebody else's process.
#[test]
fn doctor_without_root() {
    require_kernel!();
    let target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let pid = target.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("memtrace");
    fs::copy(memtrace_bin(), &binary).unwrap();
    for format in ["text", "json"] {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary);
        command.args(["doctor", "--pid", &pid, "--format", format]);
        let ended = Running::spawn(&mut command).wait(deadline(90));
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended.assert_code(1);
        if format == "json" {
            let checks = checks(&ended.stdout);
            let failed: Vec<_> = checks
                .iter()
                .filter(|(_, status)| status == "fail")
                .collect();
            assert_eq!(failed, [&("privileges".to_owned(), "fail".to_owned())]);
            assert!(checks.contains(&(format!("pid {pid}"), "warn".to_owned())));
        } else {
            assert!(ended.stdout.contains("sudo"), "{}", ended.stdout);
        }
    }
}

/// Doctor of what cannot be traced fails with the reason.
#[test]
fn doctor_refuses_what_cannot_be_traced() {
    require_kernel!();
    let mut child = Command::new("true").spawn().unwrap();
    let gone = child.id().to_string();
    child.wait().unwrap();
    for (pid, word) in [(gone.as_str(), "no process"), (KTHREADD, "kernel thread")] {
        let ended = run(&["doctor", "--pid", pid]);
        ended.assert_code(1);
        assert!(ended.stdout.contains(word), "{}", ended.stdout);
    }
}

/// Doctor tries what a return probe does under a filter, and says for a process under one what follows; the
/// process lives (R25).
#[test]
fn doctor_of_a_process_under_seccomp() {
    require_kernel!();
    for mode in ["strict", "filter"] {
        let mut target = Target::spawn(&Program::c("seccomp").build(), &[mode]);
        let pid = target.pid().to_string();
        let ended = run(&["doctor", "--pid", &pid, "--format", "json"]);
        let about: Vec<_> = checks(&ended.stdout)
            .into_iter()
            .filter(|(name, _)| *name == format!("pid {pid}"))
            .map(|(_, status)| status)
            .collect();
        let refused = about.iter().any(|status| status == "fail");
        ended.assert_code(i32::from(refused));
        assert!(
            about.iter().all(|status| status != "warn"),
            "{}",
            ended.stdout
        );
        assert!(
            ended.stdout.contains("runs under seccomp"),
            "{}",
            ended.stdout
        );
        target.go();
        target.truth();
        target.assert_unharmed();
    }
}

/// Doctor on a process says where each probe would go.
#[test]
fn doctor_shows_the_probes() {
    require_kernel!();
    let target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let pid = target.pid().to_string();
    let ended = run(&["doctor", "--pid", &pid, "--format", "json"]);
    ended.assert_code(0);
    let doctor: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let text = doctor.to_string();
    for word in ["libc.so.6", "malloc", "free", "posix_memalign"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    assert!(!doctor["costs"].as_array().unwrap().is_empty());
    let ended = run(&["doctor", "--pid", &pid, "--verbose"]);
    ended.assert_code(0);
    assert!(ended.stdout.contains("emulate"), "{}", ended.stdout);
}

/// --output into a folder that does not exist: known before the target is touched.
#[test]
fn output_folder_is_missing() {
    require_kernel!();
    let target = Target::spawn(&Program::c("alloc").build(), &["malloc"]);
    let pid = target.pid().to_string();
    run(&[
        "--pid",
        &pid,
        "--output",
        "/no/such/folder/report.json",
        "--format",
        "json",
    ])
    .assert_fails_with_one_line(&["/no/such/folder"]);
    target.assert_unharmed();
}

/// An allocation function that no object has: one line with its name.
#[test]
fn unknown_custom_function() {
    require_kernel!();
    let target = Target::spawn(&Program::c("custom").build(), &[]);
    let pid = target.pid().to_string();
    let ended = run(&[
        "--pid",
        &pid,
        "--alloc-fn",
        "no_such_function:1",
        "--duration",
        "1s",
    ]);
    assert!(
        ended.stderr.contains("no_such_function"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("panicked"));
    target.assert_unharmed();
}

/// Makes something hostile at a path.
type Maker = fn(&Path);

/// Something hostile where the perf map should be (R28).
struct PerfMap(PathBuf);

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

fn fifo(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the string ends with a zero byte and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o666) }, 0);
}

fn sparse(path: &Path) {
    fs::File::create(path).unwrap().set_len(2 << 30).unwrap();
}

fn endless(path: &Path) {
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

fn circle(path: &Path) {
    std::os::unix::fs::symlink(path, path).unwrap();
}

fn folder(path: &Path) {
    fs::create_dir(path).unwrap();
}

fn nonsense(path: &Path) {
    let mut text = b"7f00 ffffffffffffffff x\n\xff\xfe zz zz\n1 2\n\n0xg 10 name\n".to_vec();
    text.extend(std::iter::repeat_n(b'a', 1 << 20));
    fs::write(path, text).unwrap();
}

/// FIFO, 2 GiB file, endless device, link to itself, folder, nonsense as the perf map: the report comes
/// in time, exact, within 300 MiB, and the JIT's frame says why it has no name.
#[test]
fn hostile_perf_maps() {
    require_kernel!();
    let kinds: [(&str, Maker); 6] = [
        ("fifo", fifo),
        ("sparse", sparse),
        ("endless", endless),
        ("circle", circle),
        ("folder", folder),
        ("nonsense", nonsense),
    ];
    for (kind, make) in kinds {
        let mut target = Target::spawn(&Program::c("jit").build(), &["none"]);
        let pid = target.pid();
        let map = PerfMap(PathBuf::from(format!("/tmp/perf-{pid}.map")));
        make(&map.0);
        let mut tracer = Tracer::attach_stream(pid, &["--interval", "200ms"]);
        target.go();
        let truth = target.truth();
        tracer.report_where("the target's objects", |report| {
            report
                .heap_stacks(pid)
                .any(|stack| stack.outstanding_objects == 100)
        });
        let status = fs::read_to_string(format!("/proc/{}/status", tracer.pid())).unwrap();
        let peak: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap();
        let report = tracer.finish();
        assert_exact(&report, &truth, pid);
        assert!(peak < 300 << 10, "{kind}: memtrace took {peak} KiB");
        for frame in report.heap_stacks(pid).flat_map(|stack| &stack.frames) {
            assert!(
                frame.function.is_some() || frame.reason.is_some(),
                "{kind}: {frame:?}"
            );
        }
        target.assert_unharmed();
    }
}

/// Overwrites part of an object's file: the section header table's offset, or a section's content.
fn corrupt(plugin: &Path, to: &Path, section: Option<&str>) {
    let mut bytes = fs::read(plugin).unwrap();
    match section {
        None => bytes[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes()),
        Some(section) => {
            let output = Command::new("readelf")
                .args(["-SW"])
                .arg(plugin)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text
                .lines()
                .find(|line| line.split_whitespace().any(|word| word == section))
                .expect("the section is there");
            let fields: Vec<&str> = line.split_once(']').unwrap().1.split_whitespace().collect();
            let offset = usize::from_str_radix(fields[3], 16).unwrap();
            let size = usize::from_str_radix(fields[4], 16).unwrap();
            for (i, byte) in bytes[offset..offset + size].iter_mut().enumerate() {
                *byte = if i % 3 == 0 { 0xff } else { 0x80 };
            }
        }
    }
    fs::write(to, bytes).unwrap();
}

/// A mapped object with a corrupt header, eh_frame, symbol table or debug lines: it is survived, and the
/// sums are exact.
#[test]
fn corrupt_objects() {
    require_kernel!();
    let plugin = Program::c("plugin").shared_object().build();
    let folder = tempfile::tempdir().unwrap();
    let sections = [
        None,
        Some(".eh_frame"),
        Some(".eh_frame_hdr"),
        Some(".symtab"),
        Some(".debug_line"),
        Some(".debug_info"),
    ];
    for (i, section) in sections.into_iter().enumerate() {
        let broken = folder.path().join(format!("broken{i}.so"));
        corrupt(&plugin, &broken, section);
        let mut target = Target::spawn(
            &Program::c("dl").build(),
            &[&broken.to_string_lossy(), "plugin_make"],
        );
        let pid = target.pid();
        target.go();
        target.step("loaded");
        let mut tracer = Tracer::attach(pid);
        target.go();
        let (bytes, objects) = {
            let truth = target.truth();
            let site = truth.site("leak_through_plugin");
            (site.outstanding_bytes, site.outstanding_objects)
        };
        let report = tracer.finish();
        let process = report.process(pid);
        assert_eq!(
            i64::try_from(process.outstanding_bytes).unwrap(),
            bytes,
            "{section:?}"
        );
        assert_eq!(
            i64::try_from(process.outstanding_objects).unwrap(),
            objects,
            "{section:?}"
        );
        target.assert_unharmed();
    }
}

/// A 32-bit process is refused by name, and lives.
#[test]
#[cfg(target_arch = "x86_64")]
fn thirty_two_bit_process() {
    require_kernel!();
    // Without any library: Debian's 32-bit ones exclude its compilers for other machines.
    let flags = ["-m32", "-static", "-nostdlib", "-ffreestanding", "-no-pie"];
    let program = Program::c("thirty_two")
        .flag("-fno-pie")
        .flag("-fno-stack-protector");
    let program = flags
        .iter()
        .fold(program, |program, flag| program.flag(flag));
    let mut target = Running::spawn(&mut Command::new(program.build()));
    target.stdout_line(deadline(20), "ready", |line| line == "ready");
    let pid = target.pid().to_string();
    run(&["--pid", &pid]).assert_fails_with_one_line(&[&pid, "32-bit"]);
    let doctor = run(&["doctor", "--pid", &pid]);
    doctor.assert_code(1);
    assert!(doctor.stdout.contains("32-bit"), "{}", doctor.stdout);
    target.close_stdin();
    target.wait(deadline(20)).assert_code(0);
}

/// A Go program is never given a return probe in its own text: it is refused or traced, and lives (R25).
#[test]
fn go_program_lives() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("main.go");
    let text = "package main\nimport (\"fmt\"; \"time\")\nvar keep [][]byte\nfunc main() { \
        fmt.Println(\"ready 0\"); for i := 0; i < 3000; i++ { keep = append(keep, make([]byte, 10000)); \
        time.Sleep(time.Millisecond) }; fmt.Println(len(keep)) }\n";
    fs::write(&source, text).unwrap();
    let program = folder.path().join("go-program");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&program, &source])
        .env("HOME", folder.path())
        .output()
        .expect("go (apt-get install golang-go)");
    assert!(built.status.success(), "{built:?}");
    let mut go = Running::spawn(&mut Command::new(&program));
    go.stdout_line(deadline(20), "ready", |line| line.starts_with("ready"));
    let ended = run(&[
        "--pid",
        &go.pid().to_string(),
        "--format",
        "json",
        "--duration",
        "2s",
    ]);
    if ended.code() != 0 {
        ended.assert_fails_with_one_line(&["Go"]);
    } else {
        assert!(
            ended.stderr.contains("Go") || ended.stdout.contains("Go"),
            "nothing says Go"
        );
    }
    let ended = go.wait(deadline(90));
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("3000"));
}

/// A terminal 40 columns wide: no line of the report is wider, and the leaking function is there.
#[test]
fn forty_columns() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    target.go();
    let script = format!(
        "stty cols 40 rows 24; exec {} --pid {} --interval 300ms --count 2 2>/dev/null",
        memtrace_bin().display(),
        target.pid()
    );
    let mut command = Command::new("script");
    command
        .args(["-qec", &script, "/dev/null"])
        .env("NO_COLOR", "1")
        .env("TERM", "xterm");
    let ended = Running::spawn(&mut command).wait(deadline(60));
    assert_eq!(ended.code(), 0, "{}", ended.stdout);
    assert!(ended.stdout.contains("leak"), "{}", ended.stdout);
    for line in ended.stdout.lines() {
        let line = line.trim_end_matches('\r');
        assert!(
            line.chars().count() <= 40,
            "{} columns: {line:?}",
            line.chars().count()
        );
        assert!(
            !line.contains('\u{1b}'),
            "colour in spite of NO_COLOR: {line:?}"
        );
    }
    target.assert_unharmed();
}

/// A process whose name is control characters and broken UTF-8 cannot put them on the terminal.
#[test]
fn hostile_process_name() {
    require_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"e\x1b[31m\xff\nx");
    let program = folder.path().join(name);
    fs::copy(Program::c("alloc").build(), &program).unwrap();
    let mut target = Target::spawn(&program, &["malloc"]);
    let pid = target.pid().to_string();
    let mut text = Tracer::start(&mut memtrace(&[
        "--pid",
        &pid,
        "--interval",
        "200ms",
        "--count",
        "1",
    ]));
    let ended = text.wait();
    ended.assert_code(0);
    assert!(
        !format!("{}{}", ended.stdout, ended.stderr).contains('\u{1b}'),
        "{:?}",
        ended.stdout
    );
    let ended = run(&[
        "--pid",
        &pid,
        "--format",
        "json",
        "--interval",
        "200ms",
        "--count",
        "1",
    ]);
    ended.assert_code(0);
    Report::parse(ended.stdout.trim_end());
    target.go();
    target.truth();
    target.assert_unharmed();
}
