//! The layers, checked by reading the source: who may name which library, what the pure parts
//! must not touch. docs/ARCHITECTURE states them; this keeps them true.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell::say;
use crate::workspace::Workspace;

/// A word that only some modules may use.
struct Owned {
    word: &'static str,
    owners: &'static [&'static str],
}

/// Libraries with an owner: everyone else goes through that module.
const OWNED: &[Owned] = &[
    Owned {
        word: "aya",
        owners: &["probe", "stream"],
    },
    Owned {
        word: "framehop",
        owners: &["unwind"],
    },
    Owned {
        word: "blazesym",
        owners: &["symbolize"],
    },
    Owned {
        word: "rusqlite",
        owners: &["record"],
    },
    Owned {
        word: "inferno",
        owners: &["report"],
    },
    Owned {
        word: "prost",
        owners: &["report", "target"],
    },
    Owned {
        word: "axum",
        owners: &["agent"],
    },
    Owned {
        word: "hyper",
        owners: &["target", "agent"],
    },
    Owned {
        word: "ratatui",
        owners: &["tui"],
    },
    Owned {
        word: "crossterm",
        owners: &["tui"],
    },
];

/// Where time and data only come in as values.
const PURE: &[&str] = &[
    "memtrace/src/ledger",
    "memtrace/src/trend",
    "memtrace-common/src",
];
/// What the pure parts must not name: files, clocks, the network, other processes.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "aya",
    "tokio",
    "libc",
    "rustix",
];
/// Files above this many lines are where every code base is worst: said, not forbidden.
const LONG: usize = 600;

/// Reads the sources and fails with every line that breaks a layer.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut broken = Vec::new();
    for file in rust_files(&workspace.root)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = workspace.short(&file).to_string();
        broken.extend(violations(&name, &text));
        let lines = text.lines().count();
        if lines > LONG {
            say(format!("{name} has {lines} lines: time to part it"));
        }
    }
    ensure!(
        broken.is_empty(),
        "layers are broken:\n{}",
        broken.join("\n")
    );
    Ok(())
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let crates = [
        "memtrace",
        "memtrace-common",
        "memtrace-ebpf",
        "tests",
        "xtask",
    ];
    for crate_name in crates {
        collect(&root.join(crate_name).join("src"), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// What in the file `name` (its path below the root) breaks a layer.
fn violations(name: &str, text: &str) -> Vec<String> {
    let mut forbidden: Vec<&str> = Vec::new();
    if let Some(inside) = name.strip_prefix("memtrace/src/") {
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        let foreign = OWNED.iter().filter(|owned| !owned.owners.contains(&module));
        forbidden.extend(foreign.map(|owned| owned.word));
    }
    if PURE.iter().any(|pure| is_below(name, pure)) {
        forbidden.extend(IMPURE);
    }
    forbidden.sort_unstable();
    forbidden.dedup();
    let code = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, code_of(line)));
    code.flat_map(|(at, code)| {
        let used = forbidden.iter().filter(move |word| uses(code, word));
        used.map(move |word| format!("{name}:{at}: {word} does not belong here"))
    })
    .collect()
}

/// Whether the module `folder` (its files, or its one file) holds the file `name`.
fn is_below(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// The line without its comment. A `//` in a string cuts too much; no layer hides there.
fn code_of(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Whether `word` is used: as a whole word, and a library's name only as the start of a path or
/// in a `use`, so that a variable or a module of the same name is no violation.
fn uses(code: &str, word: &str) -> bool {
    let is_library = !word.contains("::") && word.starts_with(char::is_lowercase);
    code.match_indices(word).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + word.len()..];
        let is_whole = !before.ends_with(in_a_word) && !after.starts_with(in_a_word);
        let is_named = after.starts_with("::") || before.trim_start().starts_with("use ");
        is_whole && (!is_library || (is_named && !before.ends_with(':')))
    })
}

fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library with an owner is refused elsewhere and left alone at home.
    #[test]
    fn owners() {
        let line = "use aya::Ebpf;\n";
        assert!(violations("memtrace/src/probe/load.rs", line).is_empty());
        assert!(violations("memtrace/src/stream.rs", line).is_empty());
        assert_eq!(
            violations("memtrace/src/session.rs", line),
            ["memtrace/src/session.rs:1: aya does not belong here"]
        );
    }

    /// Pure parts know no clock and no file, whichever way they are named.
    #[test]
    fn purity() {
        let text = "let a = std::time::Instant::now();\nstd::fs::read(x);\nlet aya = 1;\n";
        assert_eq!(violations("memtrace/src/trend/fit.rs", text).len(), 2);
        assert_eq!(violations("memtrace-common/src/lib.rs", text).len(), 2);
        assert!(violations("memtrace/src/session.rs", text).is_empty());
    }

    /// Comments, longer words and variables of the same name are no use of a library.
    #[test]
    fn lookalikes() {
        let text = "// aya::Ebpf\nlet payaya::x = aya_log::y;\nlet framehop = 1;\n";
        assert!(violations("memtrace/src/cli/mod.rs", text).is_empty());
    }
}
