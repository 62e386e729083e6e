//! memtrace: which code paths keep memory that only grows, in which process, and how sure that is.
//!
//! The modules follow the data: [`target`] finds what to probe, [`probe`] owns the kernel side,
//! [`stream`] decodes what it sends, [`unwind`] makes stacks of it, [`ledger`] accounts,
//! [`trend`] judges, [`symbolize`] names, [`report`] shows. [`session`] is the only place that
//! joins them.
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod id;
pub mod ledger;
pub mod probe;
pub mod record;
pub mod report;
pub mod session;
pub mod stream;
pub mod symbolize;
pub mod target;
pub mod trend;
pub mod tui;
pub mod unwind;
