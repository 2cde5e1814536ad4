//! The moments of the newest events, by Asterisk's clock where it gives them (`timestampevents=yes`), else by ours.
//!
//! Timestamps are not monotonic: an event that is missing may be somewhat older than one that was read. So the moment
//! after which something may be missing is the earliest of the last [`BUCKET`] to two of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Half of how long moments count as recent.
const BUCKET: Duration = Duration::from_millis(500);
/// Events without a Timestamp after which Asterisk is taken to give none any more. `FullyBooted` never has one.
const UNSTAMPED_MAX: u32 = 32;

/// The earliest and the latest of the newest moments.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// Moments are Timestamps.
    is_asterisks: bool,
    /// Whose clock they are of is not known.
    is_unsure: bool,
    unstamped: u32,
    begun: Option<SystemTime>,
    current: Option<Span>,
    before: Option<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    earliest: SystemTime,
    latest: SystemTime,
}

impl Recent {
    /// Something was read at `read` that Asterisk sent at `stamp`, in microseconds since 1970.
    #[inline]
    pub fn note(&mut self, stamp: Option<u64>, read: SystemTime) {
        let at = match stamp {
            Some(micros) => {
                if !self.is_asterisks {
                    *self = Self { is_asterisks: true, ..Self::default() };
                }
                self.unstamped = 0;
                moment(micros)
            }
            None if self.is_asterisks && self.unstamped < UNSTAMPED_MAX => {
                self.unstamped += 1;
                return;
            }
            None => {
                if self.is_asterisks {
                    *self = Self::default();
                }
                read
            }
        };
        let length = self.begun.map(|begun| read.duration_since(begun).unwrap_or(BUCKET));
        if length.is_none_or(|length| length >= BUCKET) {
            self.before = self.current.take().filter(|_| length.is_some_and(|length| length < BUCKET * 2));
            self.begun = Some(read);
        }
        let span = self.current.get_or_insert(Span { earliest: at, latest: at });
        (span.earliest, span.latest) = (span.earliest.min(at), span.latest.max(at));
    }

    /// Something may be missing since then.
    pub fn reach_back(&mut self, at: SystemTime) {
        if let Some(span) = &mut self.current {
            span.earliest = span.earliest.min(at);
        }
    }

    /// Everything before `at` is told.
    pub fn restart(&mut self, at: SystemTime) {
        (self.begun, self.before) = (None, None);
        self.current = Some(Span { earliest: at, latest: at });
    }

    /// As [`Recent::restart`], by somebody's clock.
    pub fn restart_unsure(&mut self, at: SystemTime) {
        *self = Self { is_unsure: true, ..Self::default() };
        self.restart(at);
    }

    /// What was missed after this was not sent before this moment. `None` where nothing was seen, ever.
    pub fn earliest(&self) -> Option<SystemTime> {
        self.current.iter().chain(&self.before).map(|span| span.earliest).min()
    }

    /// The latest moment.
    pub fn latest(&self) -> Option<SystemTime> {
        self.current.iter().chain(&self.before).map(|span| span.latest).max()
    }

    /// The present, by the same clock as the moments: `asterisks` is what its clock says, and `ours` what ours says.
    pub fn now(&self, asterisks: Option<SystemTime>, ours: SystemTime) -> SystemTime {
        match asterisks {
            Some(now) if self.is_asterisks => now,
            Some(now) if self.is_unsure => now.max(ours),
            _ => ours,
        }
    }
}

/// The moment of a Timestamp.
pub fn moment(micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> SystemTime {
        moment(micros)
    }

    #[test]
    fn a_late_timestamp_of_the_last_second_counts_an_old_one_does_not() {
        let mut recent = Recent::default();
        recent.note(Some(10 * SECOND), at(50 * SECOND));
        assert_eq!(recent.earliest(), Some(at(10 * SECOND)));
        recent.note(Some(70 * SECOND), at(110 * SECOND));
        recent.note(Some(70 * SECOND - 3000), at(110 * SECOND + 1000));
        recent.note(Some(70 * SECOND + 600_000), at(110 * SECOND + 600_000));
        assert_eq!(recent.earliest(), Some(at(70 * SECOND - 3000)), "of the bucket before");
        assert_eq!(recent.latest(), Some(at(70 * SECOND + 600_000)));
        recent.note(Some(72 * SECOND), at(112 * SECOND));
        assert_eq!(recent.earliest(), Some(at(72 * SECOND)), "a pause longer than any reordering");
    }

    #[test]
    fn the_two_clocks_are_not_mixed() {
        let (ours, theirs) = (at(1000 * SECOND), at(5000 * SECOND));
        let mut recent = Recent::default();
        assert_eq!(recent.earliest(), None);
        recent.note(None, ours);
        assert_eq!((recent.earliest(), recent.now(Some(theirs), ours)), (Some(ours), ours));
        recent.note(Some(5000 * SECOND), ours);
        assert_eq!((recent.earliest(), recent.now(Some(theirs), ours)), (Some(theirs), theirs));
        recent.note(None, at(1002 * SECOND));
        assert_eq!(recent.earliest(), Some(theirs), "one without, such as FullyBooted, changes nothing");
        for _ in 0..UNSTAMPED_MAX {
            recent.note(None, at(1003 * SECOND));
        }
        assert_eq!(recent.earliest(), Some(at(1003 * SECOND)), "Asterisk was told to leave them out");
        recent.restart_unsure(ours);
        assert_eq!(recent.now(Some(theirs), ours), theirs, "the later one covers both");
    }
}
