//! How much: the short form, or the long one with `AMIBUS_TEST_FAULTS=long`.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events a second that every fault is shown under.
pub(super) const RATE: u64 = 2_000;

/// Whether the long form was asked for.
pub(super) fn is_long() -> bool {
    match env::var("AMIBUS_TEST_FAULTS").as_deref() {
        Ok("long") => true,
        Ok("short" | "") | Err(_) => false,
        Ok(other) => panic!("AMIBUS_TEST_FAULTS is {other:?}; it may be short or long"),
    }
}

/// How many times; `AMIBUS_TEST_FAULTS_TIMES` goes before both.
pub(super) fn times(short: u32, long: u32) -> u32 {
    if let Ok(given) = env::var("AMIBUS_TEST_FAULTS_TIMES") {
        return given.parse().expect("AMIBUS_TEST_FAULTS_TIMES is a number");
    }
    if is_long() { long } else { short }
}

/// How long, in seconds; at most `AMIBUS_TEST_FAULTS_SECONDS`.
pub(super) fn seconds(short: u64, long: u64) -> Duration {
    let most = env::var("AMIBUS_TEST_FAULTS_SECONDS").ok();
    let most = most.map_or(u64::MAX, |given| given.parse().expect("AMIBUS_TEST_FAULTS_SECONDS is a number"));
    Duration::from_secs(if is_long() { long } else { short }.min(most))
}

/// Chance, with a seed that is told.
pub(super) struct Chance(u64);

impl Chance {
    /// From `AMIBUS_TEST_FAULTS_SEED`, or from the clock.
    pub(super) fn new() -> Self {
        let given = env::var("AMIBUS_TEST_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64);
        Self(given.unwrap_or_else(clock).max(1))
    }

    /// What makes it happen again.
    pub(super) fn seed(&self) -> u64 {
        self.0
    }

    /// A number below `limit` (xorshift64).
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }

    /// A time between two, in milliseconds.
    pub(super) fn pause(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
