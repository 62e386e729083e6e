//! Memory that runs out: thresholds, OOM kills, and the incidents that tell of them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Command;

use memtrace_tests::{
    Cgroup, Ended, Program, Report, Target, Tracer, assert_exact, line_of, memtrace, memtrace_bin,
    require_kernel,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;

fn spawn(args: &[&str], group: &Cgroup) -> Target {
    let target = Target::spawn(&Program::c("oom").build(), args);
    group.add(target.pid());
    target
}

fn trace(targets: &[&Target], directory: &Path, options: &[&str]) -> Tracer {
    let pids: Vec<_> = targets.iter().map(|one| one.pid().to_string()).collect();
    let mut args = vec!["--pid".to_owned(), pids.join(",")];
    args.extend(["--format", "json", "--interval", "500ms"].map(str::to_owned));
    args.extend(["--incidents".to_owned(), directory.display().to_string()]);
    args.extend(options.iter().map(|&option| option.to_owned()));
    let mut tracer = Tracer::start(&mut memtrace(&args));
    tracer.wait_attached();
    tracer
}

/// The incidents of a kind in a directory, in their order; nothing else may be in it.
fn incidents(directory: &Path, kind: &str) -> Vec<Value> {
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .inspect(|path| assert_eq!(path.extension().unwrap(), "json", "{}", path.display()))
        .map(|path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap())
        .inspect(|incident| assert_eq!(incident["schema"], "memtrace.incident/1"))
        .filter(|incident| incident["kind"] == kind)
        .collect()
}

#[track_caller]
fn one(mut found: Vec<Value>) -> Value {
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn pids(list: &Value) -> Vec<u64> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|one| one["pid"].as_u64().unwrap())
        .collect()
}

/// The function with file and line that holds the memory of `pid` is the first suspect.
#[track_caller]
fn assert_blamed(incident: &Value, pid: u32) {
    let suspect = &incident["suspects"][0];
    assert_eq!(suspect["pid"], pid, "{suspect:#}");
    assert_eq!(suspect["function"], "leak_page_cache", "{suspect:#}");
    assert!(suspect["file"].as_str().unwrap().ends_with("oom.c"));
    let line = line_of("oom.c", "leak_page_cache");
    assert_eq!(suspect["line"], line, "{suspect:#}");
    let rank = suspect["rank"].as_u64().unwrap();
    let stacks = incident["report"]["stacks"].as_array().unwrap();
    let stack = stacks.iter().find(|stack| stack["rank"] == rank).unwrap();
    let main = |frame: &Value| frame["function"] == "main";
    assert!(
        stack["frames"].as_array().unwrap().iter().any(main),
        "{stack:#}"
    );
}

/// The outstanding bytes of a victim are its resident anonymous memory, within a tenth.
#[track_caller]
fn assert_close(victim: &Value) {
    let rss = victim["anon_rss_bytes"].as_u64().expect("no anon_rss") as f64;
    let traced = victim["outstanding_bytes"].as_u64().unwrap() as f64;
    assert!((traced - rss).abs() / rss < 0.1, "{traced} of {rss}");
}

#[track_caller]
fn told(ended: &Ended, words: &[&str]) {
    for word in words {
        assert!(ended.stderr.contains(word), "{word}\n{}", ended.stderr);
    }
}

/// A process that leaks for five seconds in a limited group is killed: the incident names group,
/// victim, trigger, limit and the function; a process beside it that churns is not blamed.
#[test]
fn leak_is_killed() {
    require_kernel!();
    let group = Cgroup::own("leak");
    group.limit(64 * MIB);
    let directory = tempfile::tempdir().unwrap();
    // 60 times 1 MiB, every 80 ms: five seconds.
    let mut leaky = spawn(&["leak", "1048576", "80"], &group);
    let mut churning = spawn(&["churn"], &group);
    let mut tracer = trace(&[&leaky, &churning], directory.path(), &[]);
    churning.go();
    leaky.go();
    let killed = leaky.wait();
    assert!(!killed.status.success());
    churning.signal(libc::SIGTERM);
    let ended = tracer.wait();
    ended.assert_code(0);
    let incident = one(incidents(directory.path(), "oom-kill"));
    assert_eq!(incident["cgroup"]["path"], group.path());
    assert_eq!(incident["cgroup"]["limit_bytes"], 64 * MIB);
    assert_eq!(incident["notes"], serde_json::json!([]));
    let victim = &incident["victims"][0];
    assert_eq!(pids(&incident["victims"]), [u64::from(leaky.pid())]);
    assert!(
        victim["comm"].as_str().unwrap().starts_with("oom-"),
        "{victim:#}"
    );
    assert_eq!(victim["traced"], true);
    assert_close(victim);
    let trigger = incident["trigger"]["pid"].as_u64().unwrap();
    assert!(
        [leaky.pid(), churning.pid()]
            .map(u64::from)
            .contains(&trigger)
    );
    assert_blamed(&incident, leaky.pid());
    for suspect in incident["suspects"].as_array().unwrap() {
        assert_eq!(suspect["pid"], leaky.pid(), "the one that churns is blamed");
    }
    // The last report too says what became of it.
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let process = report["processes"].as_array().unwrap();
    let process = process
        .iter()
        .find(|one| one["pid"] == leaky.pid())
        .unwrap();
    assert_eq!(process["state"], "oom-killed");
    assert_eq!(process["memory_limit_bytes"], 64 * MIB);
    let usage = process["memory_usage_bytes"].as_u64().unwrap();
    assert!(usage > 0 && usage <= 64 * MIB);
    told(
        &ended,
        &["OOM KILL", "leak_page_cache (oom.c:", group.path()],
    );
}

/// Each threshold on the way is told once, with the stacks, before the kill.
#[test]
fn thresholds_before_the_kill() {
    require_kernel!();
    let group = Cgroup::own("thresholds");
    group.limit(64 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let mut leaky = spawn(&["leak", "262144", "15"], &group);
    let mut tracer = trace(&[&leaky], directory.path(), &["--threshold", "50,75,90"]);
    leaky.go();
    assert!(!leaky.wait().status.success());
    let ended = tracer.wait();
    ended.assert_code(0);
    let crossings = incidents(directory.path(), "threshold");
    let percents: Vec<_> = crossings
        .iter()
        .map(|one| one["threshold"]["percent"].as_u64().unwrap())
        .collect();
    assert_eq!(percents, [50, 75, 90]);
    for crossing in &crossings {
        let share = crossing["threshold"]["percent"].as_u64().unwrap() * 64 * MIB / 100;
        let used = crossing["threshold"]["used_bytes"].as_u64().unwrap();
        assert!(used >= share && used <= 64 * MIB, "{used} at {share}");
        assert_eq!(crossing["cgroup"]["path"], group.path());
        assert_eq!(crossing["report"]["processes"][0]["state"], "running");
        assert_blamed(crossing, leaky.pid());
    }
    assert_eq!(incidents(directory.path(), "oom-kill").len(), 1);
    told(
        &ended,
        &[
            "MEMORY AT 50%",
            "MEMORY AT 75%",
            "MEMORY AT 90%",
            "OOM KILL",
        ],
    );
}

/// The process whose allocation makes the kernel kill is often not the one that holds the memory.
#[test]
fn trigger_is_not_the_victim() {
    require_kernel!();
    let group = Cgroup::own("trigger");
    group.limit(64 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let mut holder = spawn(&["hold", &(48 * MIB).to_string()], &group);
    let mut trigger = spawn(&["hold", &(24 * MIB).to_string()], &group);
    let mut tracer = trace(
        &[&holder, &trigger],
        directory.path(),
        &["--threshold", "none"],
    );
    holder.go();
    holder.step("full");
    trigger.go();
    assert!(!holder.wait().status.success());
    tracer.wait_for_file(directory.path(), "oom-kill");
    // A slow kernel kills the trigger too, before the holder's memory is free again (7.2, emulated).
    trigger.signal(libc::SIGKILL);
    trigger.wait();
    tracer.wait().assert_code(0);
    let found = incidents(directory.path(), "oom-kill").into_iter();
    let of_holder = found.filter(|it| pids(&it["victims"]).contains(&holder.pid().into()));
    let incident = one(of_holder.collect());
    assert_eq!(incident["trigger"]["pid"], trigger.pid());
    let victims = pids(&incident["victims"]);
    let killed_too = victims.contains(&trigger.pid().into());
    assert_eq!(incident["trigger"]["is_victim"], killed_too);
    assert_eq!(victims[0], u64::from(holder.pid()));
    assert_eq!(victims.len(), 1 + usize::from(killed_too), "{victims:?}");
    assert_close(&incident["victims"][0]);
    assert_blamed(&incident, holder.pid());
}

/// With a limit on a group above, that group is named, not the victim's own.
#[test]
fn limit_above() {
    require_kernel!();
    let pod = Cgroup::own("pod");
    pod.limit(48 * MIB);
    let name = pod.path().trim_start_matches('/').to_owned();
    let inner = Cgroup::new(&format!("/{name}/app"));
    inner.limit(512 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let mut leaky = spawn(&["leak", "262144", "5"], &inner);
    let mut tracer = trace(&[&leaky], directory.path(), &["--threshold", "none"]);
    leaky.go();
    assert!(!leaky.wait().status.success());
    tracer.wait().assert_code(0);
    let incident = one(incidents(directory.path(), "oom-kill"));
    assert_eq!(incident["cgroup"]["path"], pod.path());
    assert_eq!(incident["cgroup"]["limit_bytes"], 48 * MIB);
    assert_eq!(incident["victims"][0]["cgroup_path"], inner.path());
    drop(inner);
}

/// With memory.oom.group one incident names all of the group's processes, traced or not, each with
/// what it held.
#[test]
fn group_kill_names_all() {
    require_kernel!();
    let group = Cgroup::own("together");
    group.limit(64 * MIB);
    if !group.kill_together() {
        eprintln!("SKIPPED: version 1 groups cannot be killed together; `cargo xtask vm` can");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut holders = [12, 8].map(|mib| spawn(&["hold", &(mib * MIB).to_string()], &group));
    let mut untraced = spawn(&["hold", &(4 * MIB).to_string()], &group);
    let mut leaky = spawn(&["leak", "262144", "5"], &group);
    let [first, second] = &holders;
    let mut tracer = trace(
        &[first, second, &leaky],
        directory.path(),
        &["--threshold", "none"],
    );
    for holder in holders.iter_mut().chain([&mut untraced]) {
        holder.go();
        holder.step("full");
    }
    leaky.go();
    assert!(!leaky.wait().status.success());
    for holder in holders.iter_mut().chain([&mut untraced]) {
        assert!(!holder.wait().status.success());
    }
    let ended = tracer.wait();
    ended.assert_code(0);
    let incident = one(incidents(directory.path(), "oom-kill"));
    let mut named = pids(&incident["victims"]);
    named.sort_unstable();
    let everyone = holders.iter().chain([&untraced, &leaky]);
    let mut wanted: Vec<_> = everyone.map(|one| u64::from(one.pid())).collect();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    assert_eq!(incident["cgroup"]["path"], group.path());
    for victim in incident["victims"].as_array().unwrap() {
        let traced = victim["pid"] != untraced.pid();
        assert_eq!(victim["traced"], traced, "{victim:#}");
        if traced {
            assert_close(victim);
        }
    }
    assert_blamed(&incident, leaky.pid());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    for process in report["processes"].as_array().unwrap() {
        assert_eq!(process["state"], "oom-killed", "{process:#}");
    }
}

/// Where OOM kills cannot be seen, because the kernel lacks their tracepoint, tracing goes on with
/// exact figures and says what is missing.
#[test]
fn tracing_goes_on_without_oom_kills() {
    require_kernel!();
    let mut target = Target::spawn(&Program::c("alloc").build(), &["all"]);
    let script = format!(
        "cd /sys/kernel/tracing && {{ [ -d events ] || mount -t tracefs nodev .; }} && \
         mount -t tmpfs nodev /sys/kernel/tracing/events/oom && \
         exec {} --pid {} --format json --top all",
        memtrace_bin().display(),
        target.pid()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let mut tracer = Tracer::start(&mut command);
    tracer.wait_attached();
    target.go();
    let truth = target.truth();
    tracer.signal(libc::SIGINT);
    let ended = tracer.wait();
    ended.assert_code(0);
    told(&ended, &["OOM kills are not seen", "oom/mark_victim"]);
    assert_exact(&Report::parse(&ended.stdout), &truth, target.pid());
    target.assert_unharmed();
}
