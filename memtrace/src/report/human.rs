//! Numbers as people read them: three significant digits, binary units, thousands separated.
//!
//! For text only; JSON carries the exact numbers.

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1023 B`, `1.20 MiB`, `34.1 MiB`, `512 KiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    scaled(bytes as f64)
}

/// `+1.20 MiB/s`, `-300 B/s`, `0 B/s`; below one byte a second it is no growth.
#[must_use]
pub fn rate(bytes_per_second: f64) -> String {
    let size = bytes_per_second.abs();
    if !size.is_finite() || size < 0.5 {
        return "0 B/s".to_owned();
    }
    let sign = if bytes_per_second > 0.0 { '+' } else { '-' };
    format!("{sign}{}/s", scaled(size))
}

/// `+1.20 MiB`, `-300 B`, `0 B`.
#[must_use]
pub fn change(change: i64) -> String {
    let sign = match change {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", bytes(change.unsigned_abs()))
}

fn scaled(mut value: f64) -> String {
    let mut unit = 0;
    // 1023.5 KiB would print as 1024 KiB: go up before that happens.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 {
        return format!("{value:.0} {name}");
    }
    format!("{} {name}", three_digits(value))
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// `1,203,441`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 object`, `1,203 objects`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `250 ms`, `12.5 s`, `6 min 40 s`, `3 h 5 min`, `12 d 4 h`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "an unknown time".to_owned();
    }
    let seconds = seconds.max(0.0);
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 59.95 {
        return if seconds < 9.995 || seconds.fract() >= 0.05 {
            let text = format!("{seconds:.1}");
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        } else {
            format!("{seconds:.0} s")
        };
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a cast of a float saturates"
    )]
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if days > 0 {
        two(days, "d", hours, "h")
    } else if hours > 0 {
        two(hours, "h", minutes, "min")
    } else {
        two(minutes, "min", whole % 60, "s")
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{} {large_unit}", count(large))
    } else {
        format!("{} {large_unit} {small} {small_unit}", count(large))
    }
}

/// `0.31%`, `3.1%`, `12%`; `<0.01%` for something that is not nothing.
#[must_use]
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if !percent.is_finite() {
        "an unknown share".to_owned()
    } else if percent <= 0.0 {
        "0%".to_owned()
    } else if percent < 0.005 {
        "<0.01%".to_owned()
    } else if percent < 0.995 {
        format!("{percent:.2}%")
    } else if percent < 9.95 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

/// Confidence: `95%`, `>99%`; never `100%`, because nothing here is certain.
#[must_use]
pub fn confidence(fraction: f64) -> String {
    let percent = (fraction.clamp(0.0, 1.0) * 100.0).round();
    if percent >= 100.0 {
        ">99%".to_owned()
    } else {
        format!("{percent:.0}%")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Bytes are shown with three significant digits and never as 1024 of a unit.
    #[test]
    fn bytes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_239, "10.0 KiB"),
            (102_348, "99.9 KiB"),
            (524_288, "512 KiB"),
            (1_048_575, "1.00 MiB"),
            (1_258_291, "1.20 MiB"),
            (35_756_442, "34.1 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (input, expected) in cases {
            assert_eq!(bytes(input), expected, "{input}");
        }
    }

    // Growth has a sign, and what is less than half a byte a second is zero.
    #[test]
    fn rates_have_signs() {
        assert_eq!(rate(1_258_291.2), "+1.20 MiB/s");
        assert_eq!(rate(-300.0), "-300 B/s");
        assert_eq!(rate(0.2), "0 B/s");
        assert_eq!(rate(f64::NAN), "0 B/s");
    }

    // Durations use the two largest units.
    #[test]
    fn durations_use_two_units() {
        let cases = [
            (0.0, "0 ms"),
            (0.25, "250 ms"),
            (1.0, "1 s"),
            (12.5, "12.5 s"),
            (30.0, "30 s"),
            (59.99, "1 min"),
            (400.0, "6 min 40 s"),
            (11_100.0, "3 h 5 min"),
            (1_051_200.0, "12 d 4 h"),
            (f64::INFINITY, "an unknown time"),
        ];
        for (input, expected) in cases {
            assert_eq!(seconds(input), expected, "{input}");
        }
    }

    // Shares keep two digits, and something small is not shown as nothing.
    #[test]
    fn percentages() {
        let cases = [
            (0.0, "0%"),
            (0.000_001, "<0.01%"),
            (0.0031, "0.31%"),
            (0.031, "3.1%"),
            (0.123, "12%"),
            (1.0, "100%"),
        ];
        for (input, expected) in cases {
            assert_eq!(percent(input), expected, "{input}");
        }
    }

    // Full confidence is never claimed.
    #[test]
    fn confidence_is_never_full() {
        assert_eq!(confidence(1.0), ">99%");
        assert_eq!(confidence(0.994), "99%");
        assert_eq!(confidence(-1.0), "0%");
    }

    proptest! {
        // Separators change nothing but the look.
        #[test]
        fn count_only_adds_commas(number: u64) {
            prop_assert_eq!(count(number).replace(',', ""), number.to_string());
        }

        // No size takes more than eight columns.
        #[test]
        fn bytes_are_short(number: u64) {
            prop_assert!(bytes(number).len() <= 8, "{}", bytes(number));
        }
    }
}
