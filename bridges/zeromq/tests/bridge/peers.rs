//! Peers that behave: many, fast, with heartbeats.

use std::time::{Duration, Instant};

use amibus_contract::{Bridge, Scope, Value};
use serde_json::json;

use crate::support::{self, Peer, Raw, message, publish, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeating_peers_live_and_see_everything() {
    const BURSTS: usize = 5;
    const MESSAGES: usize = BURSTS * 100;
    let (bridge, mut outlet, address) = support::publishing(&support::values()).await;
    let scope = Scope { prefix: "ami".into(), servers: vec![] };
    let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("configured");
    let commands = bridge.commands_address().expect("it listens");
    let mut subscriber = Peer::start(
        "count",
        &json!({"address": address, "topics": ["ami."], "messages": MESSAGES, "heartbeat_millis": 200}),
    );
    let mut requester = Peer::start(
        "ask",
        &json!({"address": commands, "kind": "DEALER", "messages": [[support::base64(b"{}")]], "heartbeat_millis": 200}),
    );
    subscriber.ready().await;
    assert_eq!(requester.said().await["sent"], true);
    let mut request = inlet.next().await.expect("it works").expect("a request");
    // Longer than a peer waits for a heartbeat, with silences of several.
    for burst in 0..BURSTS {
        let batch: Vec<_> = (burst * 100..burst * 100 + 100).map(|n| message("pbx1", n, 300)).collect();
        publish(&mut *outlet, &batch).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let said = subscriber.said().await;
    assert_eq!(
        (&said["seen"], &said["jumps"], &said["disconnects"]),
        (&json!(MESSAGES), &json!(0), &json!(0))
    );
    request.handle.reply(&message("pbx1", 0, 20)).await.expect("the reply goes out");
    let said = requester.said().await;
    assert!(said["reply"].is_array(), "the requester was not disconnected: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_reaches_every_subscriber_that_reads() {
    const MESSAGES: usize = 200_000;
    let (bridge, mut outlet, address) = support::publishing(&support::values()).await;
    let options = json!({"address": address, "topics": ["ami.event."], "messages": MESSAGES});
    let mut subscribers: Vec<_> = (0..3).map(|_| Peer::start("count", &options)).collect();
    for subscriber in &mut subscribers {
        subscriber.ready().await;
    }
    let start = Instant::now();
    for first in (0..MESSAGES).step_by(1000) {
        let batch: Vec<_> = (first..first + 1000).map(|n| message("pbx1", n, 600)).collect();
        publish(&mut *outlet, &batch).await;
        assert!(bridge.stats().queued_bytes <= 3 * (4 << 20) + 3 * (64 << 10), "{:?}", bridge.stats());
    }
    let published = start.elapsed();
    for subscriber in &mut subscribers {
        let said = subscriber.said_within(Duration::from_secs(120)).await.expect("it gets there");
        assert_eq!(
            (&said["seen"], &said["jumps"]),
            (&json!(MESSAGES), &json!(0)),
            "after {published:?}: {said}"
        );
    }
    assert_eq!(bridge.stats().slow, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscribers() {
    const PEERS: usize = 1000;
    const MESSAGES: usize = 20;
    let values = support::values().with("max_peers", Value::Integer(PEERS as i64));
    // One script shakes a thousand hands, which is slow on a busy machine.
    let values = values.with("handshake_timeout", Value::Duration(Duration::from_secs(60)));
    let (bridge, mut outlet, address) = support::publishing(&values).await;
    let options = json!({"address": address, "topics": ["ami."], "messages": MESSAGES, "peers": PEERS});
    let mut peers = Peer::start("many", &options);
    let said = peers.said_within(Duration::from_secs(60)).await;
    assert!(said.is_some_and(|said| said["ready"] == true), "not all there: {:?}", bridge.stats());
    assert_eq!(bridge.stats().subscribers, PEERS as u64);
    let batch: Vec<_> = (0..MESSAGES).map(|n| message("pbx1", n, 600)).collect();
    publish(&mut *outlet, &batch).await;
    let said = peers.said_within(Duration::from_secs(120)).await.expect("they get there");
    assert_eq!((&said["seen"], &said["least"]), (&json!(PEERS * MESSAGES), &json!(0)));
    drop(peers);
    until(&bridge, "all are gone", |s| s.subscribers == 0 && s.queued_bytes == 0).await;
}

/// The engine locks the same maps for peers that come, that subscribe and that leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_come_and_go_while_others_subscribe() {
    const AT_ONCE: usize = 32;
    const TIMES: usize = 40;
    let (bridge, _outlet, address) = support::publishing(&support::values()).await;
    let coming: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move {
                for _ in 0..TIMES {
                    let mut raw = Raw::shaken(&address, "SUB").await;
                    raw.send(b"\0\x05\x01ami.\0\x11\x01~amibus.confirm.").await;
                    assert_eq!(raw.read(20).await, b"\x01\x10~amibus.confirm.\0\0");
                }
            })
        })
        .collect();
    for one in coming {
        one.await.unwrap_or_else(|error| panic!("{error}: {:?}", bridge.stats()));
    }
    until(&bridge, "all are gone", |s| s.subscribers == 0).await;
}

#[tokio::test]
async fn topics_are_told_apart_by_prefix() {
    let (_bridge, mut outlet, address) = support::publishing(&support::values()).await;
    let mut one = Peer::observe(&address, &["ami.event.pbx1."]).await;
    let mut other = Peer::observe(&address, &["ami.event.pbx12.", "ami.link."]).await;
    publish(&mut *outlet, &[message("pbx1", 1, 10), message("pbx12", 2, 10), message("pbx1", 3, 10)]).await;
    for n in [1, 3] {
        assert_eq!(support::bytes(&one.said().await["body"]), format!("{n:010}").as_bytes());
    }
    assert_eq!(support::bytes(&other.said().await["body"]), b"0000000002");
    assert!(other.said_within(Duration::from_millis(300)).await.is_none());
}

#[tokio::test]
async fn a_subscriber_that_reconnects_is_subscribed_again() {
    let ports = amibus_services::Ports::take();
    let values = support::values().with("publish", Value::Text(format!("tcp://127.0.0.1:{}", ports.port(0))));
    let (bridge, outlet, address) = support::publishing(&values).await;
    let mut peer = Peer::observe(&address, &["ami."]).await;
    drop(outlet);
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
    let (_bridge, mut outlet, _) = support::publishing(&values).await;
    peer.ready().await;
    publish(&mut *outlet, &[message("pbx1", 7, 10)]).await;
    assert_eq!(support::bytes(&peer.said().await["body"]), b"0000000007");
}

#[tokio::test]
async fn subscribers_with_the_same_identity_do_not_disturb_each_other() {
    let (bridge, mut outlet, address) = support::publishing(&support::values()).await;
    let ready = b"\x04\x2a\x05READY\x0bSocket-Type\0\0\0\x03SUB\x08Identity\0\0\0\x04twin";
    let mut twins = [Raw::shaken_by(&address, ready).await, Raw::shaken_by(&address, ready).await];
    for twin in &mut twins {
        twin.send(b"\0\x01\x01\0\x11\x01~amibus.confirm.").await;
        assert_eq!(twin.read(20).await, b"\x01\x10~amibus.confirm.\0\0");
    }
    assert_eq!(bridge.stats().subscribers, 2);
    publish(&mut *outlet, &[message("pbx1", 1, 10)]).await;
    for twin in &mut twins {
        assert_eq!(twin.read(33).await, b"\x01\x13ami.event.pbx1.Test\0\x0a0000000001");
    }
}
