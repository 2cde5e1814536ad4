//! Against real Asterisks.

use std::time::Duration;

use amibus_services::{Asterisk, AsteriskOptions, Version};
use serde_json::Value;

use super::rig::Bridge;

/// A call of a second, with nobody looking on.
fn call(asterisk: &Asterisk) {
    asterisk.cli("channel originate Local/2005@phones application Wait 1");
}

#[test]
fn a_user_that_sees_only_calls_has_holes_by_nature() {
    let asterisk =
        Asterisk::start(Version::V22, &AsteriskOptions { debug_seq: true, ..AsteriskOptions::default() });
    let snapshots = "snapshot = [\"QueueStatus\"]\n";
    let (mut all, mut some) = (
        Bridge::new(asterisk.ami_port(), "orig", "orig-pass", snapshots),
        Bridge::new(
            asterisk.ami_port(),
            "orig",
            "orig-pass",
            &format!("{snapshots}sequence_numbers = \"some\"\n"),
        ),
    );
    for bridge in [&mut all, &mut some] {
        bridge.start();
        bridge.until("up", 1, |message| message["type"] == "ami.link.up");
    }
    let is_bundle = |message: &Value| {
        let data = &message["data"];
        let length = data["last"].as_u64().zip(data["first"].as_u64()).map(|(last, first)| last - first + 1);
        data["reason"] == "skipped" && data["missed"].as_u64() < length
    };
    for _ in 0..40 {
        call(&asterisk);
        std::thread::sleep(Duration::from_millis(100));
    }
    call(&asterisk);
    all.until("a gap of many ranges", 1, is_bundle);
    assert!(all.log().contains("SequenceNumbers are missing again and again"), "{}", all.log());
    assert_eq!(some.links("gap"), [] as [Value; 0]);
    some.until("hangups", 10, |message| message["type"] == "ami.event.Hangup");
}

#[test]
fn a_disconnect_is_told_though_nobody_was_there_to_number_for() {
    for version in [Version::V22, Version::V16] {
        let options = AsteriskOptions { debug_seq: true, ..AsteriskOptions::default() };
        let asterisk = Asterisk::start(version, &options);
        let mut bridge = Bridge::new(asterisk.ami_port(), "full", "full-pass", "");
        bridge.start();
        bridge.until_up(1);
        bridge.kill();
        std::thread::sleep(Duration::from_millis(500));
        call(&asterisk);
        std::thread::sleep(Duration::from_millis(2500));
        bridge.start();
        bridge.until("the gap", 1, |message| message["data"]["reason"] == "disconnected");
        let said = bridge.said();
        let at = said.iter().position(|message| message["type"] == "ami.link.gap").expect("said");
        let gap = &said[at]["data"];
        let is_event = |message: &&Value| message["data"]["Timestamp"].is_string();
        let before = said[..at].iter().filter(|message| is_event(message)).map(|m| m["time"].as_str());
        let up = said[..at].iter().rposition(|message| message["type"] == "ami.link.up").expect("up");
        assert_eq!(said[up]["data"]["resumed"], true, "the same life: {}", said[up]);
        let last = said[..up].iter().rfind(is_event).expect("an event before");
        assert!(before.flatten().any(|time| Some(time) == gap["from"].as_str()), "Asterisk's own: {gap}");
        assert!(
            gap["from"].as_str() <= last["time"].as_str() && gap["until"].as_str() > last["time"].as_str()
        );
        let next = said[up..].iter().find(is_event).expect("an event after");
        let number = |message: &Value| message["data"]["SequenceNumber"].as_u64();
        if number(next) == number(last).map(|number| number + 1) {
            assert_eq!(gap["missed"], Value::Null, "nothing is missing, and yet a call was: {gap}");
        }
    }
}
