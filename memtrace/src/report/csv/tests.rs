use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::report::{
    fixtures,
    profile::{Moment, Series, UsagePoint, arbitrary},
};

/// Reads RFC 4180, as another program would.
fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    assert!(!quoted && row.is_empty() && field.is_empty());
    rows
}

fn by_name(text: &str) -> Vec<BTreeMap<String, String>> {
    let rows = rows(text);
    let header = rows[0].clone();
    let body = rows.into_iter().skip(1);
    body.map(|row| {
        assert_eq!(row.len(), header.len(), "{row:?}");
        header.iter().cloned().zip(row).collect()
    })
    .collect()
}

fn series() -> Series {
    let point = |at, bytes| UsagePoint {
        at,
        outstanding_bytes: bytes,
        rss_bytes: Some(bytes * 2),
        usage_bytes: None,
        limit_bytes: None,
    };
    let moment = |at, bytes| Moment {
        at,
        outstanding_bytes: bytes,
        outstanding_objects: None,
    };
    Series {
        usage: BTreeMap::from([(1234, vec![point(10.0, 1000), point(30.5, 36_861_018)])]),
        stacks: vec![vec![moment(10.0, 900), moment(30.5, 35_756_442)]],
        ..Series::default()
    }
}

// Rows of one moment.
#[test]
fn golden() {
    let profile = Profile::new(&fixtures::leak(), Series::default());
    insta::assert_snapshot!(render(&profile, true).replace("\r\n", "\n"));
}

// Rows of all moments, oldest first, the last with every figure and only once.
#[test]
fn golden_series() {
    let profile = Profile::new(&fixtures::leak(), series());
    let text = render(&profile, true);
    assert_eq!(text.matches("35756442").count(), 1);
    insta::assert_snapshot!(text.replace("\r\n", "\n"));
}

// The header comes once.
#[test]
fn continues_without_header() {
    let profile = Profile::new(&fixtures::leak(), Series::default());
    let more = render(&profile, false);
    assert_eq!(render(&profile, true), format!("{HEADER}{more}"));
}

// A name is no formula in a spreadsheet.
#[test]
fn formulas() {
    assert_eq!(text("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
    assert_eq!(text(" @x"), "\"' @x\"");
    assert_eq!(text("a\"b"), "\"a\"\"b\"");
    assert_eq!(text("plain"), "plain");
    assert_eq!(text("a\nb"), "a\\nb");
}

proptest! {
    // Whatever the names, a row is a line of as many fields, and the stacks add up.
    #[test]
    fn sums(profile in arbitrary::profile()) {
        let text = render(&profile, true);
        let rows = by_name(&text);
        prop_assert_eq!(text.matches("\r\n").count(), rows.len() + 1);
        let sum = |column: &str| -> u64 {
            let kinds = ["stack", "not-shown"];
            let rows = rows.iter().filter(|row| row["summed"] == "yes" && kinds.contains(&row["row"].as_str()));
            rows.filter_map(|row| row[column].parse::<u64>().ok()).sum()
        };
        prop_assert_eq!(sum("outstanding_bytes"), profile.outstanding_bytes());
        let objects: u64 = profile.summed().map(|s| s.outstanding_objects).sum();
        prop_assert_eq!(sum("outstanding_objects"), objects + profile.not_shown.outstanding_objects);
        let allocated: u64 = profile.summed().map(|s| s.allocated_bytes).sum();
        prop_assert_eq!(sum("allocated_bytes"), allocated);
    }
}
