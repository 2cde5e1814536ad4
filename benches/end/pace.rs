//! Events at a steady rate, in grains of a millisecond at least, each event stamped with the moment at which it is sent.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Grains a second, at most.
const GRAINS_A_SECOND: u64 = 1_000;

/// Says when the next events are due, and stamps them. No two stamps are the same.
pub(crate) struct Pacer {
    rate: u64,
    began: Option<Instant>,
    given: u64,
    last: u64,
    /// The sum of all stamps, wrapping: what a consumer must come to as well.
    pub(crate) sum: u64,
    /// The most that a grain was late.
    pub(crate) behind: Duration,
}

impl Pacer {
    pub(crate) fn new(events_per_second: u64) -> Self {
        let behind = Duration::ZERO;
        Self { rate: events_per_second.max(1), began: None, given: 0, last: 0, sum: 0, behind }
    }

    /// Events that are sent together.
    pub(crate) fn grain(&self) -> u64 {
        (self.rate / GRAINS_A_SECOND).max(1)
    }

    /// Waits until the next grain is due; the first one is at once.
    pub(crate) fn wait(&mut self) {
        let began = *self.began.get_or_insert_with(Instant::now);
        let due = began + Duration::from_secs_f64(self.given as f64 / self.rate as f64);
        self.given += self.grain();
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(early) => thread::sleep(early),
            None => self.behind = self.behind.max(now - due),
        }
    }

    /// Now, in microseconds since 1970, later than every stamp before.
    pub(crate) fn stamp(&mut self) -> u64 {
        self.last = now_micros().max(self.last + 1);
        self.sum = self.sum.wrapping_add(self.last);
        self.last
    }
}

/// Microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
