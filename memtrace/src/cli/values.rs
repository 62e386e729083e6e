//! Option values that are more than a number: each type holds only what is valid.

use crate::session::thresholds::Thresholds;
use std::str::FromStr;

use super::units;

/// A value that cannot be; the text says what can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

fn bad<T>(text: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(text.into()))
}

/// Position of an argument of a function: 1 is the first, 6 the last that is in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgNumber(u8);

impl ArgNumber {
    /// As people count: 1 to 6.
    #[must_use]
    pub fn from_one(self) -> u8 {
        self.0
    }

    /// As registers are counted: 0 to 5.
    #[must_use]
    pub fn from_zero(self) -> usize {
        usize::from(self.0) - 1
    }
}

/// A function of a custom allocator and the argument that matters: its size or its pointer (R17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomFunction {
    /// Symbol name.
    pub name: String,
    /// Which argument.
    pub argument: ArgNumber,
}

impl FromStr for CustomFunction {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // The last colon: C++ names have colons of their own.
        let Some((name, argument)) = text.rsplit_once(':') else {
            return bad(
                "the argument's number is missing; write it like NAME:1, the first argument is 1",
            );
        };
        if name.is_empty() || name.contains(['\0', ' ']) {
            return bad("the function's name is missing; write it like NAME:1");
        }
        match argument.parse::<u8>() {
            Ok(0) => bad("arguments are counted from 1: the first is 1"),
            Ok(number @ 1..=6) => Ok(Self {
                name: name.to_owned(),
                argument: ArgNumber(number),
            }),
            Ok(_) => bad("only the first 6 arguments are in registers and can be read"),
            Err(_) => bad(format!(
                "`{argument}` is not an argument's number; write it like NAME:1, the first argument is 1"
            )),
        }
    }
}

/// A share, more than 0 and at most 100 percent.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// 0.05 for 5%.
    #[must_use]
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.trim().trim_end_matches('%').trim_end().parse::<f64>() {
            Ok(value) if value > 0.0 && value <= 100.0 => Ok(Self(value)),
            Ok(_) => bad("it must be more than 0 and at most 100 percent"),
            Err(_) => bad("it is not a percentage; write it like 5 or 0.5%"),
        }
    }
}

/// What ends memtrace with exit code 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// A verdict `growing`, with at least so many bytes a second.
    Growing {
        /// 0: any growth.
        bytes_per_second: u64,
    },
}

impl FromStr for FailOn {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (verdict, rate) = match text.split_once(':') {
            Some((verdict, rate)) => (verdict, Some(rate)),
            None => (text, None),
        };
        if verdict != "growing" {
            return bad(
                "only `growing` can fail; write it like growing or growing:10KiB (a second)",
            );
        }
        let Some(rate) = rate else {
            return Ok(Self::Growing {
                bytes_per_second: 0,
            });
        };
        match units::size(rate.trim().trim_end_matches("/s")) {
            Ok(bytes_per_second) => Ok(Self::Growing { bytes_per_second }),
            Err(error) => bad(format!("the rate `{rate}`: {error}")),
        }
    }
}

/// Size of the ring buffer: a power of two from 64 KiB, where one stack copy finds room, to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingBytes(u32);

impl RingBytes {
    /// In bytes.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for RingBytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bytes = units::size(text).map_err(|error| ValueError(error.to_string()))?;
        match u32::try_from(bytes) {
            Ok(size @ 0x1_0000..=0x4000_0000) if size.is_power_of_two() => Ok(Self(size)),
            Ok(size @ 0x1_0000..=0x4000_0000) => {
                let above = u64::from(size).next_power_of_two();
                let (above, below) = (units::show_size(above), units::show_size(above / 2));
                bad(format!(
                    "the kernel takes powers of two only: {below} or {above}"
                ))
            }
            _ => bad("it must be from 64KiB to 1GiB"),
        }
    }
}

/// How many rows to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// All there are.
    All,
    /// The first so many; not 0.
    First(std::num::NonZeroUsize),
}

impl Default for Top {
    fn default() -> Self {
        const TEN: std::num::NonZeroUsize = match std::num::NonZeroUsize::new(10) {
            Some(ten) => ten,
            None => std::num::NonZeroUsize::MIN,
        };
        Self::First(TEN)
    }
}

impl Top {
    /// `None` for all.
    #[must_use]
    pub fn limit(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::First(number) => Some(number.get()),
        }
    }
}

impl FromStr for Top {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "all" {
            return Ok(Self::All);
        }
        match text.parse() {
            Ok(number) => Ok(Self::First(number)),
            Err(_) => bad("it is not a number of rows; write a number from 1 on, or all"),
        }
    }
}

/// Reads a process id.
///
/// # Errors
/// When no process can have it.
pub fn pid(text: &str) -> Result<u32, ValueError> {
    // PID_MAX_LIMIT of 64-bit kernels.
    match text.trim().parse::<u32>() {
        Ok(pid @ 1..=4_194_304) => Ok(pid),
        _ => bad("it is not a process id, a number from 1 to 4194304; `pgrep NAME` finds one"),
    }
}

/// Reads shares of a limit in percent, separated by commas, or `none`.
///
/// # Errors
/// When one is no percentage from 1 to 100, or there are too many.
pub fn thresholds(text: &str) -> Result<Thresholds, ValueError> {
    let text = text.trim();
    if text == "none" {
        return Ok(Thresholds::none());
    }
    let percents: Option<Vec<u8>> = text
        .split(',')
        .map(|part| part.trim().trim_end_matches('%').parse().ok())
        .collect();
    match percents.and_then(Thresholds::new) {
        Some(thresholds) => Ok(thresholds),
        None => bad("it is not percentages from 1 to 100 such as 75,85,90 (16 at most), or `none`"),
    }
}

/// Reads a number of intervals.
///
/// # Errors
/// When it is 0 or none.
pub fn intervals(text: &str) -> Result<std::num::NonZeroU32, ValueError> {
    match text.trim().parse() {
        Ok(number) => Ok(number),
        Err(_) => bad("it is not a number of intervals, from 1 on"),
    }
}

/// Reads a number of table entries.
///
/// # Errors
/// When it is 0 or does not fit 32 bits.
pub fn entries(text: &str) -> Result<std::num::NonZeroU32, ValueError> {
    let number = units::count(text).map_err(|error| ValueError(error.to_string()))?;
    match u32::try_from(number)
        .ok()
        .and_then(std::num::NonZeroU32::new)
    {
        Some(entries) => Ok(entries),
        None => bad("it must be from 1 to 4294967295"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: FromStr<Err = ValueError>>(text: &str) -> String {
        T::from_str(text).err().unwrap().to_string()
    }

    // Arguments are counted as people count, and C++ names keep their colons.
    #[test]
    fn custom_functions() {
        let function: CustomFunction = "pool::take:2".parse().unwrap();
        assert_eq!(function.name, "pool::take");
        assert_eq!(
            (function.argument.from_one(), function.argument.from_zero()),
            (2, 1)
        );
        assert!(error::<CustomFunction>("f").contains("number is missing"));
        assert!(error::<CustomFunction>(":1").contains("name is missing"));
        assert_eq!(
            error::<CustomFunction>("f:0"),
            "arguments are counted from 1: the first is 1"
        );
        assert!(error::<CustomFunction>("f:7").contains("first 6"));
        assert!(error::<CustomFunction>("f:x").contains("`x` is not an argument's number"));
    }

    // Percentages with and without the sign; nothing that no limit can be.
    #[test]
    fn percentages() {
        assert!((Percent::from_str("5%").unwrap().fraction() - 0.05).abs() < 1e-12);
        assert!((Percent::from_str("0.5").unwrap().fraction() - 0.005).abs() < 1e-12);
        for text in ["0", "-1", "101", "NaN", "inf"] {
            assert!(error::<Percent>(text).contains("more than 0"), "{text}");
        }
        assert!(error::<Percent>("much").contains("not a percentage"));
    }

    // Growth at all, or from a rate on.
    #[test]
    fn fail_on() {
        let growing = |bytes_per_second| FailOn::Growing { bytes_per_second };
        assert_eq!("growing".parse(), Ok(growing(0)));
        assert_eq!("growing:1000".parse(), Ok(growing(1000)));
        assert_eq!("growing:10KiB/s".parse(), Ok(growing(10_240)));
        assert!(error::<FailOn>("steady").contains("only `growing`"));
        assert!(error::<FailOn>("growing:fast").contains("the rate `fast`"));
    }

    // The kernel's rule is told with the two nearest sizes.
    #[test]
    fn ring_sizes() {
        assert_eq!("8MiB".parse(), Ok(RingBytes(8 << 20)));
        assert_eq!(
            error::<RingBytes>("3MiB"),
            "the kernel takes powers of two only: 2MiB or 4MiB"
        );
        assert_eq!(error::<RingBytes>("1"), "it must be from 64KiB to 1GiB");
        assert_eq!(error::<RingBytes>("32KiB"), "it must be from 64KiB to 1GiB");
        assert_eq!(error::<RingBytes>("8GiB"), "it must be from 64KiB to 1GiB");
    }

    // Rows, process ids and table sizes begin at 1.
    #[test]
    fn numbers_from_one() {
        assert_eq!("all".parse::<Top>().unwrap().limit(), None);
        assert_eq!("3".parse::<Top>().unwrap().limit(), Some(3));
        assert!(error::<Top>("0").contains("from 1 on"));
        assert!(pid("0").is_err() && pid("-1").is_err() && pid("4194305").is_err());
        assert_eq!(pid("1"), Ok(1));
        assert!(entries("0").is_err() && entries("8Gi").is_err());
        assert_eq!(entries("1Mi").map(|n| n.get()), Ok(1 << 20));
    }
}
