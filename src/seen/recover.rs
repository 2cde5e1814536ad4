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
pub const NEWEST_BYTES: u64 = (GRACE_NUMBERS + BUNDLE_NUMBERS) as u64 * RECORD_BYTES;
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
    let mut replay =
        Replay { seen: Seen::new(past.every_number), oldest: None, newest: None, quiet: false, lost: None };
    newest(past.dir, NEWEST_BYTES, |record| replay.take(past.writer, &record))?;
    let Replay { mut seen, oldest, newest, lost, .. } = replay;
    if seen.recent.earliest().is_none()
        && let Some(some_time) = oldest.or(past.last)
    {
        seen.recent.restart_unsure(some_time);
    }
    seen.holes.go_on();
    seen.numbers = Numbers::new(seen.holes.highest());
    if past.filtered {
        seen.forget_what_was_filtered(newest.unwrap_or(SystemTime::UNIX_EPOCH));
    }
    if let Some((first, from)) = lost {
        seen.uncounted_from = Some(seen.uncounted_from.map_or(first, |known| known.min(first)));
        seen.recent.reach_back(from);
    }
    Ok(seen)
}

impl Seen {
    /// Numbers that are missing in the spool were missed, or filtered: nobody can tell. The next gap covers them.
    fn forget_what_was_filtered(&mut self, newest: SystemTime) {
        let Some(highest) = self.holes.highest() else { return };
        // All older ones were told.
        self.holes.forget_before(newest - (ROUND + GRACE + Duration::from_secs(1)));
        let holes = self.holes.flush(newest);
        let first = holes.iter().map(|hole| hole.first).min();
        self.uncounted_from = Some(first.unwrap_or_else(|| highest.saturating_add(1)));
        if let Some(from) = holes.iter().map(|hole| hole.from).min() {
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
    /// The first number, and the time, from which on what was told may have been lost with records of the log.
    lost: Option<(u32, SystemTime)>,
}

impl Replay {
    fn take(&mut self, writer: &Writer, record: &Newest) {
        let Some(body) = &record.body else {
            return self.lost();
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
    fn lost(&mut self) {
        let seen = &mut self.seen;
        let from = seen.recent.earliest().or(self.newest);
        if let (None, Some(highest), Some(from)) = (self.lost, seen.holes.highest(), from) {
            self.lost = Some((highest.saturating_add(1), from));
        }
        seen.holes.pass_over();
    }

    fn event(&mut self, server: &str, message: &Message, at: SystemTime) {
        let seen = &mut self.seen;
        let number = numbered_id(&message.attributes.id, server).map(|(boot, number)| {
            if seen.boot.as_deref() != Some(boot) {
                seen.holes.restart();
                seen.boot = Some(boot.to_owned());
                self.lost = None;
            }
            number
        });
        seen.note(number, stamp(message), at);
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
        if !resumed {
            seen.holes.restart();
            seen.boot = boot;
            self.lost = None;
        }
        if seen.recent.earliest().is_none() {
            seen.recent.restart_unsure(record.at);
        }
        self.quiet = true;
    }

    /// Everything was told before it.
    fn down(&mut self, data: &Value) {
        let seen = &mut self.seen;
        seen.holes.forget();
        seen.disconnect = None;
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
            self.lost.take_if(|(lost, _)| first.is_some_and(|first| first <= (*lost).into()));
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
    let time: Timestamp = message.attributes.time.parse().ok()?;
    (u64::try_from(time.as_microsecond()) == Ok(stamp)).then_some(stamp)
}
