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
    let Ok(cpp) = cpp_demangle::Symbol::new(symbol.as_bytes()) else {
        return Ok(());
    };
    let options = cpp_demangle::DemangleOptions::new().no_return_type();
    // Substitutions let half a KiB of symbol stand for a name of gigabytes; the writer ends that.
    cpp.structured_demangle(out, &options)
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
        ];
        for (symbol, name) in cases {
            assert_eq!(function_name(symbol), name, "{symbol}");
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
