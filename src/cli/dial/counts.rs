//! Where a batch stands: how many rows ended how, how fast, and how long it will take.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::outcome::{Brief, CallResult};
use crate::command::Outcome;

/// The time over which the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(30);
/// How often the count is noted within it.
const RATE_STEP: Duration = Duration::from_secs(1);

/// How many rows ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    outcomes: [usize; Outcome::ALL.len()],
    results: [usize; CallResult::ALL.len()],
}

impl Counts {
    pub(super) fn add(&mut self, brief: Brief) {
        self.change(brief, |count| count + 1);
    }

    /// Takes back what [`Counts::add`] added.
    pub(super) fn remove(&mut self, brief: Brief) {
        self.change(brief, |count| count.saturating_sub(1));
    }

    fn change(&mut self, brief: Brief, with: impl Fn(usize) -> usize) {
        for (outcome, count) in Outcome::ALL.into_iter().zip(&mut self.outcomes) {
            if outcome == brief.outcome {
                *count = with(*count);
            }
        }
        for (result, count) in CallResult::ALL.into_iter().zip(&mut self.results) {
            if Some(result) == brief.result {
                *count = with(*count);
            }
        }
    }

    pub(super) fn of(&self, outcome: Outcome) -> usize {
        Outcome::ALL
            .into_iter()
            .zip(self.outcomes)
            .find(|(one, _)| *one == outcome)
            .map_or(0, |(_, count)| count)
    }

    pub(super) fn ended(&self) -> usize {
        self.outcomes.iter().sum()
    }

    pub(super) fn answered(&self) -> usize {
        self.results.first().copied().unwrap_or_default()
    }

    /// All that ended and was not answered.
    pub(super) fn failed(&self) -> usize {
        self.ended() - self.answered()
    }

    /// The outcomes and results that there are, in words.
    pub(super) fn words(&self) -> (String, String) {
        let list = |words: Vec<(&str, usize)>| {
            let there = words.into_iter().filter(|(_, count)| *count > 0);
            there.map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
        };
        let outcomes = Outcome::ALL.map(Outcome::as_str).into_iter().zip(self.outcomes).collect();
        let results = CallResult::ALL.map(CallResult::as_str).into_iter().zip(self.results).collect();
        (list(outcomes), list(results))
    }
}

/// How fast rows end, over the last [`RATE_WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Rate {
    noted: VecDeque<(Instant, usize)>,
}

impl Rate {
    /// Notes how many had ended by `now`.
    pub(super) fn note(&mut self, now: Instant, ended: usize) {
        if self.noted.back().is_none_or(|(at, _)| now.duration_since(*at) >= RATE_STEP) {
            self.noted.push_back((now, ended));
        }
        while self.noted.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.noted.pop_front();
        }
    }

    /// Rows a second; `None` until there is something to tell.
    pub(super) fn a_second(&self, now: Instant, ended: usize) -> Option<f64> {
        let (at, before) = self.noted.front()?;
        let time = now.duration_since(*at);
        (time >= RATE_STEP).then(|| ended.saturating_sub(*before) as f64 / time.as_secs_f64())
    }
}

/// How long `left` rows take at a rate.
pub(super) fn time_left(left: usize, a_second: Option<f64>) -> Option<Duration> {
    let rate = a_second.filter(|rate| *rate > 0.0)?;
    Duration::try_from_secs_f64(left as f64 / rate).ok()
}

/// A duration as people say it: `1h02m`, `3m20s`, `12s`.
pub(super) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_counted_once() {
        let mut counts = Counts::default();
        let answered = Brief { outcome: Outcome::Executed, result: Some(CallResult::Answered) };
        let rejected = Brief { outcome: Outcome::Rejected, result: None };
        counts.add(answered);
        counts.add(answered);
        counts.add(Brief { outcome: Outcome::Executed, result: Some(CallResult::Busy) });
        counts.add(rejected);
        assert_eq!((counts.ended(), counts.answered(), counts.failed()), (4, 2, 2));
        assert_eq!(counts.words(), ("3 executed, 1 rejected".to_owned(), "2 answered, 1 busy".to_owned()));
        counts.remove(rejected);
        assert_eq!((counts.ended(), counts.of(Outcome::Rejected)), (3, 0));
    }

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let (mut rate, begun) = (Rate::default(), Instant::now());
        assert_eq!(rate.a_second(begun, 0), None);
        for second in 0..=100 {
            // 10 a second at first, 2 a second in the end.
            let ended = if second <= 50 { second * 10 } else { 500 + (second - 50) * 2 };
            rate.note(begun + Duration::from_secs(second as u64), ended);
        }
        let now = begun + Duration::from_secs(100);
        assert_eq!(rate.a_second(now, 600), Some(2.0));
        assert_eq!(time_left(10, Some(2.0)), Some(Duration::from_secs(5)));
        assert_eq!(time_left(10, Some(0.0)), None);
    }

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [(12, "12s"), (200, "3m20s"), (3720, "1h02m")] {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }
}
