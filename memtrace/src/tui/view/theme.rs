//! What colours and weights mean. Without colours the weights alone still tell what matters.

use ratatui::style::{Color, Modifier, Style};

use crate::trend::Verdict;

/// Whether colours are used (`--color`, NO_COLOR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tui) struct Theme {
    color: bool,
}

impl Theme {
    /// No colours.
    pub const PLAIN: Self = Self { color: false };

    pub fn new(color: bool) -> Self {
        Self { color }
    }

    fn colored(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    pub fn plain(self) -> Style {
        Style::new()
    }

    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A leak, a loss, a failure.
    pub fn bad(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn warn(self) -> Style {
        self.colored(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    pub fn good(self) -> Style {
        self.colored(Color::Green)
    }

    /// The selected row, prompts.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Names of columns.
    pub fn title(self) -> Style {
        self.colored(Color::Cyan).add_modifier(Modifier::UNDERLINED)
    }

    /// The column that rows are sorted by.
    pub fn sorted(self) -> Style {
        self.title().add_modifier(Modifier::BOLD)
    }

    /// Pictures of the past.
    pub fn graph(self) -> Style {
        self.colored(Color::Blue)
    }

    pub fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Growing => self.bad(),
            Verdict::TooEarly => self.dim(),
            Verdict::Plateau | Verdict::Sawtooth | Verdict::Spike => self.plain(),
            Verdict::Steady | Verdict::Shrinking => self.good(),
        }
    }
}
