//! The CloudEvents 1.0 envelope in structured JSON, and where in it each attribute stands.
//!
//! The attributes come in one fixed order, without blanks, `data` last, so that they are found again in a stored body
//! without parsing `data` ([`read`]).

use std::time::{SystemTime, UNIX_EPOCH};

use amibus_contract::{Attribute, Attributes, ByteString, Bytes, Kind, Message, Places, TopicError, Topics};

use super::{Profile, Stamp, block, clock::Clock, json};
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
        let topics = Topics::new(prefix, server_of(text(&self.source, &body)))?;
        self.message_in(&topics, body)
    }

    /// The same, where the prefix, and most likely the server, have been checked.
    ///
    /// # Errors
    /// When the server's name in the body cannot be in a topic.
    pub fn message_in(&self, topics: &Topics, body: Bytes) -> Result<Message, TopicError> {
        let server = server_of(text(&self.source, &body));
        Ok(Message {
            topic: topics.topic_of(server, self.kind, text(&self.name, &body))?,
            key: shared(&self.key, &body),
            attributes: self.attributes(&body),
            body,
        })
    }

    fn attributes(&self, body: &Bytes) -> Attributes {
        let spans = [
            (Attribute::Id, Some(&self.id)),
            (Attribute::Type, Some(&self.typed)),
            (Attribute::Source, Some(&self.source)),
            (Attribute::Time, Some(&self.time)),
            (Attribute::Subject, self.subject.as_ref()),
            (Attribute::Sequence, Some(&self.sequence)),
            (Attribute::Correlation, self.correlation.as_ref()),
        ];
        let mut places = Places::default();
        for (attribute, span) in spans {
            match span {
                Some(Span::Body(start, end)) => places = places.with(attribute, *start..*end),
                Some(Span::Own(_)) => {
                    // One that is escaped in the body stands nowhere in it, so all are copied.
                    let values = spans.into_iter().filter_map(|(attribute, span)| Some((attribute, span?)));
                    return Attributes::of(values.map(|(attribute, span)| (attribute, text(span, body))));
                }
                None => {}
            }
        }
        Attributes::within(body.clone(), places)
    }
}

fn server_of(source: &str) -> &str {
    source.strip_prefix(SOURCE).unwrap_or_default()
}

fn text<'t>(span: &'t Span, body: &'t Bytes) -> &'t str {
    match span {
        Span::Own(text) => text,
        Span::Body(start, end) => {
            let text = body.get(*start as usize..*end as usize);
            text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
        }
    }
}

/// The same, sharing the memory of `body` where it can.
fn shared(span: &Span, body: &Bytes) -> ByteString {
    match span {
        Span::Own(text) => ByteString::from(&**text),
        Span::Body(start, end) => match body.get(*start as usize..*end as usize) {
            Some(text) => ByteString::try_from(body.slice_ref(text)).unwrap_or_default(),
            None => ByteString::new(),
        },
    }
}

/// What stands in an envelope besides the profile and the stamp.
pub(super) struct Head<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a [u8],
    /// This and the next two are UTF-8.
    pub(super) subject: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) correlation: Option<&'a [u8]>,
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
    clock: &mut Clock,
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
    let time = writer.attribute(br#"","time":""#, |out| clock.write(out, head.micros));
    let sequence = writer.attribute(br#"","datacontenttype":"application/json","sequence":""#, |out| {
        json::padded(out, stamp.sequence, SEQUENCE_DIGITS);
    });
    let key = writer.text(br#"","partitionkey":""#, head.key.unwrap_or(profile.server.as_bytes()));
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
    fn text(&mut self, before: &[u8], value: &[u8]) -> Span {
        if block::before(value, block::not_plain) == value.len() {
            return self.attribute(before, |out| out.extend_from_slice(value));
        }
        let span = self.attribute(before, |out| json::escaped(out, value));
        match span {
            Span::Body(start, end) if (end - start) as usize == value.len() => span,
            _ => Span::Own(String::from_utf8_lossy(value).into()),
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
    const SAFE: [bool; 256] = route::safe_bytes(b"-_.+");
    let safe = |byte: u8| SAFE[usize::from(byte)];
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
