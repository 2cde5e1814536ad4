//! `demo`, and `tail` and `send` joining it.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use super::program::{Running, amibus, run, wait};

#[test]
fn the_demo_shows_calls_and_ends_by_itself() {
    let ended = run(&["demo"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    for expected in
        ["DialBegin", "BridgeEnter", "Hangup", "171 events came over the bus", "\"outcome\": \"executed\""]
    {
        assert!(ended.out.contains(expected), "{expected} is not in\n{}", ended.out);
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let mut command = amibus(&["demo"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    drop(reader);
    assert!(wait(&mut child).success());
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut err).expect("text");
    assert_eq!(err, "");
}

#[test]
fn other_programs_can_join_in() {
    let mut demo = Running::start(amibus(&["demo", "--keep"]));
    let line = demo.line(|line| line.starts_with("events on tcp://"));
    let (publish, commands) =
        line.trim_start_matches("events on ").split_once(", commands on ").expect("two");
    let (publish, commands) = (format!("publish={publish}"), format!("commands={commands}"));
    let bus = ["--bus", "zeromq", "--set", &publish, "--set", &commands];
    demo.line(|line| line.contains("curl"));

    let tail = run(&[&["tail", "--event", "dial*", "--count", "3"], &bus[..]].concat());
    assert_eq!((tail.code, tail.err.lines().count()), (Some(0), 1), "{tail:?}");
    assert!(tail.err.contains("\"message\":\"subscribed\",\"bus\":\"zeromq\""), "{tail:?}");
    let events: Vec<Value> = tail.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 3);
    for event in events {
        assert!(event["type"].as_str().is_some_and(|kind| kind.starts_with("ami.event.Dial")), "{event}");
    }

    let call = ["send", "Originate", "--server", "pbx1", "--wait", "final", "--id", "order-1"];
    let fields = ["Channel=PJSIP/300", "Context=sales", "Exten=200", "Priority=1", "Variable.ORDER=8812"];
    let sent = run(&[&call[..], &fields, &bus].concat());
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let response: Value = serde_json::from_str(&sent.out).expect("one JSON");
    assert_eq!(response["correlationid"], "order-1");
    assert_eq!(response["data"]["outcome"], "executed");
    assert_eq!(response["data"]["events"][0]["Reason"], 4);

    let forbidden = run(&[&["send", "Hangup", "Channel=PJSIP/300", "--server", "pbx1"], &bus[..]].concat());
    assert_eq!(forbidden.code, Some(1), "{forbidden:?}");
    let response: Value = serde_json::from_str(&forbidden.out).expect("one JSON");
    assert_eq!(response["data"]["outcome"], "rejected");
    assert_eq!(response["data"]["error"]["code"], "forbidden");

    demo.signal("INT");
    let ended = demo.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
}
