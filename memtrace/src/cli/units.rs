//! Durations, sizes and counts as people write them, and back.
//!
//! `500ms`, `2m`, `1h30m`; `64KiB`, `1.5GiB`, `10MB`; `1Mi`. Decimal fractions are computed
//! exactly and rounded once.

use std::time::Duration;

/// A quantity that could not be read; the text says how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing, or something that does not begin with a number.
    #[error("it is not {what}; write it like {like}")]
    NotOne {
        /// What was wanted.
        what: &'static str,
        /// Examples.
        like: &'static str,
    },
    /// A unit nobody knows.
    #[error("`{unit}` is no unit of {what}; write it like {like}")]
    Unit {
        /// The unit as typed.
        unit: String,
        /// What was wanted.
        what: &'static str,
        /// Examples.
        like: &'static str,
    },
    /// A minus sign.
    #[error("it cannot be negative")]
    Negative,
    /// More than the machine can count.
    #[error("it is too large")]
    TooLarge,
}

/// How one kind of quantity is written.
struct Kind {
    what: &'static str,
    like: &'static str,
    unit: fn(&str) -> Option<u64>,
}

const SIZE: Kind = Kind {
    what: "a size",
    like: "512, 64KiB, 10MB or 1.5GiB",
    unit: size_unit,
};
const COUNT: Kind = Kind {
    what: "a number",
    like: "50000, 500k or 1Mi",
    unit: count_unit,
};
const TIME: Kind = Kind {
    what: "a time",
    like: "500ms, 5s, 2m or 1h30m",
    unit: time_unit,
};

impl Kind {
    fn not_one(&self) -> UnitError {
        UnitError::NotOne {
            what: self.what,
            like: self.like,
        }
    }

    fn scale(&self, unit: &str) -> Result<u64, UnitError> {
        (self.unit)(&unit.to_lowercase()).ok_or_else(|| UnitError::Unit {
            unit: unit.to_owned(),
            what: self.what,
            like: self.like,
        })
    }

    fn one(&self, text: &str) -> Result<u64, UnitError> {
        let (number, unit, rest) = self.split(text)?;
        if !rest.is_empty() {
            return Err(self.not_one());
        }
        let value = scaled(number, self.scale(unit)?).ok_or_else(|| self.bad_number(number))?;
        u64::try_from(value).map_err(|_| UnitError::TooLarge)
    }

    /// The first number, its unit, and what follows.
    fn split<'a>(&self, text: &'a str) -> Result<(&'a str, &'a str, &'a str), UnitError> {
        let text = text.trim();
        if text.starts_with(['-', '−']) {
            return Err(UnitError::Negative);
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, rest) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
        let rest = rest.trim_start();
        let (unit, rest) = rest.split_at(rest.find(is_number).unwrap_or(rest.len()));
        if number.is_empty() {
            return Err(self.not_one());
        }
        Ok((number, unit.trim_end(), rest))
    }

    fn bad_number(&self, number: &str) -> UnitError {
        let is_decimal = number.matches('.').count() <= 1 && number.contains(|c: char| c != '.');
        if is_decimal {
            UnitError::TooLarge
        } else {
            self.not_one()
        }
    }
}

/// `number × scale`, rounded to a whole; `None` when it is no decimal number or has too many digits.
fn scaled(number: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && number.len() == 1 || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits = format!("0{whole}{fraction}");
    let power = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let product = digits
        .parse::<u128>()
        .ok()?
        .checked_mul(u128::from(scale))?;
    Some(product.checked_add(power / 2)? / power)
}

const BINARY: [(&str, u64); 6] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

fn size_unit(unit: &str) -> Option<u64> {
    // A letter alone is binary, as memory is counted; `kB` is a thousand, as disks are.
    match unit {
        "" | "b" | "byte" | "bytes" => Some(1),
        "kb" => Some(1000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        _ => BINARY
            .iter()
            .find(|(name, _)| is_binary(unit, name))
            .map(|(_, scale)| *scale),
    }
}

fn is_binary(unit: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    unit == name || name.strip_suffix('b') == Some(unit) || name.strip_suffix("ib") == Some(unit)
}

fn count_unit(unit: &str) -> Option<u64> {
    match unit {
        "" => Some(1),
        "k" => Some(1000),
        "m" => Some(1_000_000),
        "g" => Some(1_000_000_000),
        "ki" => Some(1 << 10),
        "mi" => Some(1 << 20),
        "gi" => Some(1 << 30),
        _ => None,
    }
}

const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

fn time_unit(unit: &str) -> Option<u64> {
    let short = match unit {
        "" | "sec" | "secs" | "second" | "seconds" => "s",
        "µs" | "μs" => "us",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        other => other,
    };
    TIMES
        .iter()
        .find(|(name, _)| *name == short)
        .map(|(_, scale)| *scale)
}

/// Reads a size in bytes. A letter alone is binary: `64k` is `64KiB`.
///
/// # Errors
/// When it is none, or more than 2^64 bytes.
pub fn size(text: &str) -> Result<u64, UnitError> {
    SIZE.one(text)
}

/// Reads a count: `50000`, `500k`, `1Mi`.
///
/// # Errors
/// When it is none, or more than 2^64.
pub fn count(text: &str) -> Result<u64, UnitError> {
    COUNT.one(text)
}

/// Reads a duration; a bare number is seconds, as with `sleep` and `timeout`.
///
/// # Errors
/// When it is none, or more than 584 years.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text;
    let mut sum = 0_u64;
    let mut parts = 0;
    loop {
        let (number, unit, after) = TIME.split(rest)?;
        if unit.is_empty() && (parts > 0 || !after.is_empty()) {
            return Err(TIME.not_one());
        }
        let part = scaled(number, TIME.scale(unit)?).ok_or_else(|| TIME.bad_number(number))?;
        let part = u64::try_from(part).map_err(|_| UnitError::TooLarge)?;
        sum = sum.checked_add(part).ok_or(UnitError::TooLarge)?;
        parts += 1;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_nanos(sum));
        }
    }
}

/// Writes a size so that [`size`] reads the same: `64KiB`, `1000`.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let fits = |scale: u64| bytes >= scale && bytes.is_multiple_of(scale);
    match BINARY.iter().find(|(_, scale)| fits(*scale)) {
        Some((name, scale)) => format!("{}{name}", bytes / scale),
        None => bytes.to_string(),
    }
}

/// Writes a duration so that [`duration`] reads the same: `1h30m`, `500ms`.
///
/// More than [`duration`] can read is cut to that.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (name, scale) in TIMES {
        if left >= scale {
            out.push_str(&format!("{}{name}", left / scale));
            left %= scale;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Sizes in every spelling people use.
    #[test]
    fn sizes() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("64K", 65_536),
            ("64Ki", 65_536),
            ("64 kib", 65_536),
            ("10MB", 10_000_000),
            ("10kB", 10_000),
            ("1.5GiB", 1_610_612_736),
            ("0.1KiB", 102),
            (".5k", 512),
            ("2.k", 2048),
            ("15EiB", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
    }

    // Durations, also composed and bare.
    #[test]
    fn durations() {
        let cases = [
            ("5", 5_000),
            ("500ms", 500),
            ("5s", 5_000),
            ("2m", 120_000),
            ("2min", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1_500),
            ("1d", 86_400_000),
            ("1500us", 1),
            ("0", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(
                duration(text).map(|d| d.as_millis()),
                Ok(expected),
                "{text}"
            );
        }
    }

    // Counts with decimal and binary suffixes.
    #[test]
    fn counts() {
        assert_eq!(count("1Mi"), Ok(1 << 20));
        assert_eq!(count("500k"), Ok(500_000));
        assert_eq!(count("1.5M"), Ok(1_500_000));
    }

    // What cannot be read is told in one line with examples.
    #[test]
    fn errors_tell_how_to_write_it() {
        let size = |text: &str| size(text).unwrap_err().to_string();
        let time = |text: &str| duration(text).unwrap_err().to_string();
        assert_eq!(
            size(""),
            "it is not a size; write it like 512, 64KiB, 10MB or 1.5GiB"
        );
        assert_eq!(
            size("5 parsecs"),
            "`parsecs` is no unit of a size; write it like 512, 64KiB, 10MB or 1.5GiB"
        );
        assert_eq!(size("-5"), "it cannot be negative");
        assert_eq!(size("16EiB"), "it is too large");
        assert_eq!(
            size("99999999999999999999999999999999999999999"),
            "it is too large"
        );
        assert!(size("1.2.3").starts_with("it is not a size"));
        assert!(size(".").starts_with("it is not a size"));
        assert!(size("1k5").starts_with("it is not a size"));
        assert_eq!(
            time("soon"),
            "it is not a time; write it like 500ms, 5s, 2m or 1h30m"
        );
        assert!(time("1h30").starts_with("it is not a time"));
        assert_eq!(time("999999999d"), "it is too large");
    }

    proptest! {
        // What is written is read back the same.
        #[test]
        fn sizes_round_trip(bytes: u64, shift in 0_u32..60) {
            for bytes in [bytes, bytes >> shift << shift, 1 << shift] {
                prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            }
        }

        // The same for durations.
        #[test]
        fn durations_round_trip(nanos: u64, unit in 0_usize..7) {
            let scale = TIMES[unit].1;
            for nanos in [nanos, nanos / scale * scale] {
                let value = Duration::from_nanos(nanos);
                prop_assert_eq!(duration(&show_duration(value)), Ok(value));
            }
        }

        // No text makes a parser panic.
        #[test]
        fn parsers_survive(text in "[-0-9. a-zµ∞]{0,24}") {
            let _ = (size(&text), duration(&text), count(&text));
        }
    }
}
