//! What changed between two reports: what grew, what is new, what went. Pure.
//!
//! Stacks are matched by what they are, not where: by the functions on them and the objects these
//! are in, so that another build, another address layout and another machine compare (`report::key`).

mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::culprit::culprit;
use super::key::{Key, Programs};
use super::model::{Frame, Report, Stack, Target};
use crate::ledger::regions::RegionKind;
use crate::trend::Verdict;
pub use text::render;

/// Name and version of the JSON schema.
pub const SCHEMA: &str = "memtrace.diff/1";

/// The difference of two reports.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// memtrace's version.
    pub tool_version: &'static str,
    /// What is compared.
    pub before: Side,
    /// With what.
    pub after: Side,
    /// By the function that allocates, largest gain first; those that did not change are left out.
    pub functions: Vec<FunctionChange>,
    /// By stack, largest gain first; those that did not change are left out.
    pub stacks: Vec<StackChange>,
    /// Stacks that hold as much as before.
    pub unchanged_stacks: usize,
    /// Changed stacks below the top N.
    pub not_shown: Left,
}

/// One of the two reports.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The recording.
    pub recording: String,
    /// Host name.
    pub host: String,
    /// What was traced.
    pub target: Target,
    /// The moment.
    pub taken_at: String,
    /// Seconds since tracing began.
    pub duration_seconds: f64,
    /// Bytes outstanding in all stacks.
    pub outstanding_bytes: u64,
    /// Objects outstanding in all stacks.
    pub outstanding_objects: u64,
    /// What was lost until then.
    pub losses: BTreeMap<String, u64>,
}

/// What happened to a stack or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Holds memory now and held none before.
    New,
    /// Holds more.
    Grew,
    /// Holds less.
    Shrank,
    /// Holds none any more.
    Gone,
}

/// Before, after, and the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Bytes outstanding.
    pub before_bytes: u64,
    /// Bytes outstanding.
    pub after_bytes: u64,
    /// Their difference.
    pub gained_bytes: i64,
    /// Objects outstanding.
    pub before_objects: u64,
    /// Objects outstanding.
    pub after_objects: u64,
    /// Their difference.
    pub gained_objects: i64,
}

/// A function's change.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionChange {
    /// 1 is first.
    pub rank: usize,
    /// What happened.
    pub change: Change,
    /// Its name; null when unknown.
    pub function: Option<String>,
    /// The object it is in.
    pub module: Option<String>,
    /// How much.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// A stack's change.
#[derive(Clone, Debug, Serialize)]
pub struct StackChange {
    /// 1 is first.
    pub rank: usize,
    /// What happened.
    pub change: Change,
    /// How much.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// The later report's verdict; null when it has no such stack.
    pub verdict: Option<Verdict>,
    /// heap, region or fault.
    pub probe: &'static str,
    /// What a region is used as; only with the probe `region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RegionKind>,
    /// Processes of the later report, or of the earlier when it went.
    pub pids: BTreeSet<u32>,
    /// The later report's frames where it has them, innermost first.
    pub frames: Vec<Frame>,
}

impl StackChange {
    /// Shown, but no memory in use; see [`Stack::is_apart`].
    fn is_apart(&self) -> bool {
        self.kind.is_some_and(RegionKind::is_apart)
    }
}

/// What is not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Stacks.
    pub stacks: usize,
    /// What they gained together.
    pub gained_bytes: i64,
}

/// Compares two reports that hold all their stacks.
#[must_use]
pub fn diff(before: (&str, &Report), after: (&str, &Report)) -> Diff {
    let mut stacks: HashMap<Key, Both<'_>> = HashMap::new();
    for (is_after, (_, report)) in [(false, before), (true, after)] {
        let programs = Programs::of(report);
        for stack in &report.stacks {
            let both = stacks.entry(programs.key(stack)).or_default();
            both.add(stack, is_after);
        }
    }
    let unchanged = |both: &Both<'_>| both.amounts.change().is_none();
    let unchanged_stacks = stacks.values().filter(|both| unchanged(both)).count();
    let functions = functions(stacks.iter());
    let mut stacks: Vec<StackChange> = stacks.into_values().filter_map(Both::change).collect();
    stacks.sort_by(|a, b| {
        (a.is_apart().cmp(&b.is_apart()))
            .then(b.amounts.gained_bytes.cmp(&a.amounts.gained_bytes))
            .then(b.amounts.gained_objects.cmp(&a.amounts.gained_objects))
            .then_with(|| a.frames.iter().map(name).cmp(b.frames.iter().map(name)))
    });
    for (at, stack) in stacks.iter_mut().enumerate() {
        stack.rank = at + 1;
    }
    Diff {
        schema: SCHEMA,
        tool_version: env!("CARGO_PKG_VERSION"),
        before: Side::of(before),
        after: Side::of(after),
        functions,
        stacks,
        unchanged_stacks,
        not_shown: Left::default(),
    }
}

impl Diff {
    /// Keeps the first `top` of both lists and counts the stacks cut.
    pub fn cut(&mut self, top: Option<usize>) {
        let top = top.unwrap_or(usize::MAX);
        self.functions.truncate(top);
        for stack in self.stacks.drain(top.min(self.stacks.len())..) {
            self.not_shown.stacks += 1;
            let gained = &mut self.not_shown.gained_bytes;
            *gained = gained.saturating_add(stack.amounts.gained_bytes);
        }
    }

    /// The largest gain of one stack of memory in use in bytes, shown or not when asked before [`Diff::cut`].
    #[must_use]
    pub fn largest_gain(&self) -> i64 {
        let in_use = self.stacks.iter().filter(|stack| !stack.is_apart());
        let gains = in_use.map(|stack| stack.amounts.gained_bytes);
        gains.max().unwrap_or(0)
    }
}

fn name(frame: &Frame) -> (&Option<String>, &Option<String>) {
    (&frame.function, &frame.module)
}

impl Side {
    fn of((recording, report): (&str, &Report)) -> Self {
        let sum = |of: fn(&Stack) -> u64| report.summed().map(of).fold(0, u64::saturating_add);
        Self {
            recording: recording.to_owned(),
            host: report.host.clone(),
            target: report.target.clone(),
            taken_at: report.taken_at.clone(),
            duration_seconds: report.duration_seconds,
            outstanding_bytes: sum(|s| s.outstanding_bytes)
                .saturating_add(report.not_shown.outstanding_bytes),
            outstanding_objects: sum(|s| s.outstanding_objects)
                .saturating_add(report.not_shown.outstanding_objects),
            losses: report.losses.clone(),
        }
    }
}

impl Amounts {
    fn add(&mut self, bytes: u64, objects: u64, is_after: bool) {
        let (to_bytes, to_objects) = match is_after {
            true => (&mut self.after_bytes, &mut self.after_objects),
            false => (&mut self.before_bytes, &mut self.before_objects),
        };
        *to_bytes = to_bytes.saturating_add(bytes);
        *to_objects = to_objects.saturating_add(objects);
        self.gained_bytes = gain(self.before_bytes, self.after_bytes);
        self.gained_objects = gain(self.before_objects, self.after_objects);
    }

    fn change(&self) -> Option<Change> {
        let before = (self.before_bytes, self.before_objects);
        let after = (self.after_bytes, self.after_objects);
        match (before, after) {
            _ if before == after => None,
            ((0, 0), _) => Some(Change::New),
            (_, (0, 0)) => Some(Change::Gone),
            _ if (self.gained_bytes, self.gained_objects) > (0, 0) => Some(Change::Grew),
            _ => Some(Change::Shrank),
        }
    }
}

fn gain(before: u64, after: u64) -> i64 {
    let clamp = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    clamp(after).saturating_sub(clamp(before))
}

/// One stack on both sides.
#[derive(Default)]
struct Both<'a> {
    amounts: Amounts,
    before: Vec<&'a Stack>,
    after: Vec<&'a Stack>,
}

impl<'a> Both<'a> {
    fn add(&mut self, stack: &'a Stack, is_after: bool) {
        self.amounts
            .add(stack.outstanding_bytes, stack.outstanding_objects, is_after);
        let side = if is_after {
            &mut self.after
        } else {
            &mut self.before
        };
        side.push(stack);
    }

    /// The stacks to show it by: the later ones.
    fn shown(&self) -> &[&'a Stack] {
        if self.after.is_empty() {
            &self.before
        } else {
            &self.after
        }
    }

    fn change(self) -> Option<StackChange> {
        let change = self.amounts.change()?;
        let shown = self.shown().first()?;
        Some(StackChange {
            rank: 0,
            change,
            amounts: self.amounts,
            verdict: self.after.first().map(|stack| stack.verdict),
            probe: shown.probe,
            kind: shown.kind,
            pids: self.shown().iter().map(|stack| stack.pid).collect(),
            frames: shown.frames.clone(),
        })
    }
}

fn functions<'a>(stacks: impl Iterator<Item = (&'a Key, &'a Both<'a>)>) -> Vec<FunctionChange> {
    type Sum<'a> = (Amounts, Option<&'a str>);
    let mut sums: BTreeMap<(Option<&str>, &str), Sum<'_>> = BTreeMap::new();
    for (key, both) in stacks {
        let Some(stack) = both.shown().first() else {
            continue;
        };
        if stack.is_apart() {
            continue;
        }
        let at = culprit(&stack.frames).unwrap_or(0);
        let module = stack.frames.get(at).and_then(|f| f.module.as_deref());
        let (sum, shown) = sums.entry(key.at(at)).or_default();
        *shown = module;
        sum.add(
            both.amounts.before_bytes,
            both.amounts.before_objects,
            false,
        );
        sum.add(both.amounts.after_bytes, both.amounts.after_objects, true);
    }
    let mut functions: Vec<FunctionChange> = sums
        .into_iter()
        .filter_map(|((function, _), (amounts, module))| {
            Some(FunctionChange {
                rank: 0,
                change: amounts.change()?,
                function: function.map(str::to_owned),
                module: module.map(str::to_owned),
                amounts,
            })
        })
        .collect();
    functions
        .sort_by_key(|f| std::cmp::Reverse((f.amounts.gained_bytes, f.amounts.gained_objects)));
    for (at, function) in functions.iter_mut().enumerate() {
        function.rank = at + 1;
    }
    functions
}

#[cfg(test)]
mod tests;
