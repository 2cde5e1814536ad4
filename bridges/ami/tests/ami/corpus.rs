//! Every recording decodes to what was counted in it, whole and in any chunks.

use std::collections::BTreeMap;

use amibus_ami::{Kind, Limits, Separator};
use amibus_services::corpus::{Recording, corpus_names, recording};
use proptest::prelude::*;

use crate::stream::{read, read_whole};

/// The only recording that is not a stream of AMI messages: raw HTTP, for a later transport.
const HTTP: &str = "http-rawman-22";
/// Above this, a recording is not cut into single bytes, and not often into random ones.
const SMALL_BYTES: usize = 100_000;

fn recordings() -> Vec<Recording> {
    let recordings: Vec<Recording> = corpus_names().iter().map(|name| recording(name)).collect();
    let (streams, others): (Vec<_>, Vec<_>) = recordings.into_iter().partition(|r| r.notes.is_ami());
    assert_eq!(others.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), [HTTP]);
    assert!(streams.len() >= 28, "only {} streams", streams.len());
    streams
}

#[test]
fn each_recording_holds_what_was_counted() {
    for recording in recordings() {
        let (name, notes) = (&recording.name, &recording.notes);
        let read = read_whole(&recording.s2c);
        assert_eq!(read.error, None, "{name}");
        assert_eq!(read.banner.as_deref(), Some(notes.text("banner").as_bytes()), "{name}");
        let mut responses = BTreeMap::<String, u64>::new();
        let mut events = BTreeMap::<String, u64>::new();
        let (mut other, mut lines, mut bare, mut not_text, mut largest) = (0, 0, 0, 0, 0);
        for frame in read.frames(&recording.s2c) {
            let tally = match frame.kind() {
                Kind::Response => Some(&mut responses),
                Kind::Event => Some(&mut events),
                Kind::Other => None,
            };
            match tally {
                Some(tally) => *tally.entry(String::from_utf8_lossy(frame.name()).into()).or_default() += 1,
                None => other += 1,
            }
            lines += frame.headers().count() as u64;
            bare += frame.headers().filter(|header| header.separator == Separator::None).count() as u64;
            not_text += u64::from(std::str::from_utf8(frame.raw()).is_err());
            // The notes count the empty line that ends a message, with the line end before it.
            largest = largest.max(frame.raw().len() as u64 + 4);
        }
        assert_eq!(responses, notes.tally("responses"), "{name}");
        assert_eq!(events, notes.tally("events"), "{name}");
        let counted = [
            ("messages", read.frames.len() as u64),
            ("Response", responses.values().sum()),
            ("Event", events.values().sum()),
            ("Other", other),
            ("header_lines", lines),
            ("empty_lines_between_messages", read.empty_lines),
            ("largest_message", largest),
            ("messages_not_utf8", not_text),
            ("lines_without_colon", bare),
            ("tail_after_last_message", read.tail.len() as u64),
        ];
        for (key, count) in counted {
            assert_eq!(Some(count), notes.number(key), "{name}: {key}");
        }
    }
}

#[test]
fn each_message_is_rebuilt_from_its_headers_to_the_byte() {
    for recording in recordings() {
        for frame in read_whole(&recording.s2c).frames(&recording.s2c) {
            let mut rebuilt = Vec::new();
            for (line, header) in frame.headers().enumerate() {
                rebuilt.extend_from_slice(if line > 0 { b"\r\n" } else { b"" });
                header.write_line(&mut rebuilt);
            }
            assert_eq!(rebuilt, frame.raw(), "{}", recording.name);
        }
    }
}

#[test]
fn single_bytes_give_the_same_messages() {
    for recording in recordings().iter().filter(|r| r.s2c.len() <= SMALL_BYTES) {
        let bytewise = read(&recording.s2c, &[1], Limits::default());
        assert_eq!(bytewise, read_whole(&recording.s2c), "{}", recording.name);
    }
}

#[test]
fn the_reads_that_were_recorded_give_the_same_messages() {
    for recording in recordings() {
        let sizes: Vec<usize> =
            recording.chunks.iter().filter(|chunk| chunk.from_server).map(|chunk| chunk.len).collect();
        let as_read = read(&recording.s2c, &sizes, Limits::default());
        assert_eq!(as_read, read_whole(&recording.s2c), "{}", recording.name);
    }
}

#[test]
fn random_chunks_give_the_same_messages() {
    let recordings = recordings();
    let whole: Vec<_> = recordings.iter().map(|recording| read_whole(&recording.s2c)).collect();
    let small: Vec<usize> =
        (0..recordings.len()).filter(|i| recordings[*i].s2c.len() <= SMALL_BYTES).collect();
    let sizes = || prop::collection::vec(prop_oneof![1..8usize, 8..2_000usize, 2_000..70_000usize], 1..20);
    let check = |which: usize, sizes: &[usize]| {
        let chunked = read(&recordings[which].s2c, sizes, Limits::default());
        prop_assert!(chunked == whole[which], "{} in chunks of {sizes:?}", recordings[which].name);
        Ok(())
    };
    proptest!(ProptestConfig::with_cases(300), |(which in prop::sample::select(small.clone()), sizes in sizes())| {
        check(which, &sizes)?;
    });
    // Chunks of a kilobyte on average, so that no message is looked at too often.
    let large = || prop::collection::vec(1_000..70_000usize, 1..20);
    proptest!(ProptestConfig::with_cases(20), |(which in 0..recordings.len(), sizes in large())| {
        check(which, &sizes)?;
    });
}
