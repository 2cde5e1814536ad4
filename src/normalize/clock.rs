//! Moments as CloudEvents writes them.

use super::json;

/// Writes moments, and keeps the text of the second that it wrote last.
#[derive(Debug)]
pub(super) struct Clock {
    /// Since 1970; what `text` holds.
    second: u64,
    /// RFC 3339 up to the point before the decimals.
    text: [u8; 20],
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { second: 0, text: second_text(0) }
    }

    /// RFC 3339 in UTC with six decimals: two parts of one text.
    #[inline]
    pub(super) fn text(&mut self, micros: u64) -> ([u8; 20], [u8; 7]) {
        const LAST_MICROS_OF_9999: u64 = 253_402_300_799_999_999;
        let micros = micros.min(LAST_MICROS_OF_9999);
        let second = micros / 1_000_000;
        if second != self.second {
            (self.second, self.text) = (second, second_text(second));
        }
        let [_, _, u1, u2, u3, u4, u5, u6] = json::eight_digits(micros % 1_000_000);
        (self.text, [u1, u2, u3, u4, u5, u6, b'Z'])
    }
}

fn second_text(second: u64) -> [u8; 20] {
    let (year, month, day) = civil(second / 86_400);
    let [_, _, _, _, y, e, a, r] = json::eight_digits(year);
    let [_, _, mo, nth, _, _, d, ay] = interleaved(month, day);
    let [_, _, h, our, _, _, m, in_] = interleaved(second / 3600 % 24, second / 60 % 60);
    let [_, _, _, _, _, _, s, ec] = json::eight_digits(second % 60);
    [y, e, a, r, b'-', mo, nth, b'-', d, ay, b'T', h, our, b':', m, in_, b':', s, ec, b'.']
}

/// Two values below 100: the digits of the first at 2 and 3, of the second at 6 and 7.
#[inline]
fn interleaved(first: u64, second: u64) -> [u8; 8] {
    json::eight_digits(first * 10_000 + second)
}

/// Year, month and day of a number of days since 1970. Years are counted from March, so that a leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_MARCH_0000: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_MARCH_0000;
    let (era, of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_written_anew_when_it_is_another() {
        let mut clock = Clock::new();
        let mut write = |micros| {
            let (second, decimals) = clock.text(micros);
            String::from_utf8([&second[..], &decimals].concat()).expect("ASCII")
        };
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (999_999, "1970-01-01T00:00:00.999999Z"),
            (1_795_221_039_102_274, "2026-11-21T00:30:39.102274Z"),
            (1_795_221_039_000_001, "2026-11-21T00:30:39.000001Z"),
            (1_795_221_040_000_001, "2026-11-21T00:30:40.000001Z"),
            (1_795_221_039_000_001, "2026-11-21T00:30:39.000001Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999999Z"),
            (0, "1970-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(write(micros), expected);
        }
    }
}
