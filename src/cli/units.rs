//! Pure. Durations and sizes as people type and read them.
//!
//! Durations follow Go (`5ms`, `1m30s`, `1.5s`), because the original's settings do. Sizes are bytes, or a
//! number with K, M, G, KB, MB, GB, KiB, MiB, GiB. All of them count in 1024s: the original calls 67108864
//! bytes "64 MB", and one file must not mean two things by it.

use std::time::Duration;

const DURATION_UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, what a keyboard makes
    ("μs", 1_000), // U+03BC, what Unicode normalisation makes of it
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses one or more `<decimal><unit>` in a row, or a bare `0`. `None`: not a duration (negative ones included).
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(decimal_times(number, scale)?)?;
        rest = tail;
    }
    if text.is_empty() {
        return None;
    }
    Some(Duration::from_nanos(u64::try_from(total).ok()?))
}

/// `number` ("1", "1.5", ".5") times `scale`, cut to whole units.
fn decimal_times(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut total = match whole {
        "" => 0,
        digits => digits.parse::<u128>().ok()?.checked_mul(scale)?,
    };
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(u128::from(digit - b'0') * place)?;
    }
    Some(total)
}

/// Go's way of writing a duration, rounded to three significant digits below a minute: `123µs`, `1.5ms`,
/// `2.3s`, `1m30s`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos < 60_000_000_000 {
        let mut step = 1;
        while nanos / step >= 1000 {
            step *= 10;
        }
        nanos = (nanos + step / 2) / step * step;
    }
    match nanos {
        0 => "0s".to_string(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(nanos, 1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => decimal(nanos, 1_000_000_000, "s"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            if hours > 0 {
                format!("{hours}h{minutes}m{seconds}s")
            } else {
                format!("{minutes}m{seconds}s")
            }
        }
    }
}

/// `nanos / unit` with its fraction, trailing zeros cut.
fn decimal(nanos: u128, unit: u128, name: &str) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", nanos % unit);
    match fraction.trim_end_matches('0') {
        "" => format!("{}{name}", nanos / unit),
        fraction => format!("{}.{fraction}{name}", nanos / unit),
    }
}

/// Parses a size. `None`: not a size, or more than 2^64 bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The original's way of writing a size: the largest unit that divides it exactly, up to `MB` (`64 MB`).
#[must_use]
pub fn show_size(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1 << 20) {
        format!("{} MB", bytes >> 20)
    } else if bytes > 0 && bytes.is_multiple_of(1 << 10) {
        format!("{} KB", bytes >> 10)
    } else {
        format!("{bytes} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_go() {
        for (text, nanos) in [
            ("5ms", 5_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("240h", 864_000_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("1h0m0.000000001s", 3_600_000_000_001),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "ms",
            "-5ms",
            "5 ms",
            "5d",
            "1..5s",
            ".s",
            "5msx",
            "99999999999h",
            "1e3s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        for (nanos, text) in [
            (0, "0s"),
            (45, "45ns"),
            (123_000, "123µs"),
            (123_456, "123µs"),
            (45_678, "45.7µs"),
            (1_500_000, "1.5ms"),
            (999_999, "1ms"),
            (2_300_000_000, "2.3s"),
            (59_999_999_999, "1m0s"),
            (90_000_000_000, "1m30s"),
            (3_661_000_000_000, "1h1m1s"),
        ] {
            assert_eq!(show_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn sizes_count_in_1024s() {
        for (text, bytes) in [
            ("67108864", 64 << 20),
            ("64MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("64m", 64 << 20),
            ("2GiB", 2 << 30),
            ("512k", 512 << 10),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.5MB", "64 M B", "99999999999999999999"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(show_size(64 << 20), "64 MB");
        assert_eq!(show_size(64 << 10), "64 KB");
        assert_eq!(show_size(1000), "1000 B");
    }
}
