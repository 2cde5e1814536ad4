//! Any way of cutting the bytes gives the same messages, and every message is rebuilt from its headers.
//!
//! Input: one byte of flags, two bytes that seed the sizes of the chunks, then what the server sends.

use amibus_ami::{Decoded, Decoder, Frame, FrameError, Limits, Tail};

pub(crate) fn run(data: &[u8]) {
    let [flags, high, low, bytes @ ..] = data else { return };
    let limits = match flags & 1 {
        0 => Limits::default(),
        _ => Limits {
            frame_bytes: 64,
            frame_headers: 4,
            banner_bytes: 40,
            empty_lines: 3,
            ..Limits::default()
        },
    };
    let banner = flags & 2 == 0;
    let whole = read(bytes, &limits, banner, |_| usize::MAX);
    let seed = u32::from(u16::from_be_bytes([*high, *low]));
    let chunked = read(bytes, &limits, banner, |count| {
        let mixed = (seed + count + 1).wrapping_mul(0x9E37_79B1) >> 13;
        1 + mixed as usize % 40
    });
    assert_eq!(whole, chunked);
}

#[derive(Debug, PartialEq)]
struct Read<'b> {
    messages: Vec<&'b [u8]>,
    empty_lines: u64,
    end: Result<Tail<'b>, FrameError>,
}

fn read<'b>(bytes: &'b [u8], limits: &Limits, banner: bool, size: impl Fn(u32) -> usize) -> Read<'b> {
    let new = if banner { Decoder::new } else { Decoder::without_banner };
    let mut decoder = new(limits.clone());
    let mut messages = Vec::new();
    let (mut unread, mut arrived, mut reads) = (0, 0, 0);
    let end = loop {
        match decoder.decode(&bytes[unread..arrived]) {
            Ok(Decoded::Banner { line, consumed }) => {
                assert!(
                    messages.is_empty() && line.len() + 2 == consumed && line.len() <= limits.banner_bytes
                );
                messages.push(line);
                unread += consumed;
            }
            Ok(Decoded::Frame { frame, consumed }) => {
                check(&frame, limits);
                assert!(consumed >= frame.raw().len() + 4);
                messages.push(frame.raw());
                unread += consumed;
            }
            Ok(Decoded::Incomplete) if arrived == bytes.len() => break Ok(decoder.finish(&bytes[unread..])),
            Ok(Decoded::Incomplete) => {
                arrived = arrived.saturating_add(size(reads)).min(bytes.len());
                reads += 1;
            }
            Err(error) => {
                assert_eq!(decoder.decode(&bytes[unread..arrived]), Err(error));
                break Err(error);
            }
        }
        assert!(unread <= arrived);
    };
    // How many empty lines were passed over before an error depends on what had arrived.
    let empty_lines = if end.is_ok() { decoder.empty_lines() } else { 0 };
    Read { messages, empty_lines, end }
}

fn check(frame: &Frame<'_>, limits: &Limits) {
    assert!(!frame.raw().is_empty() && frame.raw().len() <= limits.frame_bytes);
    let mut rebuilt = Vec::new();
    for (line, header) in frame.headers().enumerate() {
        assert!(line < limits.frame_headers);
        rebuilt.extend_from_slice(if line > 0 { b"\r\n" } else { b"" });
        header.write_line(&mut rebuilt);
    }
    assert_eq!(rebuilt, frame.raw());
    assert_eq!(frame.to_owned().frame(), *frame);
    frame.output().for_each(drop);
}
