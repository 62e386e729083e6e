//! Containers: whose a process is, in reports and incidents, with real and with hostile runtimes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::{
    Cgroup, Containerd, Program, Running, Target, Tracer, Truth, deadline, memtrace, require_kernel,
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const UID: &str = "6f1c8a2e-1b7d-4a53-9a8e-0c1d2e3f4a5b";

/// 64 hexadecimal digits that only this test has.
fn id(first: &str) -> String {
    format!("{first}{:056x}", std::process::id())
}

/// A container that `runc` runs, without any daemon.
struct Runc {
    folder: tempfile::TempDir,
    name: String,
    running: Running,
}

impl Runc {
    /// `args` in a root file system that holds only the program, under a limit.
    #[track_caller]
    fn run(name: &str, cgroup: &str, limit: u64, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("rootfs");
        std::fs::create_dir_all(root.join("proc")).unwrap();
        let program = Program::c("oom").fully_static().build();
        std::fs::copy(program, root.join("oom")).unwrap();
        let args = [&["/oom"][..], args].concat();
        Self::run_in(folder, &root, (name, cgroup, limit), &args)
    }

    /// `args` in a root file system that is there.
    #[track_caller]
    fn run_in(
        folder: tempfile::TempDir,
        root: &Path,
        (name, cgroup, limit): (&str, &str, u64),
        args: &[&str],
    ) -> Self {
        let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/",
                "args": args, "env": ["PATH=/"], "noNewPrivileges": true,
            },
            "root": {"path": root, "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": cgroup,
                "resources": {"memory": {"limit": limit}},
                "namespaces": namespaces,
            },
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let name = format!("{name}-{}", std::process::id());
        let state = folder.path().join("state");
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state).args(["run", "--bundle"]);
        command.arg(folder.path()).arg(&name);
        let mut running = Running::spawn(&mut command);
        running.stdout_line(deadline(30), "ready", |line| line.starts_with("ready "));
        Self {
            folder,
            name,
            running,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.folder.path().join("state"));
        command
    }

    /// The pid that the host sees.
    #[track_caller]
    fn pid(&self) -> u32 {
        let output = self.command().args(["state", &self.name]).output().unwrap();
        let state: Value = serde_json::from_slice(&output.stdout).unwrap();
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    fn go(&mut self) {
        self.running.send_line("go");
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        let _ = self
            .command()
            .args(["delete", "--force", &self.name])
            .output();
    }
}

/// The same files for several containers, as an image's layer is: an overlay for each.
struct Layers {
    folder: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Layers {
    /// A lower layer with these files, by the names they get.
    #[track_caller]
    fn new(files: &[(&Path, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lower = folder.path().join("lower");
        std::fs::create_dir_all(lower.join("proc")).unwrap();
        for (from, name) in files {
            let to = lower.join(name);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        }
        Self {
            folder,
            mounted: Vec::new(),
        }
    }

    /// A root file system of its own on top.
    #[track_caller]
    fn root(&mut self, name: &str) -> PathBuf {
        let at = |part: &str| self.folder.path().join(format!("{name}-{part}"));
        let [upper, work, root] = ["upper", "work", "root"].map(at);
        for directory in [&upper, &work, &root] {
            std::fs::create_dir(directory).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.folder.path().join("lower").display(),
            upper.display(),
            work.display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]);
        let output = mount.arg(&root).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.mounted.push(root.clone());
        root
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        for root in &self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(root).output();
        }
    }
}

/// Removes the directories that a runtime made above its container, in every hierarchy.
struct Swept(String);

impl Drop for Swept {
    fn drop(&mut self) {
        let top = Path::new("/sys/fs/cgroup");
        let mut roots = vec![top.to_owned()];
        roots.extend(
            std::fs::read_dir(top)
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
        for root in roots {
            let mut path = PathBuf::from(&self.0);
            while path.parent().is_some_and(|parent| parent != Path::new("")) {
                let _ = std::fs::remove_dir(root.join(path.strip_prefix("/").unwrap()));
                path.pop();
                if path == Path::new("/") {
                    break;
                }
            }
        }
    }
}

fn trace(pids: &[u32], directory: &Path, options: &[&str]) -> Tracer {
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    let mut args = vec!["--pid".to_owned(), pids.join(",")];
    args.extend(["--format", "json", "--interval", "500ms"].map(str::to_owned));
    args.extend(["--incidents".to_owned(), directory.display().to_string()]);
    args.extend(options.iter().map(|&option| option.to_owned()));
    let mut tracer = Tracer::start(&mut memtrace(&args));
    tracer.wait_attached();
    tracer
}

fn kill(directory: &Path) -> Value {
    let mut found: Vec<Value> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .map(|text| serde_json::from_slice(&text).unwrap())
        .filter(|incident: &Value| incident["kind"] == "oom-kill")
        .collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// A real container of a Kubernetes-like pod leaks for some seconds and is killed; another one beside
/// it churns. The incident names pod, container, victim, limit and function, not the other one.
#[test]
fn runc_pod_is_killed() {
    require_kernel!();
    let own = format!(
        "/memtrace-test-{}/kubepods/burstable/pod{UID}",
        std::process::id()
    );
    let _swept = Swept(own.clone());
    let (leaky_id, other_id) = (id("aaaaaaaa"), id("bbbbbbbb"));
    let leak = ["leak", "1048576", "60"];
    let mut leaky = Runc::run("leaky", &format!("{own}/{leaky_id}"), 64 * MIB, &leak);
    let mut other = Runc::run("other", &format!("{own}/{other_id}"), 64 * MIB, &["churn"]);
    let (leaky_pid, other_pid) = (leaky.pid(), other.pid());
    let directory = tempfile::tempdir().unwrap();
    let mut tracer = trace(&[leaky_pid, other_pid], directory.path(), &[]);
    other.go();
    leaky.go();
    leaky.running.wait(deadline(60));
    other.running.signal(libc::SIGTERM);
    drop(other);
    tracer.wait().assert_code(0);
    let incident = kill(directory.path());
    let container = &incident["container"];
    assert_eq!(container["id"], leaky_id, "{container:#}");
    assert_eq!(container["pod_uid"], UID, "{container:#}");
    assert_eq!(container["qos"], "burstable", "{container:#}");
    assert_eq!(incident["cgroup"]["limit_bytes"], 64 * MIB);
    let victim = &incident["victims"][0];
    assert_eq!(victim["pid"], leaky_pid, "{victim:#}");
    assert_eq!(victim["container"]["id"], leaky_id, "{victim:#}");
    let rss = victim["anon_rss_bytes"].as_u64().expect("no anon_rss") as f64;
    let traced = victim["outstanding_bytes"].as_u64().unwrap() as f64;
    assert!((traced - rss).abs() / rss < 0.1, "{traced} of {rss}");
    let suspects = incident["suspects"].as_array().unwrap();
    assert_eq!(suspects[0]["function"], "leak_page_cache");
    assert!(suspects[0]["file"].as_str().unwrap().ends_with("oom.c"));
    assert!(
        suspects.iter().all(|one| one["pid"] == leaky_pid),
        "{suspects:#?}"
    );
    drop(leaky);
}

/// Two containers with one image: the C library that both have mapped is one file with one probe, yet each
/// call is counted once, and in the container that made it.
#[test]
fn containers_that_share_a_layer() {
    require_kernel!();
    let parent = format!("/memtrace-test-{}/docker", std::process::id());
    let ids = [id("eeeeeeee"), id("ffffffff")];
    let _swept = ids.each_ref().map(|id| Swept(format!("{parent}/{id}")));
    let program = Program::c("trees").build();
    let libc = mapped("libc.so.6");
    let loader = interpreter(&program);
    let mut layers = Layers::new(&[
        (&program, "trees"),
        (&libc, libc.strip_prefix("/").unwrap().to_str().unwrap()),
        (&loader, loader.strip_prefix("/").unwrap().to_str().unwrap()),
    ]);
    let mut run = |at: usize, blocks: &str| {
        let root = layers.root(blocks);
        let folder = tempfile::tempdir().unwrap();
        let (name, cgroup) = (format!("shared-{at}"), format!("{parent}/{}", ids[at]));
        let args = ["/trees", "prefork", "2", "3", blocks];
        Runc::run_in(folder, &root, (&name, &cgroup, 64 * MIB), &args)
    };
    let mut containers = [run(0, "10"), run(1, "20")];
    let options = [
        "--format",
        "json",
        "--top",
        "all",
        "--group-by",
        "container",
    ];
    let mut tracer = Tracer::start(&mut memtrace(
        &[&["--cgroup", &parent], &options[..]].concat(),
    ));
    tracer.wait_attached();
    for container in &mut containers {
        container.go();
    }
    let truths = containers.each_mut().map(|container| {
        let running = &mut container.running;
        let line = running.stdout_line(deadline(60), "truth", |line| line.starts_with('{'));
        Truth::parse(&line)
    });
    let report = tracer.finish();
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    assert_eq!(report.groups.len(), 2, "{:?}", report.groups);
    for (id, truth) in ids.iter().zip(truths) {
        let group = report
            .groups
            .iter()
            .find(|one| one.name.as_ref() == Some(id));
        let group = group.unwrap();
        let sites = ["root_leak", "worker_leak", "worker_cache"].map(|name| truth.site(name));
        let allocated: i64 = sites.iter().map(|site| site.allocated_objects).sum();
        let (bytes, objects) = truth.outstanding();
        let got = [
            group.outstanding_bytes,
            group.outstanding_objects,
            group.allocated_objects,
        ];
        let expected = [bytes, objects, allocated].map(i64::cast_unsigned);
        assert_eq!(got, expected, "{id}");
    }
}

/// Where this test has a library from.
#[track_caller]
fn mapped(name: &str) -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let path = paths.find(|path| path.ends_with(&format!("/{name}")));
    PathBuf::from(path.unwrap())
}

/// The loader that a program asks for.
#[track_caller]
fn interpreter(program: &Path) -> PathBuf {
    let output = Command::new("readelf")
        .arg("-lW")
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once("program interpreter: ").unwrap();
    PathBuf::from(rest.split(']').next().unwrap())
}

/// Two pods by containerd's own Kubernetes interface: the one that leaks is killed, and the incident has
/// the names that only the runtime's socket knows.
#[test]
fn containerd_pod_is_killed() {
    require_kernel!();
    let top = format!("/memtrace-test-{}/kubepods/burstable", std::process::id());
    let mut containerd = Containerd::start();
    let program = Program::c("oom").fully_static().build();
    containerd.image("pause", &program, &["pause"]);
    containerd.image("leaky", &program, &["wait", "1048576", "60"]);
    let other_uid = UID.replace("6f1c", "7a2d");
    let (leaky_parent, other_parent) = (format!("{top}/pod{UID}"), format!("{top}/pod{other_uid}"));
    let _swept = [Swept(leaky_parent.clone()), Swept(other_parent.clone())];
    let leaky = containerd.pod("cart-1", UID, &leaky_parent, "leaky", 64 * MIB);
    let other = containerd.pod("web-1", &other_uid, &other_parent, "leaky", 64 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let socket = containerd.socket().display().to_string();
    let options = ["--runtime-socket", &socket];
    let mut tracer = trace(&[leaky.pid, other.pid], directory.path(), &options);
    signal(leaky.pid, libc::SIGUSR1);
    let kill = tracer.wait_for_file(directory.path(), "oom-kill");
    tracer.signal(libc::SIGINT);
    tracer.wait().assert_code(0);
    let incident: Value = serde_json::from_slice(&std::fs::read(kill).unwrap()).unwrap();
    let container = &incident["container"];
    assert_eq!(container["id"], leaky.container, "{container:#}");
    assert_eq!(container["runtime"], "containerd", "{container:#}");
    assert_eq!(container["pod"], "cart-1", "{container:#}");
    assert_eq!(container["namespace"], "shop", "{container:#}");
    assert_eq!(container["name"], "app", "{container:#}");
    assert_eq!(container["pod_uid"], UID, "{container:#}");
    assert_eq!(container["labels"]["app"], "cart-1", "{container:#}");
    assert!(
        container["image"].as_str().unwrap().contains("leaky"),
        "{container:#}"
    );
    let victim = &incident["victims"][0];
    assert_eq!(victim["pid"], leaky.pid, "{victim:#}");
    assert_eq!(victim["container"], *container);
    let suspect = &incident["suspects"][0];
    assert_eq!(
        (&suspect["function"], &suspect["pid"]),
        (&"leak_page_cache".into(), &leaky.pid.into())
    );
    assert_eq!(incident["cgroup"]["limit_bytes"], 64 * MIB);
    signal(other.pid, libc::SIGKILL);
    drop(containerd);
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call; the process is the test's own container's.
    unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) };
}

/// What a false runtime does with everyone who connects.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Names the container, over HTTP/1.1.
    Good,
    /// Bytes that mean nothing.
    Rubbish,
    /// Never a word.
    Silence,
    /// An answer without end.
    Endless,
    /// Closes at once.
    Nothing,
}

fn serve(socket: &Path, answer: Answer, id: &str) {
    let listener = UnixListener::bind(socket).unwrap();
    let id = id.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, id) = (stream.unwrap(), id.clone());
            std::thread::spawn(move || reply(stream, answer, &id));
        }
    });
}

fn reply(mut stream: UnixStream, answer: Answer, id: &str) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap_or(0);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    match answer {
        // The other protocol is tried first.
        Answer::Good if !request[..length].starts_with(b"GET /containers/json") => {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
        Answer::Good => {
            let body = json!([{"Id": id, "Names": ["/web\u{1b}[31m"], "Image": "shop/web:1",
                "Labels": {"team": "cart"}}])
            .to_string();
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
        Answer::Rubbish => {
            let _ = stream.write_all(&[0xff; 64]);
        }
        Answer::Silence => {
            let _ = stream.read(&mut request);
        }
        Answer::Endless => {
            let _ = write!(stream, "{head}Content-Length: 99999999999\r\n\r\n[");
            while stream.write_all(&[b' '; 65536]).is_ok() {}
        }
        Answer::Nothing => {}
    }
}

/// A report of a process in a container of Docker's, with a runtime that answers so.
fn report_with(answer: Answer) -> (Value, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("runtime.sock");
    let id = id("cccccccc");
    serve(&socket, answer, &id);
    let group = Cgroup::new(&format!(
        "/memtrace-test-{}/docker/{id}",
        std::process::id()
    ));
    let mut target = Target::spawn(&Program::c("oom").build(), &["hold", "1000000"]);
    group.add(target.pid());
    let socket = socket.display().to_string();
    let directory = folder.path().join("incidents");
    let options = ["--runtime-socket", &socket, "--count", "8"];
    let mut tracer = trace(&[target.pid()], &directory, &options);
    target.go();
    target.step("full");
    let ended = tracer.wait();
    ended.assert_code(0);
    target.go();
    target.wait();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    (
        report["processes"][0]["container"].clone(),
        id,
        ended.stderr,
    )
}

/// `--container` takes the beginning of an id, and says so in one line when no container is meant.
#[test]
fn chosen_by_id() {
    require_kernel!();
    let id = id("dddddddd");
    let group = Cgroup::new(&format!(
        "/memtrace-test-{}/docker/{id}",
        std::process::id()
    ));
    let mut target = Target::spawn(&Program::c("oom").build(), &["hold", "1000000"]);
    group.add(target.pid());
    let choose = |container: &str| {
        let options = ["--format", "json", "--interval", "500ms", "--count", "4"];
        Tracer::start(&mut memtrace(
            &[&["--container", container], &options[..]].concat(),
        ))
    };
    let mut tracer = choose(&id[..60]);
    tracer.wait_attached();
    target.go();
    target.step("full");
    let ended = tracer.wait();
    ended.assert_code(0);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        report["target"],
        json!({"kind": "container", "value": id[..60]})
    );
    let processes = report["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{processes:#?}");
    assert_eq!(processes[0]["pid"], target.pid());
    assert_eq!(processes[0]["container"]["id"], id);
    let ended = choose("no-such-container").wait();
    ended.assert_code(1);
    assert!(
        ended
            .stderr
            .contains("no running container `no-such-container`"),
        "{}",
        ended.stderr
    );
    target.go();
    target.wait();
}

/// The runtime's names are shown, made harmless.
#[test]
fn names_from_a_socket() {
    require_kernel!();
    let (container, id, stderr) = report_with(Answer::Good);
    assert_eq!(container["id"], id, "{stderr}");
    assert_eq!(container["name"], "web\\u{1b}[31m", "{stderr}");
    assert_eq!(container["image"], "shop/web:1");
    assert_eq!(container["labels"]["team"], "cart");
}

/// A runtime that is slow, broken or hostile costs nothing but names: the ids stand, nothing hangs.
#[test]
fn hostile_sockets() {
    require_kernel!();
    for answer in [
        Answer::Rubbish,
        Answer::Silence,
        Answer::Endless,
        Answer::Nothing,
    ] {
        let (container, id, stderr) = report_with(answer);
        assert_eq!(container["runtime"], "docker", "{answer:?}");
        assert_eq!(container["id"], id, "{answer:?}");
        assert_eq!(container["name"], Value::Null, "{answer:?}");
        assert!(
            stderr.contains("container names from"),
            "{answer:?}\n{stderr}"
        );
    }
}
