//! AMI message to JSON and back. Pure: no clock, no file, no socket.
//!
//! [`event`] writes one message as a CloudEvent into the caller's buffer, without allocating for each header: the usual
//! message in one pass ([`pass`]), any other by what can write them all ([`lines`], [`data`](mod@data)), both the same
//! bytes. Its `data` holds Asterisk's own header names, and:
//!
//! - a number where the field is by nature a number and the digits are canonical ([`fields`]), else a string;
//! - an array for a header that repeats, and for the words of `Privilege`;
//! - an object for channel variables (`ChanVariable` with any prefix, `Variable` of `Status`,
//!   `ChanVariable(Channel)` of `OriginateResponse`);
//! - text without the C escapes or the URL encoding that Asterisk put around it ([`value`]).
//!
//! **Lossless**: [`restore`] rebuilds every line byte for byte. What would not be rebuilt from its converted form stays
//! readable and has its exact bytes beside it. Keys that begin with one `$` are ours:
//!
//! | key | when | what |
//! |---|---|---|
//! | `$bytes` | not UTF-8, or not escaped as Asterisk does | by header, the values in base64; an array where the header repeats |
//! | `$lines` | no colon, a name that is not UTF-8, or all lines of a message that begins with neither `Event` nor `Response` | whole lines, in order |
//! | `$order` | a header repeats with others between, or lacks the blank after its colon | the key of each line; `Name:` for `Name:value` |
//!
//! A header whose own name begins with `$` gets one more in front.

pub(crate) mod block;
mod clock;
mod data;
mod draft;
mod envelope;
pub(crate) mod fields;
mod json;
mod lines;
mod number;
mod pass;
pub mod restore;
mod table;
mod value;

use std::{cell::RefCell, time::SystemTime};

use amibus_ami::Frame;
use amibus_contract::{Kind, TopicError, message};
use encoding_rs::Encoding;

pub use envelope::{Encoded, ReadError, SEQUENCE_DIGITS, boot_word, read};
pub use number::{MAX_JUMP, Numbers, REORDER_WINDOW, micros, numbered_id, sequence_number, timestamp_micros};
pub use restore::{RestoreError, restore};

use crate::route::{self, CallIds};
use envelope::{Head, Tools};
use lines::Lines;
use pass::Memo;

/// What is the same for all messages of one server. Built once.
#[derive(Clone, Debug)]
pub struct Profile {
    server: String,
    /// The `source` of its messages.
    source: String,
    charset: &'static Encoding,
}

/// Why a profile could not be built. Nothing mends it but another configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not a server's name.
    #[error(transparent)]
    Server(#[from] TopicError),
    /// Not a charset of the WHATWG encoding standard.
    #[error("unknown charset {0:?}; known are e.g. windows-1252, iso-8859-15, koi8-r, shift_jis, gbk")]
    Charset(String),
}

impl Profile {
    /// `charset` is what text that is not UTF-8 is decoded by; without one, its bad bytes are replaced.
    ///
    /// # Errors
    /// When the server's name cannot be in a topic, or nobody knows the charset.
    pub fn new(server: &str, charset: Option<&str>) -> Result<Self, ProfileError> {
        message::check_server(server)?;
        let charset = match charset {
            None => encoding_rs::UTF_8,
            Some(label) => Encoding::for_label_no_replacement(label.as_bytes())
                .ok_or_else(|| ProfileError::Charset(label.to_owned()))?,
        };
        Ok(Self { server: server.to_owned(), source: format!("{}{server}", envelope::SOURCE), charset })
    }

    /// The server's configured name.
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// What makes one record of the log this one.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Its position in the server's log.
    pub sequence: u64,
    /// When it was read.
    pub received: SystemTime,
    /// What [`timestamp_micros`] says of it, where it was asked before; else it is asked when the event is written.
    pub given: Option<u64>,
    /// Which life of Asterisk it comes from, where that is known.
    pub boot: Option<&'a str>,
    /// Asterisk's SequenceNumber, if [`Numbers::lend`] granted it. With `boot` it makes the id.
    pub number: Option<u32>,
    /// The log's own identity, never used by another log.
    pub log: &'a str,
}

/// What amibus itself has to say: a link state, a response.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// What it is.
    pub kind: Kind,
    /// The last word of its topic and type: a state, an action.
    pub name: &'a str,
    /// What it is about, if that is a call.
    pub subject: Option<&'a str>,
    /// The call key, `None` for the server's.
    pub key: Option<&'a str>,
    /// Of a response, its command's id.
    pub correlation: Option<&'a str>,
    /// Its `data`: one JSON value.
    pub data: &'a [u8],
}

thread_local! {
    /// Nothing of a message is in what the next one becomes.
    static MEMO: RefCell<(Memo, Tools)> = RefCell::new((Memo::new(), Tools::new()));
}

/// Appends a message as a CloudEvent of type `ami.event.<Event>`; what is no event is called
/// [`route::UNPARSED`].
pub fn event(profile: &Profile, frame: Frame<'_>, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Encoded {
    MEMO.with_borrow_mut(|(memo, tools)| match memo.read(frame, profile.charset) {
        Some((ids, data)) => {
            envelope::write(profile, &head(frame, &ids, stamp), stamp, tools, out, data.len(), |out| {
                out.extend_from_slice(data)
            })
        }
        None => {
            let lines = Lines::of(frame);
            let expected = 2 * frame.raw().len();
            let data = |out: &mut Vec<u8>| data::write(&lines, profile.charset, out);
            envelope::write(profile, &head(frame, &lines.ids, stamp), stamp, tools, out, expected, data)
        }
    })
}

fn head<'b>(frame: Frame<'b>, ids: &CallIds<'b>, stamp: &Stamp<'_>) -> Head<'b> {
    Head {
        kind: Kind::Event,
        name: route::name(&frame),
        subject: ids.subject_bytes(),
        key: ids.key_bytes(),
        correlation: None,
        number: stamp.number,
        micros: stamp
            .given
            .or_else(|| timestamp_micros(&frame))
            .unwrap_or_else(|| envelope::micros(stamp.received)),
    }
}

/// Appends the `data` of a message alone: an item of a list, a response.
pub fn data(profile: &Profile, frame: Frame<'_>, out: &mut Vec<u8>) {
    MEMO.with_borrow_mut(|(memo, _)| match memo.read(frame, profile.charset) {
        Some((_, data)) => out.extend_from_slice(data),
        None => data::write(&Lines::of(frame), profile.charset, out),
    });
}

/// Appends what amibus itself has to say as a CloudEvent. Its id is always the log's.
pub fn envelope(profile: &Profile, notice: &Notice<'_>, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Encoded {
    let head = Head {
        kind: notice.kind,
        name: notice.name.as_bytes(),
        subject: notice.subject.map(str::as_bytes),
        key: notice.key.map(str::as_bytes),
        correlation: notice.correlation.map(str::as_bytes),
        number: None,
        micros: envelope::micros(stamp.received),
    };
    let data = |out: &mut Vec<u8>| out.extend_from_slice(notice.data);
    MEMO.with_borrow_mut(|(_, tools)| {
        envelope::write(profile, &head, stamp, tools, out, notice.data.len(), data)
    })
}

/// Whether the table of field names has that one, as a number or as text.
pub fn is_known_field(name: &str) -> bool {
    fields::is_known(name.as_bytes())
}
