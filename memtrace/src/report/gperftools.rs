//! gperftools' heap profile with its symbols, for google-perftools' `pprof` (Debian: `google-pprof`), which reads
//! nothing newer: a table of names, the sums, and a line a stack with in-use and allocated objects and bytes.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::profile::{Profile, names};

/// Names have numbers in place of addresses, so far apart that none is taken for another's return address.
const STEP: usize = 16;

/// In use and allocated, objects and bytes of each.
type Values = [u64; 4];

/// The profile, as text. Tools add lines up, so what may not be added ([`super::sums`]) has none.
#[must_use]
pub fn render(profile: &Profile) -> String {
    let mut known = Names::default();
    let mut lines: Vec<(Values, Vec<usize>)> = Vec::with_capacity(profile.samples.len() + 1);
    for sample in profile.summed() {
        let values = [
            sample.outstanding_objects,
            sample.outstanding_bytes,
            sample.allocated_objects,
            sample.allocated_bytes,
        ];
        let path = names::path(profile, sample);
        // Innermost first.
        let stack = path.iter().rev().map(|name| known.number(name));
        lines.push((values, stack.collect()));
    }
    if let Some(rest) = names::not_shown(profile) {
        let hidden = &profile.not_shown;
        let values = [hidden.outstanding_objects, hidden.outstanding_bytes, 0, 0];
        lines.push((values, vec![known.number(&rest)]));
    }
    let sums = lines.iter().fold([0_u64; 4], |mut sums, (values, _)| {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
        sums
    });
    let mut out = format!("--- symbol\nbinary={}\n", names::title(profile));
    for (at, name) in known.all.iter().enumerate() {
        let _ = writeln!(out, "{:#018x} {name}", address(at));
    }
    // `heapprofile`: the figures are not to be scaled up.
    let _ = writeln!(out, "---\nheap profile: {} @ heapprofile", amounts(sums));
    for (values, stack) in lines {
        let _ = write!(out, "  {} @", amounts(values));
        for at in stack {
            let _ = write!(out, " {:#018x}", address(at));
        }
        out.push('\n');
    }
    out
}

fn amounts([objects, bytes, allocated, total]: Values) -> String {
    format!("{objects}: {bytes} [{allocated}: {total}]")
}

fn address(at: usize) -> usize {
    (at + 1) * STEP
}

/// Names, each once.
#[derive(Default)]
struct Names {
    all: Vec<String>,
    known: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        // `--` parts inlined functions there.
        let name = name.trim().replace("--", "-\u{2010}");
        let name = if name.is_empty() {
            "[unknown]".to_owned()
        } else {
            name
        };
        let next = self.all.len();
        *self.known.entry(name).or_insert_with_key(|name| {
            self.all.push(name.clone());
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{
        fixtures,
        profile::{Series, arbitrary},
    };

    // Names once, sums, a line a stack, the remainder.
    #[test]
    fn golden() {
        let profile = Profile::new(&fixtures::leak(), Series::default());
        insta::assert_snapshot!(render(&profile));
    }

    // Names made to break the format.
    #[test]
    fn golden_hostile() {
        let mut report = fixtures::hostile();
        report.stacks[1].frames[0].function = Some("operator--(a)\n---\nheap profile:".to_owned());
        report.stacks[1].frames[1].function = Some("----".to_owned());
        insta::assert_snapshot!(render(&Profile::new(&report, Series::default())));
    }

    proptest! {
        // Whatever the names: one line a name and a stack, each name known, and the lines add up to the head.
        #[test]
        fn sums(profile in arbitrary::profile()) {
            let text = render(&profile);
            let (symbols, heap) = text.split_once("\n---\n").unwrap();
            let known: Vec<&str> = symbols.lines().skip(2).collect();
            for line in &known {
                prop_assert!(line.starts_with("0x") && !line.contains("--"), "{line}");
            }
            let values = |line: &str| -> Vec<u64> {
                let (amounts, _) = line.split_once(" @").unwrap();
                let parts = amounts.split(|c: char| !c.is_ascii_digit());
                parts.filter_map(|part| part.parse().ok()).collect()
            };
            let mut lines = heap.lines();
            let head = values(lines.next().unwrap());
            prop_assert_eq!(head[1], profile.outstanding_bytes());
            let mut sums = vec![0; 4];
            for line in lines {
                sums.iter_mut().zip(values(line)).for_each(|(sum, value)| *sum += value);
                let (_, stack) = line.split_once(" @").unwrap();
                for at in stack.split_whitespace() {
                    prop_assert!(known.iter().any(|name| name.starts_with(at)), "{at}");
                }
            }
            prop_assert_eq!(sums, head);
        }
    }
}
