//! Arguments of `incidents`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::args::DoctorFormatArg;
use super::plan::Plan;
use super::recordings::SymbolArgs;

/// Arguments of `incidents`.
#[derive(Debug, Args)]
pub struct IncidentsArgs {
    /// The recording
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Show this one whole; without it all are listed
    #[arg(value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub number: Option<i64>,
    /// Better names.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// Form of the list or the incident
    #[arg(long, value_enum, value_name = "FORM", default_value_t = DoctorFormatArg::Text)]
    #[arg(help_heading = "Output")]
    pub format: DoctorFormatArg,
}

/// Read incidents from a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentsPlan {
    /// The recording.
    pub file: PathBuf,
    /// One of them, from 1.
    pub number: Option<i64>,
    /// A folder with symbols.
    pub debug_dir: Option<PathBuf>,
    /// JSON instead of text.
    pub json: bool,
}

impl IncidentsArgs {
    pub(super) fn plan(self) -> Plan {
        Plan::Incidents(IncidentsPlan {
            file: self.file,
            number: self.number,
            debug_dir: self.symbols.debug_dir,
            json: self.format == DoctorFormatArg::Json,
        })
    }
}
