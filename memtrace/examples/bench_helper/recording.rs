//! An hour of a busy target, through the real recorder: how large it becomes, and what it takes.
//!
//! Made up: 10,000 call paths of 24 frames in 40 objects, a report every 5 s. In each interval a tenth
//! of the paths has allocated or freed since the one before: 500 that are always busy and 500 others,
//! drawn anew. One path in fifty leaks. Only the 2,000 that hold most are judged, as in a session.

use std::{collections::HashSet, path::Path, time::Duration};

use anyhow::Context as _;
use memtrace::{
    record::{Interval, Observed, Retention, StackKey, Writer},
    report::model::{Frame, Owner, Report, Stack},
    trend::Verdict,
};
use rustix::time::{ClockId, clock_gettime};

const PATHS: u32 = 10_000;
const INTERVALS: u32 = 720;
const SECONDS: u32 = 5;
const BUSY: u32 = 500;
const OTHERS: usize = 500;
const JUDGED: usize = 2_000;
const DEPTH: u32 = 24;
/// Stacks that get their names in one interval, at most: as a session gives them.
const NAMES_AT_ONCE: usize = 1024;

/// Prints nanoseconds of CPU time of a mean interval and of the dearest.
pub fn run(path: &str) -> anyhow::Result<()> {
    let mut report: Report = serde_json::from_str(REPORT).context("the report")?;
    let mut paths: Vec<Stack> = (0..PATHS).map(path_at_first).collect();
    let mut recorder = Writer::create(Path::new(path), Retention::default())?;
    let mut draw = Draw(1);
    let (mut sum, mut most) = (0, 0);
    for interval in 1..=INTERVALS {
        go_on(&mut paths, interval, &mut draw);
        let observed = observe(&paths, interval);
        let seconds = interval * SECONDS;
        report.taken_at = format!(
            "2026-01-02T{:02}:{:02}:{:02}.123456789Z",
            3 + seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        report.duration_seconds = f64::from(seconds) + 0.123_456_7;
        report.overhead.probe_hits.heap = u64::from(seconds) * 1_234_567;
        for process in &mut report.processes {
            process.rss_bytes = process.rss_bytes.map(|rss| rss + 81_920);
            process.outstanding_bytes += 76_543;
        }
        let begun = cpu_ns();
        let wanted = recorder.wants_names(&observed);
        let frames = wanted
            .into_iter()
            .take(NAMES_AT_ONCE)
            .filter_map(|at| Some((at, frames(observed.get(at)?.key.stack))))
            .collect();
        recorder.interval(
            &mut report,
            Interval {
                at: Duration::from_secs(u64::from(seconds)),
                spaces: &[7],
                observed: &observed,
                frames,
                marks: &[],
            },
        )?;
        let spent = cpu_ns() - begun;
        sum += spent;
        most = most.max(spent);
    }
    recorder.finish("2026-01-02T04:03:05Z")?;
    println!("{} {most}", sum / i64::from(INTERVALS));
    Ok(())
}

fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn leaks(path: u32) -> bool {
    path.is_multiple_of(50)
}

fn path_at_first(path: u32) -> Stack {
    let objects = u64::from(PATHS / (path + 1)) + 1;
    Stack {
        rank: 0,
        pid: 1234,
        owner: Owner::default(),
        probe: "heap",
        kind: None,
        outstanding_bytes: objects * 96,
        outstanding_objects: objects,
        allocated_bytes: objects * 96,
        allocated_objects: objects,
        freed_bytes: 0,
        freed_objects: 0,
        oldest_seconds: Some(0.5),
        growth_bytes_per_second: 0.0,
        verdict: Verdict::Steady,
        confidence: 0.97,
        complete: true,
        approximate: false,
        gained_per_cycle: Vec::new(),
        frames: Vec::new(),
    }
}

/// What happens in one interval.
fn go_on(paths: &mut [Stack], interval: u32, draw: &mut Draw) {
    let mut active: HashSet<u32> = (0..BUSY).collect();
    while active.len() < BUSY as usize + OTHERS {
        active.insert(draw.below(PATHS));
    }
    for path in active {
        let Some(stack) = paths.get_mut(path as usize) else {
            continue;
        };
        let calls = u64::from(draw.below(20_000 / (path / 10 + 1) + 3)) + 1;
        let kept = if leaks(path) { calls.div_ceil(100) } else { 0 };
        stack.allocated_objects += calls;
        stack.allocated_bytes += calls * 96;
        stack.freed_objects += calls - kept;
        stack.freed_bytes += (calls - kept) * 96;
        stack.outstanding_objects += kept;
        stack.outstanding_bytes += kept * 96;
        if leaks(path) {
            let seconds = f64::from(interval * SECONDS);
            stack.growth_bytes_per_second = stack.outstanding_bytes as f64 / seconds;
            stack.verdict = Verdict::Growing;
        }
        // Half of the time the oldest block is another one.
        if !leaks(path) && draw.below(2) == 0 {
            stack.oldest_seconds = Some(f64::from(draw.below(5_000)) / 1000.0);
        }
    }
}

fn observe(paths: &[Stack], interval: u32) -> Vec<Observed> {
    let mut ranked: Vec<(u32, &Stack)> = (0..).zip(paths).collect();
    ranked.sort_by_key(|(_, stack)| std::cmp::Reverse(stack.outstanding_bytes));
    let at = f64::from(interval * SECONDS);
    ranked
        .into_iter()
        .enumerate()
        .map(|(rank, (path, stack))| {
            let mut account = stack.clone();
            // A block that stays grows older with the clock.
            account.oldest_seconds = Some(if leaks(path) || path >= BUSY {
                at
            } else {
                4.321
            });
            let judged = rank < JUDGED;
            if !judged {
                account.verdict = Verdict::TooEarly;
                account.growth_bytes_per_second = 0.0;
                account.confidence = 0.0;
            }
            Observed {
                key: StackKey {
                    space: 7,
                    stack: path,
                    probe: "heap",
                    kind: None,
                },
                account,
                judged,
            }
        })
        .collect()
}

/// Paths share their outer frames, as those of a program do.
fn frames(path: u32) -> Vec<Frame> {
    (0..DEPTH)
        .map(|depth| {
            let function = path >> (depth / 2).min(20);
            let object = function % 40;
            Frame {
                function: Some(format!(
                    "service::component_{object}::handle_request_{depth}_{function}(int, char const*)"
                )),
                module: Some(format!("/usr/lib/service/libcomponent{object}.so.1")),
                build_id: Some(format!("{object:040x}")),
                offset: Some(format!("{:#x}", 0x1000 + function * 64 + depth)),
                address: format!("{:#x}", 0x7f00_0000_1000 + u64::from(function * 64 + depth)),
                file: Some(format!("/build/service/src/component_{object}/handler.cpp")),
                line: Some(function % 3000),
                ..Frame::default()
            }
        })
        .collect()
}

/// Numbers that are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = (self.0 >> 33) as u32;
        high % end.max(1)
    }
}

/// The report around the stacks.
const REPORT: &str = r#"{
  "schema": "memtrace.report/1", "tool_version": "0.1.0", "host": "busy-1",
  "started_at": "2026-01-02T03:00:00Z", "taken_at": "2026-01-02T03:00:00Z", "duration_seconds": 0.0,
  "intervals": {"seconds": 5.0, "completed": 1, "needed": 5},
  "target": {"kind": "pid", "value": "1234"}, "probes": ["heap"],
  "filters": {"older_seconds": null, "min_size_bytes": null, "max_size_bytes": null},
  "overhead": {"probe_hits": {"heap": 0, "region": 0, "fault": 0}, "nanoseconds_per_hit": 905.2,
    "fraction_of_target_cpu": 0.031, "fraction_of_one_core": 0.02, "sample_bytes": 1, "detached": false},
  "losses": {}, "notes": {"unmatched_frees": 175},
  "coverage": [{"pid": 1234, "object": "/usr/lib/x86_64-linux-gnu/libc.so.6", "family": "glibc",
    "functions": ["malloc", "calloc", "realloc", "free"], "missing": [], "note": null}],
  "processes": [{"pid": 1234, "comm": "service", "exe": "/usr/bin/service", "state": "running",
    "processes": 1, "container": null, "rss_bytes_at_attach": 536870912, "rss_bytes": 536870912,
    "memory_limit_bytes": 4294967296, "memory_usage_bytes": 537870912, "outstanding_bytes": 0,
    "outstanding_objects": 0, "growth_bytes_per_second": 15308.6, "verdict": "growing",
    "seconds_to_limit": 86400.0, "reconciliation": null, "grower": null, "runtime": null}],
  "group_by": "stack", "groups": [], "stacks": [],
  "not_shown": {"stacks": 0, "outstanding_bytes": 0, "outstanding_objects": 0}, "marks": []
}"#;
