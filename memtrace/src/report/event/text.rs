//! Events for people: a line each, like strace's.

use std::fmt::Write as _;

use anstyle::Style;
use jiff::tz::TimeZone;

use super::{Address, Event, Kind, Line, Lost, Outcome, Stack, advice_name};
use crate::report::{
    culprit::{name, short_place},
    human,
    layout::{clean, style, width},
};

// The same numbers on x86-64 and aarch64.
const MAP_SHARED: u64 = 1;
const MAP_TYPE: u64 = 15;
const MAP_FIXED: u64 = 16;

/// Makes lines; remembers how wide the columns are.
#[derive(Clone, Debug)]
pub struct Lines {
    zone: TimeZone,
    color: bool,
    ids: usize,
    comms: usize,
}

impl Lines {
    /// Times are those of `zone`.
    #[must_use]
    pub fn new(zone: TimeZone, color: bool) -> Self {
        Self {
            zone,
            color,
            ids: 6,
            comms: 8,
        }
    }

    /// Appends a line, and one for each frame.
    pub fn write(&mut self, line: &Line, into: &mut String) {
        match line {
            Line::Event(event) => self.event(event, into),
            Line::Lost(lost) => self.lost(lost, into),
        }
    }

    fn event(&mut self, event: &Event, into: &mut String) {
        self.time(event.time, into);
        let ids = if event.pid == event.tid {
            event.pid.to_string()
        } else {
            format!("{}/{}", event.pid, event.tid)
        };
        let comm = clean(&event.comm);
        // Columns grow with what they have to hold and stay so: neighbours line up.
        self.ids = self.ids.max(ids.len());
        self.comms = self.comms.max(width(&comm));
        let gap = self.comms - width(&comm);
        let _ = write!(into, " {ids:<0$} {comm}{1:gap$} ", self.ids, "");
        let look = if event.result.is_some_and(Outcome::is_failure) || event.kind == Kind::OomKill {
            style::BAD
        } else {
            style::PLAIN
        };
        self.styled(look, into, |text| call(event, text));
        into.push('\n');
        if let Some(stack) = &event.stack {
            self.stack(stack, into);
        }
    }

    fn lost(&self, lost: &Lost, into: &mut String) {
        self.time(lost.time, into);
        let events = human::counted(lost.events, "event", "events");
        self.styled(style::BAD, into, |text| {
            let _ = write!(
                text,
                " {events} lost here: the ring buffer was full (--ring-bytes)"
            );
        });
        into.push('\n');
    }

    fn time(&self, time: jiff::Timestamp, into: &mut String) {
        let local = self.zone.to_datetime(time);
        let (hour, minute, second) = (local.hour(), local.minute(), local.second());
        let micros = local.subsec_nanosecond() / 1000;
        self.styled(style::DIM, into, |text| {
            let _ = write!(text, "{hour:02}:{minute:02}:{second:02}.{micros:06}");
        });
    }

    fn stack(&self, stack: &Stack, into: &mut String) {
        for frame in stack.frames.iter() {
            let function = name(frame);
            let _ = write!(into, "    {}", clean(&function));
            if let Some(place) = short_place(frame).filter(|place| *place != function) {
                into.push_str("  ");
                self.styled(style::DIM, into, |text| text.push_str(&clean(&place)));
            } else if let Some(reason) = &frame.reason {
                into.push_str("  ");
                self.styled(style::DIM, into, |text| {
                    let _ = write!(text, "({})", clean(reason));
                });
            }
            into.push('\n');
        }
        if !stack.complete {
            into.push_str("    …\n");
        }
    }

    fn styled(&self, look: Style, into: &mut String, write: impl FnOnce(&mut String)) {
        if !self.color || look == style::PLAIN {
            return write(into);
        }
        let _ = write!(into, "{look}");
        write(into);
        let _ = write!(into, "{look:#}");
    }
}

fn hex(address: Option<Address>) -> String {
    match address {
        Some(Address(address)) => format!("{address:#x}"),
        None => "NULL".to_owned(),
    }
}

/// The call itself. A failed write into a string does not exist.
fn call(event: &Event, text: &mut String) {
    let size = event.size.unwrap_or(0);
    let function = event.function.as_deref().map(clean);
    let function = function.as_deref().unwrap_or(event.kind.name());
    let address = hex(event.address);
    let _ = match event.kind {
        Kind::Alloc => write!(text, "{function}({size}) = {address}"),
        Kind::Realloc => {
            let old = hex(event.old_address);
            let _ = write!(text, "{function}({old}, {size}) = {address}");
            match event.result {
                Some(Outcome::Freed) => text.write_str(" (freed)"),
                _ => Ok(()),
            }
        }
        Kind::Free => freed(event, function, &address, text),
        Kind::Fork => {
            let child = event.child_pid.unwrap_or(0);
            let shares = if event.shares_memory { "vfork" } else { "fork" };
            write!(text, "{shares} = {child}")
        }
        Kind::Exec => write!(text, "exec"),
        Kind::Exit => write!(text, "exit"),
        Kind::OomKill => {
            let trigger = event.trigger_pid.unwrap_or(0);
            write!(text, "killed by the kernel, out of memory in pid {trigger}")
        }
        _ => mapped(event, size, &address, text),
    };
}

fn freed(event: &Event, function: &str, address: &str, text: &mut String) -> std::fmt::Result {
    write!(text, "{function}({address})")?;
    let (Some(size), Some(age)) = (event.size, event.age_seconds) else {
        return Ok(());
    };
    let bytes = if size == 1 { "byte" } else { "bytes" };
    write!(text, "  {size} {bytes} after ")?;
    // Most blocks do not live a millisecond.
    if age < 0.000_999_5 {
        write!(text, "{:.0} µs", age * 1e6)
    } else if age < 0.009_995 {
        write!(text, "{:.1} ms", age * 1e3)
    } else {
        text.write_str(&human::seconds(age))
    }
}

/// A system call that changes mappings.
fn mapped(event: &Event, size: u64, address: &str, text: &mut String) -> std::fmt::Result {
    let protection = event.protection.unwrap_or("---");
    match event.kind {
        Kind::Mmap => {
            let flags = event.flags.map_or(0, |Address(flags)| flags);
            let fixed = if flags & MAP_FIXED != 0 { " fixed" } else { "" };
            // Nearly all are private.
            let shared = if flags & MAP_TYPE == MAP_SHARED || flags & MAP_TYPE == 3 {
                " shared"
            } else {
                ""
            };
            write!(text, "mmap({size}, {protection}{shared}{fixed}")?;
            match event.fd {
                Some(fd) => write!(text, ", fd {fd})")?,
                None => write!(text, ")")?,
            }
        }
        Kind::Mremap => {
            let (old, old_size) = (hex(event.old_address), event.old_size.unwrap_or(0));
            write!(text, "mremap({old}, {old_size}, {size})")?;
        }
        Kind::Brk => write!(text, "brk({})", hex(event.old_address))?,
        Kind::Madvise => {
            let advice = event.advice.unwrap_or(0);
            match advice_name(advice) {
                Some(name) => {
                    let name = name.trim_start_matches("MADV_");
                    write!(text, "madvise({address}, {size}, {name})")?;
                }
                None => write!(text, "madvise({address}, {size}, {advice})")?,
            }
        }
        Kind::Mprotect => write!(text, "mprotect({address}, {size}, {protection})")?,
        _ => write!(text, "{}({address}, {size})", event.kind.name())?,
    }
    match (event.result, event.kind) {
        (Some(Outcome::Refused(_)), Kind::Brk) => write!(text, " = {address} refused")?,
        (Some(outcome @ Outcome::Refused(number)), _) => match outcome.name() {
            "error" => write!(text, " = error {number}")?,
            name => write!(text, " = {name}")?,
        },
        (_, Kind::Mmap | Kind::Mremap | Kind::Brk) => write!(text, " = {address}")?,
        _ => write!(text, " = 0")?,
    }
    if event.by_allocator {
        text.write_str(" [allocator]")?;
    }
    Ok(())
}
