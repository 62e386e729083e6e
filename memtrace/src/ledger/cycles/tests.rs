//! Marks against a naive model: a list of readings, cut at the marks.

use proptest::prelude::*;

use super::*;

const THRESHOLDS: [u8; 3] = [50, 75, 100];

/// One report: its reading, the names it was given, what stacks hold.
#[derive(Clone, Debug)]
struct Report {
    outstanding: u64,
    rss: Option<u64>,
    used: Option<Used>,
    names: Vec<&'static str>,
    stacks: [u64; 3],
}

fn report() -> impl Strategy<Value = Report> {
    let names = proptest::sample::subsequence(vec!["a", "b", "c", "a"], 0..3);
    let used = (0..200_u64, 1..100_u64).prop_map(|(bytes, limit)| Used { bytes, limit });
    (
        0..50_u64,
        proptest::option::of(0..50_u64),
        proptest::option::of(used),
        prop_oneof![2 => Just(Vec::new()), 1 => names],
        [0..3_u64, 0..3_u64, 0..3_u64],
    )
        .prop_map(|(outstanding, rss, used, names, stacks)| Report {
            outstanding,
            rss,
            used,
            names,
            stacks,
        })
}

fn held(report: &Report) -> Vec<(usize, u64)> {
    report.stacks.iter().copied().enumerate().collect()
}

/// The session, and what a recording of it would be read back as.
fn marked(reports: &[Report]) -> (Marked<usize>, Marked<usize>) {
    let (mut live, mut read) = (Marked::default(), Marked::default());
    live.track = Track::new(&THRESHOLDS);
    let mut columns = Vec::new();
    let mut kept = BTreeMap::new();
    for (at, report) in reports.iter().enumerate() {
        let reading = Reading {
            outstanding: report.outstanding,
            rss: report.rss,
            used: report.used,
        };
        live.track.read(at as f64, &reading);
        if !report.names.is_empty() {
            let names = report.names.iter().map(|name| (*name).to_owned()).collect();
            let number = live.track.mark(names, "", at as f64, &reading);
            live.columns.push(number, &held(report));
            columns.push((number, held(report)));
        }
        for segment in live.track.latest() {
            kept.insert(segment.number, segment);
        }
    }
    read.track = Track::of(kept.into_values());
    for (number, held) in columns.iter().rev() {
        let held = held.iter().filter(|(_, bytes)| *bytes > 0).copied();
        assert!(read.columns.push_older(*number, held.collect()));
    }
    (live, read)
}

/// Where cycles begin: the name, and the places of its reports.
fn begins(reports: &[Report]) -> (Option<&'static str>, Vec<usize>) {
    let mut order: Vec<&str> = Vec::new();
    for name in reports.iter().flat_map(|report| &report.names) {
        if !order.contains(name) {
            order.push(name);
        }
    }
    let places = |name: &str| -> Vec<usize> {
        let all = reports.iter().enumerate();
        all.filter(|(_, r)| r.names.contains(&name))
            .map(|(at, _)| at)
            .collect()
    };
    let mut best: Option<&'static str> = None;
    for name in order {
        let name = ["a", "b", "c"]
            .into_iter()
            .find(|one| *one == name)
            .unwrap();
        if places(name).len() > best.map_or(1, |best| places(best).len()) {
            best = Some(name);
        }
    }
    match best {
        Some(name) => (Some(name), places(name)),
        None => {
            let all = reports.iter().enumerate();
            let marked = all.filter(|(_, r)| !r.names.is_empty()).map(|(at, _)| at);
            (None, marked.collect())
        }
    }
}

/// First, last, least, most, mean, count of what is known of one amount from report `from` to `to`.
fn model(values: &[Option<u64>], from: usize, to: usize) -> Option<(u64, u64, u64, u64, u64, u32)> {
    let after: Vec<u64> = values[from + 1..=to].iter().flatten().copied().collect();
    let first = values[from].or(after.first().copied())?;
    let count = after.len() as u64;
    Some((
        first,
        after.last().copied().unwrap_or(first),
        after.iter().copied().min().unwrap_or(first),
        after.iter().copied().max().unwrap_or(first),
        after
            .iter()
            .sum::<u64>()
            .checked_div(count)
            .unwrap_or(first),
        count as u32,
    ))
}

fn figures(range: &Range) -> (u64, u64, u64, u64, u64, u32) {
    let Range {
        first,
        last,
        minimum,
        maximum,
        readings,
        ..
    } = *range;
    (first, last, minimum, maximum, range.average(), readings)
}

proptest! {
    /// Every figure of every cycle is what cutting the list of reports at the marks gives; a
    /// recording's are the same.
    #[test]
    fn as_the_model(reports in proptest::collection::vec(report(), 1..25)) {
        let (live, read) = marked(&reports);
        let now = held(&reports[reports.len() - 1]);
        let look = live.look(&now, &[0, 1, 2]);
        prop_assert_eq!(&look, &read.look(&now, &[0, 1, 2]));
        let (name, begins) = begins(&reports);
        let last = reports.len() - 1;
        let mut ends: Vec<(usize, usize)> = begins.windows(2).map(|two| (two[0], two[1])).collect();
        let over = ends.len();
        ends.extend(begins.last().filter(|begin| **begin < last).map(|begin| (*begin, last)));
        let Some(look) = look else {
            prop_assert!(ends.is_empty());
            return Ok(());
        };
        prop_assert_eq!(look.name.as_deref(), name);
        prop_assert_eq!((look.completed, look.over(), look.listed.len()), (over, over, ends.len()));
        let outstanding: Vec<_> = reports.iter().map(|r| Some(r.outstanding)).collect();
        let rss: Vec<_> = reports.iter().map(|r| r.rss).collect();
        let usage: Vec<_> = reports.iter().map(|r| r.used.map(|used| used.bytes)).collect();
        let reaches = |(from, to): (usize, usize), percent: u64| {
            let mut used = reports[from + 1..=to].iter().filter_map(|r| r.used);
            used.any(|used| used.bytes * 100 >= used.limit * percent)
        };
        for (cycle, (from, to)) in look.listed.iter().zip(&ends) {
            let segment = &cycle.segment;
            prop_assert_eq!((segment.from_seconds, segment.to_seconds), (*from as f64, *to as f64));
            prop_assert_eq!(Some(figures(&segment.outstanding)), model(&outstanding, *from, *to));
            prop_assert_eq!(segment.rss.as_ref().map(figures), model(&rss, *from, *to));
            prop_assert_eq!(segment.usage.as_ref().map(figures), model(&usage, *from, *to));
            for percent in THRESHOLDS {
                prop_assert_eq!(cycle.reached(percent), reaches((*from, *to), u64::from(percent)));
            }
        }
        let whole = begins.first().zip(begins.last()).filter(|_| over > 0);
        prop_assert_eq!(
            look.total.as_ref().map(|total| figures(&total.outstanding)),
            whole.and_then(|(from, to)| model(&outstanding, *from, *to))
        );
        for (percent, count) in &look.reached {
            let cycles = ends[..over].iter().filter(|cycle| reaches(**cycle, u64::from(*percent)));
            prop_assert_eq!(cycles.count(), *count);
        }
        for stack in 0..3 {
            let gained: Vec<i64> = ends
                .iter()
                .map(|(from, to)| reports[*to].stacks[stack] as i64 - reports[*from].stacks[stack] as i64)
                .collect();
            prop_assert_eq!(&look.growth[&stack], &gained);
            let grew = over >= NEEDED && gained[..over].iter().sum::<i64>() > 0;
            prop_assert_eq!(look.candidates.contains(&stack), grew);
        }
    }
}

fn reading(outstanding: u64) -> Reading {
    Reading {
        outstanding,
        ..Reading::default()
    }
}

/// A session that is marked ten thousand times keeps the latest stretches, and of each the right figures.
#[test]
fn bounded() {
    let mut marked = Marked::<u32>::default();
    for at in 0..10_000_u32 {
        let reading = reading(u64::from(at));
        marked.track.read(f64::from(at), &reading);
        let number = marked
            .track
            .mark(vec!["x".into()], "", f64::from(at), &reading);
        marked.columns.push(number, &[(1, u64::from(at)), (2, 0)]);
    }
    let look = marked.look(&[(1, 10_000)], &[]).unwrap();
    assert_eq!(
        (look.completed, look.listed.len()),
        (MAX_SEGMENTS - 1, MAX_LISTED)
    );
    assert_eq!(look.earlier, MAX_SEGMENTS - 1 - MAX_LISTED);
    let total = look.total.unwrap();
    assert_eq!(total.outstanding.growth(), MAX_SEGMENTS as i64 - 1);
    assert_eq!(look.growth[&1], vec![1; MAX_LISTED]);
    assert_eq!(look.candidates, [1]);
    assert_eq!(look.reached, []);
}

/// The largest numbers a file can claim do no harm.
#[test]
fn extremes() {
    let most = reading(u64::MAX);
    let mut track = Track::default();
    track.mark(vec![String::new()], "", 0.0, &most);
    track.read(1.0, &most);
    track.read(2.0, &most);
    track.read(3.0, &reading(0));
    let cycles = track.cycles();
    assert_eq!(cycles[0].segment.outstanding.growth(), -i64::MAX);
    assert_eq!(cycles[0].segment.outstanding.average(), u64::MAX / 3);
    let full = Used {
        bytes: u64::MAX,
        limit: u64::MAX,
    };
    let none = Used { bytes: 1, limit: 0 };
    assert!(full.reaches(100) && !none.reaches(1));
}
