//! The report as text: who leaks and how sure that is first, then the facts, then the stacks.
//!
//! Pure: the same report, width and colour give the same text.

mod cycles;
mod facts;
mod headline;
mod losses;
pub(crate) mod names;
mod stacks;

#[cfg(test)]
mod tests;

use anstyle::Style;

use super::human;
use super::layout::{Page, piece, style, tight};
use super::model::{Process, Report};
use crate::trend::Verdict;

/// How to render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns of the terminal; 80 when it is not one. Less than 40 is taken as 40.
    pub width: usize,
    /// ANSI colours.
    pub color: bool,
    /// Every frame, every probed object, notes.
    pub verbose: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            width: 80,
            color: false,
            verbose: false,
        }
    }
}

/// Renders a report; ends in a line end.
#[must_use]
pub fn render(report: &Report, options: TextOptions) -> String {
    let mut page = Page::new(options.width, options.color);
    let view = View {
        report,
        verbose: options.verbose,
    };
    headline::title(&mut page, &view);
    headline::verdict(&mut page, &view);
    page.gap();
    facts::write(&mut page, &view);
    losses::write(&mut page, &view);
    cycles::write(&mut page, &view);
    stacks::write(&mut page, &view);
    page.finish()
}

/// A report and how it is looked at.
struct View<'a> {
    report: &'a Report,
    verbose: bool,
}

impl View<'_> {
    /// True when the figures are estimates.
    fn sampled(&self) -> bool {
        self.report.overhead.sample_bytes > 1
    }

    fn about(&self) -> &'static str {
        if self.sampled() { "~" } else { "" }
    }

    fn bytes(&self, bytes: u64) -> String {
        tight(format!("{}{}", self.about(), human::bytes(bytes)))
    }

    fn objects(&self, objects: u64) -> String {
        self.counted("heap", objects)
    }

    /// What a probe counts besides bytes.
    fn counted(&self, probe: &str, objects: u64) -> String {
        let (one, many) = match probe {
            "region" => ("mapping", "mappings"),
            "fault" => ("page", "pages"),
            _ => ("object", "objects"),
        };
        let about = if probe == "heap" { self.about() } else { "" };
        tight(format!("{about}{}", human::counted(objects, one, many)))
    }

    fn rate(&self, rate: f64) -> String {
        tight(format!("{}{}", self.about(), human::rate(rate)))
    }

    fn only_process(&self) -> Option<&Process> {
        match self.report.processes.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// The word for a verdict; the one that matters in capitals.
fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Growing => "GROWING",
        Verdict::Plateau => "plateau",
        Verdict::Sawtooth => "sawtooth",
        Verdict::Spike => "spike",
        Verdict::Steady => "steady",
        Verdict::Shrinking => "shrinking",
        Verdict::TooEarly => "too early",
    }
}

fn verdict_style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Growing => style::BAD,
        Verdict::Plateau | Verdict::Sawtooth | Verdict::Spike => style::WARN,
        Verdict::Steady | Verdict::Shrinking => style::GOOD,
        Verdict::TooEarly => style::DIM,
    }
}

/// `GROWING, 99% sure`; no share where there is no verdict.
fn verdict_pieces(verdict: Verdict, confidence: f64) -> Vec<super::layout::Piece> {
    let mut pieces = vec![piece(verdict_style(verdict), verdict_word(verdict))];
    if verdict != Verdict::TooEarly {
        pieces.push(piece(
            style::PLAIN,
            format!(", {} sure", human::confidence(confidence)),
        ));
    }
    pieces
}
