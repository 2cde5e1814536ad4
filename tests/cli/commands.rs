//! `amibus commands`, on a journal that is in use.

use std::time::Duration;

use amibus::command::{
    decode::{Command, Wait},
    journal::Journal,
};
use serde_json::Value;

use super::program::run;

#[test]
fn the_journal_is_listed_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().to_str().expect("UTF-8");
    let ended = run(&["commands", "list", "--dir", place]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("there is no journal of commands"), "{ended:?}");

    let journal = Journal::open(&dir.path().join("commands.sqlite"), Duration::from_secs(60)).expect("opens");
    let command = Command {
        id: None,
        server: "pbx1".into(),
        action: "Originate".into(),
        deadline: None,
        wait: Wait::Final,
        headers: Vec::new(),
        payload_hash: "h".into(),
    };
    for id in ["order-1", "order-2"] {
        journal.claim(id, &command, Some("dialer")).expect("claims");
    }
    // A message that cannot be read may claim to be for any server.
    let strange = Command { server: "\u{1b}]0;x\u{7}\u{9b}2J".into(), ..command };
    journal.claim("STREAM:7", &strange, None).expect("claims");
    journal.sending("order-2").expect("records");
    let data =
        br#"{"id":"order-2","outcome":"unknown","error":{"code":"interrupted","message":"m","field":null}}"#;
    journal.done("order-2", "unknown", data).expect("records");

    let listed = run(&["commands", "list", "--dir", place]);
    assert_eq!((listed.code, listed.out.lines().count()), (Some(0), 3), "{listed:?}");
    let shown = run(&["commands", "show", "STREAM:7", "--dir", place]);
    assert!(!(listed.out + &shown.out).contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
    let unknown = run(&["commands", "list", "--dir", place, "--outcome", "unknown", "--json"]);
    let lines: Vec<Value> =
        unknown.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1, "{unknown:?}");
    assert_eq!(lines[0]["response"]["error"]["code"], "interrupted");

    let shown = run(&["commands", "show", "order-2", "--dir", place]);
    for part in ["order-2", "pbx1", "Originate", "dialer", "done", "unknown", "interrupted"] {
        assert!(shown.out.contains(part), "{part} in {shown:?}");
    }
    assert_eq!(run(&["commands", "show", "order-9", "--dir", place]).code, Some(1));
    assert_eq!(run(&["commands", "list", "--dir", place, "--outcome", "fine"]).code, Some(2));
}
