//! How one server's messages are written: its profile, its log's identity, and the prefix of all topics.

use std::time::SystemTime;

use amibus_ami::Frame;
use amibus_contract::{Bytes, Message, TopicError, Topics};

use crate::normalize::{self, Encoded, Notice, Profile, Stamp};

/// What an event's body is expected to need beside the bytes of its frame.
const ENVELOPE_BYTES: usize = 512;

/// Writes the messages of one server.
#[derive(Clone, Debug)]
pub struct Writer {
    profile: Profile,
    topics: Topics,
    log: String,
    origin: String,
}

/// What an event is stamped with beside its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// When it was read.
    pub received: SystemTime,
    /// The moment that Asterisk gave it, in microseconds since 1970, where it is known by now.
    pub given: Option<u64>,
    /// Which life of Asterisk it comes from, where that is known.
    pub boot: Option<&'a str>,
    /// Asterisk's number for it, where an id may be made of it.
    pub number: Option<u32>,
}

impl Writer {
    /// `log` is the identity of the server's log, which no other log has.
    ///
    /// # Errors
    /// When the prefix cannot begin a topic.
    pub fn new(profile: Profile, prefix: &str, log: &str) -> Result<Self, TopicError> {
        let topics = Topics::new(prefix, profile.server())?;
        let (log, origin) = (log.to_owned(), log.to_owned());
        Ok(Self { profile, topics, log, origin })
    }

    /// With the identity that the log began with, which a damaged log keeps: losses are told under it.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        origin.clone_into(&mut self.origin);
        self
    }

    /// The server's configured name.
    pub fn server(&self) -> &str {
        self.profile.server()
    }

    /// An event, or what was torn off one.
    pub fn event(&self, frame: Frame<'_>, sequence: u64, origin: &Origin<'_>) -> Message {
        let stamp = Stamp {
            sequence,
            received: origin.received,
            given: origin.given,
            boot: origin.boot,
            number: origin.number,
            log: &self.log,
        };
        let mut body = Vec::new();
        let encoded = normalize::event(&self.profile, frame, &stamp, &mut body);
        self.message(&encoded, body)
    }

    /// What amibus itself has to say, at its place in the log.
    pub fn notice(&self, notice: &Notice<'_>, sequence: u64, at: SystemTime) -> Message {
        self.notice_of(&self.log, notice, sequence, at)
    }

    /// What amibus has to say of a `loss`, which with `sequence` makes it another message than any other.
    pub fn notice_of_loss(&self, loss: &str, notice: &Notice<'_>, sequence: u64, at: SystemTime) -> Message {
        self.notice_of(&format!("{}-{loss}", self.origin), notice, sequence, at)
    }

    /// What amibus has to say to one who asked, at no place in the log; no other message has the same `name`.
    pub fn notice_aside(&self, name: &str, notice: &Notice<'_>, at: SystemTime) -> Message {
        self.notice_of(&format!("{}-{name}", self.log), notice, 0, at)
    }

    /// The message of a body that was written before; `None` where it was not written by amibus.
    pub fn read(&self, body: impl Into<Bytes>) -> Option<Message> {
        let body = body.into();
        let encoded = normalize::read(&body).ok()?;
        encoded.message_in(&self.topics, body).ok()
    }

    /// The `data` of a message alone.
    pub fn data(&self, frame: Frame<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(frame.raw().len() * 2);
        normalize::data(&self.profile, frame, &mut out);
        out
    }

    fn notice_of(&self, log: &str, notice: &Notice<'_>, sequence: u64, at: SystemTime) -> Message {
        let stamp = Stamp { sequence, received: at, given: None, boot: None, number: None, log };
        let mut body = Vec::with_capacity(notice.data.len() + ENVELOPE_BYTES);
        let encoded = normalize::envelope(&self.profile, notice, &stamp, &mut body);
        self.message(&encoded, body)
    }

    // Inline, as what it calls: a message is not copied on its way out then.
    #[inline(always)]
    fn message(&self, encoded: &Encoded, body: Vec<u8>) -> Message {
        let message = encoded.message_in(&self.topics, body.into());
        message.expect("prefix and server were checked when the writer was made")
    }
}
