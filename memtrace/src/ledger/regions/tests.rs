//! The interval map against an array of pages.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;
const PAGES: u64 = 96;
/// Where the heap of `brk` begins and how far it can go.
const HEAP: u64 = 72;

fn made(owner: u64, at_ns: u64) -> Made {
    Made {
        owner: Some(Fingerprint(owner)),
        allocator: false,
        backing: Backing::Anonymous,
        accessible: true,
        unreserved: false,
        stack: false,
        entered_ns: at_ns,
        at_ns,
    }
}

/// One page of the model: who, of what kind, accessible.
type Page = Option<(u64, bool, bool)>;

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, bool, bool),
    Unmap(u64, u64),
    Move(u64, u64, u64, u64),
    Brk(u64),
    Protect(u64, u64, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..60_u64;
    let length = 1..12_u64;
    let step = prop_oneof![
        (at.clone(), length.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(a, l, r, f)| Step::Map(a, l, r, f)),
        (at.clone(), length.clone()).prop_map(|(a, l)| Step::Unmap(a, l)),
        (at.clone(), length.clone(), at.clone(), length.clone())
            .prop_map(|(a, l, b, m)| Step::Move(a, l, b, m)),
        (HEAP..PAGES).prop_map(Step::Brk),
        (at, length, any::<bool>()).prop_map(|(a, l, p)| Step::Protect(a, l, p)),
    ];
    proptest::collection::vec(step, 0..60)
}

/// What the kernel would do, page by page.
fn model(pages: &mut [Page], step: &Step, who: u64, brk: &mut u64) {
    let range = |from: u64, length: u64| from as usize..(from + length) as usize;
    match *step {
        Step::Map(at, length, accessible, file) => {
            pages[range(at, length)].fill(Some((who, accessible, file)));
        }
        Step::Unmap(at, length) => pages[range(at, length)].fill(None),
        Step::Move(old, old_length, new, new_length) => {
            let taken: Vec<_> = pages[range(old, old_length)].to_vec();
            let last = *taken.last().expect("at least one page");
            pages[range(old, old_length)].fill(None);
            pages[range(new, new_length)].fill(None);
            for at in 0..new_length {
                pages[(new + at) as usize] = if at < old_length {
                    taken[at as usize]
                } else {
                    let (_, accessible, file) = last.unwrap_or((who, true, false));
                    Some((who, accessible, file))
                };
            }
        }
        Step::Brk(end) => {
            if end > *brk {
                pages[range(*brk, end - *brk)].fill(Some((who, true, false)));
            } else {
                pages[range(end, *brk - end)].fill(None);
            }
            *brk = end;
        }
        Step::Protect(at, length, accessible) => {
            for page in pages[range(at, length)].iter_mut().flatten() {
                if page.1 != accessible {
                    *page = (if accessible { who } else { page.0 }, accessible, page.2);
                }
            }
        }
    }
}

/// An `mremap` that the kernel would refuse: the ranges overlap without being in place.
fn is_possible(step: &Step) -> bool {
    match *step {
        Step::Move(old, old_length, new, new_length) => {
            old == new || old + old_length <= new || new + new_length <= old
        }
        _ => true,
    }
}

fn change(step: &Step, who: u64, now: u64) -> Change {
    let at = |page: u64| page * PAGE;
    let made = made(who, now);
    match *step {
        Step::Map(start, length, accessible, file) => Change::Map {
            start: at(start),
            // Lengths need not be whole pages.
            end: at(start + length) - 100,
            made: Made {
                accessible,
                backing: if file {
                    Backing::File
                } else {
                    Backing::Anonymous
                },
                ..made
            },
        },
        Step::Unmap(start, length) => Change::Unmap {
            start: at(start),
            end: at(start + length) - 1,
            entered_ns: now,
            at_ns: now,
        },
        Step::Move(old, old_length, new, new_length) => Change::Move {
            old: at(old),
            old_end: at(old + old_length),
            new: at(new),
            new_end: at(new + new_length),
            keeps_old: false,
            made,
            entered_ns: now,
        },
        Step::Brk(end) => Change::Brk {
            asked: at(end) - 7,
            end: at(end) - 7,
            made,
        },
        Step::Protect(start, length, accessible) => Change::Protect {
            start: at(start),
            end: at(start + length),
            accessible,
            made,
        },
    }
}

fn kind(accessible: bool, file: bool) -> RegionKind {
    match (accessible, file) {
        (false, _) => RegionKind::Reservation,
        (true, true) => RegionKind::File,
        (true, false) => RegionKind::Anonymous,
    }
}

proptest! {
    /// Whatever is mapped, cut, moved and protected: every page has the owner and kind that an
    /// array of pages says, and every owner the bytes.
    #[test]
    fn like_an_array_of_pages(steps in steps()) {
        let mut pages = vec![None; PAGES as usize];
        let mut brk = HEAP;
        let mut regions = Regions::new(PAGE);
        regions.begin(0, Some(HEAP * PAGE), []);
        for (number, step) in steps.iter().filter(|step| is_possible(step)).enumerate() {
            let who = 1 + number as u64 % 7;
            model(&mut pages, step, who, &mut brk);
            regions.apply(&change(step, who, 1 + number as u64));
            let mut bytes: HashMap<RegionKey, u64> = HashMap::new();
            for (at, page) in pages.iter().enumerate() {
                let region = regions.at(at as u64 * PAGE).map(|p| p.value);
                let seen = region.map(|r| (r.owner.map_or(0, |o| o.0), r.kind()));
                let expected = page.map(|(who, accessible, file)| (who, kind(accessible, file)));
                prop_assert_eq!(seen, expected, "page {} after {:?}", at, step);
                if let Some((who, kind)) = expected {
                    *bytes.entry((Fingerprint(who), kind)).or_default() += PAGE;
                }
            }
            for (key, totals) in regions.totals() {
                let expected = bytes.remove(&key).unwrap_or(0);
                prop_assert_eq!(totals.outstanding_bytes(), expected, "{:?}", key);
                prop_assert_eq!(totals.outstanding_objects_q16() == 0, expected == 0);
            }
            prop_assert!(bytes.is_empty());
        }
    }

    /// No numbers of a call make it panic.
    #[test]
    fn hostile(calls in proptest::collection::vec((0_u32..8, any::<[u64; 5]>(), any::<u64>(), any::<u64>()), 0..40)) {
        let mut regions = Regions::new(PAGE);
        for (call, arguments, result, time_ns) in calls {
            let event = memtrace_common::RegionEvent {
                header: memtrace_common::EventHeader {
                    kind: 6, tgid: 1, tid: 1, pad: 0, space: 1, time_ns,
                },
                entered_ns: time_ns / 2,
                context: 1,
                result,
                arguments,
                call,
                flags: 0,
            };
            if let Some(change) = Change::of(&event) {
                regions.apply(&change);
            }
        }
    }
}

fn outstanding(regions: &Regions, owner: u64) -> (u64, u64) {
    let mine = regions
        .totals()
        .filter(|((who, _), _)| *who == Fingerprint(owner));
    mine.fold((0, 0), |(bytes, objects), (_, totals)| {
        (
            bytes + totals.outstanding_bytes(),
            objects + totals.outstanding_objects_q16() / ONE_OBJECT,
        )
    })
}

/// A hole in a mapping leaves two pieces of one object; it is gone with the last of them.
#[test]
fn a_hole_is_no_object() {
    let mut regions = Regions::new(PAGE);
    let step = |s: &Step, now| change(s, 1, now);
    regions.apply(&step(&Step::Map(0, 10, true, false), 1));
    regions.apply(&step(&Step::Unmap(4, 2), 2));
    assert_eq!(outstanding(&regions, 1), (8 * PAGE, 1));
    regions.apply(&step(&Step::Unmap(0, 4), 3));
    regions.apply(&step(&Step::Unmap(6, 4), 4));
    assert_eq!(outstanding(&regions, 1), (0, 0));
}

/// An unmapping that is told late does not take what another thread mapped there meanwhile.
#[test]
fn a_late_unmapping_spares_what_came_after() {
    let mut regions = Regions::new(PAGE);
    regions.apply(&change(&Step::Map(0, 10, true, false), 1, 10));
    // Entered at 20, the addresses were given out again at 25, told at 30.
    regions.apply(&change(&Step::Map(0, 10, true, false), 2, 25));
    regions.apply(&Change::Unmap {
        start: 0,
        end: 10 * PAGE,
        entered_ns: 20,
        at_ns: 30,
    });
    assert_eq!(outstanding(&regions, 1), (0, 0));
    assert_eq!(outstanding(&regions, 2), (10 * PAGE, 1));
}

/// `brk(0)`, and one that fails, change nothing (R19).
#[test]
fn brk_that_only_asks() {
    let mut regions = Regions::new(PAGE);
    let brk = |asked, end, now| Change::Brk {
        asked,
        end,
        made: made(1, now),
    };
    // Where the heap ends is learnt from the first answer.
    regions.apply(&brk(0, 100 * PAGE, 1));
    assert_eq!(outstanding(&regions, 1), (0, 0));
    regions.apply(&brk(110 * PAGE, 110 * PAGE, 2));
    regions.apply(&brk(0, 110 * PAGE, 3));
    regions.apply(&brk(u64::MAX / 4, 110 * PAGE, 4));
    assert_eq!(outstanding(&regions, 1), (10 * PAGE, 1));
    regions.apply(&brk(104 * PAGE, 104 * PAGE, 5));
    assert_eq!(outstanding(&regions, 1), (4 * PAGE, 1));
}

/// What lived before the attach is nobody's; a reservation of then that is made usable is the one's
/// who did that (R21).
#[test]
fn before_the_line() {
    let mut regions = Regions::new(PAGE);
    regions.begin(5, None, [(0, 20 * PAGE, Backing::Anonymous, false)]);
    regions.apply(&change(&Step::Map(30, 10, true, false), 1, 4));
    assert_eq!(outstanding(&regions, 1), (0, 0), "it is in what was read");
    regions.apply(&change(&Step::Protect(0, 5, true), 2, 6));
    assert_eq!(outstanding(&regions, 2), (5 * PAGE, 1));
    regions.apply(&change(&Step::Unmap(0, 20), 3, 7));
    assert_eq!(outstanding(&regions, 2), (0, 0));
}

/// With too many regions neighbours are joined: bytes stay exact.
#[test]
fn joined_regions_keep_their_bytes() {
    let mut regions = Regions::new(PAGE);
    let count = MAX_REGIONS as u64 + 10;
    for at in 0..count {
        regions.apply(&Change::Map {
            start: at * PAGE,
            end: (at + 1) * PAGE,
            made: made(1, at + 1),
        });
    }
    assert!(regions.iter().count() < 20);
    assert_eq!(outstanding(&regions, 1).0, count * PAGE);
    let joined = RegionsDropped {
        joins: 1,
        ..RegionsDropped::default()
    };
    assert_eq!(regions.dropped(), joined);
    regions.apply(&Change::Unmap {
        start: 0,
        end: count * PAGE,
        entered_ns: count + 2,
        at_ns: count + 2,
    });
    assert_eq!(outstanding(&regions, 1), (0, 0));
}

/// Neighbours of two call paths cannot be joined: above the cap what is mapped is missing and counted,
/// to the byte, and few looks at all pieces were needed to find that out.
#[test]
fn what_finds_no_room_is_counted() {
    let mut regions = Regions::new(PAGE);
    let count = 2 * MAX_REGIONS as u64 + 10;
    for at in 0..count {
        regions.apply(&Change::Map {
            start: at * PAGE,
            end: (at + 1) * PAGE,
            made: made(1 + at % 2, at + 1),
        });
    }
    let held = outstanding(&regions, 1).0 + outstanding(&regions, 2).0;
    assert_eq!(regions.dropped().bytes, 10 * PAGE);
    assert_eq!(held + regions.dropped().bytes, count * PAGE);
    assert!(regions.dropped().joins <= 10, "{:?}", regions.dropped());
}

/// Regions of more call paths than are kept stand under none, and are counted.
#[test]
fn call_paths_without_room_are_counted() {
    let mut regions = Regions::new(PAGE);
    let count = MAX_KEYS as u64 + 5;
    for at in 0..count {
        regions.apply(&Change::Map {
            start: 2 * at * PAGE,
            end: (2 * at + 1) * PAGE,
            made: made(1 + at, at + 1),
        });
    }
    assert_eq!(regions.dropped().paths, 5);
    assert_eq!(outstanding(&regions, 0), (5 * PAGE, 5));
    assert_eq!(regions.dropped().bytes, 0);
}

/// A forked process begins with its parent's mappings, nobody's: what it unmaps of them frees
/// nothing, what its `brk` adds is its own, and the parent keeps its account (R13).
#[test]
fn a_fork_begins_with_nothing_of_its_own() {
    let mut parent = Regions::new(PAGE);
    parent.begin(0, Some(100 * PAGE), []);
    parent.apply(&change(&Step::Map(0, 10, true, false), 1, 10));
    let mut child = parent.forked();
    assert_eq!(child.totals().count(), 0);
    child.apply(&change(&Step::Unmap(0, 10), 2, 20));
    child.apply(&Change::Brk {
        asked: 103 * PAGE,
        end: 103 * PAGE,
        made: made(2, 30),
    });
    assert_eq!(outstanding(&child, 1), (0, 0));
    assert_eq!(outstanding(&child, 2), (3 * PAGE, 1));
    assert_eq!(outstanding(&parent, 1), (10 * PAGE, 1));
}
