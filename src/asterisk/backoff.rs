//! How long to wait before connecting again: doubling, capped, and never the same for two clients.

use std::time::Duration;

/// Waits that double from `min` to `max`. Each is drawn from the upper half of its range, so that many
/// clients of a server that comes back do not all come at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with a wait of at most `min`. A `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        self.wait_drawn(random())
    }

    /// The next wait is a short one again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }

    fn wait_drawn(&mut self, drawn: u32) -> Duration {
        let wait = jittered_drawn(self.next, drawn);
        self.next = self.next.saturating_mul(2).min(self.max);
        wait
    }
}

/// A time between half of `longest` and all of it.
pub fn jittered(longest: Duration) -> Duration {
    jittered_drawn(longest, random())
}

fn jittered_drawn(longest: Duration, drawn: u32) -> Duration {
    let half = longest / 2;
    half + half.mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

/// Without randomness the wait is the longest: still right, only less spread.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap_and_begin_again() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let longest: Vec<u64> = (0..5).map(|_| backoff.wait_drawn(u32::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.wait_drawn(u32::MAX), SECOND);
    }

    #[test]
    fn a_wait_lies_in_the_upper_half_of_its_range() {
        assert_eq!(jittered_drawn(10 * SECOND, 0), 5 * SECOND);
        assert_eq!(jittered_drawn(10 * SECOND, u32::MAX), 10 * SECOND);
        for _ in 0..100 {
            assert!((5 * SECOND..=10 * SECOND).contains(&jittered(10 * SECOND)));
        }
        assert!((0..20).map(|_| jittered(SECOND)).collect::<std::collections::HashSet<_>>().len() > 10);
    }

    #[test]
    fn a_cap_below_the_first_wait_is_the_first_wait() {
        let mut backoff = Backoff::new(3 * SECOND, SECOND);
        assert_eq!([backoff.wait_drawn(u32::MAX), backoff.wait_drawn(u32::MAX)], [3 * SECOND; 2]);
    }
}
