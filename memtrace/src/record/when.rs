//! Which moment of a recording is meant.

use std::time::Duration;

use jiff::Timestamp;

use crate::cli::units;

/// A moment as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The first report.
    Start,
    /// The last one.
    End,
    /// So long after tracing began.
    After(Duration),
    /// So long before the last report.
    BeforeEnd(Duration),
    /// By the clock on the wall.
    At(Timestamp),
    /// The latest mark of this name; `NAME#2`: the second of that name.
    Mark(String),
}

impl When {
    /// Reads `start`, `end`, `90s`, `-30s`, an RFC 3339 time; everything else names a mark, and so
    /// does what follows `mark:`.
    ///
    /// # Errors
    /// When it is empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a moment is start, end, 90s, -30s, a time or a mark".to_owned());
        }
        if let Some(name) = text.strip_prefix("mark:") {
            return Ok(Self::Mark(name.to_owned()));
        }
        let before = text.strip_prefix('-').map(units::duration);
        Ok(match (text, before) {
            ("start", _) => Self::Start,
            ("end", _) => Self::End,
            (_, Some(Ok(time))) => Self::BeforeEnd(time),
            _ => units::duration(text.strip_prefix('+').unwrap_or(text))
                .map(Self::After)
                .or_else(|_| text.parse().map(Self::At))
                .unwrap_or_else(|_| Self::Mark(text.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every way to name a moment, and that what looks like none is a mark.
    #[test]
    fn parses() {
        let seconds = Duration::from_secs;
        let when = |text: &str| When::parse(text).unwrap();
        assert_eq!(when("start"), When::Start);
        assert_eq!(when("end"), When::End);
        assert_eq!(when("90s"), When::After(seconds(90)));
        assert_eq!(when("+2m"), When::After(seconds(120)));
        assert_eq!(when("-30s"), When::BeforeEnd(seconds(30)));
        let time = "2026-01-02T03:04:05Z";
        assert_eq!(when(time), When::At(time.parse().unwrap()));
        assert_eq!(when("cycle 5"), When::Mark("cycle 5".into()));
        assert_eq!(when("mark:end"), When::Mark("end".into()));
        assert!(When::parse("").is_err());
    }
}
