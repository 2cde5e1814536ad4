//! What a bus will not see.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was no room for them.
    Dropped,
    /// They were written and cannot be read again.
    Damaged,
    /// The end of the log is missing or damaged. [`Lost::last`] is no record's number but the announcement's own, since
    /// a bus may have had those before it.
    CutShort,
}

impl Reason {
    /// The word in a gap message and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Damaged | Self::CutShort => "damaged",
        }
    }
}

/// Records that a bus will not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first lost sequence number.
    pub first: u64,
    /// The number under which it is announced: that of the last lost record, but for [`Reason::CutShort`].
    pub last: u64,
    /// When the first was appended, or somewhat before.
    pub from: SystemTime,
    /// When the last was appended, or somewhat after.
    pub until: SystemTime,
    /// Why.
    pub reason: Reason,
}

impl Lost {
    /// How many records were lost.
    pub fn count(&self) -> u64 {
        (self.last_lost() + 1).saturating_sub(self.first)
    }

    /// How many numbers of the log it stands for: of the lost records, and perhaps its own.
    pub fn places(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    /// The number of the last lost record.
    pub fn last_lost(&self) -> u64 {
        match self.reason {
            Reason::CutShort => self.last.saturating_sub(1),
            Reason::Dropped | Reason::Damaged => self.last,
        }
    }

    /// Adds what was lost right after, for the same reason; otherwise gives it back.
    pub(super) fn join(&mut self, next: Self) -> Result<(), Self> {
        if next.first != self.last + 1 || next.reason != self.reason {
            return Err(next);
        }
        (self.last, self.until) = (next.last, next.until);
        Ok(())
    }
}

/// Microseconds since 1970; 0 for a clock that stands before.
pub(super) fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The present, to the microsecond, as files keep it: so that what is told of it twice is told alike.
pub(super) fn now() -> SystemTime {
    time(micros(SystemTime::now()))
}

/// The time of microseconds since 1970.
pub(super) fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH)
}
