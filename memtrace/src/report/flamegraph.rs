//! Flame graphs as SVG, drawn by inferno: search and zoom are in the file.

use std::io;

use inferno::flamegraph::{self, Options, color::BasicPalette, color::Palette};

use super::{
    human,
    layout::clean,
    profile::{Profile, names},
};

/// In a name, in place of a space and of `;` on the way through inferno, to which both mean
/// something. Private characters: those of the target are replaced before.
const SPACE: char = '\u{e000}';
const SEMICOLON: char = '\u{e001}';

/// Outstanding bytes by stack, of those that may be added up ([`super::sums`]).
///
/// # Errors
/// What inferno returns.
pub fn render(profile: &Profile) -> io::Result<Vec<u8>> {
    let mut lines = Vec::with_capacity(profile.samples.len() + 1);
    let paths = profile.summed().map(|sample| {
        let path = names::path(profile, sample);
        (path, sample.outstanding_bytes)
    });
    let rest =
        names::not_shown(profile).map(|rest| (vec![rest], profile.not_shown.outstanding_bytes));
    for (path, bytes) in paths.chain(rest) {
        if bytes > 0 {
            lines.push(format!("{} {bytes}", stack(&path)));
        }
    }
    let outstanding = human::bytes(profile.outstanding_bytes());
    let about = if profile.is_sampled() { "~" } else { "" };
    draw(
        lines,
        &names::title(profile),
        &format!(
            "{about}{outstanding} outstanding since the attach, at {}",
            clean(&profile.meta.taken_at)
        ),
    )
}

/// What `after` holds, coloured by what it holds more (red) or less (blue) than `before`.
///
/// Stacks are the same when the names on them are; processes are not told apart.
///
/// # Errors
/// What inferno returns.
pub fn render_diff(before: &Profile, after: &Profile) -> io::Result<Vec<u8>> {
    let mut stacks: std::collections::BTreeMap<String, (u64, u64)> = Default::default();
    for sample in before.summed() {
        let sums = stacks.entry(bare_stack(before, sample)).or_default();
        sums.0 = sums.0.saturating_add(sample.outstanding_bytes);
    }
    for sample in after.summed() {
        let sums = stacks.entry(bare_stack(after, sample)).or_default();
        sums.1 = sums.1.saturating_add(sample.outstanding_bytes);
    }
    let lines = stacks
        .iter()
        .filter(|(_, (before, after))| *before > 0 || *after > 0);
    let lines = lines.map(|(stack, (before, after))| format!("{stack} {before} {after}"));
    draw(
        lines.collect(),
        &names::title(after),
        &format!(
            "{} → {} outstanding; red grew, blue shrank",
            human::bytes(before.outstanding_bytes()),
            human::bytes(after.outstanding_bytes())
        ),
    )
}

fn bare_stack(profile: &Profile, sample: &super::profile::Sample) -> String {
    let path = names::path(profile, sample);
    stack(path.get(1..).unwrap_or_default())
}

fn stack(path: &[String]) -> String {
    let names: Vec<_> = path.iter().map(|name| protect(name)).collect();
    if names.is_empty() {
        protect("[no frames]")
    } else {
        names.join(";")
    }
}

fn protect(name: &str) -> String {
    let one = |c| match c {
        ' ' => SPACE,
        ';' => SEMICOLON,
        // What XML has no place for.
        '\u{e000}' | '\u{e001}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        // inferno trims lines.
        c if c.is_whitespace() => SPACE,
        c => c,
    };
    name.chars().map(one).collect()
}

/// What inferno is given as text, without what XML has no place for.
fn text(text: &str) -> String {
    protect(text).replace(SPACE, " ").replace(SEMICOLON, ";")
}

fn draw(lines: Vec<String>, title: &str, subtitle: &str) -> io::Result<Vec<u8>> {
    let mut options = Options::default();
    options.title = text(title);
    options.subtitle = Some(text(subtitle));
    options.count_name = "bytes".to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    // Colours by name, so that two reports of one program look alike.
    options.hash = true;
    options.deterministic = true;
    let lines = fit(lines);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    // Only names hold the placeholders.
    let svg = String::from_utf8(svg).map_err(io::Error::other)?;
    Ok(svg.replace(SPACE, " ").replace(SEMICOLON, ";").into_bytes())
}

/// inferno fails on nothing at all; a process without leaks is a good result, and drawn.
fn fit(lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() {
        return vec![format!("{} 1", protect("[nothing is outstanding]"))];
    }
    lines
}

#[cfg(test)]
mod tests;
