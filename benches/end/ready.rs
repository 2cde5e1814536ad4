//! The messages as amibus would publish them, for the raw publisher: made before the clock runs.

use std::{
    io,
    time::{Duration, SystemTime},
};

use amibus::{
    normalize::Profile,
    writer::{Origin, Writer},
};
use amibus_ami::{Decoded, Decoder, Limits};
use amibus_contract::Message;

use crate::{buses::SERVER, traffic::Traffic};

const LOG: &str = "0123456789abcdef";

/// The messages of events 0 to `count`.
pub(crate) fn messages(recording: &str, prefix: &str, count: u64) -> io::Result<Vec<Message>> {
    let bytes = Traffic::of(recording)?.numbered(0, count);
    let profile = Profile::new(SERVER, None).map_err(io::Error::other)?;
    let writer = Writer::new(profile, prefix, LOG).map_err(io::Error::other)?;
    let origin = Origin {
        received: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        given: None,
        boot: None,
        number: None,
    };
    let mut decoder = Decoder::without_banner(Limits::default());
    let (mut messages, mut unread) = (Vec::new(), bytes.as_slice());
    while let Decoded::Frame { frame, consumed } = decoder.decode(unread).map_err(io::Error::other)? {
        messages.push(writer.event(frame, messages.len() as u64 + 1, &origin));
        unread = unread.get(consumed..).unwrap_or_default();
    }
    Ok(messages)
}
