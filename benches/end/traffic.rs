//! Recorded events, each given a `Timestamp` of its own, so that a consumer can tell that all are there and in order, and
//! when each was sent. Nothing else of the recorded bytes is changed.

use std::io;

use amibus_services::corpus::corpus;
use memchr::memmem;

/// The second in which the first of numbered events happens.
const BEGAN_SECOND: u64 = 1_795_220_000;
/// Seconds that numbers may reach into: of a hundred million events.
const SECONDS_MAX: u64 = 100;
const STAMP: &[u8] = b"\r\nTimestamp: ";
/// `1795220000.000000`
pub(crate) const STAMP_BYTES: usize = 17;
/// What stands before the stamp in a body.
pub(crate) const STAMP_KEY: &[u8] = br#""Timestamp":""#;

/// One round of a recording, ready to be stamped.
pub(crate) struct Traffic {
    bytes: Vec<u8>,
    /// Where each event ends, and where its stamp begins.
    events: Vec<(usize, usize)>,
}

impl Traffic {
    /// The events of a recording that carry a Timestamp.
    pub(crate) fn of(recording: &str) -> io::Result<Self> {
        Self::made(recording, <[u8]>::to_vec)
    }

    /// The same without every `ChanVariable`.
    pub(crate) fn without_variables(recording: &str) -> io::Result<Self> {
        Self::made(recording, |event| {
            let lines = event.split_inclusive(|byte| *byte == b'\n');
            lines.filter(|line| memmem::find(line, b"ChanVariable").is_none()).collect::<Vec<_>>().concat()
        })
    }

    fn made(recording: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<Self> {
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        for event in recorded(recording) {
            let Some(stamp) = memmem::find(&event, STAMP) else { continue };
            let stamp = bytes.len() + stamp + STAMP.len();
            bytes.extend_from_slice(&change(&event));
            events.push((bytes.len(), stamp));
        }
        if events.is_empty() {
            return Err(io::Error::other(format!("{recording} has no event with a Timestamp")));
        }
        Ok(Self { bytes, events })
    }

    /// Events `first` to `first + count` of as many rounds as it takes, numbered: each a microsecond after the one before.
    pub(crate) fn numbered(&self, first: u64, count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for number in first..first + count {
            self.write(number, BEGAN_SECOND * 1_000_000 + number, &mut out);
        }
        out
    }

    /// Writes event `index` of as many rounds as it takes, stamped with this microsecond since 1970.
    pub(crate) fn write(&self, index: u64, micros: u64, out: &mut Vec<u8>) {
        let at = (index % self.events.len() as u64) as usize;
        let begin = at.checked_sub(1).and_then(|before| self.events.get(before)).map_or(0, |event| event.0);
        let Some(&(end, stamp)) = self.events.get(at) else { return };
        let written = out.len();
        out.extend_from_slice(self.bytes.get(begin..end).unwrap_or_default());
        let stamp = written + stamp - begin;
        if let Some(place) = out.get_mut(stamp..stamp + STAMP_BYTES) {
            place.copy_from_slice(text(micros).as_bytes());
        }
    }
}

/// Every event of a recording as it was sent, with its empty line.
pub(crate) fn recorded(recording: &str) -> Vec<Vec<u8>> {
    let all = corpus(&format!("{recording}.s2c"));
    let mut events = Vec::new();
    let mut rest = all.as_slice();
    while let Some((event, after)) =
        memmem::find(rest, b"\r\n\r\n").and_then(|at| rest.split_at_checked(at + 4))
    {
        rest = after;
        // Asterisk puts empty lines between some.
        let event = event.strip_prefix(b"\r\n").unwrap_or(event);
        if event.starts_with(b"Event: ") {
            events.push(event.to_vec());
        }
    }
    events
}

/// How a stamp is written.
pub(crate) fn text(micros: u64) -> String {
    format!("{:010}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// The stamp in the body of a message, in microseconds since 1970.
pub(crate) fn stamp(finder: &memmem::Finder<'_>, body: &[u8]) -> Option<u64> {
    let at = finder.find(body)? + STAMP_KEY.len();
    let stamp = std::str::from_utf8(body.get(at..at + STAMP_BYTES)?).ok()?;
    let (seconds, micros) = stamp.split_once('.')?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)
}

/// The number of an event, from its body; what the simulator has to say itself (its logins) is none of these.
pub(crate) fn number(finder: &memmem::Finder<'_>, body: &[u8]) -> Option<u64> {
    let since = stamp(finder, body)?.checked_sub(BEGAN_SECOND * 1_000_000)?;
    (since < SECONDS_MAX * 1_000_000).then_some(since)
}
