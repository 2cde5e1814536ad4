//! Which SequenceNumbers are missing. Pure: numbers and times in, what is missing out.
//!
//! Numbers come out of order at times, so a missing one is a hole that may yet be filled; it is missing for good after
//! [`GRACE`], or once numbers are [`GRACE_NUMBERS`] further. Each hole is then told as it is. Where more than
//! [`RANGES_A_ROUND`] come within [`ROUND`] (a user that may not read every event has holes by nature), the rest of
//! the round is told as one: an exact count, and the range around it.
//!
//! Bounded: [`OPEN_MAX`] holes and one bundle.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use crate::normalize::MAX_JUMP;

/// How long a missing number is waited for.
pub const GRACE: Duration = Duration::from_secs(1);
/// How much further numbers may be before a missing one is waited for no more.
pub const GRACE_NUMBERS: u32 = 16_384;
/// Holes that are waited for at once; beyond it the oldest is missing for good.
pub const OPEN_MAX: usize = 4096;
/// How long ranges are counted, and bundled once they are too many.
pub const ROUND: Duration = Duration::from_secs(10);
/// Ranges that are told one by one in a round.
pub const RANGES_A_ROUND: u32 = 16;
/// How many numbers a bundle may span, about: what a process that is killed has not told is found again in the spool.
pub const BUNDLE_NUMBERS: u32 = 16_384;

/// Why numbers are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No session saw the server meanwhile.
    Disconnected,
    /// A session did, and they did not come.
    Skipped,
}

/// Numbers that are missing for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Why.
    pub cause: Cause,
    /// How many; none where those of a disconnect came after all.
    pub count: u64,
    /// The first.
    pub first: u32,
    /// The last. Where `count` is less than the range has, the others of it were seen or told before.
    pub last: u32,
    /// A moment before they were sent.
    pub from: SystemTime,
    /// A moment after.
    pub until: SystemTime,
}

/// What surrounds a number.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Why numbers before it would be missing.
    pub cause: Cause,
    /// A moment before whatever is missing was sent.
    pub from: SystemTime,
    /// A moment after.
    pub until: SystemTime,
    /// When the number was read; `None` where nothing is to be made of missing ones.
    pub read: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    cause: Cause,
    first: u32,
    last: u32,
    from: SystemTime,
    until: SystemTime,
    noticed: SystemTime,
}

/// What is missing of one life of Asterisk.
#[derive(Clone, Debug, Default)]
pub struct Holes {
    highest: Option<u32>,
    /// Where an unconfirmed jump led to.
    far: Option<u32>,
    /// Numbers up to the next one are not missing.
    passes_over: bool,
    /// Ascending, and so by age.
    open: VecDeque<Hole>,
    round: Round,
    ready: Vec<Missing>,
}

#[derive(Clone, Debug, Default)]
struct Round {
    begun: Option<SystemTime>,
    ranges: u32,
    /// The round before had too many ranges, so this one is bundled from its first.
    bundles: bool,
    bundle: Option<Missing>,
    has_bundled: bool,
}

impl Holes {
    /// The greatest number so far.
    pub fn highest(&self) -> Option<u32> {
        self.highest
    }

    /// The first number that is missing, and a moment before it was sent.
    pub fn first(&self) -> Option<(u32, SystemTime)> {
        self.open.front().map(|hole| (hole.first, hole.from))
    }

    /// Whether something waits to be told.
    pub fn is_waiting(&self) -> bool {
        !self.open.is_empty() || self.round.bundle.is_some() || !self.ready.is_empty()
    }

    /// Whether ranges were so many that they were bundled, ever.
    pub fn has_bundled(&self) -> bool {
        self.round.has_bundled
    }

    /// Takes in a number. Whatever is skipped on the way to it is a hole from here on. Says whether the number is one
    /// to go by: a jump that no other number has confirmed is not.
    #[inline]
    pub fn note(&mut self, number: u32, around: impl FnOnce() -> Around) -> bool {
        let Some(highest) = self.highest else {
            (self.highest, self.passes_over) = (Some(number), false);
            return true;
        };
        if number.checked_sub(1) == Some(highest) {
            (self.highest, self.far, self.passes_over) = (Some(number), None, false);
            return true;
        }
        if number <= highest {
            self.fill(number);
            return true;
        }
        if std::mem::take(&mut self.passes_over) {
            self.highest = Some(number);
            return true;
        }
        let far = self.far.filter(|&far| number > far && number - far <= MAX_JUMP);
        if number - highest > MAX_JUMP && far.is_none() {
            self.far = Some(number);
            return false;
        }
        let Around { cause, from, until, read } = around();
        let (first, last) = (highest + 1, number - 1);
        self.open.extend(read.map(|noticed| Hole { cause, first, last, from, until, noticed }));
        (self.highest, self.far) = (Some(number), None);
        if let Some(far) = far {
            self.fill(far);
        }
        true
    }

    /// What is missing for good by `now`.
    #[inline]
    pub fn due(&mut self, now: SystemTime) -> Vec<Missing> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let highest = self.highest.unwrap_or(0);
        while let Some(hole) = self.open.front() {
            let old = is_past(hole.noticed, GRACE, now) || highest - hole.last.min(highest) > GRACE_NUMBERS;
            if !old && self.open.len() <= OPEN_MAX {
                break;
            }
            self.close_first(now);
        }
        let is_far = |bundle: &Missing| highest - bundle.first.min(highest) > BUNDLE_NUMBERS + GRACE_NUMBERS;
        if self.round.begun.is_some_and(|begun| is_past(begun, ROUND, now))
            || self.round.bundle.as_ref().is_some_and(is_far)
        {
            self.ready.extend(self.round.bundle.take());
        }
        std::mem::take(&mut self.ready)
    }

    /// Everything that is missing, since no more numbers come.
    pub fn flush(&mut self, now: SystemTime) -> Vec<Missing> {
        while !self.open.is_empty() {
            self.close_first(now);
        }
        self.ready.extend(self.round.bundle.take());
        std::mem::take(&mut self.ready)
    }

    /// Another life of Asterisk: its numbers begin anew.
    pub fn restart(&mut self) {
        (self.highest, self.far) = (None, None);
        self.open.clear();
    }

    /// Forgets holes up to `last` that were told by a process before this one.
    pub fn forget_to(&mut self, last: u32) {
        while self.open.front().is_some_and(|hole| hole.last <= last) {
            self.open.pop_front();
        }
        if let Some(hole) = self.open.front_mut() {
            hole.first = hole.first.max(last.saturating_add(1));
        }
    }

    /// Numbers up to the next one are told otherwise.
    pub fn pass_over(&mut self) {
        self.passes_over = true;
    }

    /// No longer.
    pub fn go_on(&mut self) {
        self.passes_over = false;
    }

    /// Forgets every hole.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// Forgets holes that were noticed before `moment`.
    pub fn forget_before(&mut self, moment: SystemTime) {
        self.open.retain(|hole| hole.noticed >= moment);
    }

    fn fill(&mut self, number: u32) {
        let at = self.open.partition_point(|hole| hole.last < number);
        let Some(hole) = self.open.get_mut(at).filter(|hole| hole.first <= number) else { return };
        let whole = *hole;
        match (hole.first == number, hole.last == number) {
            (true, true) => {
                self.open.remove(at);
                if whole.cause == Cause::Disconnected {
                    self.ready.push(Missing { count: 0, ..whole.missing() });
                }
            }
            (true, false) => hole.first += 1,
            (false, true) => hole.last -= 1,
            (false, false) => {
                hole.last = number - 1;
                self.open.insert(at + 1, Hole { first: number + 1, ..whole });
            }
        }
    }

    fn close_first(&mut self, now: SystemTime) {
        let Some(hole) = self.open.pop_front() else { return };
        let missing = hole.missing();
        match hole.cause {
            Cause::Disconnected => self.ready.push(missing),
            Cause::Skipped => self.ready.extend(self.round.add(missing, now)),
        }
    }
}

impl Hole {
    fn missing(&self) -> Missing {
        let count = u64::from(self.last - self.first) + 1;
        let Self { cause, first, last, from, until, .. } = *self;
        Missing { cause, count, first, last, from, until }
    }
}

impl Round {
    /// Gives back what is to be told now: the range itself, or the bundle of a round that is over.
    fn add(&mut self, missing: Missing, now: SystemTime) -> impl Iterator<Item = Missing> + use<> {
        let mut ended = None;
        if self.begun.is_none_or(|begun| is_past(begun, ROUND, now)) {
            ended = self.bundle.take();
            let follows = self.begun.is_some_and(|begun| !is_past(begun, ROUND * 2, now));
            self.bundles = follows && self.ranges > RANGES_A_ROUND;
            (self.begun, self.ranges) = (Some(now), 0);
        }
        self.ranges = self.ranges.saturating_add(1);
        if self.ranges <= RANGES_A_ROUND && !self.bundles {
            return ended.into_iter().chain(Some(missing));
        }
        self.has_bundled = true;
        let bundle = self.bundle.get_or_insert(Missing { count: 0, ..missing });
        bundle.count += missing.count;
        (bundle.first, bundle.last) = (bundle.first.min(missing.first), bundle.last.max(missing.last));
        (bundle.from, bundle.until) = (bundle.from.min(missing.from), bundle.until.max(missing.until));
        ended.into_iter().chain(None)
    }
}

/// Whether `length` has passed since `begun`. A clock that was set back counts as passed.
fn is_past(begun: SystemTime, length: Duration, now: SystemTime) -> bool {
    now.duration_since(begun).is_ok_and(|passed| passed >= length) || begun > now + GRACE
}
