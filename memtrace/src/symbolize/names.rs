//! Names as they are shown: demangled, bounded, without anything a terminal would obey.

use std::fmt::{self, Write};

/// Characters of a function's name that are kept; C++ templates reach several KiB.
const MAX_NAME: usize = 1024;
/// Characters of a path that are kept.
const MAX_PATH: usize = 4096;
/// Longer mangled names are shown as they are: demangling a hostile one can take for ever.
const MAX_MANGLED: usize = 16 << 10;

/// A symbol's name demangled when it is a Rust or C++ one, made safe to print.
pub fn function_name(symbol: &str) -> String {
    let mut name = Bounded::new(MAX_NAME);
    // A bounded writer says that it is full by an error: what it took so far is the name.
    let _ = demangle(symbol, &mut name);
    if name.is_empty() {
        let _ = name.write_str(symbol);
    }
    name.finish()
}

/// A path or other text of a target made safe to print.
pub fn printable(text: &str) -> String {
    let mut out = Bounded::new(MAX_PATH);
    let _ = out.write_str(text);
    out.finish()
}

fn demangle(symbol: &str, out: &mut Bounded) -> fmt::Result {
    if symbol.len() > MAX_MANGLED {
        return Ok(());
    }
    if let Ok(rust) = rustc_demangle::try_demangle(symbol) {
        return write!(out, "{rust:#}");
    }
    // cpp_demangle takes `i` for `int`: only Itanium symbols are asked for.
    if !symbol.starts_with("_Z") && !symbol.starts_with("__Z") {
        return Ok(());
    }
    let options = cpp_demangle::DemangleOptions::new().no_return_type();
    // Substitutions let half a KiB of symbol stand for a name of gigabytes; the writer ends that.
    if let Ok(cpp) = cpp_demangle::Symbol::new(symbol.as_bytes()) {
        return cpp.structured_demangle(out, &options);
    }
    // GCC mangles a type as `sr` `St` …, which the library does not read. Where that is in the types
    // behind the name (`std::make_shared`'s result is an `enable_if`), the name itself is known.
    match cpp_demangle::BorrowedSymbol::with_tail(symbol.as_bytes()) {
        Ok((cpp, _)) => {
            cpp.structured_demangle(out, &options)?;
            // Its parameters are not known, rather than none.
            out.strip("()");
            out.write_char('…')
        }
        Err(_) => Ok(()),
    }
}

/// The name of a function that debug information calls no more than `operator()`, inlined into
/// `outer`: a lambda or a local class. It is the lambda that `outer` was made for when its template
/// arguments name one, and only one; else one of `outer`'s own, or of what `outer` called.
pub(super) fn inlined_operator(outer: &str) -> String {
    let name = match (lambda_of(outer), outer.split_once(IN)) {
        (Some(lambda), _) => format!("{lambda}::{OPERATOR}"),
        (None, Some((OPERATOR, whose))) => format!("{OPERATOR}{IN}{whose}"),
        (None, _) => format!("{OPERATOR}{IN}{outer}"),
    };
    let mut bounded = Bounded::new(MAX_NAME);
    let _ = bounded.write_str(&name);
    bounded.finish()
}

/// What local classes' and lambdas' methods are called.
pub(super) const OPERATOR: &str = "operator()";
const IN: &str = " in ";

/// The one lambda among a name's template arguments: `main::{lambda(int)#1}` of
/// `call<main::{lambda(int)#1}>(…)`, or as GCC has it in debug information, `main()::<lambda(int)>`.
fn lambda_of(name: &str) -> Option<&str> {
    const BRACED: (&str, &str) = ("::{lambda(", "}");
    const ANGLED: (&str, &str) = ("::<lambda(", ")>");
    let mut found = None;
    let marks = [BRACED, ANGLED].into_iter().flat_map(|(mark, end)| {
        let at = name.match_indices(mark);
        at.map(move |(at, _)| (at, end))
    });
    for (mark, end) in marks {
        let before = name.get(..mark)?;
        let mut depth = 0_i32;
        let start = before.char_indices().rev().find_map(|(at, c)| {
            match c {
                '>' | ')' | '}' => depth += 1,
                '<' | '(' | '{' | ',' | ' ' if depth == 0 => return Some(at + c.len_utf8()),
                '<' | '(' | '{' => depth -= 1,
                _ => {}
            }
            None
        })?;
        let end = mark + name.get(mark..)?.find(end)? + end.len();
        let lambda = name.get(start..end)?;
        if found.is_some_and(|other| other != lambda) {
            return None;
        }
        found = Some(lambda);
    }
    found
}

/// Text that replaces what is not printable and refuses what is too long.
struct Bounded {
    text: String,
    left: usize,
    full: bool,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            left: limit,
            full: false,
        }
    }

    fn strip(&mut self, suffix: &str) {
        if self.text.ends_with(suffix) {
            self.text.truncate(self.text.len() - suffix.len());
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn finish(mut self) -> String {
        if self.full {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let Some(left) = self.left.checked_sub(1) else {
                self.full = true;
                return Err(fmt::Error);
            };
            self.left = left;
            self.text.push(if is_printable(c) { c } else { '\u{fffd}' });
        }
        Ok(())
    }
}

/// Not a control character, nor one that changes the direction of text or hides.
fn is_printable(c: char) -> bool {
    let hides = matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !hides
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rust names of both schemes, C++ names and clones of C++ functions come out readable.
    #[test]
    fn demangles() {
        let cases = [
            (
                "_ZN5alloc5alloc8exchange17h0123456789abcdefE",
                "alloc::alloc::exchange",
            ),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_Z5leakyi", "leaky(int)"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back(int const&)",
            ),
            ("_Znwm", "operator new(unsigned long)"),
            ("_Z5leakyi.cold", "leaky(int) [clone .cold]"),
            ("_Z3maxIiET_S0_S0_", "max<int>(int, int)"),
            ("malloc", "malloc"),
            ("i", "i"),
            ("leak_one.isra.0", "leak_one.isra.0"),
            ("_Znonsense", "_Znonsense"),
            // As GCC 12 has it, with a type that the library cannot read behind the name.
            (
                "_ZSt11make_sharedI4ItemJRiEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES5_E4typeEEDpOT0_",
                "std::make_shared<Item, int&>…",
            ),
        ];
        for (symbol, name) in cases {
            assert_eq!(function_name(symbol), name, "{symbol}");
        }
    }

    /// An inlined lambda is named by the function made for it, or by the function it is inlined in.
    #[test]
    fn inlined_lambdas_have_a_place() {
        let cases = [
            ("fill(int)", "operator() in fill(int)"),
            ("operator() in fill(int)", "operator() in fill(int)"),
            (
                "std::for_each<It<int, A>, Pool::grow(std::vector<int> const&)::{lambda(int)#1}>(It<int, A>, Pool::grow(std::vector<int> const&)::{lambda(int)#1})",
                "Pool::grow(std::vector<int> const&)::{lambda(int)#1}::operator()",
            ),
            (
                "both<main::{lambda(int)#1}, main::{lambda(int)#2}>(int)",
                "operator() in both<main::{lambda(int)#1}, main::{lambda(int)#2}>(int)",
            ),
            ("main::{lambda(", "operator() in main::{lambda("),
            (
                "for_each<It<int*>, fill(std::vector<int>&)::<lambda(int)> >",
                "fill(std::vector<int>&)::<lambda(int)>::operator()",
            ),
            (
                "fill(std::vector<int>&)::<lambda(int)>::operator()",
                "operator() in fill(std::vector<int>&)::<lambda(int)>::operator()",
            ),
        ];
        for (outer, name) in cases {
            assert_eq!(inlined_operator(outer), name, "{outer}");
        }
    }

    /// A symbol that stands for a name of gigabytes is cut in no time.
    #[test]
    fn demangling_bombs_are_bounded() {
        // Each argument is a pair of the one before it with itself.
        let mut symbol = String::from("_Z1fSt4pairIiiE");
        for n in 0..60u32 {
            let seq = |n: u32| match n {
                0 => "S_".to_owned(),
                n => format!(
                    "S{}_",
                    char::from_digit(n - 1, 36).unwrap().to_ascii_uppercase()
                ),
            };
            let last = seq((n + 1).min(36));
            symbol.push_str(&format!("S_I{last}{last}E"));
            if n > 33 {
                break;
            }
        }
        let started = std::time::Instant::now();
        let name = function_name(&symbol);
        assert!(
            name.chars().count() <= MAX_NAME + 1,
            "{} characters",
            name.len()
        );
        assert!(started.elapsed().as_secs() < 5);
    }

    /// Escape sequences and direction marks do not reach the terminal; long names are cut.
    #[test]
    fn nothing_unprintable_passes() {
        assert_eq!(
            function_name("a\u{1b}[31mb\n\u{202e}c"),
            "a\u{fffd}[31mb\u{fffd}\u{fffd}c"
        );
        assert_eq!(printable("/bin/\u{7}x"), "/bin/\u{fffd}x");
        let long = "x".repeat(5000);
        assert_eq!(function_name(&long).chars().count(), MAX_NAME + 1);
        assert!(function_name(&long).ends_with('…'));
    }
}
