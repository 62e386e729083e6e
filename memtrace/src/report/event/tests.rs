//! Lines and objects as people and programs get them.

use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};

use super::*;

const PID: u32 = 4711;

fn at(nanoseconds: i128) -> Timestamp {
    Timestamp::from_nanosecond(1_790_000_000_000_000_000 + nanoseconds).unwrap()
}

fn event(nanoseconds: i128, kind: Kind, fill: impl FnOnce(&mut Event)) -> Line {
    let mut event = Event::new(at(nanoseconds), kind, [PID, PID], "server".to_owned());
    fill(&mut event);
    Line::Event(event)
}

fn heap(event: &mut Event, function: &str, size: u64, address: u64) {
    event.function = Some(Arc::from(function));
    event.size = Some(size);
    event.address = Some(Address(address));
    event.result = Some(Outcome::Done);
}

/// One of each kind, and of what is special about some.
fn all() -> Vec<Line> {
    let block = 0x55d0_c0de_12a0;
    let page = 0x7f3c_1a00_0000;
    vec![
        event(1_000, Kind::Alloc, |e| heap(e, "malloc", 24, block)),
        event(2_000, Kind::Alloc, |e| {
            e.function = Some(Arc::from("calloc"));
            e.size = Some(u64::MAX);
            e.result = Some(Outcome::Failed);
        }),
        event(3_000, Kind::Realloc, |e| {
            heap(e, "realloc", 4096, block + 64);
            e.old_address = Some(Address(block));
            e.old_size = Some(24);
            e.age_seconds = Some(2e-6);
        }),
        event(4_000, Kind::Realloc, |e| {
            e.function = Some(Arc::from("realloc"));
            e.size = Some(0);
            e.old_address = Some(Address(block));
            e.result = Some(Outcome::Freed);
        }),
        event(5_000, Kind::Free, |e| {
            e.tid = 4712;
            e.comm = "worker-3".to_owned();
            e.function = Some(Arc::from("free"));
            e.address = Some(Address(block + 64));
            e.size = Some(4096);
            e.age_seconds = Some(0.001_234);
        }),
        event(6_000, Kind::Free, |e| e.address = Some(Address(block))),
        Line::Lost(Lost {
            time: at(7_000),
            events: 1234,
        }),
        event(8_000, Kind::Mmap, |e| {
            heap(e, "", 8192, page);
            e.function = None;
            e.protection = Some(protection(3));
            e.flags = Some(Address(0x22));
            e.by_allocator = true;
        }),
        event(9_000, Kind::Mmap, |e| {
            e.size = Some(4096);
            e.protection = Some(protection(5));
            e.flags = Some(Address(0x12));
            e.fd = Some(3);
            e.result = Some(Outcome::of_result((-12_i64).cast_unsigned()));
        }),
        event(10_000, Kind::Mremap, |e| {
            heap(e, "", 16384, page + 4096);
            e.function = None;
            e.old_address = Some(Address(page));
            e.old_size = Some(8192);
        }),
        event(11_000, Kind::Munmap, |e| {
            heap(e, "", 8192, page);
            e.function = None;
        }),
        event(12_000, Kind::Madvise, |e| {
            heap(e, "", 4096, page);
            e.function = None;
            e.advice = Some(4);
        }),
        event(13_000, Kind::Mprotect, |e| {
            heap(e, "", 4096, page);
            e.function = None;
            e.protection = Some(protection(0));
        }),
        event(14_000, Kind::Brk, |e| {
            e.old_address = Some(Address(0x5600_0000_2000));
            e.address = Some(Address(0x5600_0000_0000));
            e.result = Some(Outcome::Refused(12));
        }),
        event(15_000, Kind::Fork, |e| e.child_pid = Some(4720)),
        event(16_000, Kind::Exec, |_| {}),
        event(17_000, Kind::Exit, |_| {}),
        event(18_000, Kind::OomKill, |e| e.trigger_pid = Some(99)),
    ]
}

fn text(lines: &[Line], color: bool) -> String {
    let mut to = Lines::new(TimeZone::UTC, color);
    let mut out = String::new();
    for line in lines {
        to.write(line, &mut out);
    }
    out
}

fn json(lines: &[Line]) -> String {
    let mut out = Vec::new();
    for line in lines {
        match line {
            Line::Event(event) => event.write_json(&mut out),
            Line::Lost(lost) => lost.write_json(&mut out),
        }
    }
    End {
        time: at(20_000),
        events: 17,
        losses: BTreeMap::from([("call_events_lost".to_owned(), 1234)]),
    }
    .write_json(&mut out);
    String::from_utf8(out).unwrap()
}

fn with_stack() -> Line {
    let frame = |function: &str, line| Frame {
        function: Some(function.to_owned()),
        module: Some("/srv/server".to_owned()),
        file: Some("/src/cache.c".to_owned()),
        line: Some(line),
        ..Frame::default()
    };
    let stripped = Frame {
        module: Some("/usr/lib/libz.so.1".to_owned()),
        offset: Some("0x1230".to_owned()),
        address: "0x7f0000001230".to_owned(),
        reason: Some("no symbol".to_owned()),
        ..Frame::default()
    };
    event(1, Kind::Alloc, |e| {
        heap(e, "malloc", 24, 0x55d0_c0de_12a0);
        e.stack = Some(Stack {
            complete: false,
            frames: vec![frame("cache_insert", 12), stripped, frame("main", 80)].into(),
        });
    })
}

// A line of each kind: columns line up, failures say so, 80 columns hold the usual ones.
#[test]
fn text_golden() {
    let lines = text(&all(), false);
    insta::assert_snapshot!(lines);
    let wide = lines
        .lines()
        .filter(|line| line.chars().count() > 80)
        .count();
    // Beside a column of thread ids neither a gap's advice nor some calls with two addresses fit.
    assert!(wide <= 5, "{lines}");
}

// The schema as it is documented.
#[test]
fn json_golden() {
    let mut lines = all();
    lines.push(with_stack());
    insta::assert_snapshot!(json(&lines));
}

// A stack stands below its event, innermost first, and says when it is not whole.
#[test]
fn stack_golden() {
    insta::assert_snapshot!(text(&[with_stack()], false));
}

// Every object is one line that a parser takes, with the fields that every one has.
#[test]
fn objects_parse() {
    let mut count = 0;
    for line in json(&all()).lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["schema"], SCHEMA);
        let time: Timestamp = value["time"].as_str().unwrap().parse().unwrap();
        assert!(time >= at(0));
        assert!(value["kind"].is_string());
        count += 1;
    }
    assert_eq!(count, all().len() + 1);
}

// The reference tells every field and kind there is.
#[test]
fn the_reference_is_complete() {
    let page =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/events.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut lines = all();
    lines.push(with_stack());
    lines.push(event(1, Kind::Fork, |e| {
        e.child_pid = Some(1);
        e.shares_memory = true;
    }));
    for line in json(&lines).lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let kind = value["kind"].as_str().unwrap();
        for name in value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .chain([kind])
        {
            assert!(
                page.contains(&format!("`{name}`")),
                "`{name}` is not in events.md"
            );
        }
    }
}

// A thread's name may hold anything: no line break, no escape sequence, no change of direction gets out.
#[test]
fn hostile_names() {
    for name in [
        "a\nb",
        "\u{1b}[31mred",
        "x\u{202e}y",
        "\r",
        "",
        "日本語日本語日",
        "\u{0}",
    ] {
        let mut hostile = Event::new(at(0), Kind::Alloc, [PID, PID], name.to_owned());
        heap(&mut hostile, name, 1, 16);
        let lines = [Line::Event(hostile)];
        let text = text(&lines, false);
        assert_eq!(text.matches('\n').count(), 1, "{name:?}");
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{name:?}"
        );
        assert!(!text.contains('\u{202e}'));
        let object = json(&lines);
        assert_eq!(object.lines().count(), 2, "{name:?}");
        let value: serde_json::Value =
            serde_json::from_str(object.lines().next().unwrap()).unwrap();
        assert_eq!(value["comm"], name);
    }
}

// Without colours there is not one escape; with them the text is the same.
#[test]
fn colors_only_color() {
    let mut lines = all();
    lines.push(with_stack());
    let plain = text(&lines, false);
    let colored = text(&lines, true);
    assert!(!plain.contains('\u{1b}') && colored.contains('\u{1b}'));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
}

// Errors by name, other results as success; an unknown error keeps its number.
#[test]
fn results() {
    let of = |result: i64| Outcome::of_result(result.cast_unsigned());
    assert_eq!(of(0), Outcome::Done);
    assert_eq!(of(-12).name(), "ENOMEM");
    assert_eq!(of(-4095), Outcome::Refused(4095));
    assert_eq!(of(-4096), Outcome::Done);
    let line = event(0, Kind::Munmap, |e| e.result = Some(of(-200)));
    assert!(text(&[line], false).ends_with(" = error 200\n"));
}
