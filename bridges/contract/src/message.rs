//! What is published: an encoded body, and the words that a bus shows beside it.

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Attributes, Shown};

/// The longest server name, action or event name in a topic, in bytes.
pub const MAX_TOPIC_WORD_BYTES: usize = 128;
/// The longest prefix of all topics, in bytes.
pub const MAX_PREFIX_BYTES: usize = 64;

/// The second word of a topic: what a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `event`: one AMI event.
    Event,
    /// `link`: the state of amibus's view of a server.
    Link,
    /// `call`: derived call lifecycle.
    Call,
    /// `command`: a command to carry out.
    Command,
    /// `response`: the terminal outcome of a command.
    Response,
}

impl Kind {
    /// Every kind, in the contract's order.
    pub const ALL: [Self; 5] = [Self::Event, Self::Link, Self::Call, Self::Command, Self::Response];

    /// The word in the topic.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Link => "link",
            Self::Call => "call",
            Self::Command => "command",
            Self::Response => "response",
        }
    }
}

/// Why a topic could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The prefix is empty, too long, or has other characters than `[A-Za-z0-9_-]` between single dots.
    #[error("a topic prefix is 1 to {MAX_PREFIX_BYTES} of [A-Za-z0-9_-], words joined by dots; got {0:?}")]
    Prefix(String),
    /// The server's name does not have the form `[a-z0-9][a-z0-9-]*`.
    #[error("a server's name is [a-z0-9][a-z0-9-]*, at most {MAX_TOPIC_WORD_BYTES} bytes; got {0:?}")]
    Server(String),
}

/// A topic, `<prefix>.<kind>.<server>.<name>`, e.g. `ami.event.pbx1.Hangup`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    text: ByteString,
    kind: Kind,
    prefix_bytes: u16,
    server_bytes: u16,
}

impl Topic {
    /// Builds a topic. Characters of `name` that a bus could misread (anything but `[A-Za-z0-9_-]`) become `_`,
    /// and a name over [`MAX_TOPIC_WORD_BYTES`] is cut there: an event's name comes from the wire.
    ///
    /// # Errors
    /// When the prefix or the server's name does not have the form that the contract gives.
    pub fn new(prefix: &str, kind: Kind, server: &str, name: &str) -> Result<Self, TopicError> {
        check_prefix(prefix)?;
        check_server(server)?;
        Ok(Self::of_checked(prefix, kind, server, name.as_bytes()))
    }

    fn of_checked(prefix: &str, kind: Kind, server: &str, name: &[u8]) -> Self {
        Self::behind(&begin(prefix, kind, server), prefix, kind, server, name)
    }

    /// The topic that begins so, which ends in a dot.
    fn behind(begin: &str, prefix: &str, kind: Kind, server: &str, name: &[u8]) -> Self {
        let mut text = Vec::with_capacity(begin.len() + name.len().clamp(1, MAX_TOPIC_WORD_BYTES));
        text.extend_from_slice(begin.as_bytes());
        let fits = (1..=MAX_TOPIC_WORD_BYTES).contains(&name.len());
        // Without a branch for each byte.
        match fits && name.iter().fold(true, |safe, byte| safe & is_safe(*byte)) {
            true => text.extend_from_slice(name),
            false if name.is_empty() => text.push(b'_'),
            false => {
                let word = |c: char| u8::try_from(c).ok().filter(|byte| is_safe(*byte)).unwrap_or(b'_');
                text.extend(String::from_utf8_lossy(name).chars().take(MAX_TOPIC_WORD_BYTES).map(word));
            }
        }
        Self {
            prefix_bytes: u16::try_from(prefix.len()).unwrap_or(u16::MAX),
            server_bytes: u16::try_from(server.len()).unwrap_or(u16::MAX),
            // All of it is ASCII.
            text: ByteString::try_from(Bytes::from(text)).unwrap_or_default(),
            kind,
        }
    }

    /// The whole topic.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole topic, sharing its memory.
    pub fn text(&self) -> ByteString {
        self.text.clone()
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The words before the kind, `ami` unless configured otherwise.
    pub fn prefix(&self) -> &str {
        self.text.get(..usize::from(self.prefix_bytes)).unwrap_or_default()
    }

    /// Prefix and kind, e.g. `ami.event`: the topic's name where a bus has few topics (Kafka).
    pub fn class(&self) -> &str {
        let end = usize::from(self.prefix_bytes) + 1 + self.kind.as_str().len();
        self.text.get(..end).unwrap_or_default()
    }

    /// The server's configured name.
    pub fn server(&self) -> &str {
        let start = self.class().len() + 1;
        self.text.get(start..start + usize::from(self.server_bytes)).unwrap_or_default()
    }

    /// The last word: the event's or action's name, or the link's state.
    pub fn name(&self) -> &str {
        let start = self.class().len() + 1 + usize::from(self.server_bytes) + 1;
        self.text.get(start..).unwrap_or_default()
    }
}

/// Everything before the last word.
fn begin(prefix: &str, kind: Kind, server: &str) -> String {
    [prefix, ".", kind.as_str(), ".", server, "."].concat()
}

/// Whether that byte stands in a topic's last word as it is.
fn is_safe(byte: u8) -> bool {
    const SAFE: [bool; 256] = {
        let mut safe = [false; 256];
        let mut byte = 0;
        while byte < safe.len() {
            safe[byte] =
                (byte as u8).is_ascii_alphanumeric() || byte == b'_' as usize || byte == b'-' as usize;
            byte += 1;
        }
        safe
    };
    SAFE[usize::from(byte)]
}

/// What all topics of one server have in common, checked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
    server: String,
    /// How the topics of its events begin.
    events: String,
}

impl Topics {
    /// The topics of `server` under `prefix`.
    ///
    /// # Errors
    /// As for [`Topic::new`].
    pub fn new(prefix: &str, server: &str) -> Result<Self, TopicError> {
        check_prefix(prefix)?;
        check_server(server)?;
        let events = begin(prefix, Kind::Event, server);
        Ok(Self { prefix: prefix.to_owned(), server: server.to_owned(), events })
    }

    /// The server's name.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// One of them, as [`Topic::new`] builds it. What is not UTF-8 in `name` becomes `_` too.
    pub fn topic(&self, kind: Kind, name: &[u8]) -> Topic {
        match kind {
            Kind::Event => Topic::behind(&self.events, &self.prefix, kind, &self.server, name),
            _ => Topic::of_checked(&self.prefix, kind, &self.server, name),
        }
    }

    /// One of another server.
    ///
    /// # Errors
    /// When that server's name does not have the form that the contract gives.
    pub fn topic_of(&self, server: &str, kind: Kind, name: &[u8]) -> Result<Topic, TopicError> {
        if server == self.server {
            return Ok(self.topic(kind, name));
        }
        check_server(server)?;
        Ok(Topic::of_checked(&self.prefix, kind, server, name))
    }
}

/// Whether `prefix` may begin a topic.
///
/// # Errors
/// [`TopicError::Prefix`] when not.
pub fn check_prefix(prefix: &str) -> Result<(), TopicError> {
    let word =
        |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if prefix.len() <= MAX_PREFIX_BYTES && prefix.split('.').all(word) {
        Ok(())
    } else {
        Err(TopicError::Prefix(prefix.to_owned()))
    }
}

/// Whether `server` is a server's name as the contract has it.
///
/// # Errors
/// [`TopicError::Server`] when not.
pub fn check_server(server: &str) -> Result<(), TopicError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = server.bytes();
    let first = bytes.next().is_some_and(plain);
    if first && server.len() <= MAX_TOPIC_WORD_BYTES && bytes.all(|b| plain(b) || b == b'-') {
        Ok(())
    } else {
        Err(TopicError::Server(server.to_owned()))
    }
}

/// One message, encoded and ready: cloning shares its memory. Two are equal if key and attributes stand in the same way too, within
/// the body or by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: Topic,
    /// The call key: order is kept among messages of one key.
    pub key: CallKey,
    /// What a bus shows as headers; [`Message::attributes`] reads them.
    pub attributes: Attributes,
    /// The CloudEvent in structured JSON. Key and attributes may be places in it: another body needs others.
    pub body: Bytes,
}

/// Where a message's call key is. [`Message::key`] gives the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallKey {
    /// It stands in the body, from the one byte to before the other. This counts no reference to the body.
    Within(u32, u32),
    /// A text of its own.
    Own(ByteString),
}

impl<T: Into<ByteString>> From<T> for CallKey {
    fn from(text: T) -> Self {
        Self::Own(text.into())
    }
}

impl Message {
    /// What a bus shows as headers.
    pub fn attributes(&self) -> Shown<'_> {
        self.attributes.shown(&self.body)
    }

    /// The call key; a place that is not UTF-8 within the body is none.
    pub fn key(&self) -> &str {
        match &self.key {
            CallKey::Own(text) => text,
            CallKey::Within(start, end) => {
                let text = self.body.get(*start as usize..*end as usize).unwrap_or_default();
                std::str::from_utf8(text).unwrap_or_default()
            }
        }
    }

    /// The same, sharing the memory of the body where it can.
    pub fn shared_key(&self) -> ByteString {
        match &self.key {
            CallKey::Own(text) => text.clone(),
            CallKey::Within(..) => {
                ByteString::try_from(self.body.slice_ref(self.key().as_bytes())).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_gives_back_its_words() {
        let topic = Topic::new("my.ami", Kind::Event, "pbx-1", "Hangup").expect("valid");
        assert_eq!(topic.as_str(), "my.ami.event.pbx-1.Hangup");
        assert_eq!(
            (topic.prefix(), topic.class(), topic.server(), topic.name()),
            ("my.ami", "my.ami.event", "pbx-1", "Hangup")
        );
    }

    #[test]
    fn a_name_from_the_wire_cannot_break_a_topic() {
        for (name, expected) in [("a.b*>", "a_b__"), ("", "_"), ("Ünï x", "_n__x"), ("AOC-D", "AOC-D")] {
            let topic = Topic::new("ami", Kind::Event, "pbx1", name).expect("valid");
            assert_eq!(topic.name(), expected);
        }
        let long = Topic::new("ami", Kind::Event, "pbx1", &"x".repeat(5000)).expect("valid");
        assert_eq!(long.name().len(), MAX_TOPIC_WORD_BYTES);
    }

    #[test]
    fn prefixes_and_servers_are_checked() {
        for bad in ["", ".ami", "ami.", "a..b", "a b", "a*"] {
            assert!(check_prefix(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "ü"] {
            assert!(check_server(bad).is_err(), "{bad:?}");
        }
        assert!(check_prefix("a.b-c_D").is_ok() && check_server("0pbx-1").is_ok());
    }

    #[test]
    fn a_key_is_found_in_its_body() {
        let topic = Topic::new("ami", Kind::Event, "pbx1", "Hangup").expect("valid");
        let body = Bytes::from_static(b"{\"k\":\"1.1\xFF\"}");
        let message = |key: CallKey| {
            let attributes = Attributes::default();
            Message { topic: topic.clone(), key, attributes, body: body.clone() }
        };
        for (key, text) in [
            (CallKey::Within(6, 9), "1.1"),
            (CallKey::Within(6, 10), ""),
            (CallKey::Within(6, 99), ""),
            (CallKey::Within(9, 6), ""),
            (CallKey::from("1.2"), "1.2"),
        ] {
            let message = message(key);
            assert_eq!((message.key(), &*message.shared_key()), (text, text));
        }
    }
}
