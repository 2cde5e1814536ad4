//! What a stream holds of the messages that are about to be sent again: what was read there (see [`crate::look`]), and
//! what the stream confirmed of a batch that is offered again, for a lane can be blocked at one message for longer than
//! the stream remembers ids.
//!
//! A message counts as held only where its own id was read in the stream, on a subject that amibus publishes on, or was
//! confirmed by the stream. Whatever could not be read is sent: the worst that can come of it is a repeat.

use std::collections::BTreeSet;

use amibus_contract::Message;
use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};

use crate::{
    headers,
    keys::MAX_BATCH_MESSAGES,
    subjects::{self, Own},
};

/// How far a message's place in the stream may be from its place in the log, in messages of one server: a batch.
pub(crate) const DISORDER: u64 = 4_096;
/// The most ids that are held in memory, about 100 bytes each; what follows is read when it is due.
const MAX_HELD: usize = 8_192;
/// The most dead letters of which ids are held.
const MAX_DEAD: usize = 1_024;
/// The longest id that counts, in bytes: a server's name, Asterisk's boot and a number.
const MAX_ID_BYTES: usize = 320;
/// Where dead letters stand among the sequences, which they have none of.
const DEAD: u64 = u64::MAX;

// What is held covers a batch, which may be stored in any order.
const _: () = assert!(MAX_BATCH_MESSAGES + MAX_DEAD < MAX_HELD && MAX_BATCH_MESSAGES as u64 <= DISORDER);

/// What a stream holds from one sequence on.
#[derive(Debug, Default)]
pub(crate) struct Held {
    ids: BTreeSet<(u64, String)>,
    /// Where it was read from.
    from: u64,
    /// Something was left out from here on.
    until: Option<u64>,
    /// One of the messages that were asked for was there.
    met: bool,
}

/// Whose messages count, and from which sequence on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) server: &'a str,
    pub(crate) from: u64,
}

impl Held {
    /// Nothing yet, to be read from this sequence on.
    pub(crate) fn starting(from: u64) -> Self {
        Self { from, ..Self::default() }
    }

    /// Whether the stream has this message.
    pub(crate) fn has(&mut self, message: &Message) -> bool {
        let Some(sequence) = sequence(message).filter(|_| !self.ids.is_empty()) else { return false };
        let has = self.ids.contains(&(sequence, message.attributes().id().to_string()));
        self.met |= has;
        has
    }

    /// Whether the stream has the dead letter with this id.
    pub(crate) fn has_dead(&self, id: &str) -> bool {
        self.ids.contains(&(DEAD, id.to_owned()))
    }

    /// Whether it says nothing of a batch's last messages, and there is more to be read that may be them. Where the stream
    /// had none of so many messages, nothing behind them was sent before: what was left out is of another log, as after
    /// the spool was made anew, and would be read in vain again and again.
    pub(crate) fn ends_before(&self, batch: &[Message]) -> bool {
        let (first, last) = (batch.first().and_then(sequence), batch.last().and_then(sequence));
        let in_vain = !self.met && first.is_some_and(|first| first > self.from.saturating_add(DISORDER));
        !in_vain && self.until.zip(last).is_some_and(|(until, last)| last >= until)
    }

    /// Nothing before this batch will be asked for again.
    pub(crate) fn pass(&mut self, batch: &[Message]) {
        if let Some(first) = batch.first().and_then(sequence).filter(|_| !self.ids.is_empty()) {
            self.ids = self.ids.split_off(&(first.saturating_sub(DISORDER), String::new()));
        }
    }

    /// The stream confirmed this message.
    pub(crate) fn keep(&mut self, message: &Message) {
        let id = message.attributes().id();
        if let Some(sequence) = sequence(message).filter(|_| id.len() <= MAX_ID_BYTES) {
            self.insert((sequence, id.to_owned()));
        }
    }

    /// Both know something of the same stream.
    pub(crate) fn merge(&mut self, other: Self) {
        if let Some(until) = other.until {
            self.leave_out(until);
        }
        other.ids.into_iter().for_each(|id| self.insert(id));
    }

    /// What was left out will not be read.
    pub(crate) fn give_up(&mut self) {
        self.until = None;
    }

    /// What is numbered so and higher was not read.
    pub(crate) fn leave_out(&mut self, from: u64) {
        self.until = Some(self.until.map_or(from, |until| until.min(from)));
    }

    /// Takes what was read where it counts; answers the number of a message of the log.
    pub(crate) fn add(&mut self, wanted: &Wanted<'_>, subject: &str, headers: &HeaderMap) -> Option<u64> {
        let id = headers.get(NATS_MESSAGE_ID).map(|id| id.as_str()).filter(|id| id.len() <= MAX_ID_BYTES)?;
        match subjects::own(wanted.prefix, wanted.server, subject)? {
            Own::Message => {
                let number = number(headers)?;
                if number >= wanted.from {
                    self.insert((number, id.to_owned()));
                }
                Some(number)
            }
            Own::Dead => {
                let known = self.ids.range((DEAD, String::new())..).count();
                if known < MAX_DEAD && id.starts_with("dead:") {
                    self.insert((DEAD, id.to_owned()));
                }
                None
            }
        }
    }

    fn insert(&mut self, id: (u64, String)) {
        self.ids.insert(id);
        // The last of all but the dead letters.
        while self.ids.len() > MAX_HELD
            && let Some(last) = self.ids.range(..(DEAD, String::new())).next_back().cloned()
        {
            self.ids.remove(&last);
            self.leave_out(last.0);
        }
    }
}

/// A message's number in its log.
pub(crate) fn sequence(message: &Message) -> Option<u64> {
    message.attributes().sequence()?.parse().ok().filter(|number| *number < DEAD)
}

/// The same, of one that was read.
pub(crate) fn number(map: &HeaderMap) -> Option<u64> {
    headers::find(Some(map), "ce-sequence")?.parse().ok().filter(|number| *number < DEAD)
}

#[cfg(test)]
mod tests {
    use amibus_contract::{Kind, conformance};

    use super::*;

    const WANTED: Wanted<'_> = Wanted { prefix: "ami", server: "pbx1", from: 5 };

    fn message(n: usize) -> Message {
        conformance::message("ami", Kind::Event, "pbx1", n, 1, 1)
    }

    fn add(held: &mut Held, subject: &str, id: &str, sequence: &str) {
        let mut map = HeaderMap::new();
        map.insert(NATS_MESSAGE_ID, id);
        map.insert("ce-sequence", sequence);
        held.add(&WANTED, subject, &map);
    }

    #[test]
    fn an_id_counts_only_where_amibus_would_have_put_it() {
        let wanted = message(7);
        let id = wanted.attributes().id();
        for (subject, number) in [
            ("ami.command.pbx1.Test", "7"),
            ("ami.request.pbx1.Test", "7"),
            ("ami.event.pbx2.Test", "7"),
            ("ami.event.pbx1.Test.more", "7"),
            ("ami.dead.event.pbx1.Test", "7"),
            ("ami.event.pbx1.Test", "8"),
            ("ami.event.pbx1.Test", "x"),
            ("ami.event.pbx1.Test", "18446744073709551615"),
        ] {
            let mut held = Held::default();
            add(&mut held, subject, id, number);
            assert!(!held.has(&wanted), "{subject} {number}");
        }
        let mut held = Held::default();
        add(&mut held, "ami.event.pbx1.Test", id, "7");
        assert!(held.has(&wanted));
    }

    #[test]
    fn a_dead_letter_counts_only_on_its_own_subject() {
        let mut held = Held::default();
        add(&mut held, "ami.event.pbx1.Test", "dead:1", "18446744073709551615");
        add(&mut held, "ami.event.pbx1.Test", "dead:1", "7");
        add(&mut held, "ami.dead.command.pbx1.Test", "dead:1", "7");
        add(&mut held, "ami.dead.event.pbx2.Test", "dead:1", "7");
        assert!(!held.has_dead("dead:1"));
        add(&mut held, "ami.dead.event.pbx1.Test", "dead:1", "7");
        assert!(held.has_dead("dead:1"));
    }

    #[test]
    fn what_is_held_is_bounded_and_its_end_is_known() {
        let mut held = Held::default();
        add(&mut held, "ami.event.pbx1.Test", &"i".repeat(MAX_ID_BYTES + 1), "7");
        assert!(held.ids.is_empty(), "an id of no end");
        for n in (0..MAX_HELD + 10).rev() {
            held.keep(&message(n));
        }
        assert_eq!(held.ids.len(), MAX_HELD);
        assert!(held.has(&message(MAX_HELD - 1)) && !held.has(&message(MAX_HELD)));
        assert!(!held.ends_before(&[message(MAX_HELD - 1)]) && held.ends_before(&[message(MAX_HELD)]));
    }

    #[test]
    fn another_log_is_not_read_again_and_again() {
        let mut held = Held::default();
        let other = "ami.event.pbx1.Test";
        for n in 0..MAX_HELD + 10 {
            add(&mut held, other, &format!("other:{n}"), &n.to_string());
        }
        let batch = [message(MAX_HELD - 10), message(MAX_HELD + 10)];
        assert!(batch.iter().all(|message| !held.has(message)));
        assert!(!held.ends_before(&batch), "it has nothing of ours");
        held.keep(&message(9));
        assert!(held.has(&message(9)) && held.ends_before(&batch), "it may have more of ours");
    }

    #[test]
    fn what_was_read_before_stays_known() {
        let (mut held, mut read) = (Held::default(), Held::default());
        held.keep(&message(7));
        read.keep(&message(8));
        read.leave_out(9);
        held.merge(read);
        assert!(held.has(&message(7)) && held.has(&message(8)) && held.ends_before(&[message(9)]));
        held.give_up();
        assert!(held.has(&message(8)) && !held.ends_before(&[message(9)]));
    }
}
