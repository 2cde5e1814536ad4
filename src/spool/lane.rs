//! One bus's place in the log.

use std::{
    collections::VecDeque,
    time::{Instant, SystemTime},
};

use amibus_contract::Message;

use super::{
    account::{LaneAccount, Tally},
    lost::Lost,
};

/// What a lane takes at a time: first what was lost, then what follows. One of the two may be missing.
#[derive(Debug)]
pub struct Batch {
    /// What the bus will not see, before the first message.
    pub lost: Option<Lost>,
    /// The messages, in the order of their sequence numbers.
    pub messages: Vec<Message>,
    /// When each was appended.
    pub appended: Vec<Instant>,
}

/// What a lane holds at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Records appended and neither committed nor known to be lost.
    pub waiting: u64,
    /// Records known to be lost, since the start.
    pub dropped: u64,
    /// When the oldest waiting one was appended, or somewhat before.
    pub oldest: Option<SystemTime>,
}

/// How far a lane is at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The number that the next record gets.
    pub end: u64,
    /// Records before it that are neither committed nor known to be lost.
    pub waiting: u64,
    /// Records that the bus is done with, since the start. Lost ones are none of them.
    pub done: u64,
}

/// Messages handed out one after the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: u64,
    from: SystemTime,
}

/// A place.
#[derive(Debug)]
pub(super) struct Lane {
    /// The next number to hand out.
    pub(super) next: u64,
    /// Up to here everything was handed out, as a message or as lost.
    handed: u64,
    /// Up to here everything is done with.
    committed: u64,
    /// What the slots of the ledger say of `committed`.
    pub(super) stored: [u64; 2],
    runs: VecDeque<Run>,
    in_flight: u64,
    /// Lost, and not yet told. Ends at `next`.
    lost: Option<Lost>,
    dropped: u64,
    /// Numbers not confirmed when the spool was opened.
    pub(super) recovered: u64,
    published: u64,
    dead_lettered: u64,
    refused: u64,
    /// When the last record taken was appended.
    last_taken: Option<SystemTime>,
}

impl Lane {
    pub(super) fn new(next: u64) -> Self {
        Self {
            next,
            handed: next,
            committed: next,
            stored: [next; 2],
            runs: VecDeque::new(),
            in_flight: 0,
            lost: None,
            dropped: 0,
            recovered: 0,
            published: 0,
            dead_lettered: 0,
            refused: 0,
            last_taken: None,
        }
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When the oldest that was taken or is about to be was appended, where that is known.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.runs.front().map(|run| run.from).or(self.last_taken)
    }

    /// More is asked for, so what was handed out without messages is done with.
    pub(super) fn asked(&mut self) {
        if self.runs.is_empty() {
            self.committed = self.handed;
        }
    }

    /// Everything before `end` is lost, if it was not handed out.
    pub(super) fn lose(&mut self, lost: Lost) {
        if lost.last < self.next {
            return;
        }
        let lost = Lost { first: self.next, ..lost };
        self.next = lost.last + 1;
        self.dropped += lost.places();
        if let Some(before) = &mut self.lost {
            if let Err(lost) = before.join(lost) {
                (before.last, before.until, before.reason) = (lost.last, lost.until, lost.reason);
            }
        } else {
            self.lost = Some(lost);
        }
    }

    /// Hands out what was lost. Where that is nothing but the place of an announcement, since this bus had all that the
    /// others lost, there is nothing to tell.
    pub(super) fn take_lost(&mut self) -> Option<Lost> {
        let lost = self.lost.take()?;
        self.handed = self.next;
        if lost.count() == 0 {
            self.asked();
            return None;
        }
        Some(lost)
    }

    /// `count` messages are handed out, the next ones.
    pub(super) fn hand_out(&mut self, count: usize, from: SystemTime, until: SystemTime) {
        let count = count as u64;
        self.runs.push_back(Run { first: self.next, count, from });
        self.next += count;
        self.handed = self.next;
        self.in_flight += count;
        self.last_taken = Some(until);
    }

    pub(super) fn place(&self, end: u64) -> Place {
        let done = self.published + self.dead_lettered + self.refused;
        Place { end, waiting: self.waiting(end), done }
    }

    /// How many before `end` are neither committed nor known to be lost.
    pub(super) fn waiting(&self, end: u64) -> u64 {
        self.in_flight + (end - self.next)
    }

    /// What became of everything, given what waits.
    pub(super) fn account(&self, backlog: &Backlog) -> LaneAccount {
        LaneAccount {
            recovered: self.recovered,
            published: self.published,
            dead_lettered: self.dead_lettered,
            dropped: self.dropped + self.refused,
            waiting: backlog.waiting,
            oldest: backlog.oldest,
        }
    }

    /// The first messages in flight are done with.
    pub(super) fn settle(&mut self, tally: Tally) {
        self.published += tally.published as u64;
        self.dead_lettered += tally.dead_lettered as u64;
        self.refused += tally.refused as u64;
        self.commit(tally.count());
    }

    /// The first `count` messages in flight are done with.
    pub(super) fn commit(&mut self, count: usize) {
        let mut left = count as u64;
        while let Some(run) = self.runs.front_mut().filter(|_| left > 0) {
            let done = left.min(run.count);
            (run.first, run.count) = (run.first + done, run.count - done);
            self.committed = run.first;
            self.in_flight -= done;
            left -= done;
            if run.count == 0 {
                self.runs.pop_front();
            }
        }
    }
}
