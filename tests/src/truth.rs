//! What a program says of itself, and the comparison with what memtrace says of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use crate::report::{Frame, Report, Stack};

/// What one program holds, by its own count.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Its pid; 0 when it could not ask.
    pub pid: u32,
    /// The functions that allocate.
    pub sites: Vec<Site>,
}

/// One function's account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Site {
    /// Its name in the symbol table.
    pub function: String,
    /// False when what it calls allocates by rules of its own: then nothing is compared.
    pub exact: bool,
    /// Bytes allocated and not freed.
    pub outstanding_bytes: i64,
    /// Objects allocated and not freed.
    pub outstanding_objects: i64,
    /// Bytes allocated in all.
    pub allocated_bytes: i64,
    /// Objects allocated in all.
    pub allocated_objects: i64,
}

/// Outstanding bytes and objects, allocated bytes and objects.
type Sums = [i64; 4];

impl Truth {
    /// Parses the line a program prints.
    #[track_caller]
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not a truth: {error}\n{line}"))
    }

    /// The site of this name.
    #[track_caller]
    pub fn site(&self, function: &str) -> &Site {
        self.sites
            .iter()
            .find(|site| site.function == function)
            .unwrap_or_else(|| panic!("no site {function}"))
    }

    /// Bytes and objects outstanding in all exact sites.
    pub fn outstanding(&self) -> (i64, i64) {
        self.sites.iter().fold((0, 0), |(bytes, objects), site| {
            (
                bytes + site.outstanding_bytes,
                objects + site.outstanding_objects,
            )
        })
    }
}

/// Panics unless the report says of this process what the program says: each site's outstanding and
/// allocated bytes and objects, nothing outstanding outside the sites, no losses.
///
/// A stack belongs to the innermost of its frames that is a site. Stacks that never passed through
/// `main` (the loader's and the C library's start) are not the program's and are left out.
#[track_caller]
pub fn assert_exact(report: &Report, truth: &Truth, pid: u32) {
    let mut wrong = String::new();
    let mut got: BTreeMap<&str, Sums> = BTreeMap::new();
    for stack in report.heap_stacks(pid) {
        match site_of(stack, truth) {
            Some(site) => add(got.entry(site).or_default(), stack),
            None if stack.outstanding_objects == 0 || is_startup(stack) => {}
            None => writeln!(wrong, "outside every site: {}", stack.describe()).unwrap(),
        }
    }
    for site in truth.sites.iter().filter(|site| site.exact) {
        let expected = [
            site.outstanding_bytes,
            site.outstanding_objects,
            site.allocated_bytes,
            site.allocated_objects,
        ];
        let got = got.get(site.function.as_str()).copied().unwrap_or_default();
        if got != expected {
            writeln!(
                wrong,
                "{}: [outstanding bytes, objects, allocated bytes, objects]\n  expected {expected:?}\n  got      {got:?}",
                site.function
            )
            .unwrap();
        }
    }
    if report.not_shown.stacks != 0 {
        writeln!(wrong, "stacks not shown: {:?}", report.not_shown).unwrap();
    }
    if report.losses.values().any(|&count| count != 0) {
        writeln!(wrong, "losses: {:?}", report.losses).unwrap();
    }
    if !wrong.is_empty() {
        for stack in report.heap_stacks(pid).take(40) {
            writeln!(wrong, "  {}", stack.describe()).unwrap();
        }
        panic!(
            "the report is not exact\n{wrong}notes: {:?}\ncoverage: {:?}",
            report.notes, report.coverage
        );
    }
}

/// Panics unless every stack of every exact site is whole and has a frame of this name.
#[track_caller]
pub fn assert_stacks_reach(report: &Report, truth: &Truth, pid: u32, outermost: &str) {
    for stack in report.heap_stacks(pid) {
        let Some(site) = site_of(stack, truth) else {
            continue;
        };
        assert!(
            stack.complete && stack.frames.iter().any(|frame| frame.name() == outermost),
            "{site}: the stack does not reach {outermost}: {}",
            stack.describe()
        );
    }
}

/// The stacks whose innermost site is this function.
pub fn site_stacks<'a>(report: &'a Report, truth: &'a Truth, function: &'a str) -> Vec<&'a Stack> {
    report
        .stacks
        .iter()
        .filter(|stack| site_of(stack, truth) == Some(function))
        .collect()
}

fn site_of<'a>(stack: &Stack, truth: &'a Truth) -> Option<&'a str> {
    stack.frames.iter().find_map(|frame| {
        truth
            .sites
            .iter()
            .map(|site| site.function.as_str())
            .find(|&function| frame.name() == function)
    })
}

/// The loader's own start has a name only where its symbols are installed.
fn is_startup(stack: &Stack) -> bool {
    let of_loader = |frame: &Frame| {
        let module = frame.module.as_deref().unwrap_or_default();
        frame.function.is_none() && module.contains("/ld-linux")
    };
    let is_start = |frame: &Frame| {
        matches!(
            frame.name(),
            "_start" | "_dl_start_user" | "__libc_start_main" | "call_init"
        )
    };
    stack.complete
        && (stack.frames.iter().any(is_start) || stack.frames.last().is_some_and(of_loader))
        && !stack.frames.iter().any(|frame| frame.name() == "main")
}

fn add(sums: &mut Sums, stack: &Stack) {
    let values = [
        stack.outstanding_bytes,
        stack.outstanding_objects,
        stack.allocated_bytes,
        stack.allocated_objects,
    ];
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += i64::try_from(value).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outstanding: u64, function: &str) -> Report {
        let text = format!(
            r#"{{"schema":"memtrace.report/1","duration_seconds":1.0,"overhead":{{}},"losses":{{}},"notes":{{}},
            "coverage":[],"processes":[],"stacks":[{{"pid":7,"probe":"heap","outstanding_bytes":{outstanding},
            "outstanding_objects":1,"allocated_bytes":10,"allocated_objects":1,"freed_bytes":0,"freed_objects":0,
            "growth_bytes_per_second":0.0,"verdict":"steady","confidence":1.0,"complete":true,
            "frames":[{{"function":"{function}(int)","module":null,"offset":null,"file":null,"line":null,"inlined":false,"reason":null}},
            {{"function":"main","module":null,"offset":null,"file":null,"line":null,"inlined":false,"reason":null}}]}}]}}"#
        );
        Report::parse(&text)
    }

    fn truth() -> Truth {
        Truth::parse(
            r#"{"pid":7,"sites":[{"function":"leak","exact":true,"outstanding_bytes":10,"outstanding_objects":1,"allocated_bytes":10,"allocated_objects":1}]}"#,
        )
    }

    /// The comparison passes on equal numbers.
    #[test]
    fn equal_is_exact() {
        assert_exact(&report(10, "leak"), &truth(), 7);
    }

    /// One byte too many fails it.
    #[test]
    #[should_panic(expected = "not exact")]
    fn a_byte_more_is_not() {
        assert_exact(&report(11, "leak"), &truth(), 7);
    }

    /// Bytes under a function that is no site fail it.
    #[test]
    #[should_panic(expected = "outside every site")]
    fn bytes_elsewhere_are_not() {
        assert_exact(&report(10, "other"), &truth(), 7);
    }
}
