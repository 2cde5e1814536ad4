//! Wall-clock time as Asterisk writes it, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_A_DAY: u64 = 86_400;
const DAYS_0000_TO_1970: u64 = 719_468;
const DAYS_AN_ERA: u64 = 146_097;

/// Microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// `seconds.micros`, the value of a `Timestamp` header.
pub(crate) fn timestamp(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// The microseconds of a `seconds.micros` value, if it is one.
pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)
}

/// `YYYY-MM-DD` and `HH:MM:SS` of a second since 1970.
pub(crate) fn date_and_time(seconds: u64) -> (String, String) {
    let (year, month, day) = civil(seconds / SECONDS_A_DAY);
    let rest = seconds % SECONDS_A_DAY;
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60),
    )
}

/// The second since 1970 of `YYYY-MM-DD HH:MM:SS`, if the text is just that.
pub(crate) fn parse_date_and_time(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let sane = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sane || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * SECONDS_A_DAY + hour * 3600 + minute * 60 + second)
}

/// Days since 1970 to year, month, day, by counting in 400-year eras that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + DAYS_0000_TO_1970;
    let (era, day_of_era) = (shifted / DAYS_AN_ERA, shifted % DAYS_AN_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_AN_ERA + day_of_era - DAYS_0000_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_both_ways() {
        assert_eq!(
            date_and_time(1_795_220_651),
            ("2026-11-21".to_owned(), "00:24:11".to_owned()),
            "the first call of a recording and its own Cdr agree"
        );
        for second in (0..4_000_000_000).step_by(12_345_678) {
            let (date, time) = date_and_time(second);
            assert_eq!(parse_date_and_time(&format!("{date} {time}")), Some(second));
        }
    }

    #[test]
    fn timestamps_go_both_ways() {
        assert_eq!(parse_timestamp("1795220651.008641"), Some(1_795_220_651_008_641));
        assert_eq!(timestamp(1_795_220_651_008_641), "1795220651.008641");
        assert_eq!(parse_timestamp("1795220651.21"), None);
    }
}
