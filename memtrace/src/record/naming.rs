//! Which stacks a recording still has to be given the names of. Pure.

use std::collections::HashMap;

use super::encode::{Observed, StackKey};
use crate::report::model::Frame;

/// Stacks named in one interval at most, beside those a report shows: naming takes time, and the
/// rest is named in the next intervals.
const NAMES_AT_ONCE: usize = 1024;
/// A frame that is not named by now will never be.
const MAX_TRIES: u8 = 10;
/// What the symbolizer says of a frame that may have a name next time.
const LATE: &str = "not named in time";

/// What was named, on the side of who names.
#[derive(Debug, Default)]
pub(super) struct Naming {
    /// How often names were given; nothing when they are whole.
    tries: HashMap<StackKey, Option<u8>>,
}

impl Naming {
    /// Which stacks have to be named: new ones, and those that were not named in time before.
    pub fn wanted(&self, observed: &[Observed]) -> Vec<usize> {
        let wanted = observed.iter().enumerate().filter(|(_, stack)| {
            let tries = self.tries.get(&stack.key);
            tries.is_none_or(Option::is_some)
        });
        wanted.map(|(at, _)| at).take(NAMES_AT_ONCE).collect()
    }

    /// Names were given.
    pub fn given(&mut self, observed: &[Observed], frames: &[(usize, Vec<Frame>)]) {
        for (at, frames) in frames {
            let Some(stack) = observed.get(*at) else {
                continue;
            };
            let tries = self.tries.entry(stack.key).or_insert(Some(0));
            let is_late = frames.iter().any(|f| f.reason.as_deref() == Some(LATE));
            *tries = tries
                .map(|tries| tries + 1)
                .filter(|tries| is_late && *tries <= MAX_TRIES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;
    use crate::trend::Verdict;

    fn observed() -> Vec<Observed> {
        let account = fixtures::stack(0, 1, 1, Verdict::Steady);
        let key = StackKey {
            space: 1,
            stack: 1,
            probe: "heap",
            kind: None,
        };
        vec![Observed {
            key,
            account,
            judged: true,
        }]
    }

    fn late() -> Vec<(usize, Vec<Frame>)> {
        let frame = Frame {
            reason: Some(LATE.to_owned()),
            ..Frame::default()
        };
        vec![(0, vec![frame])]
    }

    /// A stack that is named is not asked for again; one that was late is, but not for ever.
    #[test]
    fn asks_again() {
        let observed = observed();
        let mut naming = Naming::default();
        let mut asked = 0;
        while !naming.wanted(&observed).is_empty() {
            naming.given(&observed, &late());
            asked += 1;
            assert!(asked < 100);
        }
        assert_eq!(asked, usize::from(MAX_TRIES) + 1);
        let mut naming = Naming::default();
        assert_eq!(naming.wanted(&observed), [0]);
        naming.given(&observed, &[(0, vec![fixtures::malloc()])]);
        assert!(naming.wanted(&observed).is_empty());
    }
}
