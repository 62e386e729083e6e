//! The ledger's rules, one by one.

mod model;

use super::*;
use crate::id::Fingerprint;

const ROOMY: LedgerOptions = LedgerOptions {
    history_points: 64,
    max_stacks: 1000,
    max_contexts: 1000,
    max_spaces: 100,
};

fn totals(allocated: u64, freed: u64) -> Totals {
    Totals {
        allocated_bytes: allocated,
        freed_bytes: freed,
        allocated_objects_q16: allocated << 4,
        freed_objects_q16: freed << 4,
    }
}

fn row(space: u64, stack: u32, allocated: u64, freed: u64) -> Row {
    Row {
        space: SpaceId(space),
        stack: StackId(stack),
        context: None,
        totals: totals(allocated, freed),
        survivors: None,
    }
}

fn of_context(context: u64, row: Row) -> Row {
    Row {
        context: Some(Fingerprint(context)),
        ..row
    }
}

fn survivors(oldest_seconds: f64, bytes: u64) -> Option<Survivors> {
    let (matching_bytes, matching_objects_q16) = (bytes, bytes << 4);
    Some(Survivors {
        oldest_seconds,
        old_bytes: bytes,
        matching_bytes,
        matching_objects_q16,
    })
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn outstanding(ledger: &Ledger, space: u64, stack: u32) -> Option<u64> {
    ledger
        .stack(SpaceId(space), StackId(stack))
        .map(|a| a.totals().outstanding_bytes())
}

fn order(ledger: &Ledger, rank: Rank) -> Vec<u32> {
    ledger.stacks(rank).iter().map(|s| s.stack.0).collect()
}

/// Rows of one stack that the caller merged already are added up when they come twice.
#[test]
fn rows_of_one_report_merge() {
    let mut ledger = Ledger::new(ROOMY);
    ledger.observe(
        seconds(1),
        [row(1, 1, 100, 10), row(1, 1, 50, 0), row(1, 2, 7, 0)],
    );
    assert_eq!(outstanding(&ledger, 1, 1), Some(140));
    assert_eq!(ledger.spaces()[0].account.totals(), totals(157, 10));
}

/// A row that is missing keeps its figures, and its history goes on level.
#[test]
fn a_vanished_row_stays() {
    let mut ledger = Ledger::new(ROOMY);
    ledger.observe(seconds(1), [row(1, 1, 100, 0), row(1, 2, 5, 0)]);
    ledger.observe(seconds(2), [row(1, 2, 6, 0)]);
    let account = ledger
        .stack(SpaceId(1), StackId(1))
        .cloned()
        .unwrap_or_else(|| Account::new(0, seconds(0), None));
    assert_eq!(
        account.points(),
        [
            Point {
                at: 1.0,
                bytes: 100
            },
            Point {
                at: 2.0,
                bytes: 100
            }
        ]
    );
    assert_eq!(
        (account.first_seen(), account.last_seen()),
        (seconds(1), seconds(1))
    );
    assert_eq!(account.last_interval(), Totals::default());
    assert_eq!(account.last_interval_length(), seconds(1));
}

/// A stack that appears in a process seen before begins with nothing at the report before.
#[test]
fn a_new_stack_begins_at_zero() {
    let mut ledger = Ledger::new(ROOMY);
    ledger.observe(seconds(1), [row(1, 1, 100, 0)]);
    ledger.observe(seconds(2), [row(1, 2, 30, 10)]);
    let points = ledger.stack(SpaceId(1), StackId(2)).map(Account::points);
    assert_eq!(
        points,
        Some(vec![
            Point { at: 1.0, bytes: 0 },
            Point { at: 2.0, bytes: 20 }
        ])
    );
}

/// A context under a provisional stack takes its history with it when its stack becomes known.
#[test]
fn a_late_name_keeps_the_history() {
    let mut ledger = Ledger::new(ROOMY);
    ledger.observe(seconds(1), [of_context(9, row(1, 0, 10, 0))]);
    ledger.observe(seconds(2), [of_context(9, row(1, 5, 30, 0))]);
    assert_eq!(order(&ledger, Rank::Outstanding), [5]);
    let points = ledger.stack(SpaceId(1), StackId(5)).map(Account::points);
    assert_eq!(
        points,
        Some(vec![
            Point { at: 1.0, bytes: 10 },
            Point { at: 2.0, bytes: 30 }
        ])
    );
}

/// Stacks with nothing outstanding go first, the longest unchanged of them before others; the
/// process's sums keep their bytes, and a stack that moves again comes back whole.
#[test]
fn the_cap_drops_freed_stacks_first() {
    let mut ledger = Ledger::new(LedgerOptions {
        max_stacks: 3,
        ..ROOMY
    });
    ledger.observe(seconds(1), [row(1, 1, 5, 5), row(1, 2, 9, 0)]);
    ledger.observe(seconds(2), [row(1, 3, 6, 6), row(1, 4, 1, 0)]);
    assert_eq!(order(&ledger, Rank::Outstanding), [2, 4, 3]);
    assert_eq!(
        ledger.dropped(),
        Dropped {
            stacks: 1,
            ..Dropped::default()
        }
    );
    assert_eq!(ledger.spaces()[0].account.totals(), totals(21, 11));
    ledger.observe(seconds(3), [row(1, 1, 105, 5)]);
    assert_eq!(order(&ledger, Rank::Outstanding), [1, 2, 4]);
    assert_eq!(
        ledger.stack(SpaceId(1), StackId(1)).map(Account::totals),
        Some(totals(105, 5))
    );
    ledger.observe(seconds(4), [row(1, 6, 3, 0)]);
    assert_eq!(order(&ledger, Rank::Outstanding), [1, 2, 6]);
    assert_eq!(ledger.dropped().stack_outstanding_bytes, 1);
    // A dropped stack in which nothing happens is not taken in and dropped again and again.
    ledger.observe(seconds(5), [row(1, 3, 6, 6), row(1, 4, 1, 0)]);
    assert_eq!(ledger.dropped().stacks, 3);
}

/// Contexts past the cap are counted; those the kernel evicted make room without losing bytes.
#[test]
fn contexts_are_capped() {
    let mut ledger = Ledger::new(LedgerOptions {
        max_contexts: 2,
        ..ROOMY
    });
    let rows = |from: u64| (from..from + 2).map(|c| of_context(c, row(1, 1, 10, 0)));
    ledger.observe(seconds(1), rows(0));
    ledger.observe(seconds(2), rows(10));
    assert_eq!(
        (outstanding(&ledger, 1, 1), ledger.dropped().rows),
        (Some(20), 2)
    );
    ledger.observe(seconds(3), rows(10));
    assert_eq!(
        (outstanding(&ledger, 1, 1), ledger.dropped().rows),
        (Some(40), 2)
    );
}

/// An ended process stands still with its last rows; its end is no point for others; it is the
/// first to go; forgetting leaves nothing.
#[test]
fn end_freezes_and_forget_removes() {
    let mut ledger = Ledger::new(LedgerOptions {
        max_spaces: 2,
        ..ROOMY
    });
    ledger.observe(seconds(1), [row(1, 1, 10, 0), row(2, 1, 20, 0)]);
    ledger.end(seconds(2), SpaceId(2), [row(2, 1, 25, 0), row(1, 1, 99, 0)]);
    ledger.observe(seconds(3), [row(1, 1, 12, 0), row(2, 1, 99, 0)]);
    let points = |space| {
        ledger
            .stack(SpaceId(space), StackId(1))
            .map(|a| a.points().len())
    };
    assert_eq!((points(1), points(2)), (Some(2), Some(2)));
    assert_eq!(
        (outstanding(&ledger, 1, 1), outstanding(&ledger, 2, 1)),
        (Some(12), Some(25))
    );
    assert_eq!(
        ledger.spaces().iter().map(|s| s.ended).collect::<Vec<_>>(),
        [false, true]
    );
    ledger.observe(seconds(4), [row(3, 1, 1, 0)]);
    assert_eq!(
        (outstanding(&ledger, 2, 1), ledger.dropped().spaces),
        (None, 1)
    );
    ledger.forget(SpaceId(1));
    ledger.forget(SpaceId(3));
    assert!(ledger.stacks.is_empty() && ledger.spaces.is_empty() && ledger.sources.len() == 0);
}

/// Survivors add up over the contexts of a walk; without a new walk they age, and shrink with
/// what is outstanding.
#[test]
fn survivors_are_carried_forward() {
    let mut ledger = Ledger::new(ROOMY);
    let with = |row: Row, found| Row {
        survivors: found,
        ..row
    };
    ledger.observe(
        seconds(1),
        [
            with(of_context(1, row(1, 1, 100, 0)), survivors(0.5, 60)),
            with(of_context(2, row(1, 1, 100, 0)), survivors(0.8, 30)),
        ],
    );
    let now = |ledger: &Ledger| {
        ledger
            .stack(SpaceId(1), StackId(1))
            .and_then(Account::survivors)
    };
    assert_eq!(now(&ledger), survivors(0.8, 90));
    assert_eq!(ledger.spaces()[0].account.survivors(), survivors(0.8, 90));
    ledger.observe(
        seconds(3),
        [
            of_context(1, row(1, 1, 100, 80)),
            of_context(2, row(1, 1, 100, 50)),
        ],
    );
    assert_eq!(now(&ledger), survivors(2.8, 70));
    ledger.observe(
        seconds(4),
        [
            of_context(1, row(1, 1, 100, 100)),
            of_context(2, row(1, 1, 100, 100)),
        ],
    );
    assert_eq!(now(&ledger), Some(Survivors::default()));
}

/// What appears after a report of nothing at all had nothing outstanding then: stack and space.
#[test]
fn first_rows_after_an_empty_report() {
    let mut ledger = Ledger::new(ROOMY);
    ledger.observe(seconds(1), []);
    ledger.observe(seconds(2), [row(1, 1, 700, 0)]);
    let bytes = |account: &Account| -> Vec<u64> {
        account.points().iter().map(|point| point.bytes).collect()
    };
    let stack = ledger.stack(SpaceId(1), StackId(1));
    assert_eq!(stack.map(bytes), Some(vec![0, 700]));
    assert_eq!(bytes(ledger.spaces()[0].account), [0, 700]);
}

/// By outstanding bytes, or by what was gained of late.
#[test]
fn ranks() {
    let mut ledger = Ledger::new(ROOMY);
    for at in 1..10 {
        ledger.observe(
            seconds(at),
            [
                row(1, 1, 5000, 0),
                row(1, 2, 100 * at, 0),
                row(1, 3, 5000, 90 * at),
            ],
        );
    }
    assert_eq!(order(&ledger, Rank::Outstanding), [1, 3, 2]);
    assert_eq!(order(&ledger, Rank::Growth), [2, 1, 3]);
    assert_eq!(
        ledger
            .stack(SpaceId(1), StackId(3))
            .map(Account::peak_bytes),
        Some(4910)
    );
    assert_eq!(ledger.snapshot(Rank::Growth).stacks.len(), 3);
}
