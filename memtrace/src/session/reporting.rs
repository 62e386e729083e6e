//! The ledger's figures as a report.

use std::{collections::HashMap, time::Duration};

use memtrace_common::{Counter, ONE_OBJECT};

use super::{
    Session, SessionError, incident::NAMES, limits, losses, marks::MarkSocket, overhead::Hits,
    process::Image, reconcile::Found,
};
use crate::{
    cli::plan::{Probes, VERDICT_INTERVALS},
    id::{SpaceId, StackId, Tgid},
    ledger::{Account, Rank, StackAccount, regions::RegionKind},
    report::model::{
        Frame, GroupBy, Grower, Intervals, NotShown, Overhead, Owner, ProbeHits, Process,
        ProcessState, Report, RuntimeInfo, SCHEMA, Stack, Word,
    },
    report::sums::is_summed,
    symbolize::StackToName,
    target::family::CustomFunctions,
    trend::{self, Judgement, Verdict},
    unwind::CapturedFrame,
};

/// Names are waited for this long; what is not there by then says so.
const NAMES_DEADLINE: Duration = Duration::from_secs(10);
/// Stacks that are judged: those below hold nothing worth a verdict.
const MAX_JUDGED: usize = 2000;

/// A report, and where its stacks come from.
pub struct Taken {
    /// The report.
    pub report: Report,
    /// The report's stacks as the ledger knows them, in its order.
    pub keys: Vec<(SpaceId, StackId)>,
}

pub(super) struct Judged<'a> {
    pub probe: Word,
    pub kind: Option<RegionKind>,
    pub stack: StackAccount<'a>,
    judgement: Judgement,
    pub bytes: u64,
    objects: u64,
}

impl<'a> Judged<'a> {
    /// One that is not judged: too many hold more.
    pub fn unknown((probe, kind, stack): Ranked<'a>, (bytes, objects): (u64, u64)) -> Self {
        Self {
            probe,
            kind,
            stack,
            judgement: Judgement {
                verdict: Verdict::TooEarly,
                confidence: 0.0,
                growth_bytes_per_second: 0.0,
            },
            bytes,
            objects,
        }
    }

    fn is_apart(&self) -> bool {
        self.kind.is_some_and(RegionKind::is_apart)
    }
}

/// A stack with the probe that saw it and what its regions are used as.
pub(super) type Ranked<'a> = (Word, Option<RegionKind>, StackAccount<'a>);
impl Session {
    /// The stacks of all probes, the largest first, and what is no memory in use behind them.
    fn ranked(&self) -> Vec<Ranked<'_>> {
        let heap = self.ledger.stacks(Rank::Outstanding).into_iter();
        let heap = heap.map(|stack| ("heap", None, stack));
        let regions = self.regions.stacks();
        let mut all: Vec<Ranked<'_>> = heap
            .filter(|_| self.options.probes.heap)
            .chain(regions.map(|(kind, stack)| ("region", Some(kind), stack)))
            .chain(
                self.faults
                    .stacks()
                    .into_iter()
                    .map(|stack| ("fault", None, stack)),
            )
            .collect();
        if self.options.probes == Probes::HEAP {
            return all;
        }
        // A call path of which nothing is left in one kind lives on in another.
        all.retain(|(probe, _, stack)| {
            *probe == "heap" || stack.account.totals().allocated_bytes > 0
        });
        all.sort_by_key(|(_, kind, stack)| {
            let apart = kind.is_some_and(RegionKind::is_apart);
            let bytes = stack.account.totals().outstanding_bytes();
            (
                apart,
                std::cmp::Reverse(bytes),
                *kind,
                stack.space,
                stack.stack,
            )
        });
        all
    }

    /// Takes a report: at most `top` stacks by outstanding bytes. `last` makes sure that ages are
    /// as of now.
    pub fn report(&mut self, top: Option<usize>, last: bool) -> Result<Taken, SessionError> {
        let asked = self.mark_socket.as_mut().map(MarkSocket::take);
        let mut asked = asked.unwrap_or_default();
        asked.append(&mut self.own_marks);
        self.catch_up_with_events()?;
        self.catch_up()?;
        self.rescan()?;
        self.settle(true)?;
        self.update_processes();
        self.learn_names(Duration::ZERO);
        self.collect(last || self.options.older.is_some())?;
        // What began or ended meanwhile is in this report: so is its container, by name. The runtime has
        // had the time of the collection to answer, and after the last report nobody would ask it.
        self.learn_names(if last { NAMES } else { Duration::ZERO });
        self.reports += 1;
        let counters = self.kernel.counters()?;
        let hits = Hits::of(&counters);
        let cpu_ns = self
            .traced
            .iter()
            .map(|t| t.cpu_ns)
            .chain(self.ended.iter().map(|e| e.cpu_ns))
            .sum::<u64>()
            + self.cpu_ns_dropped;
        let at = self.started.elapsed();
        self.meter.measure(&self.costs, hits, cpu_ns, at);
        let account = self.losses(&counters);
        self.tell_forks(counters.get(Counter::ForksNotFollowed));
        let names = self.names_of_spaces();
        let mut held = self
            .ranked()
            .into_iter()
            .filter(|(_, _, s)| names.contains_key(&s.space))
            .filter_map(|found| Some((found, self.holds(&found.2)?)));
        let mut judged: Vec<_> = held
            .by_ref()
            .take(MAX_JUDGED)
            .map(|((probe, kind, stack), (bytes, objects))| Judged {
                probe,
                kind,
                stack,
                judgement: self.judge(stack.account, &account),
                bytes,
                objects,
            })
            .collect();
        let unjudged: Vec<_> = held.collect();
        // What grows comes first, however little it holds yet: that is what people look for. What is
        // no memory in use comes last.
        judged.sort_by_key(|j| (j.is_apart(), j.judgement.verdict != Verdict::Growing));
        let observed = self.observed(&judged, &unjudged, &names);
        let held = self.held_at_mark(&judged, &unjudged, !asked.is_empty());
        let shown = top.unwrap_or(usize::MAX).min(judged.len());
        let (shown, rest) = judged.split_at(shown);
        let not_shown = self.not_shown(rest, &unjudged);
        let captured: Vec<_> = shown
            .iter()
            .map(|j| (j.stack.space, self.captured(&j.stack)))
            .collect();
        let keys = shown
            .iter()
            .map(|j| (j.stack.space, j.stack.stack))
            .collect();
        let models: Vec<_> = shown
            .iter()
            .enumerate()
            .map(|(n, j)| self.stack(n + 1, j, &names))
            .collect();
        let processes = self.processes(&account);
        let stacks = self.with_names(models, &captured, NAMES_DEADLINE);
        let mut report = Report {
            schema: SCHEMA,
            tool_version: env!("CARGO_PKG_VERSION"),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            started_at: self.started_at.to_string(),
            taken_at: jiff::Timestamp::now().to_string(),
            duration_seconds: self.started.elapsed().as_secs_f64(),
            gained_since: None,
            intervals: Intervals {
                seconds: self.options.interval.as_secs_f64(),
                completed: self.intervals_completed(),
                needed: VERDICT_INTERVALS,
            },
            target: self.options.target.clone(),
            probes: self.options.probes.names(),
            filters: self.options.filters,
            overhead: self.overhead(hits),
            losses: account.losses,
            notes: account.notes,
            coverage: self
                .images()
                .flat_map(|(image, _)| image.coverage.clone())
                .collect(),
            processes,
            group_by: GroupBy::Stack,
            groups: Vec::new(),
            stacks,
            not_shown,
            marks: Vec::new(),
            cycles: None,
            segments: Vec::new(),
        };
        self.keep_report(&mut report, observed, &asked, held);
        Ok(Taken { report, keys })
    }

    /// What is in none of the stacks shown; bytes of those that may be added up.
    fn not_shown(&self, rest: &[Judged<'_>], unjudged: &[(Ranked<'_>, (u64, u64))]) -> NotShown {
        let probes = self.options.probes.names();
        let rest = rest.iter().map(|j| (j.probe, j.kind, j.bytes, j.objects));
        let unjudged = unjudged
            .iter()
            .map(|((probe, kind, _), held)| (*probe, *kind, held.0, held.1));
        let mut hidden = NotShown::default();
        for (probe, kind, bytes, objects) in rest.chain(unjudged) {
            hidden.stacks += 1;
            if is_summed(&probes, probe, kind) {
                hidden.outstanding_bytes += bytes;
                hidden.outstanding_objects += objects;
            }
        }
        hidden
    }

    /// Once: who started processes may look for a leak in the wrong one.
    fn tell_forks(&mut self, forks: u64) {
        if forks > 0 && !std::mem::replace(&mut self.forks_told, true) {
            self.notices.push(
                "the target starts processes of its own, which are not traced: name one with --pid"
                    .into(),
            );
        }
    }

    /// Whole intervals: a last report in the middle of one does not make it whole.
    fn intervals_completed(&self) -> u32 {
        let elapsed = self.started.elapsed().as_secs_f64() / self.options.interval.as_secs_f64();
        // A tick may come a little early or late.
        self.reports.min((elapsed + 0.1) as u32)
    }

    fn overhead(&self, hits: Hits) -> Overhead {
        Overhead {
            probe_hits: ProbeHits {
                heap: hits.heap(),
                region: hits.regions,
                fault: hits.faults,
            },
            nanoseconds_per_hit: self.costs.nanoseconds_per_hit(hits),
            fraction_of_target_cpu: self.meter.fraction,
            fraction_of_one_core: self.meter.core,
            sample_bytes: self.kernel.sample_bytes(),
            detached: self.detached,
        }
    }

    pub(super) fn images(&self) -> impl Iterator<Item = (&Image, ProcessState)> {
        let traced = self
            .traced
            .iter()
            .map(|t| (&t.image, ProcessState::Running));
        let ended = self.ended.iter().map(|e| (&e.image, e.state));
        let sums = self
            .follow
            .sums
            .iter()
            .map(|sum| (&sum.image, ProcessState::Exited));
        sums.chain(ended).chain(traced)
    }

    fn grower(&self, space: SpaceId) -> Option<Grower> {
        let found = self.reconciled.get(space)?;
        let (share, bytes) = found.now.largest_grower(&found.before)?;
        Some(Grower {
            share,
            bytes,
            rss_bytes: found.now.rss.saturating_sub(found.before.rss),
        })
    }

    fn runtime(&self, image: &Image) -> Option<RuntimeInfo> {
        let name = self.reconciled.runtime(image.space)?;
        let found = self.reconciled.get(image.space);
        Some(RuntimeInfo {
            name,
            heap_growth_bytes: found.map(Found::managed_growth),
            advice: name.advice(image.tgid.0, found.and_then(|found| found.version)),
        })
    }

    fn names_of_spaces(&self) -> HashMap<SpaceId, (Tgid, Owner)> {
        self.images()
            .map(|(image, _)| {
                let owner = Owner {
                    program: image.exe.clone(),
                    container: image
                        .container
                        .as_ref()
                        .map(|container| container.id.clone()),
                };
                (image.space, (image.tgid, owner))
            })
            .collect()
    }

    /// Bytes and objects that a report shows for a stack; nothing for one that holds nothing of
    /// interest.
    fn holds(&self, stack: &StackAccount<'_>) -> Option<(u64, u64)> {
        let totals = stack.account.totals();
        let survivors = stack.account.survivors();
        let (bytes, objects_q16) = match (self.options.older, &survivors) {
            (Some(_), Some(survivors)) => {
                (survivors.matching_bytes, survivors.matching_objects_q16)
            }
            _ => (totals.outstanding_bytes(), totals.outstanding_objects_q16()),
        };
        let objects = whole(objects_q16);
        if bytes == 0 && objects == 0 && self.options.older.is_some() {
            return None;
        }
        Some((bytes, objects))
    }

    fn judge(&self, account: &Account, losses: &losses::Account) -> Judgement {
        let options = trend::Options {
            interval_seconds: self.options.interval.as_secs_f64(),
            losses: losses.trend,
        };
        trend::judge(&account.points(), account.survivors().as_ref(), &options)
    }

    fn captured(&self, account: &StackAccount<'_>) -> Vec<CapturedFrame> {
        let stack = self.stacks.get(account.stack);
        stack
            .map(|stack| self.unwinder.capture(account.space, stack))
            .unwrap_or_default()
    }

    pub(super) fn stack(
        &self,
        rank: usize,
        judged: &Judged<'_>,
        names: &HashMap<SpaceId, (Tgid, Owner)>,
    ) -> Stack {
        let StackAccount {
            space,
            stack,
            account,
        } = judged.stack;
        let totals = account.totals();
        let unwound = self.stacks.get(stack);
        Stack {
            rank,
            pid: names.get(&space).map_or(0, |(tgid, _)| tgid.0),
            owner: names
                .get(&space)
                .map(|(_, owner)| owner.clone())
                .unwrap_or_default(),
            probe: judged.probe,
            kind: judged.kind,
            outstanding_bytes: judged.bytes,
            outstanding_objects: judged.objects,
            allocated_bytes: totals.allocated_bytes,
            allocated_objects: whole(totals.allocated_objects_q16),
            freed_bytes: totals.freed_bytes,
            freed_objects: whole(totals.freed_objects_q16),
            oldest_seconds: account
                .survivors()
                .map(|s| rounded(s.oldest_seconds, 1000.0))
                .filter(|_| judged.objects > 0),
            growth_bytes_per_second: judged.judgement.growth_bytes_per_second,
            verdict: judged.judgement.verdict,
            confidence: rounded(judged.judgement.confidence, 100.0),
            complete: unwound.is_some_and(|stack| stack.incomplete.is_none()),
            approximate: self.mixed.contains(&(space, stack)),
            gained_per_cycle: Vec::new(),
            frames: Vec::new(),
        }
    }

    pub(super) fn with_names(
        &mut self,
        mut stacks: Vec<Stack>,
        captured: &[(SpaceId, Vec<CapturedFrame>)],
        deadline: Duration,
    ) -> Vec<Stack> {
        let named = self.named(captured, deadline);
        for (stack, frames) in stacks.iter_mut().zip(named) {
            stack.frames = frames;
        }
        stacks
    }

    /// Names stacks; what is not named by the deadline says so.
    pub(super) fn named(
        &mut self,
        captured: &[(SpaceId, Vec<CapturedFrame>)],
        deadline: Duration,
    ) -> Vec<Vec<Frame>> {
        self.learn_jit_names(captured);
        let Self {
            jit, symbolizer, ..
        } = self;
        let lookups: Vec<_> = captured
            .iter()
            .map(|(space, _)| |address: u64| jit.get(*space, address))
            .collect();
        let requests: Vec<_> = captured
            .iter()
            .zip(&lookups)
            .map(|((_, frames), lookup)| StackToName {
                frames,
                jit: Some(lookup),
            })
            .collect();
        let mut named = symbolizer.symbolize(&requests, deadline);
        for frames in &mut named {
            mark_custom(frames, &self.options.custom);
            if frames.is_empty() {
                frames.push(no_stack());
            }
        }
        named
    }

    fn processes(&self, losses: &losses::Account) -> Vec<Process> {
        let accounts: HashMap<_, _> = self
            .regions
            .whole()
            .unwrap_or(&self.ledger)
            .spaces()
            .into_iter()
            .map(|s| (s.space, s.account))
            .collect();
        let available = limits::machine_available(std::path::Path::new("/"));
        self.images()
            .map(|(image, state)| {
                let account = accounts.get(&image.space);
                let totals = account.map(|a| a.totals()).unwrap_or_default();
                let judgement = account.map(|a| self.judge(a, losses));
                let growth = judgement.map_or(0.0, |j| j.growth_bytes_per_second);
                let verdict = judgement.map_or(Verdict::TooEarly, |j| j.verdict);
                let remaining = image.memory.remaining().or(available);
                let grows = verdict == Verdict::Growing && state == ProcessState::Running;
                Process {
                    pid: image.tgid.0,
                    comm: image.comm.clone(),
                    exe: image.exe.clone(),
                    state,
                    processes: image.processes,
                    container: image.container.as_ref().map(|id| self.container(id)),
                    rss_bytes_at_attach: image.rss_at_attach,
                    rss_bytes: image.rss,
                    memory_limit_bytes: image.memory.limit,
                    memory_usage_bytes: image.memory.usage,
                    outstanding_bytes: totals.outstanding_bytes(),
                    outstanding_objects: whole(totals.outstanding_objects_q16()),
                    growth_bytes_per_second: growth,
                    verdict,
                    seconds_to_limit: remaining
                        .filter(|_| grows)
                        .and_then(|bytes| trend::forecast(bytes, growth)),
                    reconciliation: self.reconciled.get(image.space).map(|found| found.now),
                    grower: self.grower(image.space),
                    runtime: self.runtime(image),
                }
            })
            .collect()
    }
}

/// In place of a stack whose copy found no room in the ring buffer and was not asked for again.
fn no_stack() -> Frame {
    Frame {
        address: "0x0".to_owned(),
        reason: Some("no copy of this stack has arrived".to_owned()),
        ..Frame::default()
    }
}

/// The user's own allocation functions are the allocator's frames too: not they leak, but who calls
/// them.
fn mark_custom(frames: &mut [Frame], custom: &CustomFunctions) {
    for frame in frames {
        let named = |name: &String| custom.names().any(|own| own == name);
        if !frame.allocator && !frame.function.as_ref().is_some_and(named) {
            return;
        }
        frame.allocator = true;
    }
}

/// Rounded to a `unit`-th: more digits mean nothing, and would make every row of a recording new.
fn rounded(value: f64, unit: f64) -> f64 {
    (value * unit).round() / unit
}

/// Whole objects, rounded.
fn whole(objects_q16: u64) -> u64 {
    (objects_q16 + ONE_OBJECT / 2) / ONE_OBJECT
}
