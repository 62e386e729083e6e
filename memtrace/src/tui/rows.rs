//! Which rows are shown, and in which order. Pure.

use std::cmp::Ordering;

use super::{
    moment::{Key, Moment, container_name},
    state::{Scope, Sort, State, Tab},
};
use crate::{
    ledger::regions::RegionKind,
    report::model::{Frame, Process, Stack},
};

/// What sorting needs of a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub outstanding: u64,
    pub objects: u64,
    pub growth: f64,
    /// Seconds; nothing for what has none.
    pub age: Option<f64>,
    /// No memory in use: reservations, files, an allocator's reserve. They come last.
    pub is_apart: bool,
}

/// The keys of everything the tab is about, in the report's order.
pub(super) fn keys(moment: &Moment, tab: Tab) -> Vec<Key> {
    match tab {
        Tab::Stacks => moment.stacks.iter().map(|past| past.key).collect(),
        Tab::Processes => moment.processes.iter().map(|past| past.key).collect(),
        Tab::Containers => moment.containers().iter().map(|row| row.key).collect(),
    }
}

/// The rows of the state: filtered and sorted.
pub(super) fn rows(state: &State) -> Vec<usize> {
    let Some(moment) = state.shown.as_deref() else {
        return Vec::new();
    };
    let terms = terms(&state.filter);
    let mut rows: Vec<(usize, Figures)> = match state.tab {
        Tab::Stacks => {
            let spaces = state.scope.as_ref().map(|scope| spaces(moment, scope));
            let stacks = moment.report.stacks.iter().zip(&moment.stacks).enumerate();
            stacks
                .filter(|(_, (_, past))| {
                    spaces.as_ref().is_none_or(|s| s.contains(&past.key.space))
                })
                .filter(|(_, (stack, _))| stack_matches(stack, &terms))
                .map(|(at, (stack, _))| (at, figures(stack)))
                .collect()
        }
        Tab::Processes => {
            let processes = moment.report.processes.iter().enumerate();
            processes
                .filter(|(_, process)| process_matches(process, &terms))
                .map(|(at, process)| (at, process_figures(&[process])))
                .collect()
        }
        Tab::Containers => {
            let containers = moment.containers().into_iter().enumerate();
            containers
                .filter(|(_, row)| {
                    let mut members = row.members.iter();
                    members.any(|(_, process)| process_matches(process, &terms))
                })
                .map(|(at, row)| {
                    let members: Vec<_> = row.members.iter().map(|(_, p)| *p).collect();
                    (at, process_figures(&members))
                })
                .collect()
        }
    };
    // Stable: equals stay in the report's order.
    rows.sort_by(|(_, a), (_, b)| {
        let order = compare(a, b, state.sort);
        let order = if state.is_reversed {
            order.reverse()
        } else {
            order
        };
        a.is_apart.cmp(&b.is_apart).then(order)
    });
    rows.into_iter().map(|(at, _)| at).collect()
}

/// The address spaces of what is open.
fn spaces(moment: &Moment, scope: &Scope) -> Vec<u64> {
    if scope.from != Tab::Containers {
        return vec![scope.key.space];
    }
    let containers = moment.containers();
    let row = containers.iter().find(|row| row.key == scope.key);
    let members = row.into_iter().flat_map(|row| &row.members);
    members
        .filter_map(|(at, _)| Some(moment.processes.get(*at)?.key.space))
        .collect()
}

/// Most first.
fn compare(a: &Figures, b: &Figures, sort: Sort) -> Ordering {
    match sort {
        Sort::Outstanding => b.outstanding.cmp(&a.outstanding),
        Sort::Growth => b.growth.total_cmp(&a.growth),
        Sort::Objects => b.objects.cmp(&a.objects),
        Sort::Age => {
            let age = |figures: &Figures| figures.age.unwrap_or(-1.0);
            age(b).total_cmp(&age(a))
        }
    }
}

/// Those of a stack.
pub(super) fn figures(stack: &Stack) -> Figures {
    Figures {
        outstanding: stack.outstanding_bytes,
        objects: stack.outstanding_objects,
        growth: stack.growth_bytes_per_second,
        age: stack.oldest_seconds,
        is_apart: stack.is_apart(),
    }
}

/// The sum of processes.
pub(super) fn process_figures(processes: &[&Process]) -> Figures {
    processes
        .iter()
        .fold(Figures::default(), |sum, process| Figures {
            outstanding: sum.outstanding.saturating_add(process.outstanding_bytes),
            objects: sum.objects.saturating_add(process.outstanding_objects),
            growth: sum.growth + process.growth_bytes_per_second,
            ..Figures::default()
        })
}

/// The words of a filter; each must be found.
fn terms(filter: &str) -> Vec<String> {
    filter.split_whitespace().map(str::to_lowercase).collect()
}

fn stack_matches(stack: &Stack, terms: &[String]) -> bool {
    let kind = stack.kind.map_or(stack.probe, RegionKind::name);
    terms.iter().all(|term| {
        stack.frames.iter().any(|frame| frame_matches(frame, term))
            || [stack.probe, kind].contains(&term.as_str())
    })
}

fn frame_matches(frame: &Frame, term: &str) -> bool {
    let texts = [&frame.function, &frame.module, &frame.file];
    texts
        .into_iter()
        .flatten()
        .any(|text| text.to_lowercase().contains(term))
}

fn process_matches(process: &Process, terms: &[String]) -> bool {
    let texts = [
        process.pid.to_string(),
        process.comm.to_lowercase(),
        process.exe.to_lowercase(),
        container_name(process).to_lowercase(),
    ];
    terms
        .iter()
        .all(|term| texts.iter().any(|text| text.contains(term)))
}
