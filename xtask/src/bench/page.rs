//! The page of the docs with the tables: what stands between its markers is written anew, all else is
//! somebody's words and stays.
//!
//! A table of `--only NAME` stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::table::Table;

/// Puts tables, by the names of their parts, into the page.
pub fn update(page: &Path, machine: &str, tables: &[(String, Table)]) -> Result<()> {
    let mut text = std::fs::read_to_string(page)
        .with_context(|| format!("{} cannot be read", page.display()))?;
    for (name, table) in tables {
        let body = format!("Measured on {machine}.\n\n{}", table.markdown());
        text = replace(&text, name, &body)
            .with_context(|| format!("{} cannot be written", page.display()))?;
    }
    std::fs::write(page, text).with_context(|| format!("{} cannot be written", page.display()))
}

/// The text with another body between the markers of `name`.
fn replace(text: &str, name: &str, body: &str) -> Result<String> {
    let (begin, end) = markers(name);
    for marker in [&begin, &end] {
        ensure!(
            text.matches(marker.as_str()).count() == 1,
            "it must have `{marker}` once: put it where the table is to stand"
        );
    }
    let (before, rest) = text.split_once(&begin).unwrap_or_default();
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("`{end}` stands before `{begin}`"))?;
    Ok(format!(
        "{before}{begin}\n\n{}\n\n{end}{after}",
        body.trim()
    ))
}

fn markers(name: &str) -> (String, String) {
    (
        format!("<!-- bench:{name} -->"),
        format!("<!-- /bench:{name} -->"),
    )
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::bench::Part;

    const PAGE: &str = include_str!("../../../docs/src/performance.md");

    fn table() -> Table {
        let mut table = Table::new("A table", &["what", "ns"]);
        table.row(vec!["nothing".to_owned(), "8".to_owned()]);
        table
    }

    // The page has a place for every part, and writing all of them changes nothing outside of these.
    #[test]
    fn words_stay() {
        let mut text = PAGE.to_owned();
        let mut outside = PAGE.to_owned();
        for part in Part::value_variants() {
            let name = part.name();
            text = replace(&text, &name, &table().markdown()).unwrap();
            outside = replace(&outside, &name, "").unwrap();
        }
        assert_ne!(text, PAGE);
        assert_eq!(
            text.matches("| nothing | 8 |").count(),
            Part::value_variants().len()
        );
        for part in Part::value_variants() {
            text = replace(&text, &part.name(), "").unwrap();
        }
        assert_eq!(text, outside);
        assert!(outside.contains("## What a hit does"));
    }

    // What is written over what was written is the same.
    #[test]
    fn again() {
        let once = replace(PAGE, "pairs", &table().markdown()).unwrap();
        assert_eq!(replace(&once, "pairs", &table().markdown()).unwrap(), once);
    }

    // A marker that is missing, there twice or the wrong way round is named.
    #[test]
    fn no_place() {
        let both = "<!-- bench:a --><!-- /bench:a -->";
        for text in [
            "",
            "<!-- bench:a -->",
            &both.repeat(2),
            "<!-- /bench:a --><!-- bench:a -->",
        ] {
            let error = replace(text, "a", "x").unwrap_err().to_string();
            assert!(error.contains("bench:a"), "{text}: {error}");
        }
        assert!(replace(both, "a", "x").is_ok());
    }
}
