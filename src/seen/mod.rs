//! What was seen of a server, for telling what was not. Pure: no clock, no file, no socket, but for [`recover`].
//!
//! | what tells it | what is told |
//! |---|---|
//! | a session ended and another began | one gap, always: Asterisk numbers nothing while nobody is logged in, so numbers that follow each other prove nothing. Its count and range are those of the numbers that are missing across it, where the life of Asterisk is the same |
//! | numbers are missing on a session | a gap each ([`holes`]), unless the user is known to see only some events |
//!
//! A gap's time is Asterisk's own where its events carry `Timestamp`: from the last one that was read ([`recent`]) to the
//! next one, or to what its clock says when the session begins (`Ping`).

pub mod holes;
pub mod recent;
pub mod recover;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use crate::{
    link::Gap,
    normalize::{Numbers, boot_word},
};
use holes::{Around, Cause, Holes, Missing};
use recent::{Recent, moment};

/// Events without a number after which a gap is told without its count: Asterisk gives no numbers any more.
/// The answers to our own actions have none, and there are few of these.
const UNNUMBERED_MAX: u32 = 32;

/// From this number on, they end soon: Asterisk counts in a C int, and what follows its greatest value is no number.
const LAST_NUMBERS: u32 = i32::MAX.unsigned_abs() - 10_000_000;

/// What was seen of a server.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which life of Asterisk, as it stands in ids.
    boot: Option<String>,
    /// Which numbers of this boot an id was made of.
    numbers: Numbers,
    holes: Holes,
    recent: Recent,
    /// Set from a reconnect until it is told what was missed.
    disconnect: Option<Disconnect>,
    /// Every event is seen, so that each missing number is a missed event.
    every_number: bool,
    /// What a process before this one saw is known up to this number only, since its filters left no trace, or what it
    /// told was lost with records of the log.
    uncounted_from: Option<u32>,
    /// Whether it was said that numbers are missing often.
    told_many: bool,
    /// Whether it was said that the numbers of this boot end soon.
    told_last: bool,
}

/// A gap that the next numbered event will tell the extent of.
#[derive(Clone, Copy, Debug)]
struct Disconnect {
    from: SystemTime,
    until: SystemTime,
    /// How many events without a number came since.
    unnumbered: u32,
    /// Asterisk was started anew, so that numbers cannot tell.
    by_time: bool,
}

/// What a new session means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// It is the life of Asterisk that was seen before.
    pub resumed: bool,
    /// Something was seen before.
    pub again: bool,
    /// What was missed, where no number will tell more about it.
    pub gap: Option<Gap>,
}

impl Seen {
    /// Of a server that was never seen. With `every_number`, each missing SequenceNumber is a missed event.
    pub fn new(every_number: bool) -> Self {
        Self {
            boot: None,
            numbers: Numbers::new(None),
            holes: Holes::default(),
            recent: Recent::default(),
            disconnect: None,
            every_number,
            uncounted_from: None,
            told_many: false,
            told_last: false,
        }
    }

    /// Which life of Asterisk this is, where it tells.
    pub fn boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// When something was last seen of Asterisk.
    pub fn last(&self) -> Option<SystemTime> {
        self.recent.latest()
    }

    /// Whether an id may be made of that number.
    pub fn lend(&mut self, number: u32) -> bool {
        // Without a boot, nothing tells two lives of Asterisk apart.
        self.boot.is_some() && self.numbers.lend(number)
    }

    /// Whether [`Seen::due`] may have something to tell later on.
    pub fn is_waiting(&self) -> bool {
        self.holes.is_waiting()
    }

    /// Whether numbers are missing so often that this is no accident. True once.
    pub fn begins_to_miss_many(&mut self) -> bool {
        self.holes.has_bundled() && !std::mem::replace(&mut self.told_many, true)
    }

    /// Whether the numbers of this life of Asterisk end soon. True once.
    pub fn begins_the_last_numbers(&mut self) -> bool {
        self.holes.highest() >= Some(LAST_NUMBERS) && !std::mem::replace(&mut self.told_last, true)
    }

    /// A session begins. `clock` is what Asterisk's clock says.
    pub fn connected(&mut self, boot: Option<&str>, clock: Option<SystemTime>, now: SystemTime) -> Connected {
        let boot = boot.map(boot_word);
        let resumed = boot.is_some() && boot == self.boot;
        let untold = self.disconnect.take();
        let until = self.recent.now(clock, now);
        let before = self.recent.earliest();
        let gap = before.map(|before| {
            let from = untold.map_or(before, |untold| untold.from.min(before));
            let by_time = !resumed || untold.is_some_and(|untold| untold.by_time);
            Disconnect { from, until: until.max(from), unnumbered: 0, by_time }
        });
        if !resumed {
            self.numbers = Numbers::new(None);
            self.holes.restart();
            self.told_last = false;
        }
        self.boot = boot;
        self.recent.restart(gap.map_or(until, |gap| gap.until));
        let has_numbers = self.holes.highest().is_some();
        let tells = gap.is_some_and(|gap| gap.by_time) || !has_numbers;
        self.disconnect = gap.filter(|_| has_numbers).map(|gap| Disconnect { by_time: false, ..gap });
        if self.disconnect.is_none() {
            self.uncounted_from = None;
        }
        Connected { resumed, again: gap.is_some(), gap: gap.filter(|_| tells).map(Disconnect::gap) }
    }

    /// An event with that SequenceNumber and Timestamp was read. Gives what is missing by now.
    #[inline]
    pub fn event(&mut self, number: Option<u32>, stamp: Option<u64>, read: SystemTime) -> Vec<Gap> {
        let contiguous = self.note(number, stamp, read);
        let mut gaps = self.due(read);
        gaps.extend(contiguous.map(|open| self.without_count(open)));
        gaps
    }

    /// What is missing for good by `now`.
    #[inline]
    pub fn due(&mut self, now: SystemTime) -> Vec<Gap> {
        let missing = self.holes.due(now);
        self.gaps(missing)
    }

    /// The session has ended, or a first one begins after a process before this one: nothing is waited for.
    pub fn settle(&mut self, now: SystemTime) -> Vec<Gap> {
        let missing = self.holes.flush(now);
        self.gaps(missing)
    }

    /// The session has ended before a number told what was missed ahead of it.
    pub fn give_up(&mut self) -> Option<Gap> {
        let open = self.disconnect.take()?;
        Some(self.without_count(open))
    }

    /// No number is missing, as far as it is known.
    fn without_count(&mut self, open: Disconnect) -> Gap {
        let unsure = self.uncounted_from.take().zip(self.holes.highest());
        let range = unsure.filter(|(first, highest)| first <= highest);
        Gap { range: range.map(|(first, highest)| (first.into(), highest.into())), ..open.gap() }
    }

    /// Gives the disconnect that is to be told without numbers, since none are missing or none come.
    fn note(&mut self, number: Option<u32>, stamp: Option<u64>, read: SystemTime) -> Option<Disconnect> {
        let mut told = None;
        match (number, &mut self.disconnect) {
            (Some(number), &mut disconnect) => told = self.note_number(number, disconnect, stamp, read),
            (None, Some(open)) => {
                open.unnumbered += 1;
                if open.unnumbered > UNNUMBERED_MAX {
                    told = self.disconnect.take();
                }
            }
            (None, None) => {}
        }
        self.recent.note(stamp, read);
        told
    }

    #[inline]
    fn note_number(
        &mut self,
        number: u32,
        disconnect: Option<Disconnect>,
        stamp: Option<u64>,
        read: SystemTime,
    ) -> Option<Disconnect> {
        let follows = self.holes.highest().is_none_or(|highest| number <= highest.saturating_add(1));
        let recent = &self.recent;
        let around = || match disconnect {
            Some(open) => {
                Around { cause: Cause::Disconnected, from: open.from, until: open.until, read: Some(read) }
            }
            None => {
                let this = stamp.map_or(read, moment);
                let (from, until) = (recent.earliest().unwrap_or(this), recent.latest().unwrap_or(this));
                let until = until.max(this);
                let read = Some(read).filter(|_| self.every_number);
                Around { cause: Cause::Skipped, from: from.min(until), until, read }
            }
        };
        let sure = self.holes.note(number, around);
        self.disconnect.take_if(|_| sure).filter(|_| follows)
    }

    fn gaps(&mut self, missing: Vec<Missing>) -> Vec<Gap> {
        missing.into_iter().map(|missing| self.gap(&missing)).collect()
    }

    fn gap(&mut self, missing: &Missing) -> Gap {
        let &Missing { cause, count, first, last, from, until } = missing;
        if count == 0 {
            return self.without_count(Disconnect { from, until, unnumbered: 0, by_time: false });
        }
        let (reason, uncounted) = match cause {
            Cause::Disconnected => ("disconnected", self.uncounted_from.take()),
            Cause::Skipped => ("skipped", None),
        };
        let first = uncounted.map_or(first, |number| number.min(first));
        Gap {
            reason,
            missed: Some(count).filter(|_| uncounted.is_none() && self.every_number),
            range: Some((first.into(), last.into())),
            from,
            until,
        }
    }
}

impl Disconnect {
    fn gap(self) -> Gap {
        Gap { reason: "disconnected", missed: None, range: None, from: self.from, until: self.until }
    }
}
