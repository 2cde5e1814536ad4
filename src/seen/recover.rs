//! What a process before this one saw, from the newest records of its spool.
//!
//! Each event's id tells its life of Asterisk and its number; `up`, `down` and `gap` tell what was told. What is left is
//! what nobody was told yet: a hole that was still waited for, or a disconnect whose extent the next number was to tell.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use amibus_contract::{Kind, Message};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Disconnect, Seen,
    holes::{BUNDLE_NUMBERS, GRACE, GRACE_NUMBERS, ROUND},
};
use crate::{
    normalize::{Numbers, boot_word, micros, numbered_id},
    spool::newest::{Newest, newest},
    writer::Writer,
};

/// Bytes of a record, with more to spare than most have.
const RECORD_BYTES: u64 = 1024;
/// How much of the spool is read: all numbers that may not be told yet, in records of [`RECORD_BYTES`].
pub const NEWEST_BYTES: u64 = UNTOLD_NUMBERS as u64 * RECORD_BYTES;
/// How many numbers back something may not be told yet.
const UNTOLD_NUMBERS: u32 = GRACE_NUMBERS + BUNDLE_NUMBERS;
/// How long, with more to spare than telling takes. Whatever was missing before was told.
const UNTOLD: Duration = Duration::from_secs(ROUND.as_secs() + GRACE.as_secs() + 1);
/// How far into `data` an event's Timestamp begins at most: behind its name and its privileges.
const STAMP_WITHIN_BYTES: usize = 512;

/// How to read what was seen.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// The folder of the spool, which nobody writes to meanwhile.
    pub dir: &'a Path,
    /// Reads its records.
    pub writer: &'a Writer,
    /// When its last record was appended, or somewhat before.
    pub last: Option<SystemTime>,
    /// Each missing SequenceNumber is a missed event.
    pub every_number: bool,
    /// Events are filtered, and leave no trace in the spool.
    pub filtered: bool,
}

/// Reads it.
///
/// # Errors
/// Those of the disk.
pub fn recover(past: &Past<'_>) -> io::Result<Seen> {
    let mut replay = Replay::new(Seen::new(past.every_number));
    let is_cut = newest(past.dir, NEWEST_BYTES, |record| replay.take(past.writer, &record))?;
    let untold = replay.untold().filter(|_| is_cut && past.every_number);
    let Replay { mut seen, oldest, newest, lost, .. } = replay;
    if seen.recent.earliest().is_none()
        && let Some(some_time) = oldest.or(past.last)
    {
        seen.recent.restart_unsure(some_time);
    }
    seen.holes.go_on();
    seen.numbers = Numbers::new(seen.holes.highest());
    let newest = newest.unwrap_or(SystemTime::UNIX_EPOCH);
    // Also what a filter left out that there is no more.
    seen.holes.forget_before(newest - UNTOLD);
    if past.filtered {
        seen.forget_what_was_filtered(newest);
    }
    for Unsure { first, from } in lost.into_iter().chain(untold) {
        seen.cover(first, from.or(oldest).or(past.last));
    }
    Ok(seen)
}

impl Seen {
    /// Numbers that are missing in the spool were missed, or filtered: nobody can tell. The next gap covers them.
    fn forget_what_was_filtered(&mut self, newest: SystemTime) {
        let Some(highest) = self.holes.highest() else { return };
        let holes = self.holes.flush(newest);
        let first = holes.iter().map(|hole| hole.first).min();
        let from = holes.iter().map(|hole| hole.from).min();
        self.cover(first.unwrap_or_else(|| highest.saturating_add(1)), from);
    }

    /// The next gap covers what is missing since then, without a count.
    fn cover(&mut self, first: u32, from: Option<SystemTime>) {
        self.uncounted_from = Some(self.uncounted_from.map_or(first, |known| known.min(first)));
        if let Some(from) = from {
            self.recent.reach_back(from);
        }
    }
}

struct Replay {
    seen: Seen,
    oldest: Option<SystemTime>,
    newest: Option<SystemTime>,
    /// No event came since the link went up.
    quiet: bool,
    /// From where on what was told may have been lost with records of the log.
    lost: Option<Unsure>,
    /// The first number, and a moment before it was sent.
    begin: Option<Unsure>,
    /// What was missing before `begin` was told, since a session has ended since.
    is_begun_told: bool,
}

/// From here on it is not known what was told.
#[derive(Clone, Copy, Debug)]
struct Unsure {
    /// 0 where no number tells.
    first: u32,
    /// `None` where nothing older was read.
    from: Option<SystemTime>,
}

impl Replay {
    fn new(seen: Seen) -> Self {
        let (oldest, newest, lost, begin) = (None, None, None, None);
        Self { seen, oldest, newest, quiet: false, lost, begin, is_begun_told: false }
    }

    fn take(&mut self, writer: &Writer, record: &Newest) {
        let Some(body) = &record.body else {
            return self.lose(record.at);
        };
        self.oldest.get_or_insert(record.at);
        self.newest = Some(record.at);
        let Some(message) = writer.read(body.clone()) else { return };
        match message.topic.kind() {
            Kind::Event => self.event(writer.server(), &message, record.at),
            Kind::Link => self.link(&message, record),
            _ => {}
        }
    }

    /// What was in these records was read, and is told as lost by the log. But a gap among them told what was not
    /// read: the next gap covers that again.
    fn lose(&mut self, before: SystemTime) {
        let seen = &mut self.seen;
        if let Some(newest) = self.newest {
            seen.holes.forget_before(newest - UNTOLD);
        }
        let (hole, hole_from) = seen.holes.first().unzip();
        let next = seen.holes.highest().map_or(0, |highest| highest.saturating_add(1));
        let before = Some(before).filter(|before| *before > SystemTime::UNIX_EPOCH);
        let from = seen.recent.earliest().or(self.newest).or(before);
        let from = hole_from.into_iter().chain(from).min();
        self.lost.get_or_insert(Unsure { first: hole.unwrap_or(next), from });
        seen.holes.pass_over();
    }

    /// Where the records are so long that what was read of them does not reach back as far as something may be waited
    /// for: how far it may.
    fn untold(&self) -> Option<Unsure> {
        let Unsure { first, from } = self.begin.filter(|_| !self.is_begun_told)?;
        let highest = self.seen.holes.highest()?;
        let (oldest, newest) = self.oldest.zip(self.newest)?;
        let reaches = oldest <= newest - UNTOLD || highest.saturating_sub(first) >= UNTOLD_NUMBERS;
        let from = from.map(|from| from - UNTOLD);
        (!reaches).then_some(Unsure { first: highest.saturating_sub(UNTOLD_NUMBERS), from })
    }

    /// Another life of Asterisk: its numbers tell nothing of what was lost before.
    fn restart(&mut self, boot: Option<String>) {
        self.is_begun_told |= self.seen.boot.is_some();
        self.seen.holes.restart();
        self.seen.boot = boot;
        if let Some(lost) = &mut self.lost {
            lost.first = 0;
        }
    }

    fn event(&mut self, server: &str, message: &Message, at: SystemTime) {
        let number = numbered_id(message.attributes().id(), server).map(|(boot, number)| {
            if self.seen.boot.as_deref() != Some(boot) {
                self.restart(Some(boot.to_owned()));
            }
            number
        });
        self.seen.note(number, stamp(message), at);
        if let (Some(first), None) = (number, self.begin) {
            self.begin = Some(Unsure { first, from: self.seen.recent.earliest() });
        }
        self.quiet = false;
    }

    fn link(&mut self, message: &Message, record: &Newest) {
        let Ok(body) = serde_json::from_slice::<Value>(&message.body) else { return };
        let data = body.get("data").unwrap_or(&Value::Null);
        match data.get("state").and_then(Value::as_str) {
            Some("up") => self.up(data, record),
            Some("down") => self.down(data),
            Some("gap") if data.get("bus").is_none_or(Value::is_null) => self.gap(data),
            _ => {}
        }
    }

    fn up(&mut self, data: &Value, record: &Newest) {
        let seen = &mut self.seen;
        let boot = data.get("boot").and_then(Value::as_str).map(boot_word);
        let resumed = boot.is_some() && boot == seen.boot;
        let before = seen.recent.earliest().or(self.oldest.filter(|_| record.sequence > 1));
        seen.disconnect = before.map(|from| Disconnect {
            from,
            until: record.at.max(from),
            unnumbered: 0,
            by_time: !resumed,
        });
        if seen.recent.earliest().is_none() {
            seen.recent.restart_unsure(record.at);
        }
        if !resumed {
            self.restart(boot);
        }
        (self.quiet, self.is_begun_told) = (true, true);
    }

    /// Everything was told before it.
    fn down(&mut self, data: &Value) {
        let seen = &mut self.seen;
        seen.holes.forget();
        seen.disconnect = None;
        self.is_begun_told = true;
        if let Some(at) = moment(data, "seen").filter(|_| seen.recent.earliest().is_none()) {
            seen.recent.restart_unsure(at);
        }
    }

    fn gap(&mut self, data: &Value) {
        let reason = data.get("reason").and_then(Value::as_str);
        if reason == Some("disconnected") {
            self.seen.disconnect = None;
            if let Some(until) = moment(data, "until").filter(|_| self.quiet) {
                self.seen.recent.restart(until);
            }
        }
        let last = data.get("last").and_then(Value::as_u64).and_then(|last| u32::try_from(last).ok());
        let first = data.get("first").and_then(Value::as_u64);
        if reason == Some("disconnected") {
            // It covers what was lost before it.
            let from = moment(data, "from");
            self.lost.take_if(|lost| match first {
                Some(first) => first <= lost.first.into(),
                None => from.zip(lost.from).is_some_and(|(from, lost)| from <= lost),
            });
        }
        if let (Some("disconnected" | "skipped"), Some(last)) = (reason, last) {
            self.seen.holes.forget_to(last);
        }
    }
}

fn moment(data: &Value, key: &str) -> Option<SystemTime> {
    let at: Timestamp = data.get(key)?.as_str()?.parse().ok()?;
    Some(at.into())
}

/// Asterisk's Timestamp, which stands near the beginning of `data`, and in the envelope's `time` too.
fn stamp(message: &Message) -> Option<u64> {
    const KEY: &[u8] = b"\"Timestamp\":\"";
    const DATA: &[u8] = b",\"data\":{";
    let body = &message.body;
    let data = body.get(memchr::memmem::find(body, DATA)? + DATA.len()..)?;
    let near = data.get(..STAMP_WITHIN_BYTES).unwrap_or(data);
    let value = near.get(memchr::memmem::find(near, KEY)? + KEY.len()..)?;
    let stamp = micros(value.get(..memchr::memchr(b'"', value)?)?)?;
    let time: Timestamp = message.attributes().time().parse().ok()?;
    (u64::try_from(time.as_microsecond()) == Ok(stamp)).then_some(stamp)
}
