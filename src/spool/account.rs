//! What became of everything that a spool was given, as one consistent cut.
//!
//! For each lane, at every moment: `read + own + recovered = filtered + published + dead_lettered + dropped + waiting`.
//! All but `waiting` are counted where it happens, under the lock that moves the positions; `waiting` is what lies
//! between the positions, so that the sum shows whether anything was counted twice or not at all.

use std::time::SystemTime;

use super::shell::Status;

/// What a spool was given since it was opened, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Events read from Asterisk, filtered ones included.
    pub read: u64,
    /// Events that a filter left out; they have no place in the log.
    pub filtered: u64,
    /// Messages that amibus itself appended.
    pub own: u64,
    /// Each lane, in their order.
    pub lanes: Vec<LaneAccount>,
    /// How the spool is.
    pub status: Status,
}

/// What became of it on one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneAccount {
    /// Places in the log that the bus had not confirmed when the spool was opened, damaged ones included.
    pub recovered: u64,
    /// Messages that the bus made safe.
    pub published: u64,
    /// Messages that the bus keeps among its dead letters.
    pub dead_lettered: u64,
    /// Messages that the bus will not get: no room, damage, or refused for good without a dead letter.
    pub dropped: u64,
    /// Messages in the log that are none of these yet.
    pub waiting: u64,
    /// When the oldest waiting one was appended, or somewhat before.
    pub oldest: Option<SystemTime>,
}

/// What became of the first messages in flight, which are done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The bus made them safe.
    pub published: usize,
    /// The bus keeps them among its dead letters.
    pub dead_lettered: usize,
    /// The bus refused them for good and keeps no dead letter.
    pub refused: usize,
}

impl Tally {
    /// How many messages these are.
    pub fn count(&self) -> usize {
        self.published + self.dead_lettered + self.refused
    }
}
