//! The terminal UI of `memtrace top`: processes, containers and stacks to sort, filter and open.
//!
//! `state` is what is on the screen and how a message changes it, `view` draws it: both pure.
//! `terminal` takes the terminal over and gives it back, whatever ends the program. `screen`
//! runs them on a thread of their own: a terminal that does not take what is written to it never
//! keeps the session from reading what the kernel sends.
//!
//! Where the data comes from is not known here: whoever has a [`Screen`] shows it one immutable
//! [`Moment`] after another and gets [`Request`]s back. A live session and a recording do the same.

mod mail;
mod moment;
mod replay;
mod rows;
mod screen;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod update;
mod view;

pub use mail::Request;
pub use moment::{Key, Mark, Moment, Past};
pub use replay::{Cursor, Seek};
pub use screen::{Options, Screen};
pub use terminal::{TerminalError, require};
