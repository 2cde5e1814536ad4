//! Both real Asterisks write what the rules expect: numbers in their place, escapes where the table has them.

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use amibus::normalize::{Numbers, sequence_number, timestamp_micros};
use amibus_ami::{Decoded, Decoder, Frame, Kind, Limits, OwnedFrame};
use amibus_services::{Asterisk, AsteriskOptions, Version};
use serde_json::Value;

use super::{check, data};

const DEADLINE: Duration = Duration::from_secs(30);
/// What the dialplan sets, as the dialplan writes it and as it must be shown.
const DIALPLAN: &str = r#"
[normalize]
exten => s,1,Answer()
 same => n,Set(CALLERID(name)=What's "this"? a\b)
 same => n,Set(TRICKY=it's "q"? back\slash)
 same => n,UserEvent(Mine,Own: it's raw?)
 same => n,Hangup()
"#;
const TRICKY: &str = r#"it's "q"? back\slash"#;

const ACTIONS: &str = "Action: Login\r\nUsername: full\r\nSecret: full-pass\r\nActionID: login\r\n\r\n\
    Action: UserEvent\r\nUserEvent: Forged\r\nSequenceNumber: 1\r\nTimestamp: 1.000001\r\nEvent: Hangup\r\n\
    NoSpace:x\r\nCallerIDName: it's\r\n\r\n\
    Action: Originate\r\nChannel: Local/s@normalize/n\r\nApplication: Wait\r\nData: 1\r\nAsync: true\r\n\
    ActionID: call\r\n\r\n";

#[test]
fn asterisk_22() {
    as_expected(Version::V22);
}

#[test]
fn asterisk_16() {
    as_expected(Version::V16);
}

fn as_expected(version: Version) {
    let options =
        AsteriskOptions { debug_seq: true, dialplan: DIALPLAN.to_owned(), ..AsteriskOptions::default() };
    let asterisk = Asterisk::start(version, &options);
    let events = events(&asterisk);
    let mut numbers = Numbers::new(None);
    let mut known = HashSet::new();
    let (mut tricky, mut name, mut own, mut forged) = (false, false, false, false);
    for event in &events {
        let frame = event.frame();
        check(frame.raw()).unwrap_or_else(|wrong| panic!("{wrong}"));
        let data: Value = serde_json::from_str(&data(frame.raw())).expect("JSON");
        if data.get("Func").is_some() {
            let number = sequence_number(&frame).unwrap_or_else(|| panic!("no number: {data}"));
            assert!(known.insert(number), "{number} twice");
            numbers.lend(number);
            assert!(timestamp_micros(&frame).is_some_and(|micros| micros > 1_500_000_000_000_000), "{data}");
        } else {
            assert_eq!(sequence_number(&frame), None, "{data}");
        }
        forged |= data["UserEvent"] == "Forged";
        if data["UserEvent"] == "Forged" {
            assert_ne!(sequence_number(&frame), Some(1));
            assert_eq!(data["Event"][0], "UserEvent");
            assert_eq!(data["CallerIDName"], "it's");
        } else {
            assert_eq!(data.get("$bytes"), None, "{data}");
        }
        tricky |= data["Variable"] == "TRICKY" && data["Value"] == TRICKY;
        name |= data["CallerIDName"] == r#"What's "this"? a\b"#;
        own |= data["UserEvent"] == "Mine" && data["Own"] == "it's raw?";
    }
    assert!(
        known.len() > 10 && tricky && name && own && forged,
        "{tricky} {name} {own} {forged}: {events:?}"
    );
}

/// The events of the call, up to its last hangup.
fn events(asterisk: &Asterisk) -> Vec<OwnedFrame> {
    let deadline = Instant::now() + DEADLINE;
    let mut connection = TcpStream::connect(("127.0.0.1", asterisk.ami_port())).expect("AMI listens");
    connection.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    connection.write_all(ACTIONS.as_bytes()).expect("the actions are sent");
    let mut decoder = Decoder::new(Limits::default());
    let (mut unread, mut events, mut hangups) = (Vec::new(), Vec::new(), 0);
    while hangups < 2 {
        assert!(Instant::now() < deadline, "no two hangups in {events:?}");
        let mut chunk = [0; 16_384];
        let Ok(count) = connection.read(&mut chunk) else { continue };
        assert!(count > 0, "Asterisk closed the connection");
        unread.extend_from_slice(&chunk[..count]);
        loop {
            match decoder.decode(&unread).expect("frames") {
                Decoded::Banner { consumed, .. } => unread.drain(..consumed),
                Decoded::Frame { frame, consumed } => {
                    hangups += usize::from(frame.is_event("Hangup"));
                    if frame.kind() == Kind::Event {
                        events.push(Frame::to_owned(&frame));
                    }
                    unread.drain(..consumed)
                }
                Decoded::Incomplete => break,
            };
        }
    }
    events
}
