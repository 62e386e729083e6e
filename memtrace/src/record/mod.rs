//! Recordings: a session in one SQLite file, and everything that is read from it.
//!
//! A [`Writer`] is given every report together with *all* stacks; it writes what changed, one
//! transaction an interval. A [`Recording`] gives the same reports back, at any moment. `schema.sql`
//! is the format. What is read was perhaps written by somebody else: it is hostile.
//!
//! Your part: give [`Recorder`] every report, name the stacks it asks for while the target lives
//! ([`Recorder::wants_names`]), and go on without it when it fails.

mod background;
mod before;
mod cycles;
mod encode;
mod error;
mod incidents;
mod moments;
mod names;
mod naming;
mod open;
mod past;
mod playback;
mod read;
mod retention;
mod when;
mod window;
mod write;

pub use background::{Given, Lost, Recorder};
pub use encode::{Observed, StackKey};
pub use error::RecordError;
pub use incidents::Numbered;
pub use moments::{Moment, repeated};
pub use open::is_recording;
pub use playback::{Holding, Playback, Played, Scene};
pub use read::{Read, Recording};
pub use retention::Retention;
pub use when::When;
pub use write::{Interval, Writer};

/// `PRAGMA application_id`: "memt".
const APPLICATION_ID: i64 = 0x6d65_6d74;
/// `PRAGMA user_version`: raised when an older memtrace could not read it.
pub const VERSION: i64 = 1;

#[cfg(test)]
mod tests;
