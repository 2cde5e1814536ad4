//! The CloudEvents 1.0 envelope in structured JSON, and where in it each attribute stands.
//!
//! The attributes come in one fixed order, without blanks, `data` last, so that they are found again in a stored body
//! without parsing `data` ([`read`]).

use std::time::{SystemTime, UNIX_EPOCH};

use amibus_contract::{
    Attribute, Attributes, Bytes, CallKey, Kind, Message, Places, TopicError, Topics,
    message::MAX_TOPIC_WORD_BYTES,
};

use super::{
    Profile, Stamp, block,
    clock::Clock,
    draft::{self, Draft},
    json::{self, Digits},
};
use crate::route;

/// Digits of `sequence`, so that it sorts as text.
pub const SEQUENCE_DIGITS: usize = 20;
/// What stands before the server's name in `source`.
pub(super) const SOURCE: &str = "/asterisk/";
/// What is longer is not written into a draft.
const MAX_SHORT_BYTES: usize = 1024;

/// Where the attributes stand in one encoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    kind: Kind,
    places: Places,
    name: Place,
    key: Place,
    /// What had to be escaped in the body, as it is.
    own: Vec<(Own, Box<str>)>,
}

/// From its first byte to that behind its last.
type Place = (u32, u32);

/// What may have to be escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Attribute(Attribute),
    Key,
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
        let topics = Topics::new(prefix, server_of(self.attribute(Attribute::Source, &body)))?;
        self.message_in(&topics, body)
    }

    /// The same, where the prefix, and most likely the server, have been checked.
    ///
    /// # Errors
    /// When the server's name in the body cannot be in a topic.
    #[inline(always)]
    pub fn message_in(&self, topics: &Topics, body: Bytes) -> Result<Message, TopicError> {
        let name = body.get(self.name.0 as usize..self.name.1 as usize).unwrap_or_default();
        let source = self.places.of(Attribute::Source);
        let source = body.get(source.start as usize..source.end as usize).unwrap_or_default();
        let topic = match source.strip_prefix(SOURCE.as_bytes()) {
            Some(server) if server == topics.server().as_bytes() => topics.topic(self.kind, name),
            _ => topics.topic_of(server_of(self.attribute(Attribute::Source, &body)), self.kind, name)?,
        };
        Ok(Message { topic, key: self.key(), attributes: self.attributes(&body), body })
    }

    fn own(&self, which: Own) -> Option<&str> {
        self.own.iter().find_map(|(own, text)| (*own == which).then_some(&**text))
    }

    fn key(&self) -> CallKey {
        let (start, end) = self.key;
        self.own(Own::Key).map_or(CallKey::Within(start, end), CallKey::from)
    }

    fn attribute<'t>(&'t self, attribute: Attribute, body: &'t [u8]) -> &'t str {
        let place = self.places.of(attribute);
        self.own(Own::Attribute(attribute)).unwrap_or_else(|| text(body, (place.start, place.end)))
    }

    fn attributes(&self, body: &[u8]) -> Attributes {
        if self.own.iter().all(|(own, _)| *own == Own::Key) {
            return Attributes::within(self.places);
        }
        // One that is escaped in the body stands nowhere in it, so all are copied.
        Attributes::of(Attribute::ALL.map(|attribute| (attribute, self.attribute(attribute, body))))
    }
}

fn server_of(source: &str) -> &str {
    source.strip_prefix(SOURCE).unwrap_or_default()
}

fn text(body: &[u8], (start, end): Place) -> &str {
    let text = body.get(start as usize..end as usize);
    text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
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

/// Appends an envelope whose `data` is what `data` appends, `data_bytes` as far as is known.
pub(super) fn write(
    profile: &Profile,
    head: &Head<'_>,
    stamp: &Stamp<'_>,
    Tools { clock, draft }: &mut Tools,
    out: &mut Vec<u8>,
    data_bytes: usize,
    data: impl FnOnce(&mut Vec<u8>),
) -> Encoded {
    let server = profile.server.as_bytes();
    let draft = Draft::new(draft);
    let mut own = Vec::new();
    let mut writer = Writer { out, before: 0, draft, places: Places::default(), own: &mut own };
    let sequence = Digits::of(stamp.sequence);
    writer.draft.write(*br#"{"specversion":"1.0","id":""#);
    let at = writer.position();
    match (stamp.boot, head.number) {
        // The same in every amibus that sees the event. `boot` and `log` hold no colon, so one kind is never taken
        // for the other.
        (Some(boot), Some(number)) => {
            writer.draft.extend(server);
            writer.draft.push(b':');
            writer.id_word(boot);
            writer.draft.push(b':');
            writer.draft.extend(Digits::of(number.into()).short());
        }
        _ => {
            writer.id_word(stamp.log);
            writer.draft.push(b':');
            writer.draft.extend(sequence.short());
        }
    }
    writer.end(Attribute::Id, at);
    writer.draft.write(*br#"","source":""#);
    let at = writer.position();
    writer.draft.extend(profile.source.as_bytes());
    writer.end(Attribute::Source, at);
    writer.draft.write(*br#"","type":""#);
    let at = writer.position();
    match head.kind {
        Kind::Event => writer.draft.write(*b"ami.event."),
        kind => {
            writer.draft.write(*b"ami.");
            writer.draft.extend(kind.as_str().as_bytes());
            writer.draft.push(b'.');
        }
    }
    let name = writer.topic_word(head.name);
    writer.end(Attribute::Type, at);
    if let Some(subject) = head.subject {
        writer.draft.write(*br#"","subject":""#);
        writer.text(Own::Attribute(Attribute::Subject), subject);
    }
    writer.draft.write(*br#"","time":""#);
    let at = writer.position();
    let (second, decimals) = clock.text(head.micros);
    writer.draft.write(second);
    writer.draft.write(decimals);
    writer.end(Attribute::Time, at);
    writer.draft.write(*br#"","datacontenttype":"application/json","sequence":""#);
    let at = writer.position();
    writer.draft.write(sequence.twenty());
    writer.end(Attribute::Sequence, at);
    writer.draft.write(*br#"","partitionkey":""#);
    let key = writer.text(Own::Key, head.key.unwrap_or(server));
    if let Some(correlation) = head.correlation {
        writer.draft.write(*br#"","correlationid":""#);
        writer.text(Own::Attribute(Attribute::Correlation), correlation);
    }
    writer.draft.write(*br#"","data":"#);
    let Writer { draft, out, places, .. } = writer;
    reserve(out, draft.len() + data_bytes + 1);
    out.extend_from_slice(draft.text());
    data(out);
    out.push(b'}');
    Encoded { kind: head.kind, places, name, key, own }
}

/// Makes room; a new buffer gets just that, without having to grow.
#[inline]
fn reserve(out: &mut Vec<u8>, bytes: usize) {
    match out.capacity() {
        0 => *out = Vec::with_capacity(bytes),
        _ => out.reserve(bytes),
    }
}

/// What envelopes are written with.
pub(super) struct Tools {
    clock: Clock,
    draft: draft::Memory,
}

impl Tools {
    pub(super) fn new() -> Self {
        Self { clock: Clock::new(), draft: draft::Memory::new() }
    }
}

/// Writes into a draft what is short, so that it always has room.
struct Writer<'o, 'm> {
    out: &'o mut Vec<u8>,
    /// Bytes of the envelope that are in `out`. A body of 4 GiB could not be read again.
    before: usize,
    /// What follows those.
    draft: Draft<'m>,
    places: Places,
    own: &'o mut Vec<(Own, Box<str>)>,
}

impl Writer<'_, '_> {
    #[inline(always)]
    fn position(&self) -> u32 {
        (self.before + self.draft.len()) as u32
    }

    /// Takes note of an attribute that was written from there on.
    #[inline(always)]
    fn end(&mut self, attribute: Attribute, from: u32) {
        self.places = self.places.with(attribute, from..self.position());
    }

    /// A value that may need escapes.
    #[inline(always)]
    fn text(&mut self, which: Own, value: &[u8]) -> Place {
        let from = self.position();
        if value.len() > MAX_SHORT_BYTES || !self.draft.extend_without(value, block::not_plain) {
            self.before += append(self.out, self.draft.text(), |out| json::escaped(out, value));
            self.draft.cut(0);
            if (self.position() - from) as usize != value.len() {
                self.own.push((which, String::from_utf8_lossy(value).into()));
            }
        }
        if let Own::Attribute(attribute) = which {
            self.end(attribute, from);
        }
        (from, self.position())
    }

    /// The last word of a topic.
    #[inline(always)]
    fn topic_word(&mut self, name: &[u8]) -> Place {
        let from = self.position();
        let fits = (1..=MAX_TOPIC_WORD_BYTES).contains(&name.len());
        if !fits || !self.draft.extend_without(name, block::not_word) {
            self.draft.extend(route::topic_word(name).as_bytes());
        }
        (from, self.position())
    }

    /// A part of an id.
    #[inline(always)]
    fn id_word(&mut self, word: &str) {
        let fits = word.len() <= MAX_SHORT_BYTES;
        if !fits || !self.draft.extend_without(word.as_bytes(), block::not_word) {
            let word = boot_word(word);
            self.before += append(self.out, self.draft.text(), |out| out.extend_from_slice(word.as_bytes()));
            self.draft.cut(0);
        }
    }
}

/// Appends what was written `before`, and what `more` appends; gives how many bytes that is.
#[cold]
#[inline(never)]
fn append(out: &mut Vec<u8>, before: &[u8], more: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(before);
    more(out);
    out.len() - start
}

/// A boot as it stands in ids.
pub fn boot_word(boot: &str) -> String {
    const SAFE: [bool; 256] = route::safe_bytes(b"-_.+");
    let word = |byte: u8| if SAFE[usize::from(byte)] { char::from(byte) } else { '-' };
    boot.bytes().map(word).collect()
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
    let mut reader = Reader { body, at: 0, places: Places::default(), own: Vec::new() };
    reader.attribute(br#"{"specversion":"1.0","id":""#, Attribute::Id)?;
    reader.attribute(br#","source":""#, Attribute::Source)?;
    let typed = reader.attribute(br#","type":""#, Attribute::Type)?;
    reader.optional(br#","subject":""#, Attribute::Subject)?;
    reader.attribute(br#","time":""#, Attribute::Time)?;
    reader.attribute(br#","datacontenttype":"application/json","sequence":""#, Attribute::Sequence)?;
    reader.literal(br#","partitionkey":""#).ok_or(ReadError::Layout)?;
    let key = reader.rest(Own::Key)?;
    reader.optional(br#","correlationid":""#, Attribute::Correlation)?;
    reader.literal(br#","data":"#).ok_or(ReadError::Layout)?;
    let Reader { places, own, .. } = reader;
    let is_escaped = own.iter().any(|(own, _)| *own == Own::Attribute(Attribute::Type));
    let (kind, name) = kind_and_name(body, typed).filter(|_| !is_escaped).ok_or(ReadError::Layout)?;
    Ok(Encoded { kind, places, name, key, own })
}

/// `ami.<kind>.<name>`, taken apart.
fn kind_and_name(body: &[u8], (start, end): Place) -> Option<(Kind, Place)> {
    let text = body.get(start as usize..end as usize)?.strip_prefix(b"ami.")?;
    let kind = Kind::ALL.into_iter().find(|kind| {
        text.strip_prefix(kind.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&b'.'))
    })?;
    let before = u32::try_from("ami.".len() + kind.as_str().len() + ".".len()).ok()?;
    Some((kind, (start + before, end)))
}

struct Reader<'b> {
    body: &'b [u8],
    at: usize,
    places: Places,
    own: Vec<(Own, Box<str>)>,
}

impl Reader<'_> {
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.body.get(self.at..)?.strip_prefix(text)?;
        self.at += text.len();
        Some(())
    }

    fn optional(&mut self, before: &[u8], attribute: Attribute) -> Result<Option<Place>, ReadError> {
        let Some(()) = self.literal(before) else { return Ok(None) };
        let (start, end) = self.rest(Own::Attribute(attribute))?;
        self.places = self.places.with(attribute, start..end);
        Ok(Some((start, end)))
    }

    fn attribute(&mut self, before: &[u8], attribute: Attribute) -> Result<Place, ReadError> {
        self.optional(before, attribute)?.ok_or(ReadError::Layout)
    }

    /// The rest of a string and its closing quote.
    fn rest(&mut self, which: Own) -> Result<Place, ReadError> {
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.body.get(self.at).ok_or(ReadError::Layout)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0..0x20 => return Err(ReadError::Layout),
                _ => self.at += 1,
            }
        }
        let end = self.at;
        self.at += 1;
        if escaped {
            let text =
                self.body.get(start - 1..=end).and_then(|text| serde_json::from_slice::<String>(text).ok());
            self.own.push((which, text.ok_or(ReadError::Layout)?.into()));
        }
        let place = |at| u32::try_from(at).map_err(|_| ReadError::TooLarge);
        Ok((place(start)?, place(end)?))
    }
}
