//! Which stacks' bytes may be added up (R20). Pure.
//!
//! One page of memory can be seen by three probes: as a block of the heap, as part of a mapping, and
//! as a page that was touched. Each has its line; in a sum it counts once.

use super::model::{Report, Stack, Word};
use crate::ledger::regions::RegionKind;

/// Whether a stack of this probe and kind counts in sums of a session that traced `probes`: resident
/// pages are the same memory again wherever blocks or mappings are traced too, and what is no
/// memory in use never counts.
#[must_use]
pub fn is_summed(probes: &[Word], probe: &str, kind: Option<RegionKind>) -> bool {
    match probe {
        "fault" => probes.iter().all(|traced| *traced == "fault"),
        _ => !kind.is_some_and(RegionKind::is_apart),
    }
}

impl Report {
    /// Whether a stack's bytes may be added to those of others.
    #[must_use]
    pub fn is_summed(&self, stack: &Stack) -> bool {
        is_summed(&self.probes, stack.probe, stack.kind)
    }

    /// The stacks whose bytes may be added up.
    pub fn summed(&self) -> impl Iterator<Item = &Stack> {
        self.stacks.iter().filter(|stack| self.is_summed(stack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        csv, fixtures, folded, group,
        model::GroupBy,
        profile::{Profile, Series},
        speedscope,
    };

    /// One function's memory in every format that adds up: each byte once, and what is kept apart by
    /// its own name (R20).
    #[test]
    fn every_format() {
        let report = fixtures::three_probes();
        let profile = Profile::new(&report, Series::default());
        assert_eq!(profile.outstanding_bytes(), 1500);
        let folded = folded::render(&profile);
        let bytes = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        assert_eq!(folded.lines().filter_map(bytes).sum::<u64>(), 1500);
        let file: serde_json::Value =
            serde_json::from_slice(&speedscope::render(&profile).unwrap()).unwrap();
        let views = file["profiles"].as_array().unwrap().iter();
        let views: Vec<_> = views
            .map(|view| format!("{} {}", view["name"], view["endValue"]))
            .collect();
        let expected = [
            "\"outstanding bytes\" 1500",
            "\"outstanding objects\" 2",
            "\"allocated bytes\" 3500",
            "\"allocated objects\" 22",
            "\"resident bytes\" 1400",
            "\"reserved bytes\" 11000",
        ];
        assert_eq!(views, expected);
        let rows = csv::render(&profile, true);
        let stacks = rows.lines().skip(1).filter(|row| row.contains(",stack,"));
        let told: Vec<_> = stacks
            .filter_map(|row| {
                let before: Vec<_> = row.split(',').skip(9).take(2).collect();
                let after: Vec<_> = row.rsplit(',').take(2).collect();
                Some((before.join(" "), *after.get(1)?, *after.first()?))
            })
            .collect();
        let expected = [
            ("fault 1400", "", "no"),
            ("heap 1000", "", "yes"),
            ("region 500", "anonymous", "yes"),
            ("region 9000", "reservation", "no"),
            ("region 2000", "allocator", "no"),
        ];
        let expected = expected.map(|(what, kind, summed)| (what.to_owned(), kind, summed));
        assert_eq!(told, expected);
    }

    /// Groups sum the same way, and what is cut is not counted twice.
    #[test]
    fn groups() {
        let mut report = fixtures::three_probes();
        group::apply(&mut report, GroupBy::Function, Some(1));
        let sums: u64 = report.groups.iter().map(|g| g.outstanding_bytes).sum();
        assert_eq!((sums, report.stacks.len()), (1500, 1));
        assert_eq!(report.not_shown.outstanding_bytes, 1500);
        assert_eq!(group::outside_groups(&report).outstanding_bytes, 0);
    }

    /// Pages count where they are alone; addresses, an allocator's reserve and files never do.
    #[test]
    fn each_byte_once() {
        let all = ["heap", "region", "fault"];
        assert!(is_summed(&["fault"], "fault", None));
        assert!(!is_summed(&["heap", "fault"], "fault", None));
        assert!(!is_summed(&all, "fault", None));
        assert!(is_summed(&all, "heap", None));
        for kind in RegionKind::ALL {
            let in_use = matches!(kind, RegionKind::Anonymous | RegionKind::Shared);
            assert_eq!(is_summed(&all, "region", Some(kind)), in_use, "{kind:?}");
        }
    }
}
