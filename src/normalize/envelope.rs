//! The CloudEvents 1.0 envelope in structured JSON, and where in it each attribute stands.
//!
//! The attributes come in one fixed order, without blanks, `data` last, so that they are found again in a stored body
//! without parsing `data` ([`read`]).

use std::time::{SystemTime, UNIX_EPOCH};

use amibus_contract::{Attributes, ByteString, Bytes, Kind, Message, TopicError, Topics};

use super::{Profile, Stamp, json};
use crate::route;

/// Digits of `sequence`, so that it sorts as text.
pub const SEQUENCE_DIGITS: usize = 20;
const SOURCE: &str = "/asterisk/";

/// A text of the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Span {
    /// Stands in the body just so, at these bytes.
    Body(u32, u32),
    /// Had to be escaped there.
    Own(Box<str>),
}

/// Where the attributes stand in one encoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    kind: Kind,
    id: Span,
    source: Span,
    typed: Span,
    name: Span,
    subject: Option<Span>,
    time: Span,
    sequence: Span,
    key: Span,
    correlation: Option<Span>,
}

/// Why a body is not one that [`super::event`] or [`super::envelope`] wrote: skip the record, it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The envelope is not laid out as ours.
    #[error("not an envelope of amibus")]
    Layout,
    /// The body is larger than positions can say.
    #[error("a body of 4 GiB or more")]
    TooLarge,
}

impl Encoded {
    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message, sharing the memory of `body`.
    ///
    /// # Errors
    /// When `prefix` or the server's name in the body cannot be in a topic.
    ///
    /// With another body than the one that this belongs to, the attributes are empty or nonsense.
    pub fn message(&self, prefix: &str, body: Bytes) -> Result<Message, TopicError> {
        let source = shared(&self.source, &body);
        self.message_in(&Topics::new(prefix, server_of(&source))?, body)
    }

    /// The same, where the prefix, and most likely the server, have been checked.
    ///
    /// # Errors
    /// When the server's name in the body cannot be in a topic.
    pub fn message_in(&self, topics: &Topics, body: Bytes) -> Result<Message, TopicError> {
        let text = |span: &Span| shared(span, &body);
        let source = text(&self.source);
        Ok(Message {
            topic: topics.topic_of(server_of(&source), self.kind, &text(&self.name))?,
            key: text(&self.key),
            attributes: Attributes {
                id: text(&self.id),
                kind: text(&self.typed),
                subject: self.subject.as_ref().map(text),
                time: text(&self.time),
                sequence: Some(text(&self.sequence)),
                correlation: self.correlation.as_ref().map(text),
                source,
            },
            body,
        })
    }
}

fn server_of(source: &str) -> &str {
    source.strip_prefix(SOURCE).unwrap_or_default()
}

fn shared(span: &Span, body: &Bytes) -> ByteString {
    match span {
        Span::Own(text) => ByteString::from(&**text),
        Span::Body(start, end) => {
            let range = *start as usize..*end as usize;
            let there = range.start <= range.end && range.end <= body.len();
            there.then(|| ByteString::try_from(body.slice(range)).ok()).flatten().unwrap_or_default()
        }
    }
}

/// What stands in an envelope besides the profile and the stamp.
pub(super) struct Head<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a [u8],
    pub(super) subject: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) correlation: Option<&'a str>,
    /// Asterisk's SequenceNumber, where the id is made of it.
    pub(super) number: Option<u32>,
    /// Microseconds since 1970.
    pub(super) micros: u64,
}

/// Appends an envelope whose `data` is what `data` appends.
pub(super) fn write(
    profile: &Profile,
    head: &Head<'_>,
    stamp: &Stamp<'_>,
    out: &mut Vec<u8>,
    data: impl FnOnce(&mut Vec<u8>),
) -> Encoded {
    let mut writer = Writer { start: out.len(), out };
    let id = writer.attribute(br#"{"specversion":"1.0","id":""#, |out| id(profile, head, stamp, out));
    let source = writer.attribute(br#"","source":""#, |out| {
        out.extend_from_slice(SOURCE.as_bytes());
        out.extend_from_slice(profile.server.as_bytes());
    });
    let typed = writer.attribute(br#"","type":""#, |out| {
        out.extend_from_slice(b"ami.");
        out.extend_from_slice(head.kind.as_str().as_bytes());
        out.push(b'.');
    });
    let name = writer.attribute(b"", |out| route::push_topic_word(out, head.name));
    let typed = typed.until(&name);
    let subject = head.subject.map(|subject| writer.text(br#"","subject":""#, subject));
    let time = writer.attribute(br#"","time":""#, |out| time(out, head.micros));
    let sequence = writer.attribute(br#"","datacontenttype":"application/json","sequence":""#, |out| {
        json::padded(out, stamp.sequence, SEQUENCE_DIGITS);
    });
    let key = writer.text(br#"","partitionkey":""#, head.key.unwrap_or(&profile.server));
    let correlation = head.correlation.map(|id| writer.text(br#"","correlationid":""#, id));
    writer.out.extend_from_slice(br#"","data":"#);
    data(writer.out);
    writer.out.push(b'}');
    Encoded { kind: head.kind, id, source, typed, name, subject, time, sequence, key, correlation }
}

impl Span {
    fn until(self, last: &Self) -> Self {
        match (&self, last) {
            (Self::Body(start, _), Self::Body(_, end)) => Self::Body(*start, *end),
            _ => self,
        }
    }
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
}

impl Writer<'_> {
    /// A value that needs no escape, after `before`.
    fn attribute(&mut self, before: &[u8], value: impl FnOnce(&mut Vec<u8>)) -> Span {
        self.out.extend_from_slice(before);
        let start = self.position();
        value(self.out);
        Span::Body(start, self.position())
    }

    /// A value that may need one.
    fn text(&mut self, before: &[u8], value: &str) -> Span {
        let span = self.attribute(before, |out| json::escaped(out, value.as_bytes()));
        match span {
            Span::Body(start, end) if (end - start) as usize == value.len() => span,
            _ => Span::Own(value.into()),
        }
    }

    fn position(&self) -> u32 {
        u32::try_from(self.out.len() - self.start).unwrap_or(u32::MAX)
    }
}

/// `<server>:<boot>:<SequenceNumber>`, the same in every amibus that sees the event; else `<log>:<sequence>`.
/// `boot` and `log` hold no colon, so one kind is never taken for the other.
fn id(profile: &Profile, head: &Head<'_>, stamp: &Stamp<'_>, out: &mut Vec<u8>) {
    match (stamp.boot, head.number) {
        (Some(boot), Some(number)) => {
            out.extend_from_slice(profile.server.as_bytes());
            out.push(b':');
            id_word(out, boot);
            out.push(b':');
            json::padded(out, number.into(), 1);
        }
        _ => {
            id_word(out, stamp.log);
            out.push(b':');
            json::padded(out, stamp.sequence, 1);
        }
    }
}

/// A boot as it stands in ids.
pub fn boot_word(boot: &str) -> String {
    let mut word = Vec::with_capacity(boot.len());
    id_word(&mut word, boot);
    String::from_utf8(word).unwrap_or_default()
}

fn id_word(out: &mut Vec<u8>, word: &str) {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    match word.bytes().all(safe) {
        true => out.extend_from_slice(word.as_bytes()),
        false => out.extend(word.bytes().map(|byte| if safe(byte) { byte } else { b'-' })),
    }
}

/// Microseconds since 1970; 0 for a clock that stands before.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Appends RFC 3339 in UTC with six decimals.
pub(super) fn time(out: &mut Vec<u8>, micros: u64) {
    const LAST_MICROS_OF_9999: u64 = 253_402_300_799_999_999;
    let micros = micros.min(LAST_MICROS_OF_9999);
    let seconds = micros / 1_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let [_, _, _, _, y, e, a, r] = json::eight_digits(year);
    let [_, _, mo, nth, _, _, d, ay] = interleaved(month, day);
    let [_, _, h, our, _, _, m, in_] = interleaved(seconds / 3600 % 24, seconds / 60 % 60);
    let [s, ec, u1, u2, u3, u4, u5, u6] = json::eight_digits(seconds % 60 * 1_000_000 + micros % 1_000_000);
    out.extend_from_slice(&[
        y, e, a, r, b'-', mo, nth, b'-', d, ay, b'T', h, our, b':', m, in_, b':', s, ec, b'.', u1, u2, u3,
        u4, u5, u6, b'Z',
    ]);
}

/// Two values below 100: the digits of the first at 2 and 3, of the second at 6 and 7.
#[inline]
fn interleaved(first: u64, second: u64) -> [u8; 8] {
    json::eight_digits(first * 10_000 + second)
}

/// Year, month and day of a number of days since 1970. Years are counted from March, so that a leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_MARCH_0000: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_MARCH_0000;
    let (era, of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Finds the attributes of a body that was written by [`super::event`] or [`super::envelope`].
///
/// # Errors
/// When it was not; `data` is not looked at.
pub fn read(body: &[u8]) -> Result<Encoded, ReadError> {
    u32::try_from(body.len()).map_err(|_| ReadError::TooLarge)?;
    let mut reader = Reader { body, at: 0 };
    let id = reader.attribute(br#"{"specversion":"1.0","id":""#)?;
    let source = reader.attribute(br#","source":""#)?;
    let typed = reader.attribute(br#","type":""#)?;
    let subject = reader.optional(br#","subject":""#)?;
    let time = reader.attribute(br#","time":""#)?;
    let sequence = reader.attribute(br#","datacontenttype":"application/json","sequence":""#)?;
    let key = reader.attribute(br#","partitionkey":""#)?;
    let correlation = reader.optional(br#","correlationid":""#)?;
    reader.literal(br#","data":"#).ok_or(ReadError::Layout)?;
    let (kind, name) = kind_and_name(body, &typed).ok_or(ReadError::Layout)?;
    Ok(Encoded { kind, id, source, typed, name, subject, time, sequence, key, correlation })
}

/// `ami.<kind>.<name>`, taken apart.
fn kind_and_name(body: &[u8], typed: &Span) -> Option<(Kind, Span)> {
    let Span::Body(start, end) = *typed else { return None };
    let text = body.get(start as usize..end as usize)?.strip_prefix(b"ami.")?;
    let kind = Kind::ALL.into_iter().find(|kind| {
        text.strip_prefix(kind.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&b'.'))
    })?;
    let before = u32::try_from("ami.".len() + kind.as_str().len() + ".".len()).ok()?;
    Some((kind, Span::Body(start + before, end)))
}

struct Reader<'b> {
    body: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.body.get(self.at..)?.strip_prefix(text)?;
        self.at += text.len();
        Some(())
    }

    fn optional(&mut self, before: &[u8]) -> Result<Option<Span>, ReadError> {
        self.literal(before).map(|()| self.rest().ok_or(ReadError::Layout)).transpose()
    }

    fn attribute(&mut self, before: &[u8]) -> Result<Span, ReadError> {
        self.optional(before)?.ok_or(ReadError::Layout)
    }

    /// The rest of a string and its closing quote.
    fn rest(&mut self) -> Option<Span> {
        let start = self.at;
        let mut escaped = false;
        loop {
            match *self.body.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
        let end = self.at;
        self.at += 1;
        if escaped {
            let text: String = serde_json::from_slice(self.body.get(start - 1..=end)?).ok()?;
            return Some(Span::Own(text.into()));
        }
        Some(Span::Body(u32::try_from(start).ok()?, u32::try_from(end).ok()?))
    }
}
