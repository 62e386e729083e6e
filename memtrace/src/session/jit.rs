//! Names of code made at run time, remembered beyond the life of the process that wrote them down.

use std::collections::{BTreeSet, HashMap};

use super::Session;
use crate::{
    id::{SpaceId, Tgid},
    target::perf_map,
    unwind::CapturedFrame,
};

/// Names kept; the runtime's own map is asked again for what was dropped.
const MAX_NAMES: usize = 65_536;

/// Names by address space and address.
#[derive(Debug, Default)]
pub(super) struct JitNames {
    names: HashMap<(SpaceId, u64), String>,
    problems: BTreeSet<Tgid>,
}

impl JitNames {
    pub fn get(&self, space: SpaceId, address: u64) -> Option<String> {
        self.names.get(&(space, address)).cloned()
    }
}

impl Session {
    /// Looks up the addresses of these stacks that no file explains, in the perf maps of the
    /// processes that still live. A map that is not to be trusted is said once and not used.
    pub(super) fn learn_jit_names(&mut self, stacks: &[(SpaceId, Vec<CapturedFrame>)]) {
        let mut wanted: HashMap<SpaceId, BTreeSet<u64>> = HashMap::new();
        for (space, frames) in stacks {
            for (index, frame) in frames
                .iter()
                .enumerate()
                .filter(|(_, f)| f.module.is_none())
            {
                // A return address can be behind its function's end.
                let address = frame.address.wrapping_sub(u64::from(index > 0));
                if !self.jit.names.contains_key(&(*space, address)) {
                    wanted.entry(*space).or_default().insert(address);
                }
            }
        }
        for (space, addresses) in wanted {
            let Some(traced) = self.traced.iter().find(|t| t.image.space == space) else {
                continue;
            };
            let Ok(process) = self.proc.read(traced.tgid) else {
                continue;
            };
            match perf_map::lookup(&self.proc, &process, addresses) {
                Ok(found) => {
                    if self.jit.names.len() + found.names.len() > MAX_NAMES {
                        self.jit.names.clear();
                    }
                    let named = found
                        .names
                        .into_iter()
                        .map(|(at, name)| ((space, at), name));
                    self.jit.names.extend(named);
                }
                Err(error) => {
                    if self.jit.problems.insert(process.tgid) {
                        self.notices.push(error.to_string());
                    }
                }
            }
        }
    }
}
