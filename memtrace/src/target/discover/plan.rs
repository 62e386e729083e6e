//! The probes of one object.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Analysis, PlannedProbe};
use crate::target::family::{self, Allocators, FoundFunction};
use crate::target::object::Object;
use crate::target::placement::{self, Placement};
use crate::target::returns;

/// Places a probe for every function and joins those that one probe can serve.
pub(super) fn plan(object: Object, allocators: Allocators) -> Analysis {
    let Allocators {
        families,
        functions,
        mut missing,
        mut notes,
        ..
    } = allocators;
    let functions: Vec<PlannedProbe> = functions
        .into_iter()
        .map(|found| PlannedProbe {
            placement: place(&object, &found),
            needs_return: family::needs_return(found.function),
            returns: Vec::new(),
            also: Vec::new(),
            found,
        })
        .collect();
    let mut functions = join_jumps(&object, functions);
    functions.retain_mut(|probe| {
        if !probe
            .found
            .names
            .iter()
            .any(|name| returns::may_throw(name))
        {
            return true;
        }
        match returns::find(&object, probe.found.address) {
            Ok(found) => {
                probe.returns = found;
                true
            }
            Err(problem) => {
                let name = probe.found.names.first().cloned().unwrap_or_default();
                notes.push(format!(
                    "{name} is not traced: it can throw, which a return probe would turn into the \
                     program's end, and its return instructions are not known ({problem})"
                ));
                missing.extend(probe.found.names.iter().cloned());
                false
            }
        }
    });
    if functions.iter().all(|p| p.needs_return) {
        notes.push("no function that frees was found: everything will look outstanding".to_owned());
    }
    let note = if notes.is_empty() {
        None
    } else {
        Some(notes.join("; "))
    };
    Analysis {
        object: Arc::new(object),
        families,
        functions,
        missing,
        note,
    }
}

/// Leaves out functions that only jump to another one of the list, directly or through the
/// procedure linkage table, when their arguments stand there as that one wants them: jemalloc's
/// `operator delete` jumps to `free`, and one probe sees both.
///
/// Through the linkage table the jump can also end in another object's function of that name; that
/// one is an allocator's function too and has its own probe.
fn join_jumps(object: &Object, functions: Vec<PlannedProbe>) -> Vec<PlannedProbe> {
    let target = |p: &PlannedProbe| -> Option<usize> {
        let to = p.placement.jumps_to?;
        let direct = functions.iter().position(|q| q.found.address == to);
        let found = direct.or_else(|| {
            let name = object.plt_target(to)?;
            functions.iter().position(|q| q.found.names.contains(&name))
        })?;
        let other = functions.get(found)?;
        let same = other.found.function == p.placement.function
            && other.found.file_offset != p.found.file_offset;
        same.then_some(found)
    };
    let targets: Vec<Option<usize>> = functions.iter().map(target).collect();
    let mut also: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut kept = Vec::new();
    for (index, probe) in functions.iter().enumerate() {
        let mut end = index;
        // Longer chains, and circles, keep their probes.
        for _ in 0..8 {
            match targets.get(end).copied().flatten() {
                Some(next) => end = next,
                None => break,
            }
        }
        if end == index || targets.get(end).copied().flatten().is_some() {
            kept.push((index, probe.clone()));
        } else {
            also.entry(end)
                .or_default()
                .extend(probe.found.names.iter().cloned());
        }
    }
    kept.into_iter()
        .map(|(index, probe)| PlannedProbe {
            also: also.remove(&index).unwrap_or_default(),
            ..probe
        })
        .collect()
}

/// Reads a function's code and places its probe.
fn place(object: &Object, found: &FoundFunction) -> Placement {
    /// Read of a function whose size is unknown.
    const UNSIZED: u64 = 256;
    let segment = object.segments().find(|s| {
        found
            .file_offset
            .checked_sub(s.offset)
            .is_some_and(|inside| inside < s.file_size)
    });
    let room = segment.map_or(0, |s| s.file_size - (found.file_offset - s.offset));
    let size = if found.size == 0 { UNSIZED } else { found.size };
    let length = size.min(placement::CODE_CAP).min(room);
    let code = object
        .read_at(found.file_offset, length)
        .unwrap_or_default();
    placement::place(object.machine(), found.function, &code, found.address)
}
