//! What the tests said in a guest, suite by suite. Pure.
use std::fmt;

/// The line before a suite's own.
pub const SUITE: &str = "=== suite ";
/// What a test that cannot run here says.
const SKIPPED: &str = "SKIPPED:";

/// One suite's outcome in one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub suite: String,
    pub passed: usize,
    /// By their names.
    pub failed: Vec<String>,
    /// Passed by saying that they cannot run here.
    pub skipped: usize,
    /// It came to its end: a suite that dies says nothing of the tests after that.
    pub ended: bool,
}

impl fmt::Display for Tally {
    /// `exact 47/47`, `oom 6/6 (1 skipped)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = self.passed + self.failed.len();
        write!(f, "{} {}/{ran}", self.suite, self.passed)?;
        if self.skipped > 0 {
            write!(f, " ({} skipped)", self.skipped)?;
        }
        if !self.ended {
            f.write_str(" (DID NOT END)")?;
        }
        Ok(())
    }
}

/// The suites in what Rust's own test runner printed with `--show-output`.
pub fn tallies(lines: &[String]) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = Vec::new();
    let mut lists_failures = false;
    for line in lines {
        if let Some(suite) = line.strip_prefix(SUITE) {
            let suite = suite.to_owned();
            tallies.push(Tally {
                suite,
                ..Tally::default()
            });
            lists_failures = false;
            continue;
        }
        let Some(tally) = tallies.last_mut() else {
            continue;
        };
        if let Some(rest) = line.strip_prefix("test result: ") {
            tally.ended = true;
            tally.passed = number_before(rest, " passed");
            lists_failures = false;
        } else if line.starts_with(SKIPPED) {
            tally.skipped += 1;
        } else if line == "failures:" {
            // Printed twice: with what each said, and then the names alone.
            lists_failures = true;
            tally.failed.clear();
        } else if let Some(name) = line.strip_prefix("    ")
            && lists_failures
            && !name.contains(' ')
        {
            tally.failed.push(name.to_owned());
        }
    }
    tallies
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    let digits = before.rsplit(' ').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Tally> {
        tallies(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    /// Passed, skipped and failed tests are counted suite by suite, and a suite that died is named.
    #[test]
    fn suites() {
        let text = "ok kernel\n=== suite oom\n\nrunning 3 tests\ntest a ... ok\ntest b ... FAILED\n\
                    successes:\n\n---- c stdout ----\nSKIPPED: version 1\n\nsuccesses:\n    a\n    c\n\
                    failures:\n\n---- b stdout ----\nthread 'b' panicked\n    at a place\n\n\
                    failures:\n    b\n\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n\n\
                    === suite exact\nrunning 2 tests\ntest a ... Killed\n";
        let tallies = of(text);
        assert_eq!(tallies[0].failed, ["b"]);
        assert_eq!(tallies[0].to_string(), "oom 2/3 (1 skipped)");
        assert_eq!(tallies[1].to_string(), "exact 0/0 (DID NOT END)");
        assert_eq!(tallies.len(), 2);
    }
}
