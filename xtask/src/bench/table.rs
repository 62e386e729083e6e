//! Tables of results, for people and for the docs.
use std::fmt::Write as _;

/// A promise, and what was measured.
pub struct Budget {
    what: String,
    measured: f64,
    limit: f64,
    unit: &'static str,
}

impl Budget {
    pub fn at_most(what: &'static str, measured: f64, limit: f64, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            limit,
            unit,
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
        }
    }

    /// A figure that could not be measured is not within any budget.
    fn is_kept(&self) -> bool {
        self.measured <= self.limit
    }

    fn sentence(&self) -> String {
        let digits = if self.limit < 10.0 { 3 } else { 0 };
        format!(
            "{}: {:.digits$} {}, at most {} {}",
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
            .filter(|budget| !budget.is_kept())
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
            let word = if budget.is_kept() { "kept  " } else { "MISSED" };
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
            let word = if budget.is_kept() {
                "kept"
            } else {
                "**missed**"
            };
            let _ = write!(text, "\n- {word}: {}", budget.sentence());
        }
        text + "\n"
    }
}
