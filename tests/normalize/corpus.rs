//! Every message of every recording.

use amibus::normalize::{Profile, data, restore};
use amibus_ami::{Decoded, Decoder, Frame, Kind, Limits};
use amibus_services::corpus::{corpus_names, recording};
use serde_json::Value;

use super::{check, encode};

/// Calls `each` with every message of the recordings, and says how many there were.
pub(super) fn every_message(mut each: impl FnMut(&str, Frame<'_>)) -> usize {
    let mut count = 0;
    for name in corpus_names() {
        let recording = recording(&name);
        let ami = recording.notes.is_ami();
        let mut decoder = match ami {
            true => Decoder::new(Limits::default()),
            false => Decoder::without_banner(Limits::default()),
        };
        let mut rest = &recording.s2c[..];
        loop {
            match decoder.decode(rest).unwrap_or_else(|error| panic!("{name}: {error}")) {
                Decoded::Banner { consumed, .. } => rest = &rest[consumed..],
                Decoded::Frame { frame, consumed } => {
                    each(&name, frame);
                    count += 1;
                    rest = &rest[consumed..];
                }
                Decoded::Incomplete => break,
            }
        }
    }
    count
}

#[test]
fn every_recorded_message_is_rebuilt() {
    let count = every_message(|name, frame| {
        if let Err(wrong) = check(frame.raw()) {
            panic!("{name}: {wrong}");
        }
    });
    assert!(count > 20_000, "only {count} messages");
}

#[test]
fn bytes_stand_beside_what_is_not_utf8_and_nothing_else() {
    let mut inexact = 0;
    every_message(|name, frame| {
        let (_, body) = encode(frame.raw());
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let beside = body["data"].get("$bytes").is_some();
        inexact += usize::from(beside);
        let utf8 = std::str::from_utf8(frame.raw()).is_ok();
        assert_eq!(beside, !utf8, "{name}: {body}");
    });
    assert!(inexact > 2, "the recordings hold messages that are not UTF-8");
}

#[test]
fn another_charset_shows_other_text_and_rebuilds_the_same() {
    let latin = Profile::new("pbx1", Some("windows-1252")).expect("a known charset");
    let mut shown = Vec::new();
    every_message(|_, frame| {
        if frame.kind() == Kind::Event && std::str::from_utf8(frame.raw()).is_err() {
            let mut out = Vec::new();
            data(&latin, frame, &mut out);
            let lines = restore::restore_json(&out).expect("ours");
            assert_eq!(restore::message(&lines), frame.raw());
            shown.push(String::from_utf8(out).expect("UTF-8"));
        }
    });
    assert!(shown.iter().any(|data| data.contains("Latin1: été")), "{shown:?}");
}
