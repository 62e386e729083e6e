//! The ledger and its histories against naive models.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::id::Fingerprint;

/// A kernel context in the naive model: every life's last reading, and where it stands.
#[derive(Clone, Debug, Default)]
struct Lives {
    stack: u32,
    readings: Vec<Totals>,
}

impl Lives {
    fn sum(&self) -> Totals {
        let mut sum = Totals::default();
        self.readings.iter().for_each(|r| sum += *r);
        sum
    }
}

/// What happens to one context between two reports.
#[derive(Clone, Debug)]
enum Step {
    /// Counts on and is read.
    Read { allocated: u64, freed: u64 },
    /// Counts on and is read in two rows.
    ReadTwice { allocated: u64, freed: u64 },
    /// Is not among the rows.
    Absent,
    /// Evicted; begins anew and is read.
    Reborn { allocated: u64 },
    /// Its stack becomes known.
    Moved { stack: u32 },
}

fn amounts() -> impl Strategy<Value = (u64, u64)> {
    (0..1000u64, 0..1000u64)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => amounts().prop_map(|(allocated, freed)| Step::Read { allocated, freed }),
        1 => amounts().prop_map(|(allocated, freed)| Step::ReadTwice { allocated, freed }),
        2 => Just(Step::Absent),
        1 => (0..50u64).prop_map(|allocated| Step::Reborn { allocated }),
        1 => (0..5u32).prop_map(|stack| Step::Moved { stack }),
    ]
}

/// The rows a step makes, booked in the model as well.
fn rows_of(step: &Step, space: u64, context: u64, lives: &mut Lives) -> Vec<Row> {
    let last = lives.readings.last().copied().unwrap_or_default();
    let (now, rows) = match *step {
        Step::Absent => return Vec::new(),
        Step::Moved { stack } => {
            lives.stack = stack;
            (last, 1)
        }
        Step::Reborn { allocated } => (totals(allocated, 0), 1),
        Step::Read { allocated, freed } | Step::ReadTwice { allocated, freed } => {
            let mut now = last;
            now += totals(allocated, freed);
            (
                now,
                if matches!(step, Step::Read { .. }) {
                    1
                } else {
                    2
                },
            )
        }
    };
    match lives.readings.last_mut() {
        Some(reading) if now.covers(*reading) => *reading = now,
        _ => lives.readings.push(now),
    }
    let whole = Row {
        totals: now,
        ..of_context(context, row(space, lives.stack, 0, 0))
    };
    let part = Row {
        totals: totals(now.allocated_bytes / 3, now.freed_bytes / 3),
        ..whole
    };
    let rest = Row {
        totals: now.saturating_sub(part.totals),
        ..whole
    };
    if rows == 1 {
        vec![whole]
    } else {
        vec![part, rest]
    }
}

/// Stack and space sums as the model has them.
fn model_sums(model: &[Lives]) -> (HashMap<(u64, u32), Totals>, HashMap<u64, Totals>) {
    let (mut stacks, mut spaces) = (HashMap::new(), HashMap::new());
    for (i, lives) in model
        .iter()
        .enumerate()
        .filter(|(_, l)| !l.readings.is_empty())
    {
        let space = i as u64 % 2;
        *stacks
            .entry((space, lives.stack))
            .or_insert_with(Totals::default) += lives.sum();
        *spaces.entry(space).or_insert_with(Totals::default) += lives.sum();
    }
    (stacks, spaces)
}

/// Every sum of the ledger is the model's, and there is none besides.
fn compare(ledger: &Ledger, model: &[Lives]) -> Result<(), TestCaseError> {
    let none = Totals::default();
    let (stacks, spaces) = model_sums(model);
    for (&(space, stack), sum) in stacks.iter().filter(|(_, sum)| **sum != none) {
        let account = ledger.stack(SpaceId(space), StackId(stack));
        prop_assert_eq!(account.map(Account::totals), Some(*sum));
    }
    for lent in ledger.stacks(Rank::Outstanding) {
        let known = stacks.contains_key(&(lent.space.0, lent.stack.0));
        prop_assert!(known || lent.account.totals() == none);
    }
    for lent in ledger.spaces() {
        prop_assert_eq!(Some(&lent.account.totals()), spaces.get(&lent.space.0));
    }
    Ok(())
}

proptest! {
    /// Six contexts in two spaces that count, vanish, begin anew, come in parts and change stacks:
    /// stacks and spaces hold exactly what a list of all readings adds up to.
    #[test]
    fn sums_match_a_naive_model(
        reports in prop::collection::vec(prop::array::uniform6(step()), 1..40)
    ) {
        let mut ledger = Ledger::new(ROOMY);
        let mut model: [Lives; 6] = Default::default();
        for (at, steps) in reports.iter().enumerate() {
            let mut rows = Vec::new();
            for (i, (step, lives)) in (0..).zip(steps.iter().zip(&mut model)) {
                rows.extend(rows_of(step, i % 2, i, lives));
            }
            ledger.observe(seconds(at as u64), rows);
            compare(&ledger, &model)?;
        }
    }
}

/// A row of anything.
fn hostile_row() -> impl Strategy<Value = Row> {
    let fields = (
        0..4u64,
        0..40u32,
        prop::option::of(0..60u64),
        any::<[u64; 4]>(),
    );
    fields.prop_map(|(space, stack, context, [a, b, c, d])| Row {
        context: context.map(Fingerprint),
        totals: Totals {
            allocated_bytes: a,
            freed_bytes: b,
            allocated_objects_q16: c,
            freed_objects_q16: d,
        },
        survivors: survivors(f64::NAN, a),
        ..row(space, stack, 0, 0)
    })
}

proptest! {
    /// Whatever counters come in, nothing overflows or panics, and the caps hold.
    #[test]
    fn hostile_rows_are_survived(
        reports in prop::collection::vec(prop::collection::vec(hostile_row(), 0..60), 1..12)
    ) {
        let (max_stacks, max_contexts, max_spaces) = (10, 20, 2);
        let options = LedgerOptions { history_points: 0, max_stacks, max_contexts, max_spaces };
        let mut ledger = Ledger::new(options);
        for (at, rows) in reports.into_iter().enumerate() {
            ledger.observe(seconds(at as u64 / 2), rows);
            prop_assert!(ledger.stacks(Rank::Growth).len() <= max_stacks);
            prop_assert!(ledger.spaces().len() <= max_spaces);
            prop_assert!(ledger.sources.len() <= max_contexts);
            for stack in ledger.stacks(Rank::Outstanding) {
                prop_assert!(stack.account.points().len() <= MIN_HISTORY_POINTS);
                let _ = stack.account.survivors();
            }
        }
    }

    /// A history keeps its cap, its order, both ends, every one of the last points, and covers
    /// the time before evenly.
    #[test]
    fn history_is_bounded_and_even(cap in 0..300usize, pushes in 1..5000u64) {
        let mut history = History::new(cap);
        for i in 0..pushes {
            history.push(Point { at: i as f64, bytes: i * 3 });
        }
        let cap = cap.max(MIN_HISTORY_POINTS);
        let points = history.points();
        prop_assert!(points.len() <= cap);
        prop_assert!(history.memory_bytes() <= cap * size_of::<Point>());
        prop_assert!(points.iter().all(|p| p.bytes as f64 == p.at * 3.0));
        prop_assert!(points.windows(2).all(|w| w[0].at < w[1].at));
        prop_assert_eq!(points[0].at, 0.0);
        let whole = (cap * 3 / 8).min(pushes as usize);
        let last: Vec<f64> = points.iter().rev().take(whole).map(|p| p.at).collect();
        prop_assert!(last.iter().enumerate().all(|(i, at)| *at == (pushes - 1 - i as u64) as f64));
        // Half of the past's room is used, and two neighbours are at most two strides apart.
        let widest = points.windows(2).map(|w| w[1].at - w[0].at).fold(0.0, f64::max);
        let stride = (pushes as f64 / (cap as f64 * 5.0 / 16.0)).max(1.0);
        prop_assert!(widest <= 2.0 * stride.ceil() + 2.0, "{widest} {stride}");
    }
}
