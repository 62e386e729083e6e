//! Goldens of the text report.

use super::*;
use crate::report::fixtures::{self, frame, malloc, stack};
use crate::report::group;
use crate::report::layout::width;
use crate::report::model::*;

fn at(width: usize) -> TextOptions {
    TextOptions {
        width,
        ..TextOptions::default()
    }
}

fn verbose() -> TextOptions {
    TextOptions {
        verbose: true,
        ..TextOptions::default()
    }
}

// The usual report on narrow, ordinary and wide terminals.
#[test]
fn leak() {
    for width in [40, 80, 120] {
        insta::assert_snapshot!(
            format!("leak_{width}"),
            render(&fixtures::leak(), at(width))
        );
    }
}

// Marks are told with their time, of many the latest; a time that is none is left out.
#[test]
fn marks() {
    let mut report = fixtures::leak();
    let mark = |n: u32| Mark {
        name: format!("cycle {n}"),
        at: format!("2026-01-02T03:04:{:02}.5Z", n * 5),
    };
    report.marks = (1..=11).map(mark).collect();
    report.marks[10].at = "soon".to_owned();
    let text = render(&report, at(80));
    let told: Vec<_> = text.lines().filter(|line| line.contains("Mark ")).collect();
    assert_eq!(told.len(), 9, "{text}");
    assert_eq!(told[0].trim(), "Mark      3 earlier ones");
    assert_eq!(told[1].trim(), "Mark      cycle 4, set at 03:04:20 UTC");
    assert_eq!(told[8].trim(), "Mark      cycle 11");
}

// The same in colour: the text between the escapes is the same.
#[test]
fn leak_in_color() {
    let text = render(
        &fixtures::leak(),
        TextOptions {
            color: true,
            ..at(80)
        },
    );
    insta::assert_snapshot!(text.replace('\x1b', "␛"));
    assert_eq!(
        anstream::adapter::strip_str(&text).to_string(),
        render(&fixtures::leak(), at(80))
    );
}

// Everything there is to say.
#[test]
fn leak_verbose() {
    let mut report = fixtures::leak();
    report.losses.insert("live_table_full".to_owned(), 7);
    insta::assert_snapshot!(render(&report, verbose()));
}

// Names from a target cannot write to the terminal or forge a line.
#[test]
fn hostile() {
    let text = render(&fixtures::hostile(), verbose());
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
    assert!(
        !text.lines().any(|line| line.starts_with("INJECTED")),
        "{text}"
    );
    insta::assert_snapshot!(text);
}

// Estimates are marked wherever they stand.
#[test]
fn sampled() {
    let mut report = fixtures::leak();
    report.overhead.sample_bytes = 524_288;
    report.overhead.fraction_of_target_cpu = Some(0.24);
    insta::assert_snapshot!(render(&report, at(80)));
}

// Each loss by name, with what it means.
#[test]
fn losses() {
    let mut report = fixtures::leak();
    for stack in &mut report.stacks {
        stack.verdict = Verdict::TooEarly;
    }
    report.processes[0].seconds_to_limit = None;
    report.losses.insert("live_table_full".to_owned(), 1_204);
    report
        .losses
        .insert("live_table_full_bytes".to_owned(), 78_000);
    report.losses.insert("target_table_full".to_owned(), 1);
    report.losses.insert("context_table_full".to_owned(), 12);
    report.losses.insert("unwinder_backlog".to_owned(), 3);
    report.losses.insert("nesting_too_deep".to_owned(), 0);
    insta::assert_snapshot!(render(&report, at(80)));
}

// Incomplete, approximate, lost, unnamed, deep and recursive stacks say so.
#[test]
fn odd_stacks() {
    let mut report = fixtures::leak();
    let mut incomplete = stack(1, 4096, 1, Verdict::Steady);
    incomplete.complete = false;
    incomplete.approximate = true;
    let mut lost = stack(2, 2048, 2, Verdict::Spike);
    lost.frames.clear();
    let mut unnamed = stack(3, 1024, 3, Verdict::Sawtooth);
    unnamed.frames[1].function = None;
    unnamed.frames[1].file = None;
    unnamed.frames[1].line = None;
    unnamed.frames[1].reason = Some("no symbols".to_owned());
    unnamed.frames[2] = Frame {
        address: "0x7f12aabb0010".to_owned(),
        reason: Some("not in any mapping".to_owned()),
        ..Frame::default()
    };
    let mut deep = stack(4, 512, 1, Verdict::Shrinking);
    let level = |n: u32| {
        frame(
            &format!("level_{n}"),
            "/srv/server",
            Some(("/srv/src/deep.c", n)),
        )
    };
    deep.frames = std::iter::once(malloc())
        .chain((1..60).map(level))
        .collect();
    let mut recursive = stack(5, 256, 1, Verdict::Plateau);
    let again = frame("walk_tree", "/srv/server", Some(("/srv/src/tree.c", 7)));
    recursive
        .frames
        .splice(1..2, std::iter::repeat_n(again, 300));
    report.stacks = vec![incomplete, lost, unnamed, deep, recursive];
    report.processes[0].verdict = Verdict::Steady;
    insta::assert_snapshot!(render(&report, at(80)));
}

// C++ templates and deep paths are shortened; no line is wider than the terminal.
#[test]
fn long_names() {
    let mut report = fixtures::leak();
    let template = "std::_Rb_tree<std::string, std::pair<const std::string, app::session::Handle>, \
        std::_Select1st<std::pair<const std::string, app::session::Handle>>>::_M_insert_unique";
    let name = "app::session::Cache<std::string, app::session::Handle>::insert_or_assign(std::string const&)";
    let path = "/home/builder/work/checkout/third_party/session/include/session/cache.hpp";
    report.stacks[0].frames.splice(
        1..1,
        [
            frame(template, "/srv/server", None),
            frame(name, "/srv/server", Some((path, 1312))),
        ],
    );
    for width in [40, 80, 120] {
        insta::assert_snapshot!(format!("long_names_{width}"), render(&report, at(width)));
    }
}

// Before the first five intervals there is no verdict.
#[test]
fn too_early() {
    let mut report = fixtures::leak();
    report.intervals.completed = 2;
    report.overhead.fraction_of_target_cpu = None;
    for stack in &mut report.stacks {
        stack.verdict = Verdict::TooEarly;
    }
    report.processes[0].seconds_to_limit = None;
    insta::assert_snapshot!(render(&report, at(80)));
}

// A window: what was gained is called that, and nobody was attached when it began.
#[test]
fn window() {
    let mut report = fixtures::leak();
    report.gained_since = Some("2026-01-02T03:04:04Z".to_owned());
    let text = render(&report, at(100));
    for part in [
        "pid 1234 (server), gained in 30.5 s until 03:04:35 UTC",
        "99% sure — 34.1 MiB gained in 1,203 objects",
        "#1  +34.1 MiB in 1,203 objects",
        "RSS       12.0 MiB at its beginning → 46.3 MiB at its end\n",
        "Traced    35.2 MiB gained in 1,410 objects",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    report.stacks.clear();
    let text = render(&report, at(100));
    assert!(
        text.contains("No stack gained anything in this time."),
        "{text}"
    );
}

// Nothing outstanding, nothing probed: each is said.
#[test]
fn empty() {
    let mut report = fixtures::leak();
    report.stacks.clear();
    report.not_shown = NotShown::default();
    report.processes[0].outstanding_bytes = 0;
    report.processes[0].outstanding_objects = 0;
    report.processes[0].seconds_to_limit = None;
    for one in &mut report.coverage {
        one.functions.clear();
    }
    report.coverage[0].note = Some("static and stripped: it has no names".to_owned());
    insta::assert_snapshot!(render(&report, at(80)));
}

// Two processes, one of them gone; many leaks are counted, four named stacks are ranked by growth.
#[test]
fn two_processes() {
    let mut report = fixtures::leak();
    let mut other = report.processes[0].clone();
    other.pid = 99;
    other.comm = "worker".to_owned();
    other.state = ProcessState::OomKilled;
    other.rss_bytes = None;
    other.seconds_to_limit = None;
    other.verdict = Verdict::Steady;
    report.processes.push(other);
    report.target.value = "1234,99".to_owned();
    for rank in 3..=5_u32 {
        let mut stack = stack(rank as usize, 8192, 2, Verdict::Growing);
        stack.growth_bytes_per_second = f64::from(rank) * 100.0;
        stack.pid = 99;
        report.stacks.push(stack);
    }
    insta::assert_snapshot!(render(&report, at(80)));
}

// A program started by memtrace, in a container, without a limit, detached, filtered.
#[test]
fn run_in_container() {
    let mut report = fixtures::leak();
    report.target = Target {
        kind: "run",
        value: "./server --port 80".to_owned(),
    };
    report.filters = Filters {
        older_seconds: Some(30.0),
        min_size_bytes: Some(64),
        max_size_bytes: None,
    };
    report.overhead.detached = true;
    let process = &mut report.processes[0];
    process.memory_limit_bytes = None;
    process.state = ProcessState::Exited;
    process.container = Some(Container {
        runtime: "containerd".to_owned(),
        id: "4f0c2d9b8a7e6f5d4c3b2a1908f7e6d5".to_owned(),
        name: Some("web".to_owned()),
        pod: Some("web-5d9c7".to_owned()),
        namespace: Some("shop".to_owned()),
        image: Some("registry.local/shop/web:1.4".to_owned()),
        ..Container::default()
    });
    insta::assert_snapshot!(render(&report, at(80)));
}

// Rows of functions and of modules.
#[test]
fn grouped() {
    for (by, name) in [(GroupBy::Function, "function"), (GroupBy::Module, "module")] {
        let mut report = fixtures::two_callers();
        group::apply(&mut report, by, Some(1));
        insta::assert_snapshot!(format!("grouped_by_{name}"), render(&report, at(80)));
    }
}

// At no width is a line wider than the terminal, not even below the least width.
#[test]
fn every_line_fits() {
    let mut grouped = fixtures::two_callers();
    group::apply(&mut grouped, GroupBy::Function, Some(1));
    let reports = [
        fixtures::leak(),
        fixtures::two_callers(),
        fixtures::hostile(),
        grouped,
    ];
    for columns in 10..=140 {
        for options in [
            at(columns),
            TextOptions {
                width: columns,
                ..verbose()
            },
        ] {
            for line in reports.iter().flat_map(|r| lines(r, options)) {
                assert!(width(&line) <= columns.max(40), "{columns}: {line:?}");
            }
        }
    }
}

fn lines(report: &Report, options: TextOptions) -> Vec<String> {
    render(report, options).lines().map(str::to_owned).collect()
}

/// A report without a stack.
fn nothing() -> Report {
    let mut report = fixtures::leak();
    report.target.kind = "run";
    report.stacks.clear();
    report.processes[0].outstanding_bytes = 0;
    report.processes[0].outstanding_objects = 0;
    report
}

// Where nothing was probed nothing is known, and one remedy is named, not two.
#[test]
fn nothing_was_probed() {
    let mut report = nothing();
    report.coverage.truncate(1);
    report.coverage[0].functions.clear();
    report.coverage[0].note = Some("a static program without symbols".to_owned());
    let text = render(&report, at(80));
    assert!(text.contains("Not traced"), "{text}");
    assert!(!text.contains("freed"), "{text}");
    assert!(!text.contains("--alloc-fn"), "{text}");
    report.coverage.clear();
    let text = render(&report, at(80));
    assert!(text.contains("Not traced"), "{text}");
    assert!(text.contains("--alloc-fn"), "{text}");
}

// That all is freed is said only when all was seen.
#[test]
fn all_is_freed() {
    let mut report = nothing();
    assert!(render(&report, at(80)).contains("all that was allocated is freed"));
    report.losses.insert("live_table_full".to_owned(), 3);
    let text = render(&report, at(80));
    assert!(
        !text.contains("is freed") && text.contains("not lost"),
        "{text}"
    );
    report.losses.clear();
    report.overhead.sample_bytes = 1024;
    report.filters.min_size_bytes = Some(10);
    let text = render(&report, at(80));
    assert!(
        !text.contains("is freed") && text.contains("a sample"),
        "{text}"
    );
    assert!(text.contains("only some"), "{text}");
}
