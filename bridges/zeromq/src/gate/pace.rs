//! Who reads, and who only seems to.
//!
//! A peer's queue is full when it reads slower than messages are published; then publishing waits for it. That is
//! right for a peer that reads (nothing is lost in a burst), and wrong for one that does not, for the others wait
//! too. So from the last moment that a peer was seen to take something, each `patience` in which its queue stays at
//! least half full must see a least number of bytes leave; otherwise it is too slow. A peer that stopped reading long
//! before its queue was full is therefore let go the moment it is.

use std::time::Duration;

use tokio::time::Instant;

/// How well one peer keeps up.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: Duration,
    least_bytes: u64,
    /// When bytes last left, or the queue was last empty.
    moved: Instant,
    /// Since when the queue is congested, and how many bytes have left since.
    window: Option<(Instant, u64)>,
}

impl Pace {
    pub(crate) fn new(patience: Duration, least_bytes_per_second: u64, now: Instant) -> Self {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let least_bytes = least_bytes_per_second.saturating_mul(millis) / 1000;
        Self { patience, least_bytes: least_bytes.max(1), moved: now, window: None }
    }

    /// The queue holds `queued` of `limit` bytes.
    pub(crate) fn queued(&mut self, now: Instant, queued: usize, limit: usize) {
        if queued == 0 {
            self.moved = now;
        }
        if queued >= limit {
            self.window.get_or_insert((self.moved, 0));
        } else if queued < limit.div_ceil(2) {
            self.window = None;
        }
    }

    /// `bytes` have left.
    pub(crate) fn left(&mut self, now: Instant, bytes: usize) {
        self.moved = now;
        if let Some((_, left)) = &mut self.window {
            *left = left.saturating_add(bytes as u64);
        }
    }

    /// When to look again; `None` while the peer keeps up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.window.map(|(since, _)| since + self.patience)
    }

    /// Whether the peer has proven too slow by `now`; otherwise it gets another `patience`.
    pub(crate) fn too_slow(&mut self, now: Instant) -> bool {
        match self.window {
            Some((since, left)) if now >= since + self.patience => {
                self.window = Some((now, 0));
                left < self.least_bytes
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);
    const LIMIT: usize = 1000;

    fn pace(now: Instant) -> Pace {
        Pace::new(PATIENCE, 500, now)
    }

    #[test]
    fn a_peer_that_keeps_up_is_never_looked_at() {
        let start = Instant::now();
        let mut pace = pace(start);
        for n in 0..100 {
            pace.queued(start + PATIENCE * n, LIMIT - 1, LIMIT);
            assert_eq!(pace.deadline(), None);
        }
    }

    #[test]
    fn one_that_stops_in_a_burst_gets_its_patience() {
        let start = Instant::now();
        let mut pace = pace(start);
        pace.queued(start, 0, LIMIT);
        pace.queued(start, LIMIT, LIMIT);
        assert_eq!(pace.deadline(), Some(start + PATIENCE));
        assert!(!pace.too_slow(start + PATIENCE / 2));
        assert!(pace.too_slow(start + PATIENCE));
    }

    #[test]
    fn one_that_stopped_long_before_its_queue_was_full_gets_none() {
        let start = Instant::now();
        let mut pace = pace(start);
        pace.left(start, 10);
        pace.queued(start, 10, LIMIT);
        let full = start + PATIENCE * 60;
        pace.queued(full, LIMIT, LIMIT);
        assert!(pace.too_slow(full));
    }

    #[test]
    fn a_trickle_is_not_reading() {
        let start = Instant::now();
        let mut pace = pace(start);
        pace.queued(start, LIMIT, LIMIT);
        pace.left(start + PATIENCE / 2, 499);
        pace.queued(start + PATIENCE / 2, LIMIT - 400, LIMIT);
        pace.queued(start + PATIENCE / 2, LIMIT, LIMIT);
        assert!(pace.too_slow(start + PATIENCE));
    }

    #[test]
    fn a_slow_reader_at_the_least_rate_is_waited_for() {
        let start = Instant::now();
        let mut pace = pace(start);
        for n in 1..50 {
            pace.queued(start + PATIENCE * (n - 1), LIMIT, LIMIT);
            pace.left(start + PATIENCE * n, 500);
            assert!(!pace.too_slow(start + PATIENCE * n));
        }
        pace.queued(start + PATIENCE * 50, 100, LIMIT);
        assert_eq!(pace.deadline(), None, "it has caught up");
    }
}
