//! Making room in the kernel's table of contexts before it is full.

use std::collections::HashMap;

use memtrace_common::{Context, ContextKey};

use super::{Session, SessionError};

/// Idle contexts are looked for above this share of the table, in percent.
const WATCH_PERCENT: usize = 50;
/// And removed above this one.
const EVICT_PERCENT: usize = 75;

/// Contexts that hold nothing, with their hits at the last report.
#[derive(Debug, Default)]
pub(super) struct Idle {
    before: HashMap<ContextKey, u64>,
    now: HashMap<ContextKey, u64>,
    seen: usize,
}

impl Idle {
    /// Takes one context of a walk.
    pub fn look(&mut self, key: ContextKey, context: &Context) {
        self.seen += 1;
        if context.allocated_objects == context.freed_objects && key.fingerprint != 0 {
            self.now.insert(key, context.hits);
        }
    }

    /// Ends a walk: the contexts to remove. Those held nothing and were not hit since the walk
    /// before, so that no program is about to count under them.
    fn finish(&mut self, capacity: usize) -> Vec<ContextKey> {
        let seen = std::mem::take(&mut self.seen);
        let now = std::mem::take(&mut self.now);
        let before = std::mem::take(&mut self.before);
        if seen * 100 > capacity * WATCH_PERCENT {
            self.before = now.clone();
        }
        if seen * 100 <= capacity * EVICT_PERCENT {
            return Vec::new();
        }
        let idle = |(key, hits): &(ContextKey, u64)| before.get(key) == Some(hits);
        now.into_iter().filter(idle).map(|(key, _)| key).collect()
    }
}

impl Session {
    /// Removes idle contexts when the table fills. The ledger keeps what they had.
    pub(super) fn evict_contexts(&mut self) -> Result<(), SessionError> {
        let capacity = self.options.kernel.context_entries as usize;
        let keys = self.idle.finish(capacity);
        if keys.is_empty() {
            return Ok(());
        }
        self.contexts_evicted += keys.len() as u64;
        self.kernel.remove_contexts(&keys)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(idle: &mut Idle, contexts: &[(u64, u64, u64)], capacity: usize) -> Vec<u64> {
        for (fingerprint, outstanding, hits) in contexts {
            let key = ContextKey {
                space: 1,
                fingerprint: *fingerprint,
            };
            let context = Context {
                allocated_objects: 10 + outstanding,
                freed_objects: 10,
                hits: *hits,
                ..Context::default()
            };
            idle.look(key, &context);
        }
        let mut evicted: Vec<_> = idle
            .finish(capacity)
            .iter()
            .map(|k| k.fingerprint)
            .collect();
        evicted.sort_unstable();
        evicted
    }

    /// Only contexts that hold nothing and rested for a whole interval go, and only when the
    /// table fills.
    #[test]
    fn idle_contexts_go_when_the_table_fills() {
        let contexts = [(1, 0, 5), (2, 1, 5), (3, 0, 5), (4, 0, 9)];
        let later = [(1, 0, 5), (2, 1, 5), (3, 0, 6), (4, 0, 9)];
        let mut idle = Idle::default();
        assert!(
            walk(&mut idle, &contexts, 4).is_empty(),
            "nothing rested yet"
        );
        assert_eq!(walk(&mut idle, &later, 4), [1, 4]);
        let mut roomy = Idle::default();
        assert!(walk(&mut roomy, &contexts, 100).is_empty());
        assert!(walk(&mut roomy, &later, 100).is_empty());
    }
}
