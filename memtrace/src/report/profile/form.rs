//! Which profile format, and what holds for it.

use std::io;

use super::Profile;
use crate::report::{csv, flamegraph, folded, gperftools, html, pprof, speedscope};

/// A format made from the neutral profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileForm {
    /// A stack a line, for flame graph tools.
    Folded,
    /// A flame graph.
    Svg,
    /// `profile.proto`, gzipped.
    Pprof,
    /// For <https://www.speedscope.app>.
    Speedscope,
    /// For google-perftools' `pprof`.
    Gperftools,
    /// Figures over time.
    Csv,
    /// A page.
    Html,
}

impl ProfileForm {
    /// As `--format` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Folded => "folded",
            Self::Svg => "svg",
            Self::Pprof => "pprof",
            Self::Speedscope => "speedscope",
            Self::Gperftools => "gperftools",
            Self::Csv => "csv",
            Self::Html => "html",
        }
    }

    /// True when a terminal cannot show it.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self == Self::Pprof
    }

    /// True when each report adds to the ones before, as lines of a table do; the other formats
    /// are one file for one moment.
    #[must_use]
    pub fn is_appended(self) -> bool {
        self == Self::Csv
    }

    /// The profile as bytes. With `begins`, a table gets its header.
    ///
    /// # Errors
    /// When a library that writes the format fails.
    pub fn render(self, profile: &Profile, begins: bool) -> io::Result<Vec<u8>> {
        match self {
            Self::Folded => Ok(folded::render(profile).into_bytes()),
            Self::Svg => flamegraph::render(profile),
            Self::Pprof => pprof::render(profile),
            Self::Speedscope => speedscope::render(profile),
            Self::Gperftools => Ok(gperftools::render(profile).into_bytes()),
            Self::Csv => Ok(csv::render(profile, begins).into_bytes()),
            Self::Html => html::render(profile),
        }
    }
}
