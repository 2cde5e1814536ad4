//! The pace of one server: its limits, who waits, and the calls that are counted. Pure: the time is passed in, as the time
//! since some beginning.

use std::{collections::HashSet, time::Duration};

use super::{
    Limit, Set,
    bucket::Bucket,
    calls::{Call, Calls, MAX_CALLS},
    members,
    queue::{Queue, Ticket},
};

/// How much of the rate may be granted ahead of what is written to Asterisk, in seconds; beside the burst.
const AHEAD_SECONDS: f64 = 0.25;

/// One limit at work.
#[derive(Debug)]
struct Counted {
    rate: Option<Rate>,
    concurrent: Option<usize>,
    longest: Duration,
    running: usize,
    granted: u64,
}

/// The same bucket twice: what is granted is recorded on disk before it is written, and a disk that was slow for a moment
/// must not make a burst of what piled up behind it.
#[derive(Debug)]
struct Rate {
    grants: Bucket,
    writes: Bucket,
    /// Granted and not written yet.
    ahead: usize,
    most_ahead: usize,
}

/// What a limit looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// Originates that wait for it.
    pub(crate) waiting: usize,
    /// Calls that it counts.
    pub(crate) running: usize,
    /// Originates that it let go on.
    pub(crate) granted: u64,
}

/// The pace of one server. `W` is how somebody who waits is told.
#[derive(Debug)]
pub(super) struct Core<W> {
    limits: Vec<Counted>,
    queue: Queue<(String, W)>,
    calls: Calls,
    /// Whether the server can be sent something.
    ready: bool,
    /// Whether the calls of former processes are known.
    compared: bool,
}

impl<W> Core<W> {
    pub(super) fn new(limits: &[Limit], now: Duration) -> Self {
        let limits = limits.iter().map(|limit| Counted::new(limit, now)).collect();
        Self { limits, queue: Queue::default(), calls: Calls::default(), ready: false, compared: false }
    }

    /// Somebody waits to send the Originate of this channel.
    pub(super) fn wait(&mut self, set: Set, ticket: Ticket, channel: &str, who: W) {
        self.queue.add(set, ticket, (channel.to_owned(), who));
    }

    /// Somebody does not wait any more, or was granted and did not send.
    pub(super) fn leave(&mut self, set: Set, ticket: Ticket, channel: &str) {
        if !self.queue.remove(set, ticket) {
            self.end(channel);
        }
    }

    /// The next one who may go on, if any; its call is counted from now on.
    pub(super) fn grant(&mut self, now: Duration) -> Option<W> {
        for call in self.calls.settled(now) {
            self.let_go(&call);
        }
        let free = self.free(now);
        let (set, (channel, who)) = self.queue.take(free, now)?;
        for place in members(set) {
            if let Some(limit) = self.limits.get_mut(place) {
                limit.take(now);
            }
        }
        if let Some(before) = self.calls.end(&channel) {
            self.let_go(&before);
        }
        self.calls.grant(channel, set, now);
        Some(who)
    }

    /// Whether what was granted may be written to Asterisk now.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn write(&mut self, set: Set, channel: &str, now: Duration) -> Result<(), Duration> {
        let rates = || members(set).filter_map(|place| self.limits.get(place)?.rate.as_ref());
        let at = rates().map(|rate| rate.writes.free_at()).max().unwrap_or_default();
        if at > now {
            return Err(at);
        }
        for place in members(set) {
            if let Some(rate) = self.limits.get_mut(place).and_then(|limit| limit.rate.as_mut()) {
                rate.writes.take(now);
            }
        }
        let written = self.calls.write(channel);
        self.caught_up(written);
        Ok(())
    }

    /// Asterisk has it, or may have it.
    pub(super) fn sent(&mut self, channel: &str, now: Duration) {
        self.calls.sent(channel, now);
    }

    /// Its channel was made.
    pub(super) fn appeared(&mut self, channel: &str, now: Duration) {
        self.calls.appeared(channel, now);
    }

    /// It failed.
    pub(super) fn failed(&mut self, channel: &str, now: Duration) {
        self.calls.failed(channel, now);
    }

    /// It is over. Answers whether it was counted.
    pub(super) fn end(&mut self, channel: &str) -> bool {
        let over = self.calls.end(channel);
        if let Some(call) = &over {
            self.let_go(call);
        }
        over.is_some()
    }

    /// Whether the server can be sent something.
    pub(super) fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    /// Whether there is something to compare.
    pub(super) fn needs_comparing(&self) -> bool {
        !self.compared || self.calls.count() > 0
    }

    /// Asterisk is asked for its channels from now on.
    pub(super) fn ask(&mut self) {
        self.calls.ask();
    }

    /// Which of these channels are not counted.
    pub(super) fn unknown<'a>(&self, live: impl Iterator<Item = &'a String>) -> Vec<String> {
        live.filter(|channel| !self.calls.has(channel)).cloned().collect()
    }

    /// Asterisk's list, asked at `asked`; `found` are calls of former processes among them, with their ages. Answers
    /// whether calls are left that were too young to be in the list.
    pub(super) fn compare(
        &mut self,
        live: &HashSet<String>,
        found: &[(String, Set, Duration)],
        asked: Duration,
        now: Duration,
    ) -> bool {
        let (over, young) = self.calls.compare(live, asked);
        for call in over {
            self.let_go(&call);
        }
        for (channel, set, age) in found {
            self.find(channel, *set, *age, now);
        }
        self.calls.asked();
        self.compared = true;
        young
    }

    /// A call of a former process, which may be live.
    pub(super) fn find(&mut self, channel: &str, set: Set, age: Duration, now: Duration) {
        if self.calls.find(channel, set, age, now) {
            for limit in members(set) {
                if let Some(limit) = self.limits.get_mut(limit) {
                    limit.running += 1;
                }
            }
        }
    }

    /// Asterisk does not tell its channels: what is known has to do.
    pub(super) fn cannot_compare(&mut self) {
        self.calls.asked();
        self.compared = true;
    }

    /// Calls older than their limits' longest are not counted any more.
    pub(super) fn expire(&mut self, now: Duration) -> usize {
        let longest: Vec<Duration> = self.limits.iter().map(|limit| limit.longest).collect();
        let gone = self.calls.expire(&longest, now);
        for limit in gone.iter().flat_map(|set| members(*set)) {
            if let Some(limit) = self.limits.get_mut(limit) {
                limit.running = limit.running.saturating_sub(1);
            }
        }
        gone.len()
    }

    /// When somebody may go on though nothing else happened.
    pub(super) fn wake(&self, now: Duration) -> Option<Duration> {
        let wanted = self.queue.sets().fold(0, |all, set| all | set);
        let rates = members(wanted).filter_map(|place| self.limits.get(place)?.rate.as_ref());
        let buckets = rates.map(|rate| rate.grants.free_at()).filter(|at| *at > now);
        let rest = [self.calls.settles(), self.queue.wake(now)];
        buckets.chain(rest.into_iter().flatten()).min()
    }

    /// What each limit looks like.
    pub(super) fn gauges(&self) -> impl Iterator<Item = Gauges> {
        self.limits.iter().enumerate().map(|(place, limit)| Gauges {
            waiting: self.queue.waiting(place),
            running: limit.running,
            granted: limit.granted,
        })
    }

    fn free(&self, now: Duration) -> Set {
        if !self.ready || self.calls.count() >= MAX_CALLS {
            return 0;
        }
        let free = |limit: &Counted| limit.is_free(now) && (self.compared || limit.concurrent.is_none());
        let places = self.limits.iter().enumerate().filter(|(_, limit)| free(limit));
        places.fold(0, |set, (place, _)| set | (1 << place))
    }

    fn let_go(&mut self, call: &Call) {
        for place in members(call.set) {
            if let Some(limit) = self.limits.get_mut(place) {
                limit.running = limit.running.saturating_sub(1);
            }
        }
        self.caught_up((!call.written).then_some(call.set));
    }

    fn caught_up(&mut self, set: Option<Set>) {
        for place in members(set.unwrap_or(0)) {
            if let Some(rate) = self.limits.get_mut(place).and_then(|limit| limit.rate.as_mut()) {
                rate.ahead = rate.ahead.saturating_sub(1);
            }
        }
    }
}

impl Counted {
    fn new(limit: &Limit, now: Duration) -> Self {
        let rate = limit.calls_per_second.map(|rate| {
            let bucket = Bucket::new(rate, limit.burst, now);
            let most_ahead = (rate * AHEAD_SECONDS).ceil() as usize + limit.burst as usize;
            Rate { grants: bucket.clone(), writes: bucket, ahead: 0, most_ahead }
        });
        let (concurrent, longest) = (limit.concurrent_calls, limit.longest_call);
        Self { rate, concurrent, longest, running: 0, granted: 0 }
    }

    fn is_free(&self, now: Duration) -> bool {
        let in_time =
            self.rate.as_ref().is_none_or(|rate| rate.grants.is_free(now) && rate.ahead < rate.most_ahead);
        in_time && self.concurrent.is_none_or(|most| self.running < most)
    }

    fn take(&mut self, now: Duration) {
        self.running += 1;
        self.granted += 1;
        if let Some(rate) = &mut self.rate {
            rate.grants.take(now);
            rate.ahead += 1;
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
