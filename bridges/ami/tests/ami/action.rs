//! What cannot be built, and what the wire then holds.

use amibus_ami::action::{MAX_ACTION_HEADERS, MAX_ACTION_LINE_BYTES};
use amibus_ami::action_id::MAX_ACTION_ID_BYTES;
use amibus_ami::{Action, ActionError, ActionIds};

fn ping() -> Action {
    Action::new("Ping").unwrap()
}

#[test]
fn the_wire_form_has_the_action_and_its_id_first() {
    let id = ActionIds::new([7; 16]).next();
    let action = Action::new("Originate").unwrap();
    let action = action.header("Variable", "A=1").unwrap().header("Variable", b"B=\xff").unwrap();
    let expected = [
        b"Action: Originate\r\nActionID: ",
        id.as_str().as_bytes(),
        b"\r\nVariable: A=1\r\nVariable: B=\xff\r\n\r\n",
    ];
    assert_eq!(action.encode(&id), expected.concat());
    assert_eq!(action.first("variable"), Some(b"A=1".as_slice()));
}

#[test]
fn line_breaks_and_nul_are_refused_by_name() {
    for value in ["a\rb", "a\nb", "a\0b", "\r\n", "x\r\n\r\nAction: Command"] {
        let error = ping().header("Data", value).unwrap_err();
        assert_eq!(error, ActionError::LineBreak { field: "Data".into() });
        assert_eq!(error.field(), "Data");
    }
}

#[test]
fn a_line_may_be_as_long_as_asterisk_reads_and_no_longer() {
    let room = MAX_ACTION_LINE_BYTES - "Data: ".len();
    assert!(ping().header("Data", vec![b'x'; room]).is_ok());
    let error = ping().header("Data", vec![b'x'; room + 1]).unwrap_err();
    assert_eq!(error, ActionError::LineTooLong { field: "Data".into(), bytes: 1023 });
    assert!(matches!(Action::new(&"x".repeat(1015)), Err(ActionError::LineTooLong { .. })));
}

#[test]
fn there_may_be_as_many_headers_as_asterisk_reads_and_no_more() {
    let mut action = ping();
    for number in 0..MAX_ACTION_HEADERS - 2 {
        action = action.header("Variable", format!("A{number}=1")).unwrap();
    }
    let wire = action.encode(&ActionIds::new([0; 16]).next());
    assert_eq!(wire.windows(2).filter(|pair| pair == b"\r\n").count(), MAX_ACTION_HEADERS + 1);
    let error = action.header("Last", "1").unwrap_err();
    assert_eq!(error, ActionError::TooManyHeaders { field: "Last".into() });
}

#[test]
fn names_are_names() {
    for name in ["", "Two Words", "Ping\r\nAction: Command", "P\0", "Grüße"] {
        assert!(Action::new(name).is_err(), "{name:?}");
    }
    for name in ["", "A:B", "A\rB", "A\nB", "A\0", " A", "A ", "A\t"] {
        assert!(ping().header(name, "1").is_err(), "{name:?}");
    }
    for name in ["Action", "ACTIONID", "actionid"] {
        assert_eq!(ping().header(name, "1").unwrap_err(), ActionError::Reserved { field: name.into() });
    }
    assert!(ping().header("Var-000000", "").is_ok());
}

#[test]
fn secrets_are_not_printed() {
    let login = Action::new("Login").unwrap().header("Username", "me").unwrap();
    let login = login.header("Secret", "hunter2").unwrap().header("key", "hunter2").unwrap();
    let printed = format!("{login:?}");
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("Username: me"), "{printed}");
}

#[test]
fn action_ids_are_short_distinct_and_not_to_be_forged() {
    let ids = ActionIds::new([0xab; 16]);
    let (first, second) = (ids.next(), ids.clone().next());
    assert_ne!(first, second);
    assert!(first.as_str().starts_with("amibus-abababababababab-1-"), "{first}");
    for id in [&first, &second] {
        assert!(id.as_str().len() <= MAX_ACTION_ID_BYTES);
        assert!(ids.is_ours(id.as_str().as_bytes()));
        assert!(!ActionIds::new([0xac; 16]).is_ours(id.as_str().as_bytes()));
    }
    // Whoever saw one ID knows the prefix and the counter, but not what ends the next.
    let next = first.as_str().replace("-1-", "-3-");
    assert!(!ids.is_ours(next.as_bytes()));
    for forged in [b"".as_slice(), b"amibus-", b"amibus-abababababababab-1-", b"1", b"\xff"] {
        assert!(!ids.is_ours(forged));
    }
    assert!(!format!("{:?}", ActionIds::new([0x5a; 16])).contains("90, 90"));
}
