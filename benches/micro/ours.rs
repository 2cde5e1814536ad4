//! amibus's own way, by the same calls as the program makes.

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use amibus::{
    normalize::{Profile, timestamp_micros},
    writer::{Origin, Writer},
};
use amibus_ami::{Decoded, Decoder, Frame, Limits};
use amibus_contract::Message;

/// A log's identity is sixteen hex digits.
const LOG: &str = "0123456789abcdef";

pub(crate) fn decode(bytes: &[u8]) -> (u64, u64) {
    let mut found = 0;
    frames(bytes, |frame| {
        black_box(frame.kind());
        found += 1;
    });
    (found, 0)
}

pub(crate) fn event(bytes: &[u8]) -> (u64, u64) {
    let (mut found, mut written) = (0, 0);
    messages(bytes, |message| {
        found += 1;
        written += message.body.len() as u64;
        black_box(message);
    });
    (found, written)
}

pub(crate) fn data(bytes: &[u8]) -> (u64, u64) {
    let writer = writer();
    let (mut found, mut written) = (0, 0);
    frames(bytes, |frame| {
        found += 1;
        written += black_box(writer.data(frame)).len() as u64;
    });
    (found, written)
}

/// Every message of a recording, made ready for a bus.
pub(crate) fn messages(bytes: &[u8], mut take: impl FnMut(Message)) {
    let writer = writer();
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_220_000);
    let mut sequence = 0;
    frames(bytes, |frame| {
        sequence += 1;
        // As the program does, to tell what was missed.
        let given = black_box(timestamp_micros(&frame));
        take(writer.event(frame, sequence, &Origin { received, given, boot: None, number: None }));
    });
}

fn writer() -> Writer {
    let profile = Profile::new("pbx1", None).expect("a server's name");
    Writer::new(profile, "ami", LOG).expect("a topic")
}

fn frames(bytes: &[u8], mut take: impl FnMut(Frame<'_>)) {
    let mut decoder = Decoder::new(Limits::default());
    let mut unread = bytes;
    loop {
        let used = match decoder.decode(unread).expect("a recording is within the limits") {
            Decoded::Incomplete => return,
            Decoded::Banner { consumed, .. } => consumed,
            Decoded::Frame { frame, consumed } => {
                take(frame);
                consumed
            }
        };
        unread = unread.get(used..).unwrap_or_default();
    }
}
