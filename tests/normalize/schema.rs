//! What is published fits the schemas that are published.

use amibus::{
    command::decode::decode,
    link,
    normalize::Profile,
    schema,
    writer::{Origin, Writer},
};
use amibus_ami::Frame;
use amibus_contract::{BoxFuture, Bytes, Fault, Handle, Message, Reach, Rejection, Request};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

use super::{corpus::every_message, encode, validate::validate};

fn schema(name: &str) -> Value {
    serde_json::from_str(schema::find(name).expect("a schema of that name").text).expect("JSON")
}

#[track_caller]
fn assert_fits(name: &str, value: &Value) {
    let schema = schema(name);
    validate(&schema, &schema, value).unwrap_or_else(|wrong| panic!("{wrong}\n{value}"));
}

#[track_caller]
fn assert_unfit(name: &str, value: &Value) {
    let schema = schema(name);
    assert!(validate(&schema, &schema, value).is_err(), "{value}");
}

#[test]
fn every_recorded_event_fits() {
    let schema = schema("event");
    let count = every_message(|name, frame| {
        let body: Value = serde_json::from_slice(&encode(frame.raw()).1).expect("JSON");
        validate(&schema, &schema, &body).unwrap_or_else(|wrong| panic!("{name}: {wrong}\n{body}"));
    });
    assert!(count > 20_000);
    let mut body: Value = serde_json::from_slice(&encode(b"Event: X\r\nA: 1").1).expect("JSON");
    body["data"]["A"] = json!(1.5);
    assert_unfit("event", &body);
    body["data"]["A"] = json!({"b": 1});
    assert_unfit("event", &body);
}

fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.body).expect("JSON")
}

#[test]
fn every_link_state_fits() {
    let profile = Profile::new("pbx1", None).expect("a valid profile");
    let writer = Writer::new(profile, "ami", "log-1").expect("a valid prefix");
    let until = UNIX_EPOCH + Duration::from_millis(1_795_219_200_500);
    let gap = |missed, range| link::Gap { reason: "skipped", missed, range, from: UNIX_EPOCH, until };
    let items = [writer.data(Frame::parse(b"Event: CoreShowChannel\r\nPriority: 1"))];
    for message in [
        link::up(&writer, 1, "22.10.1", Some("2026-11-21T00:23:05"), false),
        link::up(&writer, 1, "22.10.1", None, true),
        link::down(&writer, 2, "disconnected", None),
        link::down(&writer, 2, "disconnected", Some(until)),
        link::gap(&writer, 3, &gap(Some(118), Some((4711, 4828)))),
        link::gap(&writer, 3, &gap(None, Some((4711, 4828)))),
        link::gap(&writer, 3, &gap(None, None)),
        link::snapshot(&writer, 4, "CoreShowChannels", &items),
        link::snapshot(&writer, 4, "CoreShowChannels", &[]),
    ] {
        assert_fits("link", &body(&message));
    }
    let origin = Origin { received: until, given: None, boot: None, number: None };
    assert_unfit("link", &body(&writer.event(Frame::parse(b"Event: X"), 5, &origin)));
}

/// Nobody waits for an answer to what is only decoded.
#[derive(Debug)]
struct NoHandle;

impl Handle for NoHandle {
    fn reply<'a>(&'a mut self, _: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        Box::pin(async { Ok(Reach::Sent) })
    }

    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn keep_every(&self) -> Option<Duration> {
        None
    }

    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn dead_letter(self: Box<Self>, _: Rejection) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

fn decodes(command: &Value) -> bool {
    let request = Request {
        server: Some("pbx1".to_owned()),
        action: Some("Originate".to_owned()),
        identity: None,
        sent_at: None,
        sender: None,
        durable: false,
        reply_wanted: false,
        body: Bytes::from(command.to_string()),
        handle: Box::new(NoHandle),
    };
    decode(&request, 1 << 20).is_ok()
}

#[test]
fn a_command_fits_exactly_when_it_can_be_decoded() {
    let plain = json!({
        "id": "order-8812", "server": "pbx1", "action": "Originate", "deadline": "2026-11-20T15:01:00Z", "wait": "final",
        "fields": {"Channel": "PJSIP/100", "Priority": 1, "Async": true, "Codecs": ["ulaw", "alaw"],
            "Variable": {"ORDER": "8812", "NOTE": "a=b,c"}},
    });
    let event = json!({"specversion": "1.0", "id": "x", "source": "/shop", "type": "ami.command.Originate", "data": {}});
    for good in [plain.clone(), json!({}), json!({"fields": {"Variable": ["A=1", "B=2"]}}), event.clone()] {
        assert!(decodes(&good), "{good}");
        assert_fits("command", &good);
    }
    let changed = |of: &Value, pointer: &str, key: &str, value: Value| {
        let mut changed = of.clone();
        changed.pointer_mut(pointer).expect("there")[key] = value;
        changed
    };
    for bad in [
        json!([]),
        changed(&plain, "", "feilds", json!({})),
        changed(&plain, "", "id", json!("")),
        changed(&plain, "", "id", json!("x".repeat(201))),
        changed(&plain, "", "id", json!(7)),
        changed(&plain, "", "wait", json!("forever")),
        changed(&plain, "/fields", "Exten", json!(null)),
        changed(&plain, "/fields", "Exten", json!({"a": "b"})),
        changed(&plain, "/fields", "Codecs", json!([["ulaw"]])),
        changed(&plain, "/fields/Variable", "A", json!(["x"])),
        changed(&event, "", "specversion", json!("0.3")),
        changed(&event, "", "data", json!("x")),
        changed(&event, "/data", "Channel", json!("x")),
    ] {
        assert!(!decodes(&bad), "{bad}");
        assert_unfit("command", &bad);
    }
}

#[test]
fn responses_fit() {
    let response = json!({
        "specversion": "1.0", "id": "log-1:43", "source": "/asterisk/pbx1", "type": "ami.response.Originate",
        "time": "2026-11-21T00:00:00.500000Z", "datacontenttype": "application/json",
        "sequence": "00000000000000000043", "partitionkey": "order-8812", "correlationid": "order-8812",
        "data": {"id": "order-8812", "server": "pbx1", "action": "Originate", "outcome": "executed",
            "response": {"Response": "Success"}, "events": [{"Event": "OriginateResponse", "Reason": 4}],
            "call": {"result": "answered", "reason": 4, "uniqueid": "1.2", "channel": "PJSIP/100-00000001"}, "error": null},
    });
    assert_fits("response", &response);
    let mut refused = response.clone();
    refused["data"]["outcome"] = json!("refused");
    refused["data"]["error"] = json!({"code": "asterisk_error", "message": "No such channel", "field": null});
    assert_fits("response", &refused);
    refused["data"]["error"]["code"] = json!("whatever");
    assert_unfit("response", &refused);
}
