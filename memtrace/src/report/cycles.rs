//! Cycles as reports have them: what a load test does again and again, between marks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::culprit;
use super::model::{Frame, Word, fixed};
use crate::ledger::cycles::{Cycle as Found, Look, NEEDED, Range, Segment};

/// Functions told that grow in every cycle.
const MAX_FUNCTIONS: usize = 20;

/// What happened between marks.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Cycles {
    /// The name of the marks that begin a cycle; null when every mark begins one.
    pub name: Option<String>,
    /// Cycles that are over.
    pub completed: usize,
    /// All of those as one; null when none is over.
    pub total: Option<Amounts>,
    /// How many of those reached each threshold; empty without a memory limit.
    pub thresholds: Vec<Reached>,
    /// How many cycles are before the first of `list`.
    pub earlier: usize,
    /// The latest cycles, the last one perhaps not over.
    pub list: Vec<Cycle>,
    /// Completed cycles from which on `growing_functions` is filled.
    pub needed: usize,
    /// Stacks that gained in the completed cycles listed.
    pub stacks_gaining: usize,
    /// Of those the ones that `growing_functions` is made of, which gained most. When they are fewer,
    /// functions may have gained more than is told, and others may have grown.
    pub stacks_looked_at: usize,
    /// Functions that hold more at the end of every completed cycle listed than at its beginning,
    /// those that gained most first.
    pub growing_functions: Vec<Grows>,
}

/// One cycle.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Cycle {
    /// 1 is the first that is known.
    pub number: usize,
    /// What the mark is called that begins it.
    pub from: String,
    /// What the mark is called that ends it; null while it is not over.
    pub to: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// The same in seconds since tracing began.
    pub from_seconds: f64,
    /// How much there was in it.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// Amounts over a stretch of time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Amounts {
    /// Its length.
    pub seconds: f64,
    /// Reports in it, that of the mark that ends it among them.
    pub readings: u32,
    /// Outstanding since the attach, of all processes.
    pub outstanding: Statistics,
    /// Resident, of the processes that run.
    pub rss: Option<Statistics>,
    /// What counts against the memory limit that is nearest, without files that are only cached.
    pub usage: Option<Statistics>,
    /// That limit, where it was nearest.
    pub limit_bytes: Option<u64>,
}

/// One amount over a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Statistics {
    /// Least of its readings.
    pub minimum_bytes: u64,
    /// Most of its readings.
    pub maximum_bytes: u64,
    /// Mean of its readings.
    pub average_bytes: u64,
    /// At the mark that begins it.
    pub first_bytes: u64,
    /// At its end.
    pub last_bytes: u64,
    /// The difference of these two.
    pub growth_bytes: i64,
}

/// A threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reached {
    /// In percent of the limit.
    pub percent: u8,
    /// Completed cycles in which usage reached it.
    pub cycles: usize,
}

/// A function that grows in every cycle.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Grows {
    /// Its name; null when unknown.
    pub function: Option<String>,
    /// The object it is in.
    pub module: Option<String>,
    /// Source file of one of its calls.
    pub file: Option<String>,
    /// Source line of that call.
    pub line: Option<u32>,
    /// heap, region or fault.
    #[serde(deserialize_with = "fixed")]
    pub probe: Word,
    /// Its stacks.
    pub stacks: usize,
    /// What it gained in all completed cycles listed.
    pub gained_bytes: i64,
    /// What it gained in each cycle listed, one that is not over among them.
    pub gained_per_cycle: Vec<i64>,
}

impl Grows {
    /// `session_new (session.c:43)`, not cleaned.
    #[must_use]
    pub fn title(&self) -> String {
        let frame = Frame {
            function: self.function.clone(),
            module: self.module.clone(),
            file: self.file.clone(),
            line: self.line,
            ..Frame::default()
        };
        let object = self.module.as_deref().map(culprit::file_name);
        let name = match (&self.function, object) {
            (Some(name), _) => name.clone(),
            (None, Some(object)) => format!("an unknown function of {object}"),
            (None, None) => "an unknown function".to_owned(),
        };
        match culprit::short_place(&frame) {
            Some(place) => format!("{name} ({place})"),
            None => name,
        }
    }
}

/// A stack that may be of such a function.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// What saw it.
    pub probe: Word,
    /// What it gained in each cycle listed.
    pub gained: Vec<i64>,
}

impl Cycles {
    /// As reports have it; `candidates` are the look's, with their names.
    #[must_use]
    pub fn new<K>(look: &Look<K>, candidates: &[Candidate]) -> Self {
        let numbered = look.listed.iter().zip(look.earlier + 1..);
        let reached = look.reached.iter();
        Self {
            name: look.name.clone(),
            completed: look.completed,
            total: look.total.as_ref().map(amounts),
            thresholds: reached
                .map(|(percent, cycles)| Reached {
                    percent: *percent,
                    cycles: *cycles,
                })
                .collect(),
            earlier: look.earlier,
            list: numbered
                .map(|(found, number)| cycle(found, number, look.name.as_deref()))
                .collect(),
            needed: NEEDED,
            stacks_gaining: look.gaining,
            stacks_looked_at: look.candidates.len(),
            growing_functions: growing(candidates, look.over()),
        }
    }

    /// Tells the functions that grow again, of the same candidates with other names.
    pub fn rename(&mut self, candidates: &[Candidate]) {
        let over = self.list.iter().filter(|cycle| cycle.to.is_some()).count();
        self.growing_functions = growing(candidates, over);
    }

    /// `at least ` when not every stack was looked at.
    #[must_use]
    pub fn at_least(&self) -> &'static str {
        if self.stacks_looked_at < self.stacks_gaining {
            "at least "
        } else {
            ""
        }
    }

    /// What marks begin a cycle, in words.
    #[must_use]
    pub fn marks(&self) -> String {
        match &self.name {
            Some(name) => format!("from \"{name}\" to \"{name}\""),
            None => "from mark to mark".to_owned(),
        }
    }
}

fn cycle(found: &Found, number: usize, name: Option<&str>) -> Cycle {
    let joined = |names: &[String]| name.map_or_else(|| names.join(", "), str::to_owned);
    let ended_by = found.ended_by.as_ref();
    Cycle {
        number,
        from: joined(&found.segment.names),
        to: ended_by.map(|(_, names)| joined(names)),
        started_at: found.segment.at.clone(),
        from_seconds: found.segment.from_seconds,
        amounts: amounts(&found.segment),
    }
}

fn amounts(segment: &Segment) -> Amounts {
    Amounts {
        seconds: segment.seconds(),
        readings: segment.outstanding.readings,
        outstanding: statistics(&segment.outstanding),
        rss: segment.rss.as_ref().map(statistics),
        usage: segment.usage.as_ref().map(statistics),
        limit_bytes: segment.nearest.map(|nearest| nearest.limit),
    }
}

fn statistics(range: &Range) -> Statistics {
    Statistics {
        minimum_bytes: range.minimum,
        maximum_bytes: range.maximum,
        average_bytes: range.average(),
        first_bytes: range.first,
        last_bytes: range.last,
        growth_bytes: range.growth(),
    }
}

/// The stacks summed by function; those that gained in each of the first `over` cycles.
fn growing(candidates: &[Candidate], over: usize) -> Vec<Grows> {
    if over < NEEDED {
        return Vec::new();
    }
    let mut functions: Vec<Grows> = Vec::new();
    let mut places: BTreeMap<(Word, Option<String>, Option<String>), usize> = BTreeMap::new();
    for candidate in candidates {
        let frame = culprit::culprit(&candidate.frames).and_then(|at| candidate.frames.get(at));
        let frame = frame.cloned().unwrap_or_default();
        // Without a name every place is one of its own.
        let name = frame.function.clone().or_else(|| frame.offset.clone());
        let key = (candidate.probe, name, frame.module.clone());
        let place = *places.entry(key).or_insert(functions.len());
        match functions.get_mut(place) {
            Some(known) => {
                known.stacks += 1;
                for (sum, gained) in known.gained_per_cycle.iter_mut().zip(&candidate.gained) {
                    *sum = sum.saturating_add(*gained);
                }
            }
            None => functions.push(Grows {
                function: frame.function,
                module: frame.module,
                file: frame.file,
                line: frame.line,
                probe: candidate.probe,
                stacks: 1,
                gained_bytes: 0,
                gained_per_cycle: candidate.gained.clone(),
            }),
        }
    }
    let in_every = |grows: &Grows| {
        let mut completed = grows.gained_per_cycle.iter().take(over);
        completed.all(|gained| *gained > 0)
    };
    functions.retain(in_every);
    for grows in &mut functions {
        let completed = grows.gained_per_cycle.iter().take(over);
        grows.gained_bytes = completed.fold(0, |sum, gained| sum.saturating_add(*gained));
    }
    functions.sort_by_key(|grows| std::cmp::Reverse(grows.gained_bytes));
    functions.truncate(MAX_FUNCTIONS);
    functions
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ledger::cycles::{Marked, Reading, Track, Used};
    use crate::report::fixtures;

    /// A program that was marked four times: one stack leaks, one filled once, one is a second
    /// caller of the leak.
    pub fn marked() -> (Marked<u32>, Vec<(u32, u64)>) {
        let mut marked = Marked {
            track: Track::new(&[50, 65, 75]),
            ..Marked::default()
        };
        let held = |at: u64| vec![(1, 1000 * at), (2, 50_000 * at.min(1)), (3, 10 * (at / 2))];
        for at in 0..5_u64 {
            let outstanding = held(at).iter().map(|(_, bytes)| bytes).sum();
            let reading = Reading {
                outstanding,
                rss: Some((8 << 20) + outstanding),
                used: Some(Used {
                    bytes: 40_000_000 + 3_000_000 * at,
                    limit: 64 << 20,
                }),
            };
            let seconds = at as f64 * 10.0;
            marked.track.read(seconds, &reading);
            if at < 4 {
                let taken_at = format!("2026-01-02T03:04:{at}5Z");
                let names = vec!["cycle".to_owned()];
                let number = marked.track.mark(names, &taken_at, seconds, &reading);
                marked.columns.push(number, &held(at));
            }
        }
        (marked, held(4))
    }

    /// The report's cycles of it.
    pub fn cycles() -> Cycles {
        let (marked, now) = marked();
        let look = marked.look(&now, &[]).unwrap();
        let frames = |name: &str| {
            vec![
                fixtures::malloc(),
                fixtures::frame(name, "/srv/server", Some(("/srv/a.c", 7))),
            ]
        };
        let candidates: Vec<_> = look
            .candidates
            .iter()
            .map(|stack| Candidate {
                frames: frames(if *stack == 2 {
                    "cache_page"
                } else {
                    "session_new"
                }),
                probe: "heap",
                gained: look.growth[stack].clone(),
            })
            .collect();
        Cycles::new(&look, &candidates)
    }

    // The leak is named with what it gained in each cycle, both callers in one; the cache that
    // filled once is not.
    #[test]
    fn names_the_leak() {
        let cycles = cycles();
        let [leak] = cycles.growing_functions.as_slice() else {
            panic!("{:?}", cycles.growing_functions);
        };
        assert_eq!(leak.title(), "session_new (a.c:7)");
        assert_eq!(leak.gained_per_cycle, [1000, 1010, 1000, 1010]);
        assert_eq!((leak.gained_bytes, leak.stacks), (3010, 2));
        assert_eq!((cycles.completed, cycles.list.len()), (3, 4));
        let open = cycles.list.last().unwrap();
        assert_eq!((open.number, open.to.as_deref()), (4, None));
        let total = cycles.total.unwrap();
        assert_eq!(total.outstanding.growth_bytes, 53_010);
        let reached: Vec<_> = cycles
            .thresholds
            .iter()
            .map(|r| (r.percent, r.cycles))
            .collect();
        // Usage was 64, 69 and 73% at the ends of the three.
        assert_eq!(reached, [(50, 3), (65, 2), (75, 0)]);
    }

    // With the same names it stays as it is; with better ones functions are told by those.
    #[test]
    fn renamed() {
        let (marked, now) = marked();
        let look = marked.look(&now, &[]).unwrap();
        let unnamed = |at: &str| crate::report::model::Frame {
            offset: Some(at.to_owned()),
            ..fixtures::frame("", "/srv/server", None)
        };
        let mut candidates: Vec<_> = look
            .candidates
            .iter()
            .map(|stack| Candidate {
                frames: vec![crate::report::model::Frame {
                    function: None,
                    ..unnamed(&format!("{stack:#x}"))
                }],
                probe: "heap",
                gained: look.growth[stack].clone(),
            })
            .collect();
        let mut cycles = Cycles::new(&look, &candidates);
        let before = cycles.clone();
        cycles.rename(&candidates);
        assert_eq!(cycles, before);
        assert!(before.growing_functions[0].function.is_none());
        for candidate in &mut candidates {
            candidate.frames[0].function = Some("session_new".to_owned());
        }
        cycles.rename(&candidates);
        let [one] = cycles.growing_functions.as_slice() else {
            panic!("{:?}", cycles.growing_functions);
        };
        assert_eq!(one.function.as_deref(), Some("session_new"));
        // All three stacks are of it now, and their sum still grows in each.
        assert_eq!(one.stacks, look.candidates.len());
    }

    // Two cycles are too few to tell a leak from a warm-up.
    #[test]
    fn too_few() {
        let (marked, now) = marked();
        let mut look = marked.look(&now, &[]).unwrap();
        assert!(!look.candidates.is_empty());
        look.listed.truncate(2);
        let candidate = Candidate {
            frames: vec![fixtures::malloc()],
            probe: "heap",
            gained: vec![1, 1],
        };
        assert!(
            Cycles::new(&look, &[candidate])
                .growing_functions
                .is_empty()
        );
    }
}
