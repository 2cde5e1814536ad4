//! Servers and brokers that go away in the middle of a call, and come back.

use std::time::Duration;

use amibus_services::Asterisk;
use serde_json::Value;

use super::stack::{Stack, stack};

/// A call that outlives every restart of a broker here.
fn start_a_call(asterisk: &Asterisk) {
    asterisk.cli("channel originate Local/2005@phones application Wait 30");
    for _ in 0..500 {
        if !asterisk.cli("core show channels count").contains("0 active channels") {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no call came up");
}

fn link(server: &'static str, state: &'static str) -> impl Fn(&Value) -> bool {
    move |body| {
        body["type"] == format!("ami.link.{state}").as_str()
            && body["source"] == format!("/asterisk/{server}").as_str()
    }
}

fn after_restart(stack: &mut Stack, server: &'static str, reason: &str, from: [usize; 3]) {
    stack.wait_until_ready();
    for (consumer, from) in stack.consumers.iter_mut().zip(from) {
        let down = consumer.find(from, "link down", link(server, "down"));
        consumer.find(down, "link up", link(server, "up"));
        let gap = consumer.find(down, "the gap", link(server, "gap"));
        let data = &consumer.seen[gap]["body"]["data"];
        assert_eq!(data["reason"], reason, "{}: {data}", consumer.bus);
        assert_eq!(data["bus"], Value::Null);
        assert!(data["from"].as_str() < data["until"].as_str(), "{data}");
        consumer.find(down, "a snapshot", link(server, "snapshot"));
    }
    let command = format!(r#"{server} Ping {{"server":"{server}","action":"Ping"}}"#);
    let reply = &stack.send("zeromq", &[command])[0];
    assert_eq!(reply["data"]["outcome"], "executed", "commands work again: {reply}");
}

#[test]
fn asterisk_killed_in_a_call_heals_and_says_so() {
    let stack = &mut *stack();
    start_a_call(&stack.asterisk22);
    let from = stack.consumers.each_ref().map(|c| c.seen.len());
    stack.asterisk22.kill();
    stack.consumers[1].find(from[1], "link down", link("pbx22", "down"));
    let offline = stack.send("zeromq", &[r#"pbx22 Ping {"server":"pbx22","action":"Ping"}"#.to_owned()]);
    assert_eq!(offline[0]["data"]["error"]["code"], "unavailable", "{}", offline[0]);
    let other = stack.send("zeromq", &[r#"pbx16 Ping {"server":"pbx16","action":"Ping"}"#.to_owned()]);
    assert_eq!(other[0]["data"]["outcome"], "executed", "one server's fall is not another's: {}", other[0]);
    stack.asterisk22.restart();
    after_restart(stack, "pbx22", "disconnected", from);
}

#[test]
fn asterisk_stopped_and_started_in_a_call_heals_and_says_so() {
    let stack = &mut *stack();
    start_a_call(&stack.asterisk16);
    let from = stack.consumers.each_ref().map(|c| c.seen.len());
    stack.asterisk16.restart();
    after_restart(stack, "pbx16", "disconnected", from);
}

#[test]
fn a_broker_that_is_killed_in_a_call_misses_nothing() {
    for broker in ["nats", "kafka"] {
        let stack = &mut *stack();
        start_a_call(&stack.asterisk22);
        let from = stack.consumers.each_ref().map(|c| c.seen.len());
        if broker == "nats" {
            stack.nats.kill()
        } else {
            stack.kafka.kill()
        }
        let tag = format!("while-{broker}-is-away");
        for n in 0..50 {
            let mark = format!("{tag}-{n}");
            let mut monitor = super::monitor::Monitor::login(stack.asterisk22.ami_port());
            monitor.mark(&mark);
        }
        std::thread::sleep(Duration::from_millis(200));
        if broker == "nats" {
            stack.nats.restart()
        } else {
            stack.kafka.restart()
        }
        stack.wait_until_ready();
        for (consumer, from) in stack.consumers.iter_mut().zip(from) {
            let mut at = from;
            for n in 0..50 {
                let mark = format!("{tag}-{n}");
                at = consumer.find(if consumer.bus == "kafka" { from } else { at }, &mark, |body| {
                    body["data"]["UserEvent"] == mark.as_str()
                });
            }
            let repeated =
                consumer.seen[from..].iter().filter(|m| m["body"]["data"]["Mark"] == "here").count();
            assert!(repeated >= 50, "{}", consumer.bus);
        }
        stack.asterisk22.cli("channel request hangup all");
    }
}
