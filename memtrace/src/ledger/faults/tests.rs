//! Pages against an array of them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;
const PAGES: usize = 48;
/// A step of the clock that is kept.
const TICK: u64 = 1 << STEP_BITS;

#[derive(Clone, Debug)]
enum Step {
    Touch(usize, u64, bool, bool),
    Drop(usize, usize),
    Move(usize, usize, usize),
    Check(Vec<bool>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..PAGES, 1..5_u64, any::<bool>(), any::<bool>())
            .prop_map(|(at, who, present, write)| Step::Touch(at, who, present, write)),
        1 => (0..PAGES - 8, 1..8_usize).prop_map(|(at, n)| Step::Drop(at, n)),
        1 => (0..16_usize, 1..8_usize, 24..40_usize).prop_map(|(a, n, b)| Step::Move(a, n, b)),
        1 => proptest::collection::vec(any::<bool>(), PAGES).prop_map(Step::Check),
    ];
    proptest::collection::vec(step, 0..80)
}

/// Owner, and whether it was only read.
type Cell = Option<(u64, bool)>;

fn model(cells: &mut [Cell], gone: &mut Cell, step: &Step) {
    match step {
        Step::Touch(at, who, present, write) => {
            if !(*present && cells[*at].is_some_and(|(_, read)| !read)) {
                cells[*at] = Some((*who, !write));
            }
        }
        Step::Drop(at, count) => cells[*at..at + count].fill(None),
        Step::Move(old, count, new) => {
            let moved: Vec<_> = cells[*old..old + count].to_vec();
            cells[*old..old + count].fill(None);
            cells[*new..new + count].copy_from_slice(&moved);
        }
        Step::Check(resident) => {
            let late = (0..PAGES)
                .filter(|at| cells[*at].is_some() && !resident[*at])
                .map(|at| cells[at]);
            let late = late.flatten().next();
            for at in 0..PAGES {
                if !resident[at] {
                    cells[at] = None;
                }
            }
            // All of it is one block: a page without an owner gets the one before, else behind.
            for at in 0..PAGES {
                if resident[at] && cells[at].is_none() {
                    let before = cells[..at].iter().rev().flatten().next();
                    let after = cells[at..].iter().flatten().next();
                    let who = before
                        .or(after)
                        .copied()
                        .or(*gone)
                        .map_or(0, |(who, _)| who);
                    cells[at] = Some((who, false));
                }
            }
            *gone = late;
        }
    }
}

fn runs(resident: &[bool]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (at, _) in resident.iter().enumerate().filter(|(_, there)| **there) {
        let start = at as u64 * PAGE;
        match runs.last_mut() {
            Some(last) if last.1 == start => last.1 += PAGE,
            _ => runs.push((start, start + PAGE)),
        }
    }
    runs
}

proptest! {
    /// Whatever is touched, dropped, moved and found resident: every owner has the bytes that an array
    /// of pages says.
    #[test]
    fn like_an_array_of_pages(steps in steps()) {
        let mut cells = vec![None; PAGES];
        let mut faults = Faults::new(PAGE);
        let mut gone = None;
        for (number, step) in steps.iter().enumerate() {
            let now = (10 + number as u64) * TICK;
            model(&mut cells, &mut gone, step);
            match step {
                Step::Touch(at, who, present, write) => {
                    let address = *at as u64 * PAGE + 123;
                    faults.touch(address, Fingerprint(*who), *present, *write, now);
                }
                Step::Drop(at, count) => {
                    faults.drop_pages(*at as u64 * PAGE, (at + count) as u64 * PAGE, now);
                }
                Step::Move(old, count, new) => {
                    faults.relocate(*old as u64 * PAGE, *count as u64 * PAGE, *new as u64 * PAGE, now);
                }
                Step::Check(resident) => faults.check(&runs(resident), now),
            }
            let mut bytes: HashMap<u64, u64> = HashMap::new();
            for (who, _) in cells.iter().flatten() {
                *bytes.entry(*who).or_default() += PAGE;
            }
            for (owner, totals) in faults.totals() {
                let expected = bytes.remove(&owner.0).unwrap_or(0);
                prop_assert_eq!(totals.outstanding_bytes(), expected, "{:?} after {:?}", owner, step);
                prop_assert_eq!(totals.outstanding_objects_q16() / ONE_OBJECT, expected / PAGE);
            }
            prop_assert!(bytes.is_empty(), "{:?}", bytes);
        }
    }
}

fn outstanding(faults: &Faults, owner: u64) -> u64 {
    let found = faults.totals().find(|(who, _)| *who == Fingerprint(owner));
    found.map_or(0, |(_, totals)| totals.outstanding_bytes())
}

/// One fault brings a huge page: all of it is its owner's, and said to be inferred.
#[test]
fn a_huge_page_is_whole() {
    let mut faults = Faults::new(PAGE);
    faults.touch(BLOCK + 5 * PAGE, Fingerprint(1), false, true, TICK);
    faults.check(&[(BLOCK, 2 * BLOCK)], 5 * TICK);
    assert_eq!(outstanding(&faults, 1), BLOCK);
    assert_eq!(faults.inferred_bytes(), BLOCK - PAGE);
    // Another block is not its.
    faults.check(
        &[(BLOCK, 2 * BLOCK), (4 * BLOCK, 4 * BLOCK + PAGE)],
        6 * TICK,
    );
    assert_eq!(outstanding(&faults, 0), PAGE);
}

/// What was resident at the attach stays nobody's, also where it is copied after a fork; given back
/// and touched again it has an owner (R21).
#[test]
fn before_the_line() {
    let mut faults = Faults::new(PAGE);
    faults.begin(&[(0, 10 * PAGE)]);
    faults.touch(PAGE, Fingerprint(1), true, true, TICK);
    assert_eq!(outstanding(&faults, 1), 0);
    faults.drop_pages(0, 2 * PAGE, 2 * TICK);
    faults.touch(PAGE, Fingerprint(1), false, true, 3 * TICK);
    faults.check(&[(PAGE, 10 * PAGE)], 9 * TICK);
    assert_eq!(outstanding(&faults, 1), PAGE);
    assert_eq!(faults.bytes_from_before(), 8 * PAGE);
}

/// A fault is told before its page is there: one that was on its way when the kernel was asked keeps
/// its owner (a huge page takes a millisecond to be zeroed).
#[test]
fn a_page_on_its_way() {
    let mut faults = Faults::new(PAGE);
    faults.touch(BLOCK, Fingerprint(1), false, true, TICK);
    faults.check(&[], 4 * TICK);
    assert_eq!(outstanding(&faults, 1), 0);
    faults.check(&[(BLOCK, 2 * BLOCK)], 8 * TICK);
    assert_eq!(outstanding(&faults, 1), BLOCK);
}

/// A page touched after the kernel was asked what is resident is not taken for gone.
#[test]
fn touched_while_asking() {
    let mut faults = Faults::new(PAGE);
    faults.touch(0, Fingerprint(1), false, true, 5 * TICK);
    faults.check(&[], 4 * TICK);
    assert_eq!(outstanding(&faults, 1), PAGE);
    faults.check(&[], 6 * TICK);
    assert_eq!(outstanding(&faults, 1), 0);
}

/// A forked process begins with its parent's pages, nobody's: the copy that a write makes changes no
/// owner, a page that only the child touches is its own (R13).
#[test]
fn a_fork_begins_with_nothing_of_its_own() {
    let mut parent = Faults::new(PAGE);
    parent.touch(PAGE, Fingerprint(1), false, true, TICK);
    let mut child = parent.forked();
    child.touch(PAGE, Fingerprint(2), true, true, 2 * TICK);
    child.touch(9 * PAGE, Fingerprint(2), false, true, 3 * TICK);
    child.check(&[(PAGE, 2 * PAGE), (9 * PAGE, 10 * PAGE)], 9 * TICK);
    assert_eq!(outstanding(&child, 1), 0);
    assert_eq!(outstanding(&child, 2), PAGE);
    assert_eq!(child.bytes_from_before(), PAGE);
    assert_eq!(outstanding(&parent, 1), PAGE);
}

/// Pages of two call paths in turns cannot be joined: above the cap they are missing and counted, to the
/// byte and once, however often the kernel is asked.
#[test]
fn what_finds_no_room_is_counted() {
    let mut faults = Faults::new(PAGE);
    let count = 2 * MAX_PIECES as u64 + 10;
    for at in 0..count {
        faults.touch(at * PAGE, Fingerprint(1 + at % 2), false, true, TICK);
    }
    let held = |faults: &Faults| -> u64 {
        let totals = faults.totals();
        totals.map(|(_, totals)| totals.outstanding_bytes()).sum()
    };
    assert_eq!(faults.dropped().bytes, 10 * PAGE);
    assert_eq!(held(&faults) + 10 * PAGE, count * PAGE);
    assert!(faults.dropped().joins <= 10, "{:?}", faults.dropped());
    for round in 2..4 {
        faults.check(&[(0, count * PAGE)], round * TICK);
        assert_eq!(faults.dropped().bytes, 10 * PAGE);
        assert_eq!(held(&faults) + 10 * PAGE, count * PAGE);
    }
}

/// Pages of more call paths than are kept stand under none, and are counted.
#[test]
fn call_paths_without_room_are_counted() {
    let mut faults = Faults::new(PAGE);
    let count = MAX_OWNERS as u64 + 5;
    for at in 0..count {
        faults.touch(2 * at * PAGE, Fingerprint(1 + at), false, true, TICK);
    }
    assert_eq!(faults.dropped().paths, 5);
    let nobody = faults.totals().find(|(owner, _)| *owner == Fingerprint(0));
    assert_eq!(nobody.unwrap().1.outstanding_bytes(), 5 * PAGE);
}
