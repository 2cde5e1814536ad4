//! The judge: every number of the source was seen on the bus, or lies inside an announced gap, and nothing else.
//!
//! It knows the source's own account ([`Run`]s) and what a consumer stored ([`Message`]s), and shares no code with
//! amibus. What is demanded:
//!
//! | rule | where |
//! |---|---|
//! | each number is seen, or a gap covers it (`cover`) | every bus |
//! | nothing is seen that the source did not send, or with another SequenceNumber | every bus |
//! | a repeat has the same id and the same bytes, and no id stands for two messages | every bus |
//! | first sightings ascend by `sequence` and by the source's order, within a key | Kafka |
//! | the same over the whole server, and no repeats at all | JetStream |

mod cover;
mod message;
mod seen;
#[cfg(test)]
mod tests;

pub(super) use message::{Message, What};

use cover::Cover;
use seen::Sightings;

/// Losses and breaches that are told in words, each; the rest is counted.
const TOLD_MAX: usize = 8;

/// One event of the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Its SequenceNumber, where it has one.
    pub(super) number: Option<u64>,
    /// When it was sent, in microseconds since 1970, about.
    pub(super) at_micros: u64,
}

/// Events of the source that share a tag and are numbered from 0. Runs follow each other.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What tells it from other runs.
    pub(super) tag: String,
    /// The events, by number.
    pub(super) events: Vec<Sent>,
}

/// Which promise a bus makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// One order over all, no repeats.
    JetStream,
    /// Order within a key, repeats.
    Kafka,
}

impl Bus {
    /// Its name in a gap that concerns it alone.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::JetStream => "nats",
            Self::Kafka => "kafka",
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// Numbers that the source sent.
    pub(super) sent: u64,
    /// Numbers that were seen, each once.
    pub(super) seen: u64,
    /// Numbers that were not seen and lie inside an announced gap.
    pub(super) announced: u64,
    /// Those of them that only a lost stretch of the log covers, by its time and beyond its count.
    pub(super) by_time: u64,
    /// Messages that came again.
    pub(super) repeats: u64,
    /// Gap messages.
    pub(super) gaps: u64,
    /// Gap messages that say that the log had no room.
    pub(super) dropped_gaps: u64,
    /// Numbers neither seen nor announced.
    pub(super) lost: u64,
    /// Numbers that a gap claims by SequenceNumber, and that were seen all the same.
    pub(super) claimed_but_seen: u64,
    /// Breaches other than a loss.
    pub(super) breaches: u64,
    /// The first losses, in words.
    pub(super) told_lost: Vec<String>,
    /// The first breaches, in words.
    pub(super) told: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.breaches == 0
    }

    fn accuse(&mut self, words: impl FnOnce() -> String) {
        self.breaches += 1;
        tell(&mut self.told, words);
    }

    fn lose(&mut self, count: u64, words: impl FnOnce() -> String) {
        self.lost += count;
        tell(&mut self.told_lost, words);
    }
}

fn tell(told: &mut Vec<String>, words: impl FnOnce() -> String) {
    if told.len() < TOLD_MAX {
        told.push(words());
    }
}

/// Judges what one consumer of `bus` stored.
pub(super) fn judge(bus: Bus, runs: &[Run], messages: &[Message]) -> Verdict {
    let mut verdict =
        Verdict { sent: runs.iter().map(|run| run.events.len() as u64).sum(), ..Verdict::default() };
    let sightings = Sightings::collect(bus, runs, messages, &mut verdict);
    verdict.seen = sightings.count();
    Cover::new(bus, runs, messages).close(&sightings, &mut verdict);
    verdict
}
