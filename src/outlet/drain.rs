//! How many messages a lane has on their way while it catches up beside other buses.
//!
//! The other buses share the processors with it, and what they are given live waits for what it does: so it has fewer on
//! their way than it might. That is a favour to them, never at the price of not catching up: what waits is to shrink
//! quickly, or the limit is doubled, up to what the lane may have anyway.
//!
//! A bus that is away shrinks nothing, whatever the limit is. So nothing is learned until it takes something again.

use std::time::Duration;

use tokio::time::Instant;

use crate::spool::Place;

/// The least limit, in messages.
pub(super) const CATCHING_UP_MESSAGES: usize = 896;
/// A lane catches up from the moment on at which so many times what it may have on its way waits, until all that waits may be.
const BEHIND_TIMES: u64 = 2;
/// How often the limit is doubled or halved.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a lane may be slowed down that does not catch up, whatever the looks found: faults may come between any two.
const LIMITED_FOR: Duration = Duration::from_secs(60);
/// Less than so many times what was appended is done with: the limit is too low.
const LEAST_TIMES: u64 = 2;
/// So many times: half of the limit does, for with it at least half as much is done with.
const AMPLE_TIMES: u64 = 6;

/// The limit of one lane.
pub(super) struct Drain {
    /// What the lane may have on its way anyway, in messages.
    most: usize,
    least: usize,
    limit: usize,
    catch_up: Option<CatchUp>,
}

/// A lane that catches up.
#[derive(Default)]
struct CatchUp {
    /// Where it was at the last look, if the bus has been there since.
    looked: Option<Mark>,
    /// Where it was when the bus took the first of what had waited, or [`LIMITED_FOR`] ago.
    began: Option<Mark>,
    /// There is no limit any more.
    is_free: bool,
}

#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    place: Place,
}

impl Drain {
    /// Of a lane that may have `most` messages on their way; it is limited only if there are other buses.
    pub(super) fn new(most: usize, has_company: bool) -> Self {
        let least = if has_company { most.min(CATCHING_UP_MESSAGES) } else { most };
        Self { most, least, limit: least, catch_up: None }
    }

    /// How many messages may be on their way now. `place`: where the lane is, if anything may still be appended;
    /// `is_away`: the bus has taken nothing since a fault.
    pub(super) fn messages(
        &mut self,
        now: Instant,
        is_away: bool,
        place: impl FnOnce() -> Option<Place>,
    ) -> usize {
        if self.least == self.most {
            return self.most;
        }
        let until = if self.catch_up.is_some() { self.limit as u64 } else { BEHIND_TIMES * self.most as u64 };
        let Some(place) = place().filter(|place| place.waiting > until) else {
            self.catch_up = None;
            return self.most;
        };
        let catch_up = self.catch_up.get_or_insert_default();
        let limit = catch_up.next(Mark { at: now, place }, is_away, self.limit);
        self.limit = limit.clamp(self.least, self.most);
        self.limit
    }
}

impl CatchUp {
    fn next(&mut self, here: Mark, is_away: bool, limit: usize) -> usize {
        if is_away {
            self.looked = None;
            return limit;
        }
        let began = *self.began.get_or_insert(here);
        if here.at - began.at >= LIMITED_FOR {
            self.began = Some(here);
            self.is_free |= !here.does(LEAST_TIMES, &began);
        }
        if self.is_free {
            return usize::MAX;
        }
        let looked = *self.looked.get_or_insert(here);
        if here.at - looked.at < LOOK_EVERY {
            return limit;
        }
        self.looked = Some(here);
        if !here.does(LEAST_TIMES, &looked) {
            limit.saturating_mul(2)
        } else if here.does(AMPLE_TIMES, &looked) {
            limit / 2
        } else {
            limit
        }
    }
}

impl Mark {
    /// Whether at least so many times what was appended since `then` was done with.
    fn does(&self, times: u64, then: &Self) -> bool {
        let appended = self.place.end.saturating_sub(then.place.end);
        let done = self.place.done.saturating_sub(then.place.done);
        done >= appended.saturating_mul(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8 * CATCHING_UP_MESSAGES;
    /// A second of them.
    const LIVE: u64 = 10_000;
    /// How long a round takes.
    const ROUND: Duration = Duration::from_millis(50);

    /// A lane, its bus, and what comes meanwhile.
    struct Lane {
        drain: Drain,
        now: Instant,
        place: Place,
    }

    impl Lane {
        fn new(has_company: bool, waiting: u64) -> Self {
            let place = Place { end: waiting, waiting, done: 0 };
            Self { drain: Drain::new(MOST, has_company), now: Instant::now(), place }
        }

        fn most(&mut self, is_away: bool) -> usize {
            let place = self.place;
            self.drain.messages(self.now, is_away, || Some(place))
        }

        /// A round of a bus that does `able` a second with the least limit, and more with more; `most` at the end of it.
        fn round(&mut self, live: u64, able: impl Fn(u64) -> u64, is_away: bool) -> usize {
            let limit = self.most(is_away) as u64;
            let (came, round) = (live / 20, 20);
            let done = if is_away { 0 } else { (able(limit) / round).min(self.place.waiting + came) };
            self.now += ROUND;
            self.place.end += came;
            self.place.waiting = self.place.waiting + came - done;
            self.place.done += done;
            usize::try_from(limit).expect("small")
        }

        /// The limits of so many seconds.
        fn seconds(&mut self, seconds: usize, live: u64, able: impl Fn(u64) -> u64) -> Vec<usize> {
            let mut limits: Vec<_> = (0..seconds * 20).map(|_| self.round(live, &able, false)).collect();
            limits.dedup();
            limits
        }
    }

    /// A bus for which the limit is all that holds it, in messages a second.
    fn by_limit(limit: u64) -> u64 {
        57 * limit
    }

    #[test]
    fn what_catches_up_quickly_has_the_least_limit_until_all_that_waits_may_be_on_its_way() {
        let mut lane = Lane::new(true, 600_000);
        assert_eq!(lane.seconds(12, LIVE, by_limit), [CATCHING_UP_MESSAGES]);
        assert_eq!(lane.seconds(10, LIVE, by_limit), [CATCHING_UP_MESSAGES, MOST]);
        assert!(lane.place.waiting <= CATCHING_UP_MESSAGES as u64);
        lane.place.waiting = BEHIND_TIMES * MOST as u64;
        assert_eq!(lane.most(false), MOST, "that much may wait");
        lane.place.waiting += 1;
        assert_eq!(lane.most(false), CATCHING_UP_MESSAGES);
    }

    #[test]
    fn without_company_or_with_few_on_its_way_anyway_nothing_changes() {
        let never_asked = || unreachable!("it does not matter");
        for (most, has_company) in [(MOST, false), (CATCHING_UP_MESSAGES, true), (1, true)] {
            let mut drain = Drain::new(most, has_company);
            assert_eq!(drain.messages(Instant::now(), false, never_asked), most);
        }
        let mut drain = Drain::new(MOST, true);
        assert_eq!(drain.messages(Instant::now(), false, || None), MOST, "nothing more will come");
    }

    #[test]
    fn a_source_that_is_faster_than_the_limited_lane_lifts_the_limit_and_is_caught_up_with() {
        for live in [30_000, 60_000, 200_000, 300_000] {
            let mut lane = Lane::new(true, 100_000);
            let limits = lane.seconds(60, live, by_limit);
            assert!(limits.contains(&(2 * CATCHING_UP_MESSAGES)), "{live}: {limits:?}");
            assert!(lane.place.waiting <= 2 * live / 20, "{live}: {} wait", lane.place.waiting);
        }
    }

    #[test]
    fn a_bus_that_the_limit_does_not_hold_has_all_of_it() {
        let mut lane = Lane::new(true, 100_000);
        let limits = lane.seconds(5, LIVE, |_| LIVE / 2);
        assert_eq!(limits, [1, 2, 4, 8].map(|times| times * CATCHING_UP_MESSAGES));
    }

    #[test]
    fn what_comes_more_slowly_again_halves_the_limit() {
        let mut lane = Lane::new(true, 10_000_000);
        assert_eq!(lane.seconds(5, 100_000, by_limit).last(), Some(&(4 * CATCHING_UP_MESSAGES)));
        assert_eq!(lane.seconds(5, LIVE, by_limit).last(), Some(&CATCHING_UP_MESSAGES));
    }

    #[test]
    fn nothing_is_learned_while_the_bus_is_away() {
        let mut lane = Lane::new(true, 100_000);
        for _ in 0..20 * 70 {
            assert_eq!(lane.round(LIVE, by_limit, true), CATCHING_UP_MESSAGES);
        }
        // It took the first of it at the end of a long wait.
        assert_eq!(lane.most(true), CATCHING_UP_MESSAGES);
        (lane.now, lane.place.done) = (lane.now + LIMITED_FOR, 1);
        assert_eq!(lane.seconds(10, LIVE, by_limit), [CATCHING_UP_MESSAGES]);
    }

    #[test]
    fn a_bus_that_goes_away_again_and_again_limits_nothing_for_longer_than_a_while() {
        let mut lane = Lane::new(true, 10_000_000);
        let (mut rounds, ended) = (0, lane.now + 2 * LIMITED_FOR);
        // It is there for less than a look lasts, and away for twice as long.
        while lane.now < ended && lane.round(LIVE, by_limit, rounds % 15 >= 5) < MOST {
            rounds += 1;
        }
        assert!(lane.now < ended, "it is limited");
        // Until it has caught up.
        assert_eq!(lane.seconds(1, LIVE, |_| LIVE), [MOST]);
    }
}
