//! Messages that try to be taken for something else.

use amibus::normalize::{RestoreError, restore};
use serde_json::{Value, json};

use super::{check, data, encode, wire};

#[track_caller]
fn assert_data(raw: &[u8], expected: &Value) {
    check(raw).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(serde_json::from_str::<Value>(&data(raw)).expect("JSON"), *expected);
}

#[test]
fn forged_headers_stand_after_the_true_ones() {
    let raw = wire(
        "Event: UserEvent\nPrivilege: user,all\nActionID: a\nUserEvent: x\nEvent: Hangup\nResponse: Success\n\
                    ActionID: b\nPrivilege: x,y\nTimestamp: 1.000001",
    );
    assert_data(
        &raw,
        &json!({
            "Event": ["UserEvent", "Hangup"], "Privilege": [["user", "all"], ["x", "y"]], "ActionID": ["a", "b"],
            "UserEvent": "x", "Response": "Success", "Timestamp": "1.000001",
            "$order": ["Event", "Privilege", "ActionID", "UserEvent", "Event", "Response", "ActionID", "Privilege",
                "Timestamp"],
        }),
    );
    let body: Value = serde_json::from_slice(&encode(&raw).1).expect("JSON");
    assert_eq!(body["type"], "ami.event.UserEvent");
    assert_eq!(body["time"], "2026-11-21T00:00:00.500000Z");
}

#[test]
fn names_that_differ_in_case_are_different() {
    assert_data(
        &wire("event: Hangup\nCHANNEL: a\nChannel: b\nchannelstate: 6"),
        &json!({"event": "Hangup", "CHANNEL": "a", "Channel": "b", "channelstate": "6"}),
    );
    let body: Value = serde_json::from_slice(&encode(b"event: Hangup").1).expect("JSON");
    assert_eq!(body["type"], "ami.event.Hangup");
}

#[test]
fn headers_with_our_names_get_one_more() {
    assert_data(
        &wire("Event: X\n$bytes: 1\n$order: 2\n$lines: 3\n$$bytes: 4\n$: 5"),
        &json!({"Event": "X", "$$bytes": "1", "$$order": "2", "$$lines": "3", "$$$bytes": "4", "$$": "5"}),
    );
    assert_data(
        b"Event: X\r\n$bytes: \xFF",
        &json!({"Event": "X", "$$bytes": "\u{FFFD}", "$bytes": {"$$bytes": "/w=="}}),
    );
}

#[test]
fn lines_that_are_no_headers() {
    assert_data(
        &wire("Event: X\nNo colon\nNoSpace:x\n: nameless\n\tTab:\tx"),
        &json!({
            "Event": "X", "$lines": ["No colon"], "NoSpace": "x", "": "nameless", "\tTab": "\tx",
            "$order": ["Event", "$lines", "NoSpace:", "", "\tTab:"],
        }),
    );
    assert_data(
        b"Event: X\r\nna\xFFme: y\r\nB: z",
        &json!({"Event": "X", "$lines": ["na\u{FFFD}me: y"], "B": "z", "$bytes": {"$lines": ["bmH/bWU6IHk="]}}),
    );
    assert_data(b"", &json!({}));
}

#[test]
fn variables_that_are_no_pairs_stay_lines() {
    assert_data(
        &wire("Event: X\nChanVariable: A=1\nChanVariable: A=it\\'s"),
        &json!({"Event": "X", "ChanVariable": ["A=1", "A=it\\'s"]}),
    );
    assert_data(
        &wire("Event: X\nChanVariable: no equals"),
        &json!({"Event": "X", "ChanVariable": "no equals"}),
    );
    assert_data(
        &wire("Event: X\nChanVariable: A=1\nChanVariable:B=2"),
        &json!({"Event": "X", "ChanVariable": ["A=1", "B=2"], "$order": ["Event", "ChanVariable", "ChanVariable:"]}),
    );
    assert_data(&wire("Event: X\nChanVariable: ="), &json!({"Event": "X", "ChanVariable": {"": ""}}));
}

#[test]
fn what_is_not_escaped_as_asterisk_does_is_shown_as_it_came() {
    assert_data(
        &wire("Event: X\nCallerIDName: it's\nConnectedLineName: a\\x"),
        &json!({
            "Event": "X", "CallerIDName": "it's", "ConnectedLineName": "a\\x",
            "$bytes": {"CallerIDName": "aXQncw==", "ConnectedLineName": "YVx4"},
        }),
    );
    assert_data(
        &wire("Event: X\nChanVariable: A=it's\nChanVariable: B=\\\"2\\\""),
        &json!({
            "Event": "X", "ChanVariable": {"A": "it's", "B": "\"2\""},
            "$bytes": {"ChanVariable": ["QT1pdCdz", "Qj1cIjJcIg=="]},
        }),
    );
    assert_data(
        &wire("Event: AsyncAGIExec\nResult: 200 result"),
        &json!({"Event": "AsyncAGIExec", "Result": "200 result", "$bytes": {"Result": "MjAwIHJlc3VsdA=="}}),
    );
}

#[test]
fn what_a_sender_wrote_into_its_user_event_is_shown_as_written() {
    assert_data(
        &wire(
            "Event: UserEvent\nCallerIDName: \\'q\\'\nUserEvent: x\nConnectedLineName: \\'q\\'\nChanVariable: A=\\'q\\'",
        ),
        &json!({
            "Event": "UserEvent", "CallerIDName": "'q'", "UserEvent": "x", "ConnectedLineName": "\\'q\\'",
            "ChanVariable": {"A": "\\'q\\'"},
            "$bytes": {"ConnectedLineName": "XCdxXCc=", "ChanVariable": "QT1cJ3FcJw=="},
        }),
    );
}

#[test]
fn repeats_have_their_bytes_in_an_array() {
    assert_data(
        b"Event: X\r\nA: \xFF\r\nA: ok",
        &json!({"Event": "X", "A": ["\u{FFFD}", "ok"], "$bytes": {"A": ["/w==", "b2s="]}}),
    );
    assert_data(
        b"Event: X\r\nPrivilege: a,\xFF",
        &json!({"Event": "X", "Privilege": ["a", "\u{FFFD}"], "$bytes": {"Privilege": "YSz/"}}),
    );
}

#[test]
fn values_keep_their_blanks_and_line_feeds() {
    assert_data(
        b"Event: X\r\nA:  two \r\nB: a\nEvent: Fake\r\nC: x\ry\r\nD: \0\x01\x7F",
        &json!({"Event": "X", "A": " two ", "B": "a\nEvent: Fake", "C": "x\ry", "D": "\0\u{1}\u{7F}"}),
    );
}

#[test]
fn an_events_name_cannot_break_a_type() {
    for (name, expected) in
        [("a.b\" \u{fc}", "ami.event.a_b____"), ("", "ami.event._"), ("AOC-D", "ami.event.AOC-D")]
    {
        let raw = wire(&format!("Event: {name}"));
        check(&raw).expect("rebuilt");
        let body: Value = serde_json::from_slice(&encode(&raw).1).expect("JSON");
        assert_eq!(body["type"], expected);
        assert_eq!(body["data"]["Event"], name);
    }
}

#[test]
fn the_old_form_of_command_output_is_one_line() {
    assert_data(
        b"Response: Follows\r\nPrivilege: Command\r\nActionID: c1\r\nA: 1\nB: 2\r\n--END COMMAND--",
        &json!({
            "Response": "Follows", "Privilege": ["Command"], "ActionID": "c1",
            "$lines": ["A: 1\nB: 2\r\n--END COMMAND--"],
        }),
    );
}

#[test]
fn data_that_is_not_ours_is_refused() {
    for (data, error) in [
        (json!([]), RestoreError::NotAnObject),
        (json!({"A": null}), RestoreError::Type("A".into())),
        (json!({"A": 1.5}), RestoreError::Type("A".into())),
        (json!({"A": {"b": "c"}}), RestoreError::Type("A".into())),
        (json!({"ChanVariable": {"b": 1}}), RestoreError::Type("ChanVariable".into())),
        (json!({"A": "x", "$bytes": {"A": "?"}}), RestoreError::Base64("A".into())),
        (json!({"A": "x", "$order": ["A", "A"]}), RestoreError::Order("A".into())),
        (json!({"A": "x", "B": "y", "$order": ["A"]}), RestoreError::Order("B".into())),
        (json!({"A": "x", "$order": "A"}), RestoreError::Type("$order".into())),
    ] {
        assert_eq!(restore(&data), Err(error), "{data}");
    }
}
