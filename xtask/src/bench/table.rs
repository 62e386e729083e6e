//! Tables of results, for people and for the docs.
use std::fmt::Write as _;

use super::interval::Interval;

/// A promise, and what was measured.
pub struct Budget {
    what: String,
    measured: f64,
    limit: f64,
    unit: &'static str,
    /// Between what the figure lies, where it is known to be uncertain.
    range: Option<(f64, f64)>,
}

/// What came of a promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Kept,
    Missed,
    /// The noise of the machine is larger than what is to be told.
    Open,
}

impl Budget {
    pub fn at_most(what: &'static str, measured: f64, limit: f64, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            limit,
            unit,
            range: None,
        }
    }

    /// The same of one of several subjects.
    pub fn of(
        subject: &'static str,
        what: &'static str,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            what: format!("{subject}, {what}"),
            measured,
            limit,
            unit,
            range: None,
        }
    }

    /// What is known of the figure: it is judged only where all of that is on one side of the limit.
    pub fn between(self, range: Interval) -> Self {
        Self {
            range: Some((range.low, range.high)),
            ..self
        }
    }

    /// A figure that could not be measured is not within any budget.
    fn outcome(&self) -> Outcome {
        let (low, high) = self.range.unwrap_or((self.measured, self.measured));
        if high <= self.limit {
            Outcome::Kept
        } else if low <= self.limit {
            Outcome::Open
        } else {
            Outcome::Missed
        }
    }

    fn sentence(&self) -> String {
        let digits = if self.limit < 10.0 { 3 } else { 0 };
        let range = self.range.map_or_else(String::new, |(low, high)| {
            format!(" ({low:.digits$} to {high:.digits$})")
        });
        format!(
            "{}: {:.digits$} {}{range}, at most {} {}",
            self.what, self.measured, self.unit, self.limit, self.unit
        )
    }
}

/// One measurement's results.
pub struct Table {
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    budgets: Vec<Budget>,
}

impl Table {
    pub fn new(title: &'static str, head: &[&'static str]) -> Self {
        Self {
            title,
            head: head.to_vec(),
            rows: Vec::new(),
            budgets: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn budget(&mut self, budget: Budget) {
        self.budgets.push(budget);
    }

    /// The budgets that are not kept.
    pub fn missed(&self) -> impl Iterator<Item = String> {
        self.budgets
            .iter()
            .filter(|budget| budget.outcome() == Outcome::Missed)
            .map(Budget::sentence)
    }

    /// With columns aligned, the first to the left and figures to the right.
    pub fn text(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = self.rows.iter().chain([&head]);
                cells
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = format!("\n{}\n", self.title);
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column == 0 {
                    write!(line, "  {cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for budget in &self.budgets {
            let word = match budget.outcome() {
                Outcome::Kept => "kept  ",
                Outcome::Missed => "MISSED",
                Outcome::Open => "open  ",
            };
            let _ = writeln!(text, "  {word}  {}", budget.sentence());
        }
        text
    }

    /// Without its title, which the page has above it.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        text += &line(&head);
        let rule: Vec<String> = (0..head.len())
            .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        text += &line(&rule);
        for row in &self.rows {
            text += &line(row);
        }
        for budget in &self.budgets {
            let word = match budget.outcome() {
                Outcome::Kept => "kept",
                Outcome::Missed => "**missed**",
                Outcome::Open => "not told by these figures",
            };
            let _ = write!(text, "\n- {word}: {}", budget.sentence());
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget is kept or missed only when all that is known of the figure says so, and a figure that is
    /// none is missed.
    #[test]
    fn uncertain_figures_are_not_judged() {
        let outcome = |low, high| {
            let range = Interval {
                median: 0.5,
                low,
                high,
            };
            Budget::of("redis", "more CPU time", 0.5, 1.0, "%")
                .between(range)
                .outcome()
        };
        assert_eq!(outcome(-0.2, 0.9), Outcome::Kept);
        assert_eq!(outcome(-0.2, 1.1), Outcome::Open);
        assert_eq!(outcome(1.1, 1.3), Outcome::Missed);
        assert_eq!(outcome(f64::NAN, f64::NAN), Outcome::Missed);
        let plain = |measured| Budget::at_most("x", measured, 1.0, "").outcome();
        assert_eq!((plain(1.0), plain(1.1)), (Outcome::Kept, Outcome::Missed));
    }
}
