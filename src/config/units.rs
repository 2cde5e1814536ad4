//! Durations and sizes with their units.

use std::time::Duration;

/// The longest duration that can be configured, in days.
pub const MAX_DURATION_DAYS: u64 = 3650;

const DURATIONS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Reads a duration: a number and its unit, e.g. `250ms`, `10s`, `1.5h`.
///
/// # Errors
/// What is wrong, in words.
pub fn duration(text: &str) -> Result<Duration, String> {
    let example = "write a number and its unit: \"250ms\", \"10s\", \"5min\", \"2h\" or \"7d\"";
    let millis = scaled(text, &DURATIONS).ok_or_else(|| format!("{text:?} is not a duration; {example}"))?;
    if millis > MAX_DURATION_DAYS * 86_400_000 {
        return Err(format!("{text:?} is too long; the most is \"{MAX_DURATION_DAYS}d\""));
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: a number with its unit or without, e.g. `512KiB`, `10GiB`, `4096`.
///
/// # Errors
/// What is wrong, in words.
pub fn size(text: &str) -> Result<u64, String> {
    if let Ok(bytes) = text.trim().parse() {
        return Ok(bytes);
    }
    let example = "write a number and its unit: \"512KiB\", \"64MiB\" or \"10GiB\"";
    scaled(text, &SIZES).ok_or_else(|| format!("{text:?} is not a size; {example}"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*factor);
    }
    let value = number.parse::<f64>().ok()? * (*factor as f64);
    // Beyond 2^53 a fraction is below what a double can hold.
    (value.is_finite() && value <= (1u64 << 53) as f64).then_some(value.round() as u64)
}

/// A duration in the spelling of the file, in the largest unit that is exact.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if millis >= factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") }
}

/// A size in the spelling of the file, in the largest unit that is exact.
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("5min", 300_000), ("1.5h", 5_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration(&show_duration(Duration::from_millis(millis))), duration(text));
        }
        for text in ["10", "", "s", "10 parsecs", "-1s", "99999999d", "1.2.3s", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_have_units_or_are_bytes() {
        for (text, bytes) in
            [("4096", 4096), ("512KiB", 524_288), ("1 MB", 1_000_000), ("1.5GiB", 1_610_612_736)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        for text in ["", "KiB", "10 PiB", "-1", "18446744073709551615TiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
