//! A recorded call, taken apart so that each round can be played with fresh names.
//!
//! Only events that the server spread to everybody are played: they carry `Privilege`. Responses, list items
//! and what the simulated server says itself (FullyBooted, SuccessfulAuth, Shutdown) are left out. Pace comes
//! from the recorded `Timestamp` headers. Limit: [`RECORDING_BYTES_MAX`].

use std::time::Duration;

use crate::clock;
use crate::event::{Event, lines, value_of};

/// The largest recording that is taken.
pub const RECORDING_BYTES_MAX: usize = 64 << 20;
/// Pace of events without a `Timestamp`.
const GAP_WITHOUT_TIMESTAMP: Duration = Duration::from_millis(1);
const NOT_PLAYED: &[&str] = &["FullyBooted", "SuccessfulAuth", "Shutdown"];
const DATE_HEADERS: &[&str] = &["StartTime", "AnswerTime", "EndTime"];

/// Why bytes are no recording; all of them mean stop, since the same bytes fail again.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// No event that could be played.
    #[error("recording {0} holds no event with a Privilege header")]
    Empty(String),
    /// More than [`RECORDING_BYTES_MAX`].
    #[error("recording {0} is larger than {RECORDING_BYTES_MAX} bytes")]
    TooLarge(String),
}

/// A recorded call, ready to be played.
#[derive(Debug, Clone)]
pub struct Recording {
    name: String,
    pub(crate) names: Vec<Name>,
    pub(crate) events: Vec<RecordedEvent>,
}

/// A name that must be fresh in each round.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) kind: NameKind,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// Uniqueid or Linkedid.
    Unique,
    /// A channel name up to its number: `Local/1001@flows-00000006`.
    Channel,
    /// A bridge's UUID.
    Bridge,
    /// `[C-00000006]`.
    Call,
}

#[derive(Debug, Clone)]
pub(crate) struct RecordedEvent {
    /// Time since the first event at recorded pace.
    pub(crate) offset: Duration,
    /// The name, among [`Recording::names`], of the call it belongs to.
    pub(crate) linkedid: Option<usize>,
    head: Event,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Vec<u8>),
    Name(usize),
    /// A date and time of day: as recorded, and in seconds since the recording's first event.
    Date(String, i64),
}

impl Recording {
    /// Takes what a server sent on one connection.
    ///
    /// # Errors
    /// When it is too large or holds nothing that can be played.
    pub fn from_bytes(name: &str, sent_by_server: &[u8]) -> Result<Self, RecordingError> {
        if sent_by_server.len() > RECORDING_BYTES_MAX {
            return Err(RecordingError::TooLarge(name.to_owned()));
        }
        let heads: Vec<Event> = messages(sent_by_server).filter_map(head).collect();
        let mut names = Vec::new();
        for event in &heads {
            collect_names(&event.body, &mut names);
        }
        let first_micros = heads.iter().find_map(|event| event.recorded_micros).unwrap_or_default();
        let mut offset = Duration::ZERO;
        let mut events = Vec::with_capacity(heads.len());
        for mut head in heads {
            offset = match head.recorded_micros {
                Some(micros) => offset.max(Duration::from_micros(micros.saturating_sub(first_micros))),
                None => offset + GAP_WITHOUT_TIMESTAMP,
            };
            let linkedid =
                linkedid(&head).and_then(|id| names.iter().position(|name: &Name| name.text == id));
            let pieces = cut(&std::mem::take(&mut head.body), &names, first_micros / 1_000_000);
            events.push(RecordedEvent { offset, linkedid, head, pieces });
        }
        if events.is_empty() {
            return Err(RecordingError::Empty(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), names, events })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many events one round plays.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Never true: an empty recording cannot be made.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The recorded names, for a round that is played as it was recorded.
    pub(crate) fn recorded_names(&self) -> Vec<String> {
        self.names.iter().map(|name| name.text.clone()).collect()
    }

    /// How long one round takes at recorded pace.
    pub fn duration(&self) -> Duration {
        self.events.last().map_or(Duration::ZERO, |event| event.offset)
    }
}

impl RecordedEvent {
    /// The event of a round whose names are `fresh`, in the order of [`Recording::names`], and which began at
    /// second `began`; without `began`, as it was recorded.
    pub(crate) fn render(&self, fresh: &[String], began: Option<Began>) -> Event {
        let mut event = self.head.clone();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => event.body.extend_from_slice(bytes),
                Piece::Name(index) => {
                    event.body.extend_from_slice(fresh.get(*index).map_or(&b""[..], String::as_bytes));
                }
                Piece::Date(recorded, since) => match began {
                    Some(began) => event.body.extend_from_slice(began.date(*since).as_bytes()),
                    None => event.body.extend_from_slice(recorded.as_bytes()),
                },
            }
        }
        if began.is_some() {
            event.recorded_micros = None;
        }
        event
    }
}

/// When a round began, and how fast it is played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    pub(crate) second: u64,
    pub(crate) speed: f64,
}

impl Began {
    /// The date and time of day that lies `since` recorded seconds after the beginning.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn date(self, since: i64) -> String {
        let moved = (since as f64 / self.speed).round() as i64;
        let (date, time) = clock::date_and_time(self.second.saturating_add_signed(moved));
        format!("{date} {time}")
    }
}

fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\r\n\r\n")?;
        let (message, after) = rest.split_at(end + 2);
        rest = after.get(2..).unwrap_or_default();
        Some(message)
    })
}

/// The event whose body is still the recorded bytes; `None` for what is not played.
fn head(message: &[u8]) -> Option<Event> {
    let blank = message.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut rest = message.get(blank..)?;
    let name = take_header(&mut rest, "Event")?;
    let privilege = take_header(&mut rest, "Privilege")?;
    if NOT_PLAYED.contains(&name.as_str()) {
        return None;
    }
    let mut event = Event::new(&name, &privilege);
    event.recorded_micros =
        take_header(&mut rest, "Timestamp").and_then(|text| clock::parse_timestamp(&text));
    if take_header(&mut rest, "SequenceNumber").is_some() {
        for name in ["File", "Line", "Func"] {
            let _ = take_header(&mut rest, name);
        }
    }
    event.body = rest.to_vec();
    Some(event)
}

/// Takes the first line of `rest` away, if it is this header.
fn take_header(rest: &mut &[u8], name: &str) -> Option<String> {
    let end = memchr::memchr(b'\n', rest)? + 1;
    let line = rest.get(..end)?.strip_suffix(b"\r\n")?;
    let value = value_of(line, name)?.to_owned();
    *rest = rest.get(end..)?;
    Some(value)
}

fn linkedid(event: &Event) -> Option<&str> {
    ["Linkedid", "DestLinkedid", "LocalOneLinkedid"].iter().find_map(|name| event.header(name))
}

fn collect_names(body: &[u8], names: &mut Vec<Name>) {
    for line in lines(body).filter_map(|line| std::str::from_utf8(line).ok()) {
        let Some((header, value)) = line.split_once(": ") else { continue };
        let header = header.to_ascii_lowercase();
        let found = if header.ends_with("bridgeuniqueid") || header.ends_with("bridgeid") {
            (value.len() == 36).then_some((NameKind::Bridge, value))
        } else if header.ends_with("uniqueid") || header.ends_with("linkedid") {
            (!value.starts_with('<')).then_some((NameKind::Unique, value))
        } else if header.ends_with("channel") {
            channel_base(value).map(|base| (NameKind::Channel, base))
        } else if header == "callid" {
            (value.starts_with("[C-")).then_some((NameKind::Call, value))
        } else {
            None
        };
        if let Some((kind, text)) = found
            && !text.is_empty()
            && !names.iter().any(|name| name.text == text)
        {
            names.push(Name { kind, text: text.to_owned() });
        }
    }
}

/// `Local/1001@flows-00000006` of `Local/1001@flows-00000006;1`.
fn channel_base(channel: &str) -> Option<&str> {
    let base = channel.split(';').next()?;
    let (_, number) = base.rsplit_once('-')?;
    (number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(base)
}

fn cut(body: &[u8], names: &[Name], first_second: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut rest = body;
    let mut before = b'\n';
    while let Some(&byte) = rest.first() {
        let piece = if before == b'\n' { date_piece(rest, first_second) } else { None };
        let piece = piece.or_else(|| name_piece(rest, before, names));
        let Some((keep, taken, piece)) = piece else {
            literal.push(byte);
            before = byte;
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        literal.extend_from_slice(rest.get(..keep).unwrap_or_default());
        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        pieces.push(piece);
        before = b'0';
        rest = rest.get(keep + taken..).unwrap_or_default();
    }
    pieces.push(Piece::Literal(literal));
    pieces
}

/// A name that starts here and is not part of a longer one: bytes kept, bytes replaced, by what.
fn name_piece(rest: &[u8], before: u8, names: &[Name]) -> Option<(usize, usize, Piece)> {
    if before.is_ascii_alphanumeric() || before == b'.' || before == b'-' {
        return None;
    }
    names.iter().enumerate().find_map(|(index, name)| {
        let after = rest.strip_prefix(name.text.as_bytes())?;
        let ends = !after.first().is_some_and(u8::is_ascii_alphanumeric);
        ends.then_some((0, name.text.len(), Piece::Name(index)))
    })
}

/// A Cdr's date header that starts here.
fn date_piece(rest: &[u8], first_second: u64) -> Option<(usize, usize, Piece)> {
    let line = rest.get(..memchr::memchr(b'\r', rest)?)?;
    DATE_HEADERS.iter().find_map(|header| {
        let value = value_of(line, header)?;
        let second = i64::try_from(clock::parse_date_and_time(value)?).ok()?;
        let since = second - i64::try_from(first_second).ok()?;
        Some((header.len() + 2, value.len(), Piece::Date(value.to_owned(), since)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "Event: Newchannel\r\nPrivilege: call,all\r\nTimestamp: 1795220651.000000\r\n\
        Channel: Local/1@a-00000006;1\r\nUniqueid: 1795220651.2\r\nLinkedid: 1795220651.2\r\n\r\n\
        Response: Success\r\nActionID: x\r\n\r\n\
        Event: Cdr\r\nPrivilege: cdr,all\r\nTimestamp: 1795220652.500000\r\nChannel: Local/1@a-00000006;1\r\n\
        StartTime: 2026-11-21 00:24:12\r\nUniqueID: 1795220651.21\r\nLinkedID: 1795220651.2\r\n\r\n";

    #[test]
    fn played_as_recorded_it_is_the_recorded_bytes() {
        let recording = Recording::from_bytes("call", CALL.as_bytes()).expect("two events");
        assert_eq!(recording.len(), 2);
        assert_eq!(recording.duration(), Duration::from_millis(1500));
        let names = recording.recorded_names();
        let cdr = recording.events[1].render(&names, None);
        let body = CALL.split("652.500000\r\n").nth(1).expect("the Cdr's body").trim_end();
        assert_eq!(String::from_utf8_lossy(&cdr.body).trim_end(), body);
    }

    #[test]
    fn fresh_names_replace_whole_names_only() {
        let recording = Recording::from_bytes("call", CALL.as_bytes()).expect("two events");
        let texts: Vec<&str> = recording.names.iter().map(|name| name.text.as_str()).collect();
        assert_eq!(texts, ["Local/1@a-00000006", "1795220651.2", "1795220651.21"]);
        let fresh = ["Local/1@a-00000099", "1900000000.7", "1900000000.8"].map(str::to_owned);
        let began = Began { second: 1_900_000_000, speed: 1.0 };
        let cdr = recording.events[1].render(&fresh, Some(began));
        assert_eq!(
            String::from_utf8_lossy(&cdr.body),
            "Channel: Local/1@a-00000099;1\r\nStartTime: 2030-03-17 17:46:41\r\n\
             UniqueID: 1900000000.8\r\nLinkedID: 1900000000.7\r\n"
        );
    }

    #[test]
    fn nothing_to_play_is_an_error() {
        let error = Recording::from_bytes("r", b"Response: Success\r\n\r\n").expect_err("no event");
        assert!(matches!(error, RecordingError::Empty(_)));
    }
}
