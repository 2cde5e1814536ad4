//! So many a second: the generic cell rate algorithm (ITU-T I.371), which is a token bucket in one number.
//!
//! In any time of W seconds at most `rate` * W + `burst` are taken: exactly, whatever the times.

use std::time::Duration;

/// A new bucket gives its first after one interval, since a process that died may have taken one a moment ago; for rates
/// so slow that this is longer, after so long.
const FIRST_AT_MOST: Duration = Duration::from_secs(10);

/// Times are durations since some common beginning.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    interval: Duration,
    /// How much earlier than the even pace one may be taken: burst less one, in intervals.
    slack: Duration,
    /// When the next one is due by the even pace.
    due: Duration,
}

impl Bucket {
    /// An empty one. `rate` is taken a second, above nought; `burst` at least 1.
    pub(super) fn new(rate: f64, burst: u32, now: Duration) -> Self {
        // Rounded up: the rate is never exceeded.
        let interval = Duration::from_secs_f64(1.0 / rate) + Duration::from_nanos(1);
        let slack = interval * burst.saturating_sub(1);
        Self { interval, slack, due: now + slack + interval.min(FIRST_AT_MOST) }
    }

    /// From when on one may be taken.
    pub(super) fn free_at(&self) -> Duration {
        self.due.saturating_sub(self.slack)
    }

    /// Whether one may be taken.
    pub(super) fn is_free(&self, now: Duration) -> bool {
        self.free_at() <= now
    }

    /// Takes one that may be taken.
    pub(super) fn take(&mut self, now: Duration) {
        self.due = self.due.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_time_has_more_than_its_rate_and_a_burst(
            rate in 0.1f64..1000.0,
            burst in 1u32..20,
            pauses in proptest::collection::vec(0u64..200_000, 1..300),
        ) {
            let mut bucket = Bucket::new(rate, burst, Duration::ZERO);
            let (mut now, mut taken) = (Duration::ZERO, Vec::new());
            for micros in pauses {
                now += Duration::from_micros(micros);
                while bucket.is_free(now) {
                    bucket.take(now);
                    taken.push(now);
                }
            }
            for (n, from) in taken.iter().enumerate() {
                for (m, until) in taken.iter().enumerate().skip(n) {
                    let most = rate * (*until - *from).as_secs_f64() + f64::from(burst);
                    prop_assert!((m - n + 1) as f64 <= most + 1e-6, "{} in {:?}", m - n + 1, *until - *from);
                }
            }
        }

        #[test]
        fn who_always_takes_gets_the_rate(rate in 0.5f64..200.0, burst in 1u32..5) {
            let mut bucket = Bucket::new(rate, burst, Duration::ZERO);
            let mut taken = 0u32;
            for _ in 0..100 {
                let at = bucket.free_at();
                prop_assert!(bucket.is_free(at));
                bucket.take(at);
                taken += 1;
            }
            let least = rate * bucket.free_at().as_secs_f64();
            prop_assert!(f64::from(taken) >= least - 1.01, "{taken} of {least}");
        }
    }
}
