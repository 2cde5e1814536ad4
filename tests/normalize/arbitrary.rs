//! Messages that nobody sent yet.

use proptest::{collection::vec, prelude::*};

use super::check;

const NAMES: &[&str] = &[
    "Event",
    "event",
    "Response",
    "Privilege",
    "ActionID",
    "Channel",
    "CallerIDName",
    "ConnectedLineName",
    "ChanVariable",
    "DestChanVariable",
    "Variable",
    "Value",
    "UserEvent",
    "Env",
    "Result",
    "Cause",
    "State",
    "Priority",
    "Subtype",
    "$bytes",
    "$order",
    "$lines",
    "$",
    "$$bytes",
    "",
    "X",
    "x",
    "ChanVariable(PJSIP/1;2)",
    "ChanVariable(",
    "Uniqueid",
    "Linkedid",
    "Timestamp",
    "SequenceNumber",
    "\u{fc}ber",
    "a \"quoted\" name",
    "Output",
];
const EVENTS: &[&str] = &[
    "Hangup",
    "VarSet",
    "Status",
    "OriginateResponse",
    "AsyncAGIStart",
    "AsyncAGIExec",
    "UserEvent",
    "PresenceStateChange",
    "QueueEntry",
    "\u{fc}",
    "",
];
const VALUES: &[&str] = &[
    "",
    "0",
    "007",
    "+5",
    "-0",
    "16",
    "1.50",
    "9007199254740993",
    "call,all",
    ",",
    "a=b",
    "a=",
    "=b",
    "a=\\\"x\\\"",
    "a=\\x",
    "CALLERID(num)=1",
    "\\",
    "\\'q\\'",
    "it's",
    "what?",
    "100%",
    "%41",
    "%0A",
    "agi_request%3A%20async%0Aagi_x%3A%20%0A%0A",
    "agi_a%3A%201%0Aagi_a%3A%202%0A%0A",
    "%C3%BC",
    "%FF",
    "<unknown>",
    "1.2",
    "\u{1F600}",
    "a\nb",
    "a\rb",
    "a\tb",
    "null",
    "true",
];

fn text(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(of).prop_map(|text| text.as_bytes().to_vec())
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most).prop_map(|bytes| {
        // A CRLF would be the next line; the frame never hands one out inside a line.
        let mut bytes = bytes;
        bytes.retain(|byte| *byte != b'\r');
        bytes
    })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => text(VALUES),
        2 => bytes(24),
        1 => "[ -~]{0,40}".prop_map(String::into_bytes),
        1 => "[a-c]=[\\\\'\"?a-z]{0,6}".prop_map(String::into_bytes),
    ]
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![8 => text(NAMES), 1 => bytes(8)];
    let separator = prop_oneof![12 => Just(": "), 1 => Just(":"), 1 => Just("")];
    (name, separator, value())
        .prop_map(|(name, separator, value)| [name, separator.as_bytes().to_vec(), value].concat())
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => text(EVENTS).prop_map(|name| [b"Event: ".to_vec(), name].concat()),
        1 => Just(b"Response: Success".to_vec()),
        1 => Just(b"event: VarSet".to_vec()),
        1 => line(),
    ];
    (first, vec(line(), 0..24)).prop_map(|(first, lines)| {
        let mut all = vec![first];
        all.extend(lines);
        all.join(&b"\r\n"[..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_rebuilt(message in message()) {
        check(&message).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn every_string_of_bytes_is_rebuilt(message in vec(any::<u8>(), 0..300)) {
        check(&message).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn every_string_of_telling_bytes_is_rebuilt(message in "(Event: (VarSet|Status|X)\r\n)?[ab$:= \\\\'\r\n]{0,60}") {
        check(message.as_bytes()).map_err(TestCaseError::fail)?;
    }
}
