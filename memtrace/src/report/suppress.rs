//! Suppressions: stacks that may grow, each for a reason somebody wrote down.
//!
//! A TOML file of `[[suppression]]` entries with a `function` or a `module` pattern, or both, and a
//! `reason`. Pure: the text comes in, reading the file is the caller's. The file can be anything;
//! what is wrong is told in one line.

use serde::Deserialize;

use super::{
    culprit::file_name,
    layout::clean,
    model::{Frame, Stack},
};

/// Bytes of a file; real ones have some hundred.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Entries of a file: each is tried on every frame.
const MAX_ENTRIES: usize = 1000;
/// Bytes of a pattern or a reason.
const MAX_TEXT: usize = 1000;

/// Why a file of suppressions is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct SuppressionError {
    /// From 1.
    pub line: Option<usize>,
    /// In one line.
    pub what: String,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Pattern for a function's name.
    pub function: Option<String>,
    /// Pattern for an object's path or file name.
    pub module: Option<String>,
    /// Why what matches may grow.
    pub reason: String,
    /// Where it stands in the file, from 1.
    pub line: usize,
}

/// The entries of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppressions {
    entries: Vec<Suppression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    suppression: Vec<toml::Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    function: Option<String>,
    module: Option<String>,
    reason: Option<String>,
}

impl Suppressions {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`SuppressionError`] for what is no TOML, has unknown keys, no pattern or no reason.
    pub fn parse(text: &str) -> Result<Self, SuppressionError> {
        let file: File = toml::from_str(text).map_err(|error| SuppressionError {
            line: error.span().map(|span| line_of(text, span.start)),
            what: clean(error.message().trim()).into_owned(),
        })?;
        if file.suppression.len() > MAX_ENTRIES {
            return Err(SuppressionError {
                line: None,
                what: format!("more than {MAX_ENTRIES} entries"),
            });
        }
        let entries = file.suppression.into_iter().map(|entry| {
            let line = line_of(text, entry.span().start);
            check(entry.into_inner(), line)
        });
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[Suppression] {
        &self.entries
    }

    /// The first entry that a frame of the stack matches.
    #[must_use]
    pub fn find(&self, stack: &Stack) -> Option<usize> {
        let any = |entry: &Suppression| stack.frames.iter().any(|frame| entry.matches(frame));
        self.entries.iter().position(any)
    }
}

fn check(entry: Entry, line: usize) -> Result<Suppression, SuppressionError> {
    let fail = |what: &str| SuppressionError {
        line: Some(line),
        what: what.to_owned(),
    };
    let reason = entry.reason.unwrap_or_default();
    if reason.trim().is_empty() {
        return Err(fail("a suppression needs a reason = \"…\""));
    }
    if entry.function.is_none() && entry.module.is_none() {
        return Err(fail(
            "a suppression needs a function = \"…\" or a module = \"…\"",
        ));
    }
    let patterns = [&entry.function, &entry.module];
    if patterns
        .iter()
        .any(|p| p.as_ref().is_some_and(|p| p.trim_matches('*').is_empty()))
    {
        return Err(fail(
            "a pattern that matches everything would hide every leak",
        ));
    }
    let texts = patterns.into_iter().flatten().chain([&reason]);
    if texts.into_iter().any(|text| text.len() > MAX_TEXT) {
        return Err(fail("a text of more than 1000 bytes"));
    }
    Ok(Suppression {
        function: entry.function,
        module: entry.module,
        reason,
        line,
    })
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

impl Suppression {
    /// True when a frame is what the entry names.
    #[must_use]
    pub fn matches(&self, frame: &Frame) -> bool {
        let function = self.function.as_ref().is_none_or(|pattern| {
            let name = frame.function.as_deref();
            name.is_some_and(|name| glob(pattern, name))
        });
        let module = self.module.as_ref().is_none_or(|pattern| {
            let path = frame.module.as_deref();
            path.is_some_and(|path| glob(pattern, path) || glob(pattern, file_name(path)))
        });
        function && module
    }

    /// The patterns, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let function = self
            .function
            .as_ref()
            .map(|p| format!("function {}", clean(p)));
        let module = self.module.as_ref().map(|p| format!("module {}", clean(p)));
        let both: Vec<_> = function.into_iter().chain(module).collect();
        both.join(", ")
    }
}

/// Whether a pattern with `*` (any characters) and `?` (one) is the whole text. At most length of
/// pattern times length of text steps.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on from when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&c) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == c => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((after, from)) => {
                    *from += 1;
                    (p, t) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::fixtures;

    // Any frame of a stack can match; both patterns must match the same frame.
    #[test]
    fn matches() {
        let text = "
            [[suppression]]
            function = \"warm_*\"
            module = \"libcache.so*\"
            reason = \"fills until 1 GiB\"

            [[suppression]]
            function = \"leak_here\"
            module = \"/srv/libcache.so\"
            reason = \"not that module\"";
        let suppressions = Suppressions::parse(text).unwrap();
        let report = fixtures::leak();
        assert_eq!(suppressions.find(&report.stacks[0]), None);
        assert_eq!(suppressions.find(&report.stacks[1]), Some(0));
        let lines: Vec<_> = suppressions.entries().iter().map(|e| e.line).collect();
        assert_eq!(lines, [2, 7]);
        let words = suppressions.entries()[0].describe();
        assert_eq!(words, "function warm_*, module libcache.so*");
    }

    // What is wrong is told with its line, in one line.
    #[test]
    fn complaints() {
        let cases = [
            "[[suppression]]\nfunction = \"f\"",
            "[[suppression]]\nfunction = \"f\"\nreason = \" \"",
            "[[suppression]]\nreason = \"r\"",
            "[[suppression]]\nfunction = \"**\"\nreason = \"r\"",
            "[[suppression]]\nfuncton = \"f\"\nreason = \"r\"",
            "[[suppression]]\nfunction = 3\nreason = \"r\"",
            "\n\nleak_here because",
            "[[suppressions]]\n",
            "\u{0}",
        ];
        let told = cases.map(|text| Suppressions::parse(text).unwrap_err().to_string());
        assert!(told.iter().all(|text| !text.contains('\n')));
        insta::assert_snapshot!(told.join("\n"));
    }

    // An empty file suppresses nothing; too many entries are refused.
    #[test]
    fn sizes() {
        assert_eq!(Suppressions::parse("# none yet\n").unwrap().entries(), []);
        let many = "[[suppression]]\nfunction = \"f\"\nreason = \"r\"\n".repeat(1001);
        assert!(Suppressions::parse(&many).is_err());
    }

    /// The same by definition.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            Some((c, rest)) => text
                .split_first()
                .is_some_and(|(first, more)| (*c == '?' || c == first) && naive(rest, more)),
        }
    }

    proptest! {
        // Patterns mean what they say.
        #[test]
        fn globs(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = naive(&chars(&pattern), &chars(&text));
            prop_assert_eq!(glob(&pattern, &text), expected);
        }

        // Any text is entries or one line.
        #[test]
        fn any_file(text: String) {
            if let Err(error) = Suppressions::parse(&text) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }

    // A pattern made to be slow is not.
    #[test]
    fn no_blow_up() {
        assert!(!glob(&("*a".repeat(300) + "c"), &"a".repeat(20_000)));
    }
}
