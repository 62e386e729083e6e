//! Stacks summed by function or module. Pure.

use std::collections::HashMap;

use super::culprit::{culprit, file_name};
use super::model::{Group, GroupBy, NotShown, Report, Stack};
use crate::trend::Verdict;

/// Sums `stacks`, largest first. Give it every stack, symbolized: a group of the top ten stacks
/// would be a wrong number.
///
/// [`GroupBy::Stack`] gives no groups.
#[must_use]
pub fn group<'a>(stacks: impl Iterator<Item = &'a Stack>, by: GroupBy) -> Vec<Group> {
    if by == GroupBy::Stack {
        return Vec::new();
    }
    let mut places: HashMap<(Option<String>, Option<String>), usize> = HashMap::new();
    let mut sums: Vec<Sum> = Vec::new();
    for stack in stacks {
        let key = key(stack, by);
        let at = *places.entry(key.clone()).or_insert_with(|| {
            sums.push(Sum::new(key));
            sums.len() - 1
        });
        if let Some(sum) = sums.get_mut(at) {
            sum.add(stack);
        }
    }
    let mut groups: Vec<Group> = sums.into_iter().map(|sum| sum.group).collect();
    groups.sort_by(|a, b| {
        let growing = |group: &Group| group.verdict == Verdict::Growing;
        (growing(b).cmp(&growing(a)))
            .then(b.outstanding_bytes.cmp(&a.outstanding_bytes))
            .then(b.outstanding_objects.cmp(&a.outstanding_objects))
            .then_with(|| (&a.name, &a.module).cmp(&(&b.name, &b.module)))
    });
    for (at, group) in groups.iter_mut().enumerate() {
        group.rank = at + 1;
    }
    groups
}

/// Fills `report.groups` from those of `report.stacks` that may be added up ([`super::sums`]), then
/// keeps the first `top` of both (`None`: all) and counts the stacks cut under `report.not_shown`.
pub fn apply(report: &mut Report, by: GroupBy, top: Option<usize>) {
    let top = top.unwrap_or(usize::MAX);
    report.group_by = by;
    report.groups = group(report.summed(), by);
    report.groups.truncate(top);
    let cut = report.stacks.split_off(top.min(report.stacks.len()));
    for stack in cut {
        report.not_shown.stacks += 1;
        if report.is_summed(&stack) {
            report.not_shown.outstanding_bytes += stack.outstanding_bytes;
            report.not_shown.outstanding_objects += stack.outstanding_objects;
        }
    }
}

/// What the stacks hold that are in none of the groups shown.
#[must_use]
pub fn outside_groups(report: &Report) -> NotShown {
    let mut rest = report.not_shown;
    for stack in report.summed() {
        rest.stacks += 1;
        rest.outstanding_bytes += stack.outstanding_bytes;
        rest.outstanding_objects += stack.outstanding_objects;
    }
    for group in &report.groups {
        rest.stacks = rest.stacks.saturating_sub(group.stacks);
        rest.outstanding_bytes = rest
            .outstanding_bytes
            .saturating_sub(group.outstanding_bytes);
        rest.outstanding_objects = rest
            .outstanding_objects
            .saturating_sub(group.outstanding_objects);
    }
    rest
}

type Key = (Option<String>, Option<String>);

fn key(stack: &Stack, by: GroupBy) -> Key {
    let frame = culprit(&stack.frames).and_then(|at| stack.frames.get(at));
    let module = frame.and_then(|frame| frame.module.clone());
    match by {
        GroupBy::Module => (module, None),
        GroupBy::Process => (Some(stack.owner.program.clone()), None),
        GroupBy::Container => (stack.owner.container.clone(), None),
        GroupBy::Stack | GroupBy::Function => {
            (frame.and_then(|frame| frame.function.clone()), module)
        }
    }
}

struct Sum {
    group: Group,
    /// Bytes of the stack whose verdict the group has.
    verdict_from: u64,
}

impl Sum {
    fn new((name, module): Key) -> Self {
        let group = Group {
            rank: 0,
            name,
            module,
            pids: Vec::new(),
            stacks: 0,
            outstanding_bytes: 0,
            outstanding_objects: 0,
            allocated_bytes: 0,
            allocated_objects: 0,
            freed_bytes: 0,
            freed_objects: 0,
            oldest_seconds: None,
            growth_bytes_per_second: 0.0,
            verdict: Verdict::TooEarly,
            confidence: 0.0,
        };
        Self {
            group,
            verdict_from: 0,
        }
    }

    fn add(&mut self, stack: &Stack) {
        let first = self.group.stacks == 0;
        let group = &mut self.group;
        group.stacks += 1;
        group.outstanding_bytes += stack.outstanding_bytes;
        group.outstanding_objects += stack.outstanding_objects;
        group.allocated_bytes += stack.allocated_bytes;
        group.allocated_objects += stack.allocated_objects;
        group.freed_bytes += stack.freed_bytes;
        group.freed_objects += stack.freed_objects;
        group.growth_bytes_per_second += stack.growth_bytes_per_second;
        group.oldest_seconds = match (group.oldest_seconds, stack.oldest_seconds) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        if let Err(at) = group.pids.binary_search(&stack.pid) {
            group.pids.insert(at, stack.pid);
        }
        let grows = (
            stack.verdict == Verdict::Growing,
            group.verdict == Verdict::Growing,
        );
        let louder = match grows {
            (true, true) => stack.confidence > group.confidence,
            (true, false) => true,
            (false, true) => false,
            (false, false) => stack.outstanding_bytes > self.verdict_from,
        };
        if first || louder {
            group.verdict = stack.verdict;
            group.confidence = stack.confidence;
            self.verdict_from = stack.outstanding_bytes;
        }
    }
}

/// What a group is called in text.
#[must_use]
pub fn name(group: &Group, by: GroupBy) -> String {
    match (&group.name, &group.module, by) {
        (Some(name), _, GroupBy::Module | GroupBy::Process) => file_name(name).to_owned(),
        (Some(name), _, _) => name.clone(),
        (None, Some(module), _) => format!("[unknown function in {}]", file_name(module)),
        (None, None, GroupBy::Module) => "[unknown module]".to_owned(),
        (None, None, GroupBy::Container) => "[no container]".to_owned(),
        (None, None, _) => "[unknown function]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    // Stacks with the same function are one row, sums and oldest included.
    #[test]
    fn sums_by_function() {
        let report = fixtures::two_callers();
        let groups = group(report.stacks.iter(), GroupBy::Function);
        let names: Vec<_> = groups
            .iter()
            .map(|g| (g.rank, name(g, GroupBy::Function)))
            .collect();
        assert_eq!(
            names,
            [(1, "leak_here".to_owned()), (2, "warm_cache".to_owned())]
        );
        let leak = &groups[0];
        assert_eq!(
            (
                leak.stacks,
                leak.outstanding_bytes,
                leak.outstanding_objects
            ),
            (2, 3000, 30)
        );
        assert_eq!(
            (leak.oldest_seconds, leak.verdict),
            (Some(20.0), Verdict::Growing)
        );
        assert_eq!(leak.pids, [1234]);
    }

    // Modules are rows of their own, by full path.
    #[test]
    fn sums_by_module() {
        let groups = group(fixtures::two_callers().stacks.iter(), GroupBy::Module);
        let names: Vec<_> = groups.iter().map(|g| g.name.as_deref()).collect();
        assert_eq!(names, [Some("/srv/server"), Some("/srv/libcache.so")]);
    }

    // Cutting to the top N loses no byte: groups and the remainder add up to all stacks.
    #[test]
    fn cut_adds_up() {
        let mut report = fixtures::two_callers();
        let all: u64 = report.stacks.iter().map(|s| s.outstanding_bytes).sum();
        apply(&mut report, GroupBy::Function, Some(1));
        assert_eq!((report.groups.len(), report.stacks.len()), (1, 1));
        let shown: u64 = report.groups.iter().map(|g| g.outstanding_bytes).sum();
        assert_eq!(shown + outside_groups(&report).outstanding_bytes, all);
        let stacks: u64 = report.stacks.iter().map(|s| s.outstanding_bytes).sum();
        assert_eq!(stacks + report.not_shown.outstanding_bytes, all);
    }

    // Without a frame there is still a row.
    #[test]
    fn unknown_stack() {
        let mut report = fixtures::two_callers();
        for stack in &mut report.stacks {
            stack.frames.clear();
        }
        let groups = group(report.stacks.iter(), GroupBy::Function);
        assert_eq!(groups.len(), 1);
        assert_eq!(name(&groups[0], GroupBy::Function), "[unknown function]");
    }
}
