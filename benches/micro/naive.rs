//! What people write who need it today, and a plain zero-copy loop. Neither has types, keeps repeated headers, undoes
//! escapes, keeps what is not UTF-8, nor writes an envelope; both find the ends of messages as fast as can be.

use std::{borrow::Cow, collections::HashMap, error::Error, hint::black_box};

use memchr::memmem;
use serde::{Serialize, Serializer};

use crate::contenders::Contender;

const END: &[u8] = b"\r\n\r\n";

/// The messages of a recording without its banner; empty lines between them are no messages.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let banner = memmem::find(bytes, b"\r\n").map_or(0, |end| end + 2);
    let mut rest = bytes.get(banner..).unwrap_or_default();
    std::iter::from_fn(move || {
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        let (message, after) = rest.split_at_checked(memmem::find(rest, END)?)?;
        rest = after.get(END.len()..)?;
        Some(message)
    })
}

/// (a)
pub(crate) fn map_and_value(bytes: &[u8]) -> (u64, u64) {
    tally(messages(bytes).map(|message| black_box(one_map_and_value(message)).len()))
}

fn one_map_and_value(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let headers: HashMap<String, String> =
        headers(&text).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    serde_json::to_value(headers).unwrap_or_default().to_string()
}

/// (b)
pub(crate) fn zero_copy(bytes: &[u8]) -> (u64, u64) {
    let mut out = Vec::new();
    tally(messages(bytes).map(|message| {
        out.clear();
        one_zero_copy(message, &mut out);
        black_box(&out).len()
    }))
}

fn one_zero_copy(message: &[u8], out: &mut Vec<u8>) {
    let text = match std::str::from_utf8(message) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(message),
    };
    serde_json::to_writer(out, &Headers(&text)).expect("a buffer takes everything");
}

struct Headers<'t>(&'t str);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(headers(self.0))
    }
}

fn headers(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\r\n").filter_map(|line| line.split_once(": "))
}

fn tally(lengths: impl Iterator<Item = usize>) -> (u64, u64) {
    lengths.fold((0, 0), |(found, written), length| (found + 1, written + length as u64))
}

/// Whether all contenders find the same messages, and those that write JSON write JSON.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let expected = messages(bytes).count() as u64;
    for contender in Contender::ALL {
        let (found, _) = contender.run(bytes);
        if found != expected {
            return Err(format!("{}: {found} messages instead of {expected}", contender.name()).into());
        }
    }
    for message in messages(bytes) {
        let mut out = Vec::new();
        one_zero_copy(message, &mut out);
        serde_json::from_slice::<serde_json::Value>(&out)?;
        serde_json::from_str::<serde_json::Value>(&one_map_and_value(message))?;
    }
    let mut wrong = None;
    crate::ours::messages(bytes, |message| {
        wrong = serde_json::from_slice::<serde_json::Value>(&message.body).err().or(wrong.take());
    });
    wrong.map_or(Ok(()), |error| Err(error.into()))
}
