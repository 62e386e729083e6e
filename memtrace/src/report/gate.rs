//! The CI gate: does a report pass, and if not, what to say. Pure.
//!
//! [`Gate::judge`] looks at every stack of a report, so give it one that is not cut.
//! [`junit`](super::junit) and [`markdown`](super::markdown) write the [`Outcome`] down.

use std::collections::{BTreeMap, HashMap};

use super::{
    baseline::{Baseline, Known},
    culprit, human,
    key::{Key, Programs},
    layout::clean,
    model::{Process, Report, Stack},
    profile::names,
    suppress::Suppressions,
};
use crate::trend::Verdict;

/// A run differs from the one before by this much without being worse.
const TOLERANCE: f64 = 0.1;
/// And by so many bytes a second.
const TOLERANCE_RATE: f64 = 1024.0;
/// And by so many bytes.
const TOLERANCE_BYTES: f64 = 65_536.0;
/// A process whose growth is that of suppressed stacks to this share does not fail.
const EXPLAINED: f64 = 0.9;

/// What a report must be.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// `--fail-on growing`: nothing may grow by at least so many bytes a second.
    pub growing: Option<f64>,
    /// `--baseline`: nothing may be worse than there.
    pub baseline: Option<Baseline>,
    /// What may be all the same.
    pub suppressions: Suppressions,
}

/// Why a report does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A stack grows.
    Growing,
    /// A process grows, and no single stack of it.
    ProcessGrowing,
    /// A stack grows that did not in the baseline.
    NewGrowth,
    /// A stack grows faster than in the baseline.
    FasterGrowth,
    /// A stack holds more than in the baseline.
    HoldsMore,
}

impl Kind {
    /// For machines: a name that stays.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::ProcessGrowing => "process-growing",
            Self::NewGrowth => "new-growth",
            Self::FasterGrowth => "faster-growth",
            Self::HoldsMore => "holds-more",
        }
    }

    /// The option that asks for it.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Growing | Self::ProcessGrowing => "--fail-on growing",
            Self::NewGrowth | Self::FasterGrowth | Self::HoldsMore => "--baseline",
        }
    }
}

/// One reason why a report does not pass.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Why.
    pub kind: Kind,
    /// Function, or the process's name.
    pub name: String,
    /// `file:line` or the object, where known.
    pub place: Option<String>,
    /// The object's file name.
    pub module: String,
    /// In one sentence, without name and place.
    pub text: String,
    /// The stack, innermost first.
    pub frames: Vec<String>,
}

impl Finding {
    /// `leak_here (server.c:42)`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.place {
            Some(place) => format!("{} ({place})", self.name),
            None => self.name.clone(),
        }
    }
}

/// What became of one suppression.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Its patterns.
    pub patterns: String,
    /// Its reason.
    pub reason: String,
    /// Its line in the file.
    pub line: usize,
    /// Stacks it kept from failing.
    pub stacks: usize,
    /// Bytes these hold.
    pub bytes: u64,
}

/// What the gate says about a report.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Nothing, when it passes.
    pub findings: Vec<Finding>,
    /// Every suppression, in the file's order.
    pub suppressions: Vec<Used>,
    /// Options that were asked for and have no finding.
    pub passed: Vec<&'static str>,
    /// What a person should know about how far this can be trusted.
    pub notes: Vec<String>,
}

impl Outcome {
    /// True when the exit status is 3.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Suppressions that kept nothing from failing.
    pub fn unused(&self) -> impl Iterator<Item = &Used> {
        self.suppressions.iter().filter(|used| used.stacks == 0)
    }
}

impl Gate {
    /// True when there is anything to judge by.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.growing.is_some() || self.baseline.is_some()
    }

    /// Judges a report that shows all its stacks.
    #[must_use]
    pub fn judge(&self, report: &Report) -> Outcome {
        let mut judging = Judging::new(self, report);
        if let Some(least) = self.growing {
            judging.growth(least);
        }
        if let Some(baseline) = &self.baseline {
            judging.against(baseline);
        }
        judging.finish()
    }
}

struct Judging<'a> {
    gate: &'a Gate,
    report: &'a Report,
    outcome: Outcome,
    /// The suppression of each stack.
    suppressed: Vec<Option<usize>>,
    /// Stacks whose suppression made a difference.
    spared: Vec<bool>,
}

impl<'a> Judging<'a> {
    fn new(gate: &'a Gate, report: &'a Report) -> Self {
        let entries = gate.suppressions.entries().iter();
        let used = entries.map(|entry| Used {
            patterns: entry.describe(),
            reason: clean(&entry.reason).into_owned(),
            line: entry.line,
            ..Used::default()
        });
        let find = |stack| gate.suppressions.find(stack);
        Self {
            gate,
            report,
            outcome: Outcome {
                suppressions: used.collect(),
                ..Outcome::default()
            },
            suppressed: report.stacks.iter().map(find).collect(),
            spared: vec![false; report.stacks.len()],
        }
    }

    /// True when a suppression spares the stack, which is counted.
    fn spare(&mut self, at: usize) -> bool {
        let suppressed = self.suppressed.get(at).is_some_and(Option::is_some);
        if let Some(spared) = self.spared.get_mut(at) {
            *spared |= suppressed;
        }
        suppressed
    }

    fn growth(&mut self, least: f64) {
        let report = self.report;
        for (at, stack) in report.stacks.iter().enumerate() {
            if !grows(stack.verdict, stack.growth_bytes_per_second, least) || self.spare(at) {
                continue;
            }
            let text = format!(
                "grows by {}, holds {}, confidence {}",
                rate(stack.growth_bytes_per_second),
                human::bytes(stack.outstanding_bytes),
                human::confidence(stack.confidence)
            );
            self.outcome
                .findings
                .push(finding(Kind::Growing, stack, text));
        }
        for process in &report.processes {
            self.process_growth(process, least);
        }
    }

    /// A process that grows without one of its stacks being the one; what suppressed stacks grow
    /// by is taken off.
    fn process_growth(&mut self, process: &Process, least: f64) {
        let growth = process.growth_bytes_per_second;
        if !grows(process.verdict, growth, least) {
            return;
        }
        let own = self.report.stacks.iter().zip(&self.suppressed);
        let own = own.filter(|(stack, _)| stack.pid == process.pid);
        let growing =
            own.filter(|(stack, _)| stack.verdict == Verdict::Growing && !stack.is_apart());
        let (mut named, mut spared) = (false, 0.0);
        for (stack, suppressed) in growing {
            match suppressed {
                Some(_) => spared += stack.growth_bytes_per_second,
                None => named |= stack.growth_bytes_per_second >= least,
            }
        }
        if named || spared >= growth * EXPLAINED || growth - spared < least {
            return;
        }
        self.outcome.findings.push(Finding {
            kind: Kind::ProcessGrowing,
            name: format!("{} ({})", clean(&process.comm), process.pid),
            place: None,
            module: culprit::file_name(&clean(&process.exe)).to_owned(),
            text: format!(
                "the process grows by {} as a whole, no single stack is judged growing",
                rate(growth - spared)
            ),
            frames: Vec::new(),
        });
    }

    fn against(&mut self, baseline: &Baseline) {
        // Stacks of one name are one: sums are compared with sums.
        let mut now: BTreeMap<usize, (Known, Vec<usize>)> = BTreeMap::new();
        let mut first: HashMap<Key, usize> = HashMap::new();
        let programs = Programs::of(self.report);
        for (at, stack) in self.report.stacks.iter().enumerate() {
            let of_name = *first.entry(programs.key(stack)).or_insert(at);
            let (known, all) = now.entry(of_name).or_default();
            let rate = stack.growth_bytes_per_second;
            known.add(stack.outstanding_bytes, stack.verdict, rate);
            all.push(at);
        }
        let sampling = self.report.overhead.sample_bytes.max(baseline.sample_bytes);
        for (at, (known, all)) in now {
            let Some(stack) = self.report.stacks.get(at) else {
                continue;
            };
            let before = baseline.get(&programs.key(stack));
            let Some((kind, text)) = worse(known, before, stack.verdict, sampling) else {
                continue;
            };
            let mut spared = false;
            for one in all {
                spared |= self.spare(one);
            }
            if !spared {
                self.outcome.findings.push(finding(kind, stack, text));
            }
        }
        if baseline.stacks_not_shown > 0 {
            let count = human::counted(baseline.stacks_not_shown, "stack", "stacks");
            self.outcome.notes.push(format!(
                "the baseline leaves {count} out: make it with --top all for an exact comparison"
            ));
        }
    }

    fn finish(mut self) -> Outcome {
        let stacks = self
            .report
            .stacks
            .iter()
            .zip(&self.suppressed)
            .zip(&self.spared);
        for ((stack, suppressed), _) in stacks.filter(|(_, spared)| **spared) {
            let used = suppressed.and_then(|at| self.outcome.suppressions.get_mut(at));
            if let Some(used) = used {
                used.stacks += 1;
                used.bytes = used.bytes.saturating_add(stack.outstanding_bytes);
            }
        }
        let asked = [
            ("--fail-on growing", self.gate.growing.is_some()),
            ("--baseline", self.gate.baseline.is_some()),
        ];
        for (option, asked) in asked {
            let met = self
                .outcome
                .findings
                .iter()
                .any(|f| f.kind.option() == option);
            if asked && !met {
                self.outcome.passed.push(option);
            }
        }
        if self
            .report
            .coverage
            .iter()
            .all(|one| one.functions.is_empty())
        {
            let note = "nothing was traced: there was nothing to probe, so nothing could fail";
            self.outcome.notes.push(note.to_owned());
        }
        self.outcome.notes.extend(unjudged(self.report));
        if !self.report.losses.is_empty() {
            let names: Vec<_> = self.report.losses.keys().map(|name| clean(name)).collect();
            self.outcome.notes.push(format!(
                "something was lost ({}): a leak may have gone unseen",
                names.join(", ")
            ));
        }
        self.outcome
    }
}

/// Why nothing can be said about growth, when nothing can: such a report passes, which must not
/// happen in silence.
#[must_use]
pub fn unjudged(report: &Report) -> Option<String> {
    let intervals = report.intervals;
    if intervals.completed < intervals.needed {
        return Some(format!(
            "growth could not be judged: the session had {} of the {} intervals a verdict \
             needs; make --interval shorter or the session longer",
            intervals.completed, intervals.needed
        ));
    }
    let processes = report.processes.iter().map(|process| process.verdict);
    let mut verdicts = processes.chain(report.stacks.iter().map(|stack| stack.verdict));
    if report.processes.is_empty() || verdicts.any(|verdict| verdict != Verdict::TooEarly) {
        return None;
    }
    // What was lost is told besides.
    let why = match report.losses.is_empty() {
        true => format!(
            "no process was seen the {} times that a verdict needs; make the session longer",
            intervals.needed
        ),
        false => "no process has a verdict, for what was lost or for too few intervals".to_owned(),
    };
    Some(format!("growth could not be judged: {why}"))
}

fn grows(verdict: Verdict, rate: f64, least: f64) -> bool {
    verdict == Verdict::Growing && rate >= least
}

fn rate(bytes_per_second: f64) -> String {
    human::rate(bytes_per_second)
        .trim_start_matches('+')
        .to_owned()
}

/// How a stack is worse than before, if it is.
#[expect(clippy::cast_precision_loss, reason = "a tolerance of a tenth")]
fn worse(now: Known, before: Known, verdict: Verdict, sampling: u64) -> Option<(Kind, String)> {
    match (now.growing, before.growing) {
        (Some(rate_now), None) => {
            let text = format!("grows by {}, did not in the baseline", rate(rate_now));
            return Some((Kind::NewGrowth, text));
        }
        (Some(rate_now), Some(rate_before)) => {
            let faster = rate_now > rate_before * (1.0 + TOLERANCE) + TOLERANCE_RATE;
            let text = || {
                format!(
                    "grows by {}, by {} in the baseline",
                    rate(rate_now),
                    rate(rate_before)
                )
            };
            // What it holds depends on how long it grew.
            return faster.then(|| (Kind::FasterGrowth, text()));
        }
        (None, _) => {}
    }
    // What comes and goes holds anything when the session ends.
    let settled = matches!(
        verdict,
        Verdict::Plateau | Verdict::Steady | Verdict::TooEarly
    );
    let (bytes, held) = (now.bytes as f64, before.bytes as f64);
    let mut allowed = held * (1.0 + TOLERANCE) + TOLERANCE_BYTES;
    if sampling > 1 {
        // Three standard errors of an estimate.
        allowed += 3.0 * (sampling as f64 * bytes.max(held)).sqrt();
    }
    (settled && bytes > allowed).then(|| {
        let text = format!(
            "holds {}, {} in the baseline",
            human::bytes(now.bytes),
            human::bytes(before.bytes)
        );
        (Kind::HoldsMore, text)
    })
}

fn finding(kind: Kind, stack: &Stack, text: String) -> Finding {
    let frame = culprit::culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    let module = frame
        .and_then(|frame| frame.module.as_deref())
        .unwrap_or("");
    let place = frame.and_then(culprit::short_place);
    Finding {
        kind,
        name: frame.map_or_else(|| "[unknown function]".to_owned(), names::frame),
        place: place.map(|place| clean(&place).into_owned()),
        module: clean(culprit::file_name(module)).into_owned(),
        text,
        frames: stack.frames.iter().map(described).collect(),
    }
}

fn described(frame: &super::model::Frame) -> String {
    match culprit::place(frame) {
        Some(place) => format!("{}  {}", names::frame(frame), clean(&place)),
        None => names::frame(frame),
    }
}

#[cfg(test)]
mod tests;
