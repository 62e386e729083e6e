//! What this machine can do, what is missing and how to mend it: schema `memtrace.doctor/1`.
//!
//! Model and text; [`super::json`] prints it as JSON. The probing is done elsewhere.

use serde::Serialize;

use super::human;
use super::layout::{Page, Piece, clean, piece, plain, shorten_middle, style, width};
use super::text::TextOptions;

/// Name and version of the JSON schema.
pub const SCHEMA: &str = "memtrace.doctor/1";

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Doctor {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// memtrace's version.
    pub tool_version: &'static str,
    /// Host name.
    pub host: String,
    /// In the order they were made.
    pub checks: Vec<Check>,
    /// Where probes would go in the processes asked about.
    pub placements: Vec<PlacementRow>,
    /// What a hit costs here, measured.
    pub costs: Vec<CostRow>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// memtrace works, with less; or something is worth knowing.
    Warn,
    /// memtrace does not work.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A word or two: `kernel`, `privileges`, `BTF`.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do, when there is something to do.
    pub remedy: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// Worth knowing.
    pub fn warn(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            ..Self::ok(name, found)
        }
    }

    /// memtrace does not work.
    pub fn fail(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::ok(name, found)
        }
    }

    /// The same with what to do.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Where the probe of one function would go.
#[derive(Clone, Debug, Serialize)]
pub struct PlacementRow {
    /// The process.
    pub pid: u32,
    /// Object as the process sees it.
    pub object: String,
    /// glibc, musl, jemalloc, …
    pub family: String,
    /// Function; several names of one address joined by `=`.
    pub function: String,
    /// Offset of the probe in the function.
    pub offset: u64,
    /// The instruction there.
    pub instruction: String,
    /// True when the kernel emulates it; false: it single-steps, which is dearer.
    pub emulated: bool,
    /// Why there.
    pub reason: String,
}

/// What one kind of hit costs on this kernel.
#[derive(Clone, Debug, Serialize)]
pub struct CostRow {
    /// `entry probe`, `entry and return probe`, `single-stepped entry probe`, …
    pub kind: String,
    /// Nanoseconds a hit.
    pub nanoseconds: f64,
}

impl Doctor {
    /// The worst status; [`Status::Ok`] when nothing was checked.
    #[must_use]
    pub fn worst(&self) -> Status {
        self.checks
            .iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Ok)
    }
}

/// Renders it as text.
#[must_use]
pub fn render(doctor: &Doctor, options: TextOptions) -> String {
    let mut page = Page::new(options.width, options.color);
    summary(&mut page, doctor);
    page.gap();
    let names = doctor
        .checks
        .iter()
        .map(|check| width(&clean(&check.name)))
        .max()
        .unwrap_or(0);
    for check in &doctor.checks {
        write_check(&mut page, check, names);
    }
    placements(&mut page, doctor, options.verbose);
    costs(&mut page, doctor);
    page.finish()
}

fn summary(page: &mut Page, doctor: &Doctor) {
    let count = |status| {
        doctor
            .checks
            .iter()
            .filter(|check| check.status == status)
            .count() as u64
    };
    let (failed, warned) = (count(Status::Fail), count(Status::Warn));
    let warnings = human::counted(warned, "warning", "warnings");
    let answer = match (failed, warned) {
        (0, 0) => piece(style::GOOD, "memtrace can trace here."),
        (0, _) => piece(
            style::GOOD,
            format!("memtrace can trace here, with {warnings}."),
        ),
        _ => {
            let problems = human::counted(failed, "problem", "problems");
            piece(
                style::BAD,
                format!("memtrace cannot trace here: {problems}."),
            )
        }
    };
    page.prose(0, &[answer]);
}

fn write_check(page: &mut Page, check: &Check, names: usize) {
    let mark = match check.status {
        Status::Ok => piece(style::GOOD, "ok  "),
        Status::Warn => piece(style::WARN, "warn"),
        Status::Fail => piece(style::BAD, "FAIL"),
    };
    let hang = 6 + names.min(20) + 2;
    let pad = hang.saturating_sub(6 + width(&clean(&check.name))).max(1);
    let name = piece(style::BOLD, &check.name);
    page.prose(
        hang,
        &[
            mark,
            plain("  "),
            name,
            plain(" ".repeat(pad)),
            plain(&check.found),
        ],
    );
    if let Some(remedy) = &check.remedy {
        let look = if check.status == Status::Ok {
            style::DIM
        } else {
            style::PLAIN
        };
        page.prose(
            hang + 2,
            &[plain(" ".repeat(hang)), piece(look, format!("→ {remedy}"))],
        );
    }
}

fn placements(page: &mut Page, doctor: &Doctor, verbose: bool) {
    let mut object: Option<(u32, &str)> = None;
    let longest = |text: fn(&PlacementRow) -> String| {
        doctor
            .placements
            .iter()
            .map(|row| width(&text(row)))
            .max()
            .unwrap_or(0)
    };
    let (names, codes) = (
        longest(place),
        longest(|row| clean(&row.instruction).into_owned()),
    );
    for row in &doctor.placements {
        if object != Some((row.pid, &row.object)) {
            object = Some((row.pid, &row.object));
            page.gap();
            let title = format!(
                "Probes in pid {}: {} in {}",
                row.pid, row.family, row.object
            );
            page.prose(2, &[piece(style::BOLD, title)]);
        }
        placement(page, row, (names, codes), verbose);
    }
}

/// `free+0x9`.
fn place(row: &PlacementRow) -> String {
    match row.offset {
        0 => clean(&row.function).into_owned(),
        offset => format!("{}+{offset:#x}", clean(&row.function)),
    }
}

fn placement(page: &mut Page, row: &PlacementRow, (names, codes): (usize, usize), verbose: bool) {
    let (how, look) = if row.emulated {
        ("emulated", style::GOOD)
    } else {
        ("single-stepped", style::WARN)
    };
    // Indent and gaps, and the longest `how`.
    let room = page.width().saturating_sub(2 + 2 + 2 + 14);
    let names = names.min(room * 3 / 5);
    let codes = codes.min(room - names);
    let place = place(row);
    let column = |text: &str, columns: usize| -> Piece {
        let short = shorten_middle(text, columns).into_owned();
        let pad = columns.saturating_sub(width(&short));
        plain(format!("  {short}{}", " ".repeat(pad)))
    };
    page.line(&[
        column(&place, names),
        column(&clean(&row.instruction), codes),
        plain("  "),
        piece(look, how),
    ]);
    if (verbose || !row.emulated) && !row.reason.is_empty() {
        page.prose(6, &[plain("    "), piece(style::DIM, &row.reason)]);
    }
}

fn costs(page: &mut Page, doctor: &Doctor) {
    if doctor.costs.is_empty() {
        return;
    }
    page.gap();
    page.prose(
        2,
        &[piece(style::BOLD, "Cost of a hit on this kernel, measured")],
    );
    let kinds = doctor
        .costs
        .iter()
        .map(|row| width(&clean(&row.kind)))
        .max()
        .unwrap_or(0);
    for row in &doctor.costs {
        let pad = kinds.saturating_sub(width(&clean(&row.kind)));
        let kind = format!("{}{}", clean(&row.kind), " ".repeat(pad));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates"
        )]
        let cost = human::count(row.nanoseconds.round() as u64);
        page.prose(4, &[plain(format!("  {kind}  {cost:>6} ns"))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json;

    fn check(name: &str, status: Status, found: &str, remedy: Option<&str>) -> Check {
        Check {
            name: name.to_owned(),
            status,
            found: found.to_owned(),
            remedy: remedy.map(str::to_owned),
        }
    }

    fn row(function: &str, offset: u64, instruction: &str, emulated: bool) -> PlacementRow {
        PlacementRow {
            pid: 1234,
            object: "/usr/lib/x86_64-linux-gnu/libc.so.6".to_owned(),
            family: "glibc".to_owned(),
            function: function.to_owned(),
            offset,
            instruction: instruction.to_owned(),
            emulated,
            reason: match emulated {
                true => "first emulated instruction".to_owned(),
                false => "no emulated instruction before rdi changes".to_owned(),
            },
        }
    }

    fn example() -> Doctor {
        Doctor {
            schema: SCHEMA,
            tool_version: "0.1.0",
            host: "web-1".to_owned(),
            checks: vec![
                check(
                    "kernel",
                    Status::Ok,
                    "6.18.5 x86_64: uprobes, ring buffer",
                    None,
                ),
                check("privileges", Status::Ok, "root", None),
                check(
                    "seccomp",
                    Status::Warn,
                    "this kernel's return probes are a system call that a strict filter can kill a process for",
                    Some("memtrace probes the ret instructions instead in such processes"),
                ),
                check(
                    "BTF",
                    Status::Fail,
                    "/sys/kernel/btf/vmlinux is not there",
                    Some("boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
                ),
            ],
            placements: vec![
                row("malloc=__libc_malloc", 0, "push r12", true),
                row("free=cfree", 9, "je 0x9a7d0", true),
                row("calloc", 0, "mov rax, rdi", false),
            ],
            costs: vec![
                CostRow {
                    kind: "entry probe, emulated".to_owned(),
                    nanoseconds: 555.0,
                },
                CostRow {
                    kind: "entry probe, single-stepped".to_owned(),
                    nanoseconds: 10_200.0,
                },
            ],
        }
    }

    // The usual widths, and with every reason.
    #[test]
    fn golden() {
        for width in [40, 80] {
            let options = TextOptions {
                width,
                ..TextOptions::default()
            };
            insta::assert_snapshot!(format!("doctor_{width}"), render(&example(), options));
        }
        let options = TextOptions {
            verbose: true,
            color: true,
            ..TextOptions::default()
        };
        insta::assert_snapshot!("doctor_verbose_color", render(&example(), options));
    }

    // The JSON schema.
    #[test]
    fn json_golden() {
        let mut out = Vec::new();
        json::pretty(&example(), &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    // The answer follows the worst check.
    #[test]
    fn worst_check_decides() {
        let mut doctor = example();
        assert_eq!(doctor.worst(), Status::Fail);
        doctor.checks.pop();
        assert_eq!(doctor.worst(), Status::Warn);
        let text = render(&doctor, TextOptions::default());
        assert!(
            text.starts_with("memtrace can trace here, with 1 warning.\n"),
            "{text}"
        );
        doctor.checks.clear();
        assert_eq!(doctor.worst(), Status::Ok);
    }

    // What a target can name is escaped.
    #[test]
    fn hostile_names() {
        let mut doctor = example();
        doctor.placements[0].function = "x\x1b[2J\ny".to_owned();
        doctor.placements[0].object = "/tmp/\x07\n".to_owned();
        let text = render(&doctor, TextOptions::default());
        assert!(!text.contains(['\x1b', '\x07']), "{text}");
    }
}
