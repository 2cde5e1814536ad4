//! Ending: what was accepted is delivered or counted, and nothing is left.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amibus_contract::{Bridge, Decision, FaultKind, Scope, Value, Values};
use amibus_zeromq::ZeroMq;
use serde_json::json;

use crate::support::{self, Peer, Raw, SOON, base64, message, publish};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_delivers_to_who_reads() {
    const MESSAGES: usize = 5_000;
    let (bridge, mut outlet, address) = support::publishing(&support::values()).await;
    let mut subscriber = Peer::start(
        "count",
        &json!({"address": address, "topics": ["ami."], "messages": MESSAGES, "receive_queue": 10}),
    );
    subscriber.ready().await;
    let batch: Vec<_> = (0..MESSAGES).map(|n| message("pbx1", n, 2000)).collect();
    publish(&mut *outlet, &batch).await;
    let start = Instant::now();
    assert_eq!(bridge.close(Duration::from_secs(20)).await, 0);
    assert!(start.elapsed() < Duration::from_secs(10), "closing does not wait for its limit");
    assert_eq!(subscriber.said().await["seen"], MESSAGES);
    let after = outlet.publish(&batch[..1]).await.fault.expect("closed");
    assert_eq!((after.kind, after.decision), (FaultKind::Closed, Decision::Stop));
    assert!(bridge.outlet("pbx1").await.is_err());
}

#[tokio::test]
async fn closing_counts_what_a_stopped_subscriber_did_not_get_and_keeps_its_limit() {
    const MESSAGES: usize = 12_000;
    let values = support::values().with("subscriber_queue", Value::Size(64 << 20));
    let (bridge, mut outlet, address) = support::publishing(&values).await;
    // A peer of raw bytes that reads its handshake and then nothing, and one in the midst of its handshake.
    let mut stopped = Raw::shaken(&address, "SUB").await;
    stopped.send(b"\0\x01\x01").await;
    let _hesitant = Raw::connect(&address).await;
    let mut ready = Peer::observe(&address, &["ami.event.pbx2."]).await;
    support::until(&bridge, "both are there", |s| s.subscribers == 2).await;
    let batch: Vec<_> = (0..MESSAGES).map(|n| message("pbx1", n, 2000)).collect();
    publish(&mut *outlet, &batch).await;
    publish(&mut *outlet, &[message("pbx2", 0, 10)]).await;
    let start = Instant::now();
    let undelivered = bridge.close(Duration::from_millis(800)).await;
    assert!(start.elapsed() < Duration::from_secs(3), "the limit is kept: {:?}", start.elapsed());
    assert_eq!(ready.said().await["topic"], "ami.event.pbx2.Test");
    // What left this process is what the kernel took: the rest must be counted, to the message.
    let mut bytes = Vec::new();
    use tokio::io::AsyncReadExt;
    // A reset takes away what was not read; without one the count is exact.
    let whole = stopped.stream.read_to_end(&mut bytes).await.is_ok();
    // Topic and body, with their headers.
    let got = bytes.len() / (2 + "ami.event.pbx1.Test".len() + 9 + 2000);
    assert!(undelivered > 0 && undelivered <= MESSAGES as u64 + 1, "{undelivered}");
    if whole {
        assert_eq!(undelivered as usize + got, MESSAGES + 1, "with {} bytes", bytes.len());
    }
}

#[tokio::test]
async fn replies_leave_before_the_end() {
    let bridge = support::open(&support::values());
    let scope = Scope { prefix: "ami".into(), servers: vec![] };
    let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("configured");
    let address = bridge.commands_address().expect("it listens");
    let messages: Vec<_> = (0..20).map(|_| [base64(b"{}")]).collect();
    let mut peer = Peer::start("ask", &json!({"address": address, "kind": "DEALER", "messages": messages}));
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(inlet.next().await.expect("it works").expect("a request"));
    }
    let reply = message("pbx1", 0, 1 << 20);
    for request in &mut requests {
        request.handle.reply(&reply).await.expect("accepted");
    }
    assert_eq!(bridge.close(Duration::from_secs(20)).await, 0);
    assert!(inlet.next().await.expect("no fault").is_none(), "closed");
    assert_eq!(peer.said().await["sent"], true);
    let mut replies = 0;
    while replies < 20 {
        let said = peer.said().await;
        if said["disconnected"] == true {
            // The connection may have ended before the script has taken all that came over it.
            continue;
        }
        replies += 1;
        assert_eq!(support::bytes(&said["reply"][0]).len(), 1 << 20);
    }
}

/// More than all queues and the kernel keep.
const LARGE_REPLY_BYTES: usize = 32 << 20;

/// A bridge as the daemon leaves it before it closes it, and the peer that was just given a large reply: neither its
/// inlet nor any request is held any more.
async fn replied_and_let_go(values: &Values) -> (Arc<ZeroMq>, Raw) {
    let values = values
        .clone()
        .with("max_message_bytes", Value::Size(LARGE_REPLY_BYTES as u64))
        .with("subscriber_queue", Value::Size(64 << 10));
    let bridge = support::open(&values);
    let scope = Scope { prefix: "ami".into(), servers: vec![] };
    let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("configured");
    let mut peer = Raw::shaken(&bridge.commands_address().expect("it listens"), "DEALER").await;
    peer.send(b"\0\x02{}").await;
    let mut request = inlet.next().await.expect("it works").expect("a request");
    request.handle.reply(&message("pbx1", 0, LARGE_REPLY_BYTES)).await.expect("accepted");
    request.handle.acknowledge().await.expect("nothing to do");
    (bridge, peer)
}

#[tokio::test]
async fn a_reply_leaves_whole_though_inlet_and_request_are_gone() {
    let values = support::values().with("subscriber_patience", Value::Duration(Duration::from_secs(60)));
    let (bridge, mut peer) = replied_and_let_go(&values).await;
    let reading = async {
        let header = peer.read(9).await;
        assert_eq!(header[..], [&[2][..], &(LARGE_REPLY_BYTES as u64).to_be_bytes()].concat());
        for _ in 0..LARGE_REPLY_BYTES >> 20 {
            peer.read(1 << 20).await;
            // It reads slowly.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (undelivered, ()) = tokio::join!(bridge.close(SOON), reading);
    assert_eq!(undelivered, 0);
}

#[tokio::test]
async fn a_reply_that_does_not_leave_is_counted() {
    let patience = |patience| support::values().with("subscriber_patience", Value::Duration(patience));
    // The one is disconnected for it, the other cut at the limit.
    for (patience, limit) in [
        (patience(Duration::from_millis(500)), SOON),
        (patience(Duration::from_secs(60)), Duration::from_millis(500)),
    ] {
        let (bridge, _stopped) = replied_and_let_go(&patience).await;
        let start = Instant::now();
        assert_eq!(bridge.close(limit).await, 1);
        assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn the_port_is_free_afterwards_and_in_use_before() {
    let (bridge, outlet, address) = support::publishing(&support::values()).await;
    let values = support::values().with("publish", Value::Text(address.clone()));
    let second = support::open(&values);
    let fault = second.outlet("pbx1").await.err().expect("the port is taken");
    assert_eq!((fault.kind, fault.decision), (FaultKind::Unreachable, Decision::Retry));
    assert!(second.status().expect_err("not listening").contains(&address));
    let lines = second.probe().await.expect("somebody listens, and speaks ZeroMQ");
    assert!(lines[0].contains("listens") && lines[0].contains(&address), "{lines:?}");
    drop(outlet);
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
    assert!(second.outlet("pbx1").await.is_ok(), "the port is free again");
    assert!(second.status().is_ok());
    let lines = second.probe().await.expect("fine");
    assert!(lines[0].contains("listening on"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_amid_a_wait_for_a_stopped_subscriber_keeps_its_limit() {
    let values = support::values()
        .with("subscriber_queue", Value::Size(64 << 10))
        .with("subscriber_patience", Value::Duration(Duration::from_secs(60)));
    let (bridge, mut outlet, address) = support::publishing(&values).await;
    let mut stopped = Raw::shaken(&address, "SUB").await;
    stopped.send(b"\0\x01\x01").await;
    support::until(&bridge, "it is there", |s| s.subscribers == 1).await;
    let batch: Vec<_> = (0..20_000).map(|n| message("pbx1", n, 2000)).collect();
    let publishing = tokio::spawn(async move { outlet.publish(&batch).await });
    support::until(&bridge, "its queue is full", |s| s.queued_bytes >= 64 << 10).await;
    let start = Instant::now();
    assert!(bridge.close(Duration::from_millis(500)).await > 0);
    assert!(start.elapsed() < Duration::from_secs(3), "the limit is kept: {:?}", start.elapsed());
    let published = publishing.await.expect("no panic");
    assert_eq!(published.safe, 0, "what was not all handed over is not called safe");
}
