//! Since when something is so, by two clocks: the monotonic one stands still while a machine sleeps or is paused, and the
//! wall clock may be set.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A point in time, as both clocks had it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The same before the machine had slept for so long.
    #[cfg(test)]
    pub(super) fn slept(self, time: Duration) -> Self {
        Self { wall: self.wall - time, ..self }
    }

    /// How long ago it was, by the clock that says longer.
    pub(super) fn elapsed(&self) -> Duration {
        // A wall clock that was set back says nothing.
        self.monotonic.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_went_on_counts() {
        let (hour, now) = (Duration::from_secs(3600), Moment::now());
        assert!(now.elapsed() < hour);
        assert!(now.slept(hour).elapsed() >= hour, "the monotonic clock stood still");
        let set_back = Moment { wall: SystemTime::now() + hour, ..now };
        assert!(set_back.elapsed() < hour);
    }
}
