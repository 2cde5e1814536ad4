//! Commands over every bus, and what real Asterisk made of them.

use serde_json::{Value, json};

use super::stack::{Stack, stack};

const BUSES: [&str; 4] = ["zeromq", "nats", "jetstream", "kafka"];
const SERVERS: [&str; 2] = ["pbx22", "pbx16"];

fn originate(bus: &str, server: &str, name: &str, channel: &str, more: Value) -> String {
    let mut fields = json!({ "Channel": channel, "Context": "flows", "Exten": "1000", "Priority": 1 });
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    let id = format!("{name}-{bus}-{server}");
    let body =
        json!({ "id": id, "server": server, "action": "Originate", "wait": "final", "fields": fields });
    format!("{server} Originate {body}")
}

fn outcome<'a>(reply: &'a Value, what: &str) -> &'a Value {
    let data = &reply["data"];
    assert!(data["outcome"].is_string(), "{what}: not a response: {reply}");
    assert_eq!(reply["correlationid"], data["id"], "{what}");
    data
}

#[test]
fn an_originate_over_each_bus_is_executed_and_its_call_announced() {
    let stack = &mut *stack();
    for bus in BUSES {
        for server in SERVERS {
            originate_and_look(stack, bus, server);
        }
    }
}

fn originate_and_look(stack: &mut Stack, bus: &str, server: &str) {
    let from = stack.consumers.each_ref().map(|c| c.seen.len());
    let variables = json!({ "Variable": { "LABTAG": "a=b,\"c\" \\d" } });
    let replies = stack.send(bus, &[originate(bus, server, "answered", "Local/2001@phones", variables)]);
    let data = outcome(&replies[0], bus);
    assert_eq!(data["outcome"], "executed", "{bus} {server}: {data}");
    assert_eq!(data["error"], Value::Null);
    assert_eq!(data["response"]["Message"], "Originate successfully queued");
    assert_eq!(data["call"]["result"], "answered", "{data}");
    let response = &data["events"][0];
    assert_eq!((&response["Event"], &response["Reason"]), (&json!("OriginateResponse"), &json!(4)), "{data}");
    let unique = response["Uniqueid"].as_str().expect("a Uniqueid");
    for (consumer, from) in stack.consumers.iter_mut().zip(from) {
        let call = |body: &Value, event: &str| {
            body["data"]["Event"] == event && body["data"]["Uniqueid"] == unique && body["type"] != "x"
        };
        let at = consumer.find(from, "the announced Newchannel", |body| call(body, "Newchannel"));
        consumer.find(at, "its Hangup", |body| call(body, "Hangup"));
        // The variable came through unharmed: channelvars of the test servers show LABTAG on every event.
        let tagged = consumer.find(from, "an event with the variable", |body| {
            body["data"]["Uniqueid"] == unique && body["data"]["ChanVariable"]["LABTAG"] == "a=b,\"c\" \\d"
        });
        assert!(tagged >= at.min(tagged));
        let id = replies[0]["id"].clone();
        consumer.find(from, "the response, for everybody", |body| body["id"] == id);
    }
}

#[test]
fn calls_that_fail_come_back_as_what_they_were() {
    let stack = &*stack();
    let cases = [
        ("busy", "Local/2002@phones", 5),
        ("congestion", "Local/2003@phones", 8),
        ("no_answer", "Local/2004@phones", 3),
        ("failed", "Local/9999999@phones", 0),
        ("failed", "Bogus/1", 0),
    ];
    for (bus, server) in [("kafka", "pbx22"), ("nats", "pbx16"), ("zeromq", "pbx16"), ("jetstream", "pbx22")]
    {
        let commands: Vec<String> = cases
            .iter()
            .map(|(name, channel, _)| {
                originate(
                    bus,
                    server,
                    &format!("{name}-{}", &channel[..3]),
                    channel,
                    json!({ "Timeout": 1500 }),
                )
            })
            .collect();
        for (reply, (result, channel, reason)) in stack.send(bus, &commands).iter().zip(cases) {
            let data = outcome(reply, channel);
            assert_eq!(data["outcome"], "executed", "{bus} {server} {channel}: {data}");
            assert_eq!(data["call"]["result"], result, "{bus} {server} {channel}: {data}");
            assert_eq!(data["call"]["reason"], reason, "{bus} {server} {channel}: {data}");
        }
    }
}

#[test]
fn an_extension_that_does_not_exist_is_refused_in_asterisks_words() {
    let stack = &*stack();
    let more = json!({ "Exten": "nope" });
    for (bus, server) in [("zeromq", "pbx22"), ("kafka", "pbx16")] {
        let command = originate(bus, server, "badext", "Local/2001@phones", more.clone());
        let replies = stack.send(bus, &[command]);
        let data = outcome(&replies[0], "bad extension");
        assert_eq!(data["outcome"], "refused", "{data}");
        assert_eq!(data["error"]["code"], "asterisk_error");
        assert_eq!(data["error"]["message"], "Extension does not exist.", "{data}");
    }
}

#[test]
fn forbidden_malformed_and_oversized_commands_are_rejected_naming_the_field() {
    let stack = &*stack();
    let big = "x".repeat(70_000);
    let long_line = "x".repeat(1100);
    let cases = [
        (
            "Command",
            r#"{"id":"f1-%","fields":{"Command":"core stop now"}}"#.to_owned(),
            "forbidden",
            "action",
        ),
        ("Logoff", r#"{"id":"f2-%"}"#.to_owned(), "forbidden", "action"),
        (
            "Originate",
            r#"{"id":"f3-%","fields":{"Channel":"DAHDI/1","Context":"flows"}}"#.to_owned(),
            "forbidden",
            "fields.Channel",
        ),
        (
            "Originate",
            r#"{"id":"f4-%","fields":{"Channel":"Local/1@phones","Context":"flows","Application":"System"}}"#
                .to_owned(),
            "forbidden",
            "fields.Application",
        ),
        (
            "Originate",
            r#"{"id":"f5-%","fields":{"Channel":"Local/2001@flows/@phones","Context":"flows"}}"#.to_owned(),
            "forbidden",
            "fields.Channel",
        ),
        ("Ping", r#"{"id":"m1-%","feilds":{}}"#.to_owned(), "unknown_field", "feilds"),
        (
            "Ping",
            r#"{"id":"m2-%","fields":{"A":"x\r\nAction: Logoff"}}"#.to_owned(),
            "invalid_field",
            "fields.A",
        ),
        ("Ping", format!(r#"{{"id":"m3-%","fields":{{"A":"{long_line}"}}}}"#), "invalid_field", "fields.A"),
        ("Ping", r#"{"id":"m4-%","deadline":"tomorrow"}"#.to_owned(), "invalid_field", "deadline"),
        ("Ping", r#"{"id":"m5-%","id":"twice"}"#.to_owned(), "malformed", ""),
        ("Ping", "this is not JSON".to_owned(), "malformed", ""),
        ("Ping", format!(r#"{{"id":"big-%","fields":{{"A":"{big}"}}}}"#), "too_large", ""),
    ];
    for bus in BUSES {
        let send: Vec<String> = cases
            .iter()
            .map(|(action, body, ..)| {
                // Kafka and ZeroMQ have no server and action in a topic.
                let named = format!(r#"{{"server":"pbx22","action":"{action}","#);
                format!("pbx22 {action} {}", body.replace('%', bus).replacen('{', &named, 1))
            })
            .collect();
        for (reply, (action, body, code, field)) in stack.send(bus, &send).iter().zip(&cases) {
            let data = &reply["data"];
            assert_eq!(data["outcome"], "rejected", "{bus} {action} {body:.80}: {reply}");
            assert_eq!(data["error"]["code"], *code, "{bus} {action} {body:.80}: {reply}");
            let expected = if field.is_empty() { Value::Null } else { json!(field) };
            assert_eq!(data["error"]["field"], expected, "{bus} {action} {body:.80}: {reply}");
        }
    }
}

#[test]
fn an_unknown_server_and_a_passed_deadline_are_told() {
    let stack = &*stack();
    for bus in ["zeromq", "kafka"] {
        let nowhere = r#"nowhere Ping {"id":"n-%","server":"nowhere","action":"Ping"}"#.replace('%', bus);
        let late =
            r#"pbx22 Ping {"id":"l-%","server":"pbx22","action":"Ping","deadline":"2020-01-01T00:00:00Z"}"#;
        let replies = stack.send(bus, &[nowhere, late.replace('%', bus)]);
        assert_eq!(replies[0]["data"]["error"]["code"], "unknown_server", "{}", replies[0]);
        assert_eq!(replies[1]["data"]["outcome"], "expired", "{}", replies[1]);
        assert_eq!(replies[1]["data"]["error"]["code"], "deadline_passed", "{}", replies[1]);
    }
}

#[test]
fn the_same_id_is_answered_again_and_never_run_twice() {
    let stack = &*stack();
    let ping = |priority: u32| {
        format!(r#"pbx22 Ping {{"id":"once","server":"pbx22","action":"Ping","fields":{{"N":{priority}}}}}"#)
    };
    let first = stack.send("nats", &[ping(1)]);
    let again = stack.send("kafka", &[ping(1), ping(2)]);
    assert_eq!(first[0]["data"]["outcome"], "executed", "{}", first[0]);
    assert_eq!(first[0], again[0], "the same answer, whichever bus asks again");
    assert_eq!(again[1]["data"]["error"]["code"], "id_reused", "{}", again[1]);
}

#[test]
fn event_lists_come_whole_with_their_response() {
    let stack = &*stack();
    for (bus, server) in [("zeromq", "pbx22"), ("nats", "pbx16")] {
        let list = |action: &str| {
            format!(r#"{server} {action} {{"server":"{server}","action":"{action}","id":"{action}-{bus}"}}"#)
        };
        let replies = stack.send(bus, &[list("QueueStatus"), list("FAXStats"), list("CoreShowChannels")]);
        let last = |reply: &Value| {
            reply["data"]["events"].as_array().and_then(|e| e.last().cloned()).expect("events")
        };
        assert_eq!(last(&replies[0])["Event"], "QueueStatusComplete", "{}", replies[0]);
        assert!(replies[0]["data"]["events"].as_array().is_some_and(|e| e.len() > 5), "{}", replies[0]);
        assert_eq!(last(&replies[1])["Event"], "FAXStats", "{}", replies[1]);
        assert_eq!(last(&replies[2])["Event"], "CoreShowChannelsComplete", "{}", replies[2]);
    }
}
