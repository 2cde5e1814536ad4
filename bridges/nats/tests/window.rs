//! What is sent again after the stream forgot its id.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use amibus_contract::{
    Decision, Fault, FaultKind, Kind, Message, Value, Values, conformance, conformance::Rig,
};
use amibus_services::{Nats, NatsOptions};
use async_nats::jetstream;

use crate::{
    faults::{assert_exactly_once_in_order, events},
    rig::{EVENTS, NatsRig, PREFIX, event, offer, open, stored, stream_holds, text},
};

/// The least that the server takes.
const WINDOW: Duration = Duration::from_millis(100);

fn forgetful(url: &str) -> Values {
    stored(url).with("duplicate_window", Value::Duration(WINDOW))
}

/// Waits until the stream has forgotten all ids that it was given so far: the last of them is one of ours.
async fn until_forgotten(client: &async_nats::Client) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let context = jetstream::new(client.clone());
    let id = format!("sentinel-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let begun = Instant::now();
    let mut stored = Vec::new();
    while stored.len() < 2 {
        let publish = jetstream::message::PublishMessage::build().message_id(&id);
        let sent =
            context.send_publish(format!("{PREFIX}.event.sentinel.Test"), publish).await.expect("sent");
        let ack = sent.await.expect("acknowledged");
        if !ack.duplicate {
            stored.push(ack.sequence);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it remembers for ever");
        tokio::time::sleep(WINDOW * 2).await;
    }
    let stream = context.get_stream(EVENTS).await.expect("the stream");
    for sequence in stored {
        assert!(stream.delete_message(sequence).await.expect("deleted"));
    }
}

async fn publish_all(values: &Values, messages: &[Message]) {
    let bridge = open(values);
    offer(&mut *bridge.outlet("pbx1").await.expect("an outlet"), messages, 1_000).await;
    bridge.close(Duration::from_secs(1)).await;
}

/// More than is held in memory at once, with another server's messages in between, and the way back longer than the
/// first look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_start_stores_nothing_twice() {
    let server = Nats::jetstream();
    let values = forgetful(&server.url());
    let messages = events(10_500, 10);
    let (before, _) = messages.split_at(10_000);
    publish_all(&values, before).await;
    let bridge = open(&values);
    let others: Vec<Message> =
        (0..6_000).map(|n| conformance::message(PREFIX, Kind::Event, "pbx2", n, 1, 10)).collect();
    offer(&mut *bridge.outlet("pbx2").await.expect("an outlet"), &others, 1_000).await;
    let client = async_nats::connect(server.url()).await.expect("connected");
    until_forgotten(&client).await;
    // The cursor of a process that was killed is a little behind, or was lost: then all is sent again.
    publish_all(&values, &messages[9_500..10_250]).await;
    until_forgotten(&client).await;
    publish_all(&values, &messages).await;
    let held = stream_holds(&client, EVENTS, &format!("{PREFIX}.*.pbx1.>")).await;
    assert_exactly_once_in_order(&held, &messages);
    let others_held = stream_holds(&client, EVENTS, &format!("{PREFIX}.*.pbx2.>")).await;
    assert_exactly_once_in_order(&others_held, &others);
}

/// What is in the stream, and what is not but stands before it, are told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_in_the_middle_is_sent() {
    let server = Nats::jetstream();
    let values = forgetful(&server.url());
    let messages: Vec<Message> = (0..30).map(|n| event(n, &format!("call-{n}"), 10)).collect();
    let odd: Vec<Message> = messages.iter().skip(1).step_by(2).cloned().collect();
    publish_all(&values, &odd).await;
    let client = async_nats::connect(server.url()).await.expect("connected");
    until_forgotten(&client).await;
    publish_all(&values, &messages).await;
    let held = stream_holds(&client, EVENTS, ">").await;
    assert_exactly_once_in_order(&held, &messages);
}

/// The same outlet, while the server is away for longer than it remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outage_in_the_middle_of_a_batch_stores_nothing_twice() {
    let rig = NatsRig::jetstream().await;
    let client = rig.plain().await;
    jetstream::new(client.clone()).delete_stream(EVENTS).await.expect("deleted");
    let bridge = open(&forgetful(rig.url()));
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages = events(16_000, 300);
    let killing = async {
        for pause in [60, 150, 90] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            rig.kill_server().await;
            tokio::time::sleep(WINDOW * 5).await;
            rig.start_server().await;
        }
    };
    tokio::join!(offer(&mut *outlet, &messages, 1_000), killing);
    assert_exactly_once_in_order(&stream_holds(&rig.plain().await, EVENTS, ">").await, &messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_dead_letter_is_stored_once() {
    let server = Nats::jetstream();
    let values = forgetful(&server.url());
    let poison = event(7, "a", 10);
    let cause = Fault::new(FaultKind::TooLarge, "too large");
    let client = async_nats::connect(server.url()).await.expect("connected");
    for round in 0..2 {
        let bridge = open(&values);
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        offer(&mut *outlet, &[event(6, "a", 10)], 1).await;
        assert!(outlet.dead_letter(&poison, &cause).await.expect("set aside"));
        assert_eq!(crate::rig::length(&client, EVENTS).await, 2, "round {round}");
        until_forgotten(&client).await;
    }
}

/// A server that hangs while it is asked: nothing is sent before it has answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_again_before_the_stream_was_read() {
    let rig = NatsRig::jetstream().await;
    let client = rig.plain().await;
    jetstream::new(client.clone()).delete_stream(EVENTS).await.expect("deleted");
    let values = forgetful(rig.url()).with("ack_timeout", Value::Duration(Duration::from_millis(400)));
    let messages = events(100, 10);
    publish_all(&values, &messages).await;
    until_forgotten(&client).await;
    let bridge = open(&values);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    assert_eq!(outlet.publish(&[]).await.fault, None, "connected");
    rig.with_server(|server| server.pause());
    for _ in 0..2 {
        let published = outlet.publish(&messages).await;
        let fault = published.fault.expect("the server hangs");
        assert_eq!((published.safe, fault.decision), (0, Decision::Retry), "{fault}");
        assert!(fault.message.contains("could not be read"), "{fault}");
    }
    rig.with_server(|server| server.resume());
    offer(&mut *outlet, &messages, 100).await;
    assert_exactly_once_in_order(&stream_holds(&rig.plain().await, EVENTS, ">").await, &messages);
}

/// One message at a lane's head is not permitted, on a connection that stays up, for longer than the stream remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_behind_a_blocked_message_is_not_stored_again() {
    let config = r#"authorization { users: [
        { user: "all", password: "p" }
        { user: "partly", password: "p", permissions: { publish: { deny: "test.ami.link.>" } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { jetstream: true, config: config.to_owned() });
    let secret = Value::Secret("p".to_owned().into());
    let values = forgetful(&server.url()).with("user", text("partly")).with("password", secret);
    let client = async_nats::ConnectOptions::with_user_and_password("all".into(), "p".into());
    let client = client.connect(server.url()).await.expect("connected");
    let mut messages: Vec<Message> = (0..200).map(|n| event(n, &format!("call-{n}"), 10)).collect();
    messages[0] = conformance::message(PREFIX, Kind::Link, "pbx1", 0, 1, 10);
    let bridge = open(&values);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let mut stored = 0;
    for round in 0..3 {
        let published = outlet.publish(&messages).await;
        let kind = published.fault.map(|fault| fault.kind);
        assert_eq!((published.safe, kind), (0, Some(FaultKind::Forbidden)), "round {round}");
        let held = stream_holds(&client, EVENTS, ">").await;
        let ids: std::collections::BTreeSet<_> = held.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), held.len(), "round {round}: some are there twice");
        assert!(held.len() >= stored && !held.is_empty(), "round {round}");
        stored = held.len();
        until_forgotten(&client).await;
    }
    let fault = bridge.probe().await.expect_err("links may not be published");
    assert!(fault.kind == FaultKind::Forbidden && fault.message.contains("test.ami.link."), "{fault}");
}

/// Without the permission to read, repeats come in, events go on, and a check says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_may_not_be_read_is_warned_of() {
    let config = r#"authorization { users: [
        { user: "all", password: "p" }
        { user: "blind", password: "p", permissions: { publish: { deny: "$JS.API.CONSUMER.>" } } }
        { user: "half", password: "p", permissions: { publish: { deny: "$JS.API.CONSUMER.MSG.>" } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { jetstream: true, config: config.to_owned() });
    let login = |user: &str| {
        let secret = Value::Secret("p".to_owned().into());
        forgetful(&server.url()).with("user", text(user)).with("password", secret)
    };
    let messages = events(10, 10);
    publish_all(&login("blind"), &messages).await;
    let client = async_nats::ConnectOptions::with_user_and_password("all".into(), "p".into());
    let client = client.connect(server.url()).await.expect("connected");
    until_forgotten(&client).await;
    publish_all(&login("blind"), &messages).await;
    assert_eq!(crate::rig::length(&client, EVENTS).await, 20, "this is what reading prevents");
    let lines = open(&login("half")).probe().await.expect("probed").join("\n");
    assert!(lines.contains("warning: stream EVENTS may not be read"), "{lines}");
    let lines = open(&login("blind")).probe().await.expect("probed").join("\n");
    assert!(lines.contains("warning: stream EVENTS may not be read"), "{lines}");
    assert!(lines.contains("warning: stream EVENTS remembers ids for 100ms"), "{lines}");
    let lines = open(&login("all")).probe().await.expect("probed").join("\n");
    assert!(lines.contains("is first looked for in the stream"), "{lines}");
    let long = login("all").with("connect_timeout", Value::Duration(Duration::from_secs(100)));
    let lines = open(&long).probe().await.expect("probed").join("\n");
    assert!(lines.contains("--dupe-window=230s"), "{lines}");
}
