//! Recorded events, numbered: each is given a `Timestamp` of its own, a microsecond after the one before, so that a
//! consumer can tell that all are there and in order. Nothing else of the recorded bytes is changed.

use std::io;

use amibus_services::corpus::corpus;
use memchr::memmem;

/// The second in which the first event happens.
const BEGAN_SECOND: u64 = 1_795_220_000;
/// Seconds that numbers may reach into: of a hundred million events.
const SECONDS_MAX: u64 = 100;
const STAMP: &[u8] = b"\r\nTimestamp: ";
/// `1795220000.000000`
const STAMP_BYTES: usize = 17;

/// One round of a recording, ready to be numbered.
pub(crate) struct Traffic {
    bytes: Vec<u8>,
    /// Where each event ends, and where its stamp begins.
    events: Vec<(usize, usize)>,
}

impl Traffic {
    /// The events of a recording that carry a Timestamp.
    pub(crate) fn of(recording: &str) -> io::Result<Self> {
        let all = corpus(&format!("{recording}.s2c"));
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        let mut rest = all.as_slice();
        while let Some((event, after)) =
            memmem::find(rest, b"\r\n\r\n").and_then(|at| rest.split_at_checked(at + 4))
        {
            rest = after;
            let Some(stamp) = memmem::find(event, STAMP).filter(|_| event.starts_with(b"Event: ")) else {
                continue;
            };
            let stamp = bytes.len() + stamp + STAMP.len();
            bytes.extend_from_slice(event);
            events.push((bytes.len(), stamp));
        }
        if events.is_empty() {
            return Err(io::Error::other(format!("{recording} has no event with a Timestamp")));
        }
        Ok(Self { bytes, events })
    }

    /// Events `first` to `first + count`, of as many rounds as it takes.
    pub(crate) fn numbered(&self, first: u64, count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for number in first..first + count {
            let at = (number % self.events.len() as u64) as usize;
            let begin =
                at.checked_sub(1).and_then(|before| self.events.get(before)).map_or(0, |event| event.0);
            let Some(&(end, stamp)) = self.events.get(at) else { continue };
            let written = out.len();
            out.extend_from_slice(self.bytes.get(begin..end).unwrap_or_default());
            let stamp = written + stamp - begin;
            if let Some(place) = out.get_mut(stamp..stamp + STAMP_BYTES) {
                place.copy_from_slice(text(number).as_bytes());
            }
        }
        out
    }
}

fn text(number: u64) -> String {
    format!("{}.{:06}", BEGAN_SECOND + number / 1_000_000, number % 1_000_000)
}

/// The number of an event, from its body; what the simulator has to say itself (its logins) is none of these.
pub(crate) fn number(finder: &memmem::Finder<'_>, body: &[u8]) -> Option<u64> {
    let at = finder.find(body)? + STAMP_KEY.len();
    let stamp = std::str::from_utf8(body.get(at..at + STAMP_BYTES)?).ok()?;
    let (seconds, micros) = stamp.split_once('.')?;
    let since = seconds.parse::<u64>().ok()?.checked_sub(BEGAN_SECOND)?;
    (since < SECONDS_MAX).then_some(since * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// What stands before the stamp in a body.
pub(crate) const STAMP_KEY: &[u8] = br#""Timestamp":""#;
