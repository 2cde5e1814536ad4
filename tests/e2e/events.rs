//! Every event of a real call, in order, on every bus.

use std::collections::BTreeMap;

use amibus_services::Asterisk;
use serde_json::Value;

use super::{
    monitor::{Block, Monitor, value},
    stack::{Consumer, Stack, stack},
};

#[test]
fn every_event_of_a_call_on_asterisk_22_reaches_every_bus_in_order() {
    let stack = &mut *stack();
    let monitor = Monitor::login(stack.asterisk22.ami_port());
    call_and_compare(&stack.asterisk22, monitor, &mut stack.consumers, "pbx22");
}

#[test]
fn every_event_of_a_call_on_asterisk_16_reaches_every_bus_in_order() {
    let stack = &mut *stack();
    let monitor = Monitor::login(stack.asterisk16.ami_port());
    call_and_compare(&stack.asterisk16, monitor, &mut stack.consumers, "pbx16");
}

fn call_and_compare(asterisk: &Asterisk, mut monitor: Monitor, consumers: &mut [Consumer; 3], server: &str) {
    let from = consumers.each_ref().map(|c| c.seen.len());
    let (start, end) = (format!("start-{server}"), format!("end-{server}"));
    monitor.mark(&start);
    // Two far ends, a bridge between them, odd caller names, and a queue with two agents.
    asterisk.cli("channel originate Local/1001@flows application Wait 2");
    asterisk.cli("channel originate Local/1200@flows application Wait 1");
    monitor.wait(|b| value(b, "Event") == Some("Hangup") && value(b, "Exten") == Some("1200"));
    monitor.wait(|b| value(b, "Event") == Some("BridgeDestroy"));
    wait_for_silence(asterisk);
    monitor.mark(&end);
    let sent = monitor.between(&start, &end);
    assert!(sent.len() > 40, "a real call has many events, this one {}", sent.len());
    for (consumer, from) in consumers.iter_mut().zip(from) {
        let mark = |body: &Value, name: &str| {
            body["data"]["UserEvent"] == name && body["source"] == format!("/asterisk/{server}").as_str()
        };
        // In Kafka the marks are in a partition of their own; what is between them is told by its sequence.
        let start = consumer.find(from, &start, |body| mark(body, &start));
        let end = consumer.find(from, &end, |body| mark(body, &end));
        let bounds = [start, end].map(|at| sequence(&consumer.seen[at]["body"]));
        let last = format!("{:020}", bounds[1] - 1);
        consumer.find(from, "the last event before the end", |body| {
            body["sequence"] == last.as_str() && body["source"] == format!("/asterisk/{server}").as_str()
        });
        compare(consumer, from, server, bounds, &sent);
    }
}

fn compare(consumer: &Consumer, from: usize, server: &str, bounds: [u64; 2], sent: &[Block]) {
    let source = format!("/asterisk/{server}");
    let mut seen: Vec<&Value> = consumer.seen[from..]
        .iter()
        .map(|message| &message["body"])
        .filter(|body| body["source"] == source.as_str() && body["specversion"] == "1.0")
        .filter(|body| body["type"].as_str().is_some_and(|t| t.starts_with("ami.event.")))
        .filter(|body| (bounds[0] + 1..bounds[1]).contains(&sequence(body)))
        .collect();
    let mut last_of_call: BTreeMap<&str, u64> = BTreeMap::new();
    for body in &seen {
        let key = body["partitionkey"].as_str().expect("a key");
        let before = last_of_call.insert(key, sequence(body));
        assert!(before < Some(sequence(body)), "{}: out of order within {key}", consumer.bus);
    }
    if consumer.bus == "kafka" {
        seen.sort_by_key(|body| sequence(body));
    }
    let names = |seen: &[&Value]| seen.iter().map(|b| b["data"]["Event"].to_string()).collect::<Vec<_>>();
    assert_eq!(seen.len(), sent.len(), "{} saw {:?}", consumer.bus, names(&seen));
    for (body, block) in seen.iter().zip(sent) {
        let data = body["data"].as_object().expect("an object");
        for (name, text) in block {
            let got =
                &data.get(name).unwrap_or_else(|| panic!("{}: {name} is missing in {body}", consumer.bus));
            let same = match got {
                Value::String(got) => got == text || unescaped(name) || data.contains_key("$bytes"),
                Value::Number(got) => got.to_string() == *text,
                _ => true,
            };
            assert!(same, "{}: {name} is {got}, Asterisk sent {text:?}", consumer.bus);
        }
        assert_eq!(data["Event"], value(block, "Event").expect("a name"));
    }
}

/// Headers whose C escapes amibus takes away.
fn unescaped(name: &str) -> bool {
    name.ends_with("CallerIDName") || name.ends_with("ConnectedLineName") || name == "Value"
}

fn sequence(body: &Value) -> u64 {
    body["sequence"].as_str().and_then(|s| s.parse().ok()).expect("a sequence")
}

/// Waits until no call is left.
pub(super) fn wait_for_silence(asterisk: &Asterisk) {
    for _ in 0..600 {
        if asterisk.cli("core show channels count").contains("0 active channels") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("calls are still up: {}", asterisk.cli("core show channels"));
}

/// The counters that an operator watches move.
#[test]
fn metrics_count_what_was_published() {
    let stack: &Stack = &stack();
    let (status, text) = super::stack::get(stack.amibus.port(0), "/metrics").expect("amibus answers");
    assert_eq!(status, 200);
    for bus in ["zeromq", "nats", "kafka"] {
        for server in ["pbx22", "pbx16"] {
            let line = format!("amibus_messages_published_total{{server=\"{server}\",bus=\"{bus}\"}} ");
            let count: u64 = text
                .lines()
                .find_map(|l| l.strip_prefix(line.as_str()))
                .and_then(|n| n.parse().ok())
                .unwrap_or_else(|| panic!("{line} is not in\n{text}"));
            assert!(count > 0, "{line}{count}");
        }
    }
}
