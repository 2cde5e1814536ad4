//! What a lane has taken from the spool and is not done with: what is on its way to the bus, and what comes next.
//!
//! Bounded by the bus's `batch_messages` and `batch_bytes`, and by what other lanes leave ([`super::budget`]). What the lane itself has to say (a loss in front of what the
//! spool gave, or in place of what the bus refused) is done with before more is taken: the spool counts a loss as told
//! once more is asked for.

use std::{collections::VecDeque, time::Instant};

use amibus_contract::Message;

use crate::spool::{Batch, Tally};

/// Messages in the spool's order.
#[derive(Default)]
pub(super) struct Flight {
    messages: Vec<Message>,
    /// What each of them is.
    slots: VecDeque<Slot>,
    bytes: usize,
    /// Nothing more is taken until all of it is done with.
    drains: bool,
}

/// What a message is.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// The spool's, appended at that moment.
    Record(Instant),
    /// Told in place of one of the spool's that the bus refused.
    Instead,
    /// Told in front of what the spool gave; it has no place there.
    Announced,
}

/// What became of one message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Published,
    DeadLettered,
    Refused,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Of the messages' bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether something went wrong, and not all that was taken by then is done with.
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// Nothing more is to be taken until all of it is done with.
    pub(super) fn drain(&mut self) {
        self.drains = true;
    }

    /// How many messages and bytes may be taken as well; `None`: nothing now.
    pub(super) fn room(&self, messages: usize, bytes: usize) -> Option<(usize, usize)> {
        let is_ours = |slot: &Slot| !matches!(slot, Slot::Record(_));
        if self.drains || self.slots.iter().any(is_ours) {
            return None;
        }
        let (messages, bytes) =
            (messages.saturating_sub(self.messages.len()), bytes.saturating_sub(self.bytes));
        (messages > 0 && bytes > 0).then_some((messages, bytes))
    }

    /// Takes what the spool gave, behind the `announcement` of what it lost.
    pub(super) fn take(&mut self, announcement: Option<Message>, batch: Batch) {
        let Batch { mut messages, appended, .. } = batch;
        let all = announcement.iter().chain(&messages);
        self.bytes += all.map(|message| message.body.len()).sum::<usize>();
        self.slots.extend(announcement.iter().map(|_| Slot::Announced));
        self.slots.extend(appended.into_iter().map(Slot::Record));
        self.messages.extend(announcement);
        self.messages.append(&mut messages);
    }

    /// This message stands for the first, which the bus refused.
    pub(super) fn replace_first(&mut self, message: Message) {
        if let (Some(place), Some(slot)) = (self.messages.first_mut(), self.slots.front_mut()) {
            self.bytes += message.body.len();
            self.bytes -= place.body.len();
            (*place, *slot) = (message, Slot::Instead);
        }
    }

    /// The first `count` are done with in the same way. What the spool is to be told of them, and when those that are its
    /// own were appended.
    pub(super) fn done(&mut self, count: usize, fate: Fate) -> (Tally, Vec<Instant>) {
        let (mut tally, mut appended) = (Tally::default(), Vec::with_capacity(count));
        for (message, slot) in self
            .messages
            .drain(..count.min(self.messages.len()))
            .zip(self.slots.drain(..count.min(self.slots.len())))
        {
            self.bytes -= message.body.len();
            // An announcement in place of a message stands for it, whatever became of the announcement.
            let counted = match (slot, fate) {
                (Slot::Announced, _) => continue,
                (Slot::Instead, _) | (_, Fate::Refused) => &mut tally.refused,
                (_, Fate::Published) => &mut tally.published,
                (_, Fate::DeadLettered) => &mut tally.dead_lettered,
            };
            *counted += 1;
            if let Slot::Record(at) = slot {
                appended.push(at);
            }
        }
        if self.messages.is_empty() {
            // A lane that has nothing to do keeps no memory: there may be a thousand.
            *self = Self::default();
        }
        (tally, appended)
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::{Kind, conformance};

    use super::*;

    const MESSAGES: usize = 4;
    const BYTES: usize = 1 << 20;

    fn batch(numbers: std::ops::Range<usize>) -> Batch {
        let message = |n| conformance::message("ami", Kind::Event, "pbx1", n, 1, 10);
        let appended = numbers.clone().map(|_| Instant::now()).collect();
        Batch { lost: None, messages: numbers.map(message).collect(), appended }
    }

    fn told() -> Message {
        conformance::message("ami", Kind::Link, "pbx1", 99, 1, 10)
    }

    fn tally(flight: &mut Flight, count: usize, fate: Fate) -> (usize, usize, usize) {
        let (Tally { published, dead_lettered, refused }, _) = flight.done(count, fate);
        (published, dead_lettered, refused)
    }

    #[test]
    fn more_is_taken_as_the_first_are_done_with() {
        let mut flight = Flight::default();
        flight.take(None, batch(0..4));
        assert_eq!(flight.room(MESSAGES, BYTES), None);
        let before = flight.bytes;
        assert_eq!(tally(&mut flight, 3, Fate::Published), (3, 0, 0));
        assert_eq!(flight.room(MESSAGES, BYTES), Some((3, BYTES - before / 4)));
        assert_eq!(flight.room(MESSAGES, before / 4), None, "no bytes left");
        flight.take(None, batch(4..6));
        assert_eq!(flight.room(MESSAGES, BYTES).map(|(messages, _)| messages), Some(1));
        let ids: Vec<&str> = flight.messages().iter().map(|message| message.attributes().id()).collect();
        assert_eq!(ids, ["pbx1:conformance:3", "pbx1:conformance:4", "pbx1:conformance:5"]);
        assert_eq!(flight.done(3, Fate::Published).1.len(), 3);
        assert!(flight.is_empty() && flight.bytes == 0 && flight.messages.capacity() == 0);
    }

    #[test]
    fn after_a_fault_all_is_done_with_before_more_is_taken() {
        let mut flight = Flight::default();
        flight.take(None, batch(0..2));
        flight.drain();
        assert_eq!(tally(&mut flight, 1, Fate::DeadLettered), (0, 1, 0));
        assert!(flight.drains() && flight.room(MESSAGES, BYTES).is_none());
        assert_eq!(tally(&mut flight, 1, Fate::Refused), (0, 0, 1));
        assert!(!flight.drains() && flight.room(MESSAGES, BYTES).is_some());
    }

    #[test]
    fn what_the_lane_says_itself_is_done_with_before_more_is_taken() {
        let mut flight = Flight::default();
        flight.take(Some(told()), batch(0..2));
        assert_eq!(flight.room(MESSAGES, BYTES), None, "it would count as told");
        assert_eq!(tally(&mut flight, 2, Fate::Published), (1, 0, 0), "it has no place in the spool");
        assert!(flight.room(MESSAGES, BYTES).is_some());
        flight.replace_first(told());
        assert_eq!(flight.messages()[0], told());
        assert_eq!(flight.room(MESSAGES, BYTES), None);
        assert_eq!(tally(&mut flight, 1, Fate::Published), (0, 0, 1), "what it stands for is lost");
        flight.take(Some(told()), batch(2..2));
        assert_eq!(tally(&mut flight, 1, Fate::Refused), (0, 0, 0));
        assert!(flight.is_empty() && flight.bytes == 0);
    }
}
