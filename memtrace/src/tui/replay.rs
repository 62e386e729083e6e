//! The time cursor of a recording. Pure.

use std::sync::Arc;

/// Where in a recording the user wants to be, and how it is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// So many reports on, or back.
    Step(isize),
    /// So many tenths of the recording's time on, or back.
    Tenths(i32),
    /// To the mark after (1) or before (-1).
    Mark(i32),
    /// To the first report.
    First,
    /// To the last report.
    Last,
    /// Play, or pause.
    Toggle,
    /// Play faster (1) or slower (-1).
    Speed(i32),
}

/// Where in a recording a moment is.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The recording's name.
    pub file: String,
    /// Which report, from 1.
    pub number: usize,
    /// Reports there are.
    pub reports: usize,
    /// Seconds since tracing began: of this report.
    pub seconds: f64,
    /// Of the first report.
    pub first: f64,
    /// Of the last one.
    pub last: f64,
    /// How many times as fast as it was recorded; nothing while it stands still.
    pub playing: Option<u32>,
    /// The speed at which it plays when it does.
    pub speed: u32,
    /// Seconds of every mark.
    pub marks: Arc<[f64]>,
    /// The share of the past that has been read, 0 to 1.
    pub read: f64,
}

impl Cursor {
    /// Where a time is among so many columns.
    pub(super) fn column(&self, seconds: f64, columns: usize) -> usize {
        let share = (seconds - self.first) / (self.last - self.first);
        let last = columns.saturating_sub(1);
        if !share.is_finite() {
            return last;
        }
        let column = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        column.min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Both ends are on the line, and a recording of one report has its cursor at the end.
    #[test]
    fn columns() {
        let cursor = Cursor {
            first: 10.0,
            last: 110.0,
            ..Cursor::default()
        };
        let at = |seconds: f64| cursor.column(seconds, 11);
        assert_eq!([10.0, 60.0, 110.0].map(at), [0, 5, 10]);
        assert_eq!([-5.0, 500.0].map(at), [0, 10]);
        assert_eq!(Cursor::default().column(0.0, 11), 10);
        assert_eq!(cursor.column(60.0, 0), 0);
    }
}
