//! Reports: one model, many forms.
//!
//! [`model`] is the report as data. [`text`] and [`json`] render it; both are pure, so that a
//! recording and a live session print the same. [`profile`] is the neutral form of a report that the
//! profile formats are made of. [`group`] sums stacks, [`sums`] says which may be. [`reporter`] writes
//! them through [`output`], which with [`incident`]'s files is all that does I/O here. [`doctor`] is
//! the other report: what this machine can do.
pub mod baseline;
pub mod csv;
pub mod culprit;
pub mod cycles;
pub mod diff;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod flamegraph;
pub mod folded;
pub mod gate;
pub mod gperftools;
pub mod group;
pub mod html;
pub mod human;
pub mod incident;
pub mod json;
pub mod junit;
mod key;
pub mod layout;
pub mod loss_names;
pub mod markdown;
pub mod model;
pub mod output;
pub mod pprof;
pub mod profile;
pub mod reporter;
pub mod speedscope;
pub mod sums;
pub mod suppress;
pub mod text;

#[cfg(test)]
pub(crate) mod fixtures;
