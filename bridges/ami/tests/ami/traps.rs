//! The eighteen ways in which naive AMI clients go wrong, and what this crate does about each.
//! Traps 8, 13 and 16 are about connections and rights; what belongs to them here is tested here.

use amibus_ami::{
    Action, ActionError, ActionIds, Decoded, Decoder, Frame, Kind, Limits, Separator, SessionError,
};
use amibus_services::corpus::recording;

use crate::driver::{Driver, action, config};
use crate::stream::{read, read_whole, stream};

#[test]
fn trap_01_first_line_decides() {
    let event = Frame::parse(b"Event: OriginateResponse\r\nActionID: 1\r\nResponse: Failure");
    assert_eq!((event.kind(), event.name()), (Kind::Event, b"OriginateResponse".as_slice()));
    let event = Frame::parse(b"EVENT: UserEvent\r\nResponse: Success\r\nEvent: Hangup");
    assert!(event.is_event("UserEvent"));
    let response = Frame::parse(b"response: Success\r\nEvent: Hangup");
    assert_eq!((response.kind(), response.name()), (Kind::Response, b"Success".as_slice()));
    for other in ["AppData: x\r\nEvent: Hangup", "Events: x", "Event", " Event: x", ""] {
        assert_eq!(Frame::parse(other.as_bytes()).kind(), Kind::Other, "{other}");
    }

    let mut driver = Driver::ready(config());
    let id = driver.sends("Originate", 1);
    driver
        .receives(format!("Event: OriginateResponse\r\nActionID: {id}\r\nResponse: Failure\r\n\r\n"))
        .unwrap();
    assert_eq!(driver.said(), ["event OriginateResponse"], "an event answers nothing");
}

#[test]
fn trap_02_an_events_action_id_is_not_trusted() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("QueueStatus", 1);
    let user_event = format!("Event: UserEvent\r\nActionID: {id}\r\nEventList: Complete\r\n\r\n");
    driver.receives(&user_event).unwrap();
    driver.receives(format!("Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n")).unwrap();
    driver.receives(&user_event).unwrap();
    driver.receives(format!("Event: Hangup\r\nX: 1\r\nActionID: other\r\nActionID: {id}\r\n\r\n")).unwrap();
    driver
        .receives(format!("Event: QueueStatusComplete\r\nActionID: {id}\r\nEventList: Complete\r\n\r\n"))
        .unwrap();
    assert_eq!(
        driver.said(),
        ["event UserEvent", "event UserEvent", "event Hangup", "1 Success, 0 items, QueueStatusComplete"]
    );
    let (ours, others) = (ActionIds::new([1; 16]), ActionIds::new([2; 16]));
    assert!(!ours.is_ours(others.next().as_str().as_bytes()));
}

#[test]
fn trap_03_repeated_headers_are_all_there_and_the_first_counts() {
    let frame =
        Frame::parse(b"Event: Status\r\nVariable: A=1\r\nVariable: B=2\r\nvariable: A=3\r\nEvent: Forged");
    assert!(frame.is_event("Status"));
    assert_eq!(frame.first("Event"), Some(b"Status".as_slice()));
    assert_eq!(frame.first("VARIABLE"), Some(b"A=1".as_slice()));
    let values: Vec<&[u8]> = frame.headers().filter(|h| h.is("Variable")).map(|h| h.value).collect();
    assert_eq!(values, [b"A=1".as_slice(), b"B=2", b"A=3"]);
}

#[test]
fn trap_04_values_are_what_came() {
    let frame = Frame::parse(b"Event: X\r\nLead:    5 \r\nNoSpace:x\r\nTab:\tx\r\nNoColon\r\nEmpty:\r\nBlank: \r\nBin: \xff\r\n: nameless");
    let lines: Vec<(&[u8], Separator, &[u8])> =
        frame.headers().skip(1).map(|h| (h.name, h.separator, h.value)).collect();
    let expected: [(&[u8], Separator, &[u8]); 8] = [
        (b"Lead", Separator::ColonBlank, b"   5 "),
        (b"NoSpace", Separator::Colon, b"x"),
        (b"Tab", Separator::Colon, b"\tx"),
        (b"", Separator::None, b"NoColon"),
        (b"Empty", Separator::Colon, b""),
        (b"Blank", Separator::ColonBlank, b""),
        (b"Bin", Separator::ColonBlank, b"\xff"),
        (b"", Separator::ColonBlank, b"nameless"),
    ];
    assert_eq!(lines, expected);
    let long = [b"Event: X\r\nLong: ".as_slice(), &[b'v'; 60_000]].concat();
    assert_eq!(Frame::parse(&long).first("long").unwrap().len(), 60_000);
}

#[test]
fn trap_05_odd_blocks_empty_lines_and_a_cut_tail_are_survived() {
    let bytes = stream(b"Event: A\r\n\r\n\r\n\r\nline3\r\nAppData: torn\r\n\r\nResponse: Success\r\n\r\n\r\nEvent: Cut\r\nChann");
    let whole = read_whole(&bytes);
    let kinds: Vec<Kind> = whole.frames(&bytes).iter().map(Frame::kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Other, Kind::Response]);
    assert_eq!((whole.empty_lines, whole.tail.as_slice()), (3, b"Event: Cut\r\nChann".as_slice()));
    assert_eq!(read(&bytes, &[1], Limits::default()), whole);

    let mut driver = Driver::ready(config());
    driver.receives("torn: 1\r\n\r\n\r\nEvent: A\r\n\r\n").unwrap();
    assert_eq!(driver.said(), ["other torn: 1", "event A"]);
}

#[test]
fn trap_06_action_ids_have_at_most_60_bytes() {
    let ids = ActionIds::new([0xff; 16]);
    for _ in 0..1_000 {
        assert!(ids.next().as_str().len() <= 60);
    }
    // 20 digits are the most that the counter can have.
    let longest = ids.next().as_str().replace("-1001-", "-18446744073709551615-");
    assert!(longest.contains("18446744073709551615") && longest.len() <= 60, "{longest}");
}

#[test]
fn trap_07_what_asterisk_would_cut_cannot_be_built() {
    for value in ["a\r\nAction: Command", "a\nb", "a\0b"] {
        assert!(matches!(action("Originate").header("Data", value), Err(ActionError::LineBreak { .. })));
    }
    let line = |bytes: usize| action("Originate").header("D", "x".repeat(bytes - "D: ".len()));
    assert!(line(1022).is_ok());
    assert!(matches!(line(1023), Err(ActionError::LineTooLong { bytes: 1023, .. })));
    let full = (0..126).try_fold(action("Originate"), |action, _| action.header("Variable", "A=1")).unwrap();
    assert!(matches!(full.header("Variable", "A=1"), Err(ActionError::TooManyHeaders { .. })));
}

/// The connector never stops reading; here: nothing that was read is lost where the session then ends.
#[test]
fn trap_08_a_stream_that_ends_in_the_middle_gives_all_that_came_before() {
    let recording = recording("flood-slow-22");
    let mut driver = Driver::ready(config());
    let after_banner = recording.s2c.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    driver.receives(&recording.s2c[after_banner..]).unwrap();
    let events = driver.said().iter().filter(|line| line.starts_with("event ")).count() as u64;
    assert_eq!(Some(events), recording.notes.number("Event"));
    assert_eq!(
        driver.ends().map(|tail| tail.len() as u64),
        recording.notes.number("tail_after_last_message")
    );
}

/// Here: a session takes its silence for its own. That Asterisk blocks but the one session is shown by
/// `an_originate_that_waits_blocks_its_own_session_alone` (`src/asterisk/live/blocked.rs`, a real Asterisk), that
/// every Originate is asynchronous by `an_originate_is_asynchronous_with_a_channel_id_of_ours` (`tests/outcomes`).
#[test]
fn trap_09_an_event_session_and_an_action_session_are_two_values() {
    let mut events = Driver::ready(config());
    let mut actions =
        Driver::ready(amibus_ami::SessionConfig { event_mask: amibus_ami::EventMask::Off, ..config() });
    actions.sends("Originate", 1);
    events.receives("Event: Newchannel\r\n\r\n").unwrap();
    assert_eq!(events.said(), ["event Newchannel"]);
    // The one that waits for its Originate puts up with the silence and takes nothing more; the other does not.
    actions.waits(20).unwrap();
    assert_eq!(actions.queues("Hangup", 2), Err(amibus_ami::SendError::Silent));
    assert!(matches!(events.waits(20), Err(SessionError::Dead { .. })));
}

#[test]
fn trap_10_an_unbroken_connection_proves_nothing() {
    let mut driver = Driver::ready(config());
    assert!(matches!(driver.waits(15), Err(SessionError::Dead { .. })), "silence is asked about");
    // Holes show in Asterisk's own numbers, which come through untouched.
    let frame = Frame::parse(b"Event: Hangup\r\nPrivilege: call,all\r\nSequenceNumber: 41\r\nTimestamp: 1.5");
    assert_eq!(frame.first("SequenceNumber"), Some(b"41".as_slice()));
}

#[test]
fn trap_11_a_lost_response_is_told_from_one_that_was_never_asked_for() {
    let mut driver = Driver::ready(config());
    driver.sends("Originate", 1);
    driver.queues("Originate", 2).unwrap();
    driver.ends();
    assert_eq!(driver.said(), ["1 unanswered, written", "2 unanswered, never written"]);
}

#[test]
fn trap_12_success_to_originate_is_not_the_end() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("Originate", 1);
    driver
        .receives(format!(
            "Response: Success\r\nActionID: {id}\r\nMessage: Originate successfully queued\r\n\r\n"
        ))
        .unwrap();
    driver
        .receives(format!(
            "Event: OriginateResponse\r\nActionID: {id}\r\nResponse: Failure\r\nReason: 5\r\n\r\n"
        ))
        .unwrap();
    assert_eq!(driver.said(), ["1 Success, 0 items, no list", "event OriginateResponse"]);
}

#[test]
fn trap_13_fully_booted_is_told_apart_from_logged_in() {
    let recording = recording("early-login-22");
    let mut driver = Driver::ready(config());
    let after_banner = recording.s2c.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    driver.receives(&recording.s2c[after_banner..]).unwrap();
    let said = driver.said();
    let booted = said.iter().position(|line| line == "booted").unwrap();
    assert_eq!(said[booted + 1], "event FullyBooted");
    assert!(booted > 1, "it came as a broadcast, after other things: {said:?}");
}

#[test]
fn trap_14_a_ping_that_is_refused_is_life() {
    let mut driver = Driver::ready(config());
    for _ in 0..5 {
        driver.waits(10).unwrap();
        let id = driver.writes_one("Ping");
        driver.waits(4).unwrap();
        driver
            .receives(format!(
                "Response: Error\r\nActionID: {id}\r\nMessage: Asterisk is shutting down\r\n\r\n"
            ))
            .unwrap();
    }
    driver.receives("Event: Hangup\r\n\r\n").unwrap();
    assert_eq!(driver.said(), ["event Hangup"]);
}

/// `Filter` is not used at all: what the session asks for is the mask of the login, of known classes.
#[test]
fn trap_15_events_are_chosen_by_a_mask_that_is_checked() {
    use amibus_ami::EventMask;
    assert!(EventMask::classes(["call", "bogus"]).is_err());
    let mut driver = Driver::new(amibus_ami::SessionConfig {
        event_mask: EventMask::classes(["call"]).unwrap(),
        ..config()
    });
    driver.receives("Asterisk Call Manager/11.0.0\r\n").unwrap();
    let written = driver.writes();
    assert!(written.contains("\r\nEvents: call\r\n") && !written.contains("Filter"), "{written}");
}

/// Here: the session itself sends nothing but login, ping and logoff. That a command is denied by default, though
/// Asterisk would run it for anybody, is shown by `nothing_is_allowed_without_a_rule` (`src/command/policy.rs`) and
/// `what_is_read_but_not_allowed_or_known_is_rejected_and_acknowledged` (`tests/outcomes`); which lists amibus asks for
/// by itself, by `snapshots_wait_for_the_boot` (`src/asterisk/tests/events.rs`).
#[test]
fn trap_16_a_session_sends_nothing_on_its_own_but_login_ping_and_logoff() {
    let mut driver = Driver::ready(config());
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        driver.waits(3).unwrap();
        driver.receives("Event: X\r\n\r\nResponse: Error\r\n\r\n").unwrap();
        driver.waits(11).unwrap();
        names.extend(driver.writes().lines().filter_map(|l| l.strip_prefix("Action: ").map(str::to_owned)));
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["Ping"]);
}

#[test]
fn trap_17_values_are_given_raw_whatever_their_form() {
    let frame = Frame::parse(b"Event: AsyncAGIStart\r\nEnv: agi_request%3A%20async%0A\r\nCallerIDName: O\\'Neil\\n\r\nAppData: a\nb");
    assert_eq!(frame.first("Env"), Some(b"agi_request%3A%20async%0A".as_slice()));
    assert_eq!(frame.first("CallerIDName"), Some(b"O\\'Neil\\n".as_slice()));
    assert_eq!(frame.first("AppData"), Some(b"a\nb".as_slice()));
}

#[test]
fn trap_18_the_same_event_twice_is_two_events() {
    let mut driver = Driver::ready(config());
    let event = "Event: Newexten\r\nTimestamp: 1795220923.467134\r\nSequenceNumber: 7\r\n\r\n";
    driver.receives(format!("{event}{event}")).unwrap();
    driver
        .receives("Event: Newexten\r\nTimestamp: 1795220923.000000\r\n\r\nEvent: FullyBooted\r\n\r\n")
        .unwrap();
    assert_eq!(driver.said().iter().filter(|line| line.starts_with("event ")).count(), 4);
}

#[test]
fn forged_messages_inside_values_come_out_as_what_they_are() {
    let mut decoder = Decoder::without_banner(Limits::default());
    let mut rest: &[u8] =
        b"Event: Newexten\r\nAppData: V=line1\r\n\r\nEvent: Fake\r\n\r\nline3\r\nExtension: 1\r\n\r\n";
    let mut kinds = Vec::new();
    while let Ok(Decoded::Frame { frame, consumed }) = decoder.decode(rest) {
        kinds.push((frame.kind(), frame.name()));
        rest = &rest[consumed..];
    }
    let expected: [(Kind, &[u8]); 3] =
        [(Kind::Event, b"Newexten"), (Kind::Event, b"Fake"), (Kind::Other, b"")];
    assert_eq!(kinds, expected);
}

#[test]
fn an_action_is_not_the_callers_to_number() {
    assert!(matches!(
        Action::new("Ping").unwrap().header("ActionID", "1"),
        Err(ActionError::Reserved { .. })
    ));
}
