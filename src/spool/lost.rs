//! What a bus will not see.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was no room for them.
    Dropped,
    /// They were written and cannot be read again.
    Damaged,
}

impl Reason {
    /// The word in a gap message and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
        }
    }
}

/// Records that a bus will not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first lost sequence number.
    pub first: u64,
    /// The last lost sequence number.
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
        self.last.saturating_sub(self.first).saturating_add(1)
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

/// The time of microseconds since 1970.
pub(super) fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH)
}
