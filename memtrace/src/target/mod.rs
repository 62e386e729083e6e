//! What to trace: processes, their mappings, the ELF objects in them, the allocators in those.
//!
//! Everything read here was written by somebody else (a process, a container's files) and is
//! treated as hostile: bounded reads, no blocking opens, a named error instead of a panic, and no
//! file opened outside of the target's own root.
//!
//! - [`process`] reads `/proc/PID`, [`maps`] its mappings, [`open`] opens its files safely;
//! - [`object`] reads ELF by bounded `pread`s, [`family`] finds allocators in it;
//! - [`placement`] decides where in a function a probe costs least, [`discover`] joins all that
//!   into a plan for a process;
//! - [`cgroup`] reads limits and usage, [`container`] knows whose a cgroup is;
//! - [`text`] makes the kernel side's table of code addresses, [`perf_map`] names JIT code.
pub mod cgroup;
pub mod container;
pub mod discover;
pub mod family;
pub mod maps;
pub mod object;
pub mod open;
pub mod pagemap;
pub mod perf_map;
pub mod placement;
pub mod process;
mod returns;
pub mod runtime;
pub mod select;
pub mod smaps;
pub mod text;

/// Text of foreign bytes that is safe to print: control characters are escaped, bytes that are
/// not UTF-8 are replaced.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(unprintable) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if unprintable(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters, and the marks that change the direction of the text around them.
fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    /// Control characters and direction marks are escaped, other text stays.
    #[test]
    fn printable_escapes_what_a_terminal_would_obey() {
        assert_eq!(printable(b"plain \xc3\xa9"), "plain \u{e9}");
        assert_eq!(printable(b"a\x1b[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(printable("x\u{202e}y".as_bytes()), "x\\u{202e}y");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }
}
