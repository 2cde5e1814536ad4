//! Limits, old command output, and time that grows with the bytes and no faster.

use std::time::{Duration, Instant};

use amibus_ami::{Decoded, Decoder, Frame, FrameError, Kind, Limits, Separator};
use proptest::prelude::*;

use crate::stream::{read, read_whole, stream};

fn limits() -> Limits {
    Limits { frame_bytes: 40, frame_headers: 3, banner_bytes: 30, empty_lines: 2, ..Limits::default() }
}

fn error_of(bytes: &[u8]) -> Option<FrameError> {
    let whole = read(bytes, &[1 << 20], limits());
    let bytewise = read(bytes, &[1], limits());
    assert_eq!(whole, bytewise);
    whole.error
}

#[test]
fn a_message_may_be_as_long_as_the_limit_and_no_longer() {
    let fits = [b"Event: ".as_slice(), &[b'x'; 33], b"\r\n\r\n"].concat();
    assert_eq!(error_of(&stream(&fits)), None);
    let exceeds = [b"Event: ".as_slice(), &[b'x'; 34], b"\r\n\r\n"].concat();
    assert_eq!(error_of(&stream(&exceeds)), Some(FrameError::TooLarge { limit: 40 }));
    assert_eq!(error_of(&stream(&[b'x'; 100])), Some(FrameError::TooLarge { limit: 40 }));
}

#[test]
fn a_message_may_have_as_many_lines_as_the_limit_and_no_more() {
    assert_eq!(error_of(&stream(b"Event: A\r\nB: 1\r\nC: 2\r\n\r\n")), None);
    let exceeds = stream(b"Event: A\r\nB: 1\r\nC: 2\r\nD: 3\r\n\r\n");
    assert_eq!(error_of(&exceeds), Some(FrameError::TooManyHeaders { limit: 3 }));
}

#[test]
fn a_first_line_without_end_is_not_waited_for() {
    assert_eq!(error_of(&[b'x'; 31]), None);
    assert_eq!(error_of(&[b'x'; 32]), Some(FrameError::BannerTooLong { limit: 30 }));
}

#[test]
fn empty_lines_without_end_are_not_waited_for() {
    assert_eq!(error_of(&stream(b"\r\n\r\nEvent: A\r\n\r\n\r\n\r\n")), None);
    assert_eq!(error_of(&stream(b"\r\n\r\n\r\n")), Some(FrameError::TooManyEmptyLines { limit: 2 }));
}

/// The form of Asterisk 13: raw text, with empty lines and colons, closed by words.
const OLD_COMMAND: &[u8] = b"Asterisk Call Manager/2.10.6\r\n\
    Response: Follows\r\nPrivilege: Command\r\nActionID: a-1\r\n\
    Name: first\nActionID: in the text\r\n\r\n\nlast\n--END COMMAND--\r\n\r\n\
    Event: After\r\n\r\n";

#[test]
fn old_command_output_is_one_message() {
    let whole = read_whole(OLD_COMMAND);
    assert_eq!(read(OLD_COMMAND, &[1], Limits::default()), whole);
    let frames = whole.frames(OLD_COMMAND);
    assert_eq!(frames.len(), 2);
    assert_eq!((frames[0].kind(), frames[0].name()), (Kind::Response, b"Follows".as_slice()));
    assert_eq!(frames[0].first("actionid"), Some(b"a-1".as_slice()));
    assert_eq!(frames[0].headers().count(), 4);
    assert_eq!(frames[0].headers().last().unwrap().separator, Separator::None);
    let output: Vec<&[u8]> = frames[0].output().collect();
    assert_eq!(output, [b"Name: first".as_slice(), b"ActionID: in the text", b"", b"", b"last"]);
    assert!(frames[1].is_event("After"));
}

#[test]
fn old_command_output_may_be_empty() {
    let bytes =
        b"Asterisk Call Manager/1.3\r\nResponse: Follows\r\nPrivilege: Command\r\n--END COMMAND--\r\n\r\n";
    let frames = read_whole(bytes).frames(bytes);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].output().count(), 0);
}

#[test]
fn new_command_output_is_repeated_headers() {
    let frame = Frame::parse(
        b"Response: Success\r\nMessage: Command output follows\r\nOutput: a: b\r\nOutput: \r\noutput:   c",
    );
    let output: Vec<&[u8]> = frame.output().collect();
    assert_eq!(output, [b"a: b".as_slice(), b"", b"  c"]);
}

#[test]
fn a_new_server_cannot_be_made_to_hide_events_behind_the_old_form() {
    let bytes = stream(b"Event: A\r\nX: 1\r\n\r\nResponse: Follows\r\nForged: 1\r\n\r\nEvent: B\r\n\r\n");
    let read = read_whole(&bytes);
    assert_eq!(read.frames.len(), 3);
    assert!(read.frames(&bytes)[2].is_event("B"));
}

#[test]
fn a_banner_whose_version_cannot_be_read_is_not_an_old_one() {
    let forged = "Response: Follows\r\nForged: 1\r\n\r\nEvent: B\r\n\r\n";
    for banner in ["Asterisk Call Manager/x", "Asterisk Call Manager/", "Something else"] {
        let bytes = format!("{banner}\r\n{forged}").into_bytes();
        let read = read_whole(&bytes);
        assert!(read.frames(&bytes).last().unwrap().is_event("B"), "{banner}");
    }
}

#[test]
fn messages_behind_http_have_no_banner() {
    let mut decoder = Decoder::without_banner(Limits::default());
    let Ok(Decoded::Frame { frame, consumed }) = decoder.decode(b"\r\nResponse: Success\r\n\r\nrest") else {
        panic!("no message");
    };
    assert_eq!((frame.name(), consumed), (b"Success".as_slice(), 23));
}

/// Looking again from the front at each byte of this message would take 2 * 10^11 steps.
#[test]
fn a_message_that_comes_byte_by_byte_takes_linear_time() {
    let mut bytes = stream(b"Event: Long\r\nValue: ");
    bytes.resize(bytes.len() + 600_000, b'x');
    bytes.extend_from_slice(b"\r\n\r\n");
    let begun = Instant::now();
    assert_eq!(read(&bytes, &[1], Limits::default()).frames.len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"Event: A".to_vec()),
        Just(b"response:B".to_vec()),
        Just(b"Response: Follows\r\n".to_vec()),
        Just(b"--END COMMAND--".to_vec()),
        Just(b"Asterisk Call Manager/2.0\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_in_any_chunks_give_the_same(bytes in text(), sizes in prop::collection::vec(1..20usize, 1..8), small: bool) {
        let limits = if small { limits() } else { Limits::default() };
        let whole = read(&bytes, &[1 << 20], limits.clone());
        prop_assert_eq!(read(&bytes, &sizes, limits), whole);
    }

    #[test]
    fn any_message_is_rebuilt_from_its_headers(bytes in text()) {
        let frame = Frame::parse(&bytes);
        let lines: Vec<Vec<u8>> = frame.headers().map(|header| {
            let mut line = Vec::new();
            header.write_line(&mut line);
            line
        }).collect();
        prop_assert_eq!(lines.join(b"\r\n".as_slice()), bytes);
    }
}
