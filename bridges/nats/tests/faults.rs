//! Servers that die, hang or refuse in the middle of a batch.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use amibus_contract::{Decision, FaultKind, Message, Value, conformance::Rig};
use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};

use crate::rig::{EVENTS, NatsRig, PREFIX, durable, event, offer, open, stored, stream_holds, text};

const KEYS: usize = 13;

pub(crate) fn events(count: usize, pad: usize) -> Vec<Message> {
    (0..count).map(|n| event(n, &format!("call-{}", n % KEYS), pad)).collect()
}

/// Each message once, and those of a key in order.
pub(crate) fn assert_exactly_once_in_order(held: &[(String, String)], sent: &[Message]) {
    let mut position = BTreeMap::new();
    for (at, (id, _)) in held.iter().enumerate() {
        assert_eq!(position.insert(id.as_str(), at), None, "{id} is there twice");
    }
    assert_eq!(held.len(), sent.len(), "as many as were sent");
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for message in sent {
        let id: &str = message.attributes().id();
        let at = *position.get(id).unwrap_or_else(|| panic!("{id} is lost"));
        if let Some(before) = last.insert(message.key(), at) {
            assert!(before < at, "{id} is stored before its predecessor");
        }
    }
}

/// kill -9 in the middle of batches, several times, at different moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_nothing_and_mixes_nothing_up() {
    let rig = NatsRig::jetstream().await;
    let messages = events(24_000, 300);
    for per_key in [Some(1), None] {
        let prefix_of_round = messages.clone();
        let values = durable(rig.url());
        let bridge = open(&match per_key {
            Some(count) => values.with("max_in_flight_per_key", Value::Integer(count)),
            None => values,
        });
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        let publishing = offer(&mut *outlet, &prefix_of_round, 1000);
        let killing = async {
            for pause in [30, 110, 70, 45] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                rig.kill_server().await;
                rig.start_server().await;
            }
        };
        tokio::join!(publishing, killing);
        let client = rig.plain().await;
        let held = stream_holds(&client, EVENTS, &format!("{PREFIX}.event.>")).await;
        assert_exactly_once_in_order(&held, &messages);
        if per_key.is_none() {
            let sent: Vec<&str> = messages.iter().map(|message| message.attributes().id()).collect();
            assert!(
                held.iter().map(|(id, _)| id.as_str()).eq(sent),
                "a server that stands alone keeps the whole order"
            );
        }
        assert_eq!(bridge.status(), Ok(()));
        bridge.close(Duration::from_secs(1)).await;
        jetstream::new(client).delete_stream(EVENTS).await.expect("deleted");
    }
}

/// A server that hangs for longer than `ack_timeout` and then reads what the given-up connection still holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_is_given_up_in_time_and_mixes_nothing_up() {
    let rig = NatsRig::jetstream().await;
    let values = durable(rig.url())
        .with("ack_timeout", Value::Duration(Duration::from_millis(400)))
        .with("connect_timeout", Value::Duration(Duration::from_millis(400)));
    let bridge = open(&values);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages = events(12_000, 300);
    offer(&mut *outlet, &messages[..500], 500).await;
    let first = async {
        let mut at = 500;
        loop {
            let end = (at + 2000).min(messages.len());
            let begun = Instant::now();
            let published = outlet.publish(&messages[at..end]).await;
            at += published.safe;
            if let Some(fault) = published.fault {
                assert_eq!(fault.decision, Decision::Retry, "{fault}");
                assert!(begun.elapsed() < Duration::from_secs(8), "blocked for {:?}", begun.elapsed());
                return at;
            }
            assert!(at < messages.len(), "the pause came too late");
        }
    };
    let pausing = async {
        tokio::time::sleep(Duration::from_millis(25)).await;
        rig.with_server(|server| server.pause());
    };
    let (at, ()) = tokio::join!(first, pausing);
    let begun = Instant::now();
    let published = outlet.publish(&messages[at..at + 1]).await;
    let fault = published.fault.expect("the server hangs");
    assert_eq!((published.safe, fault.decision), (0, Decision::Retry), "{fault}");
    assert!(begun.elapsed() < Duration::from_secs(2), "blocked for {:?}", begun.elapsed());
    rig.with_server(|server| server.resume());
    offer(&mut *outlet, &messages[at..], 1000).await;
    let held = stream_holds(&rig.plain().await, EVENTS, &format!("{PREFIX}.event.>")).await;
    assert_exactly_once_in_order(&held, &messages);
}

/// The stream refuses a message for lack of room and would take the smaller one behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_refused_for_a_moment_is_not_overtaken() {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    let mut config = Config {
        name: "TIGHT".into(),
        subjects: vec!["tight.>".into()],
        max_bytes: 6000,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    context.create_stream(config.clone()).await.expect("a stream");
    let open_tight = |per_key| {
        let values = stored(rig.url()).with("stream", text("TIGHT"));
        let context = amibus_contract::Context {
            prefix: "tight".into(),
            instance: "amibus".into(),
            ..amibus_contract::Context::default()
        };
        let values = values.with("max_in_flight_per_key", Value::Integer(per_key));
        <amibus_nats::Nats as amibus_contract::Plug>::open(&values, &context).expect("valid")
    };
    let of = |n: usize, pad| {
        let kind = amibus_contract::Kind::Event;
        amibus_contract::conformance::message("tight", kind, "pbx1", n, 1, pad)
    };
    let batch: Vec<Message> = [50, 50, 9000, 50, 50].iter().enumerate().map(|(n, pad)| of(n, *pad)).collect();
    let numbers = async || {
        let held = stream_holds(&context.client(), "TIGHT", "tight.>").await;
        held.into_iter().map(|(id, _)| id).collect::<Vec<String>>()
    };
    let bridge = open_tight(1);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let published = outlet.publish(&batch).await;
    let fault = published.fault.expect("no room");
    assert_eq!(
        (published.safe, fault.decision, fault.kind),
        (2, Decision::Retry, FaultKind::Refused),
        "{fault}"
    );
    let ids =
        |range: std::ops::Range<usize>| range.map(|n| format!("pbx1:conformance:{n}")).collect::<Vec<_>>();
    assert_eq!(numbers().await, ids(0..2), "nothing overtakes");
    config.max_bytes = 1_000_000;
    context.update_stream(config.clone()).await.expect("more room");
    offer(&mut *outlet, &batch[2..], 10).await;
    assert_eq!(numbers().await, ids(0..5));
    bridge.close(Duration::from_secs(1)).await;

    // That this is what the limit per key is for: without it the smaller ones do overtake.
    context.delete_stream("TIGHT").await.expect("deleted");
    config.max_bytes = 6000;
    context.create_stream(config).await.expect("a stream");
    let bridge = open_tight(64);
    let published = bridge.outlet("pbx1").await.expect("an outlet").publish(&batch).await;
    assert_eq!(published.safe, 2);
    assert_eq!(numbers().await.len(), 4, "two behind the refused one were stored");
}

/// The stream's own limit on a message, which only the stream knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_stream_s_limit_is_left_out_anywhere() {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    let mut config = context.get_stream(EVENTS).await.expect("the stream").cached_info().config.clone();
    config.max_message_size = 2000;
    context.update_stream(config).await.expect("limited");
    for (round, position) in [0, 4, 8].into_iter().enumerate() {
        let bridge = rig.bridge();
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        let batch: Vec<Message> = (0..9)
            .map(|n| {
                event(round * 100 + n, &format!("call-{}", n % 2), if n == position { 4000 } else { 10 })
            })
            .collect();
        let published = outlet.publish(&batch).await;
        let fault = published.fault.expect("too large");
        assert_eq!(published.safe, position, "{fault}");
        assert_eq!((fault.decision, fault.kind), (Decision::Skip, FaultKind::TooLarge), "{fault}");
        assert_eq!(outlet.dead_letter(&batch[position], &fault).await, Ok(true));
        offer(&mut *outlet, &batch[position + 1..], 10).await;
        let held = stream_holds(&context.client(), EVENTS, &format!("{PREFIX}.event.>")).await;
        let mut rest = batch.clone();
        rest.remove(position);
        assert_exactly_once_in_order(&held[round * 8..], &rest);
    }
    let dead = stream_holds(&context.client(), EVENTS, &format!("{PREFIX}.dead.>")).await;
    assert_eq!(dead.len(), 3);
    let (id, body) = &dead[1];
    assert_eq!(id, "dead:pbx1:conformance:104");
    assert!(body.contains(r#""code":"too_large""#) && body.contains("test.ami.event.pbx1.Test"), "{body}");
    assert!(body.len() < 2000, "without what made it too large");
}

/// While there is no server: an answer in time, nothing kept back, and nothing sent later that was not offered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_behind_the_caller_s_back() {
    for jetstream in [false, true] {
        let rig = if jetstream { NatsRig::jetstream().await } else { NatsRig::core().await };
        let bridge = rig.bridge();
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        offer(&mut *outlet, &events(10, 10), 10).await;
        rig.kill_server().await;
        let messages = events(3000, 10);
        for _ in 0..3 {
            let begun = Instant::now();
            let published = outlet.publish(&messages[10..]).await;
            let fault = published.fault.expect("no server");
            assert_eq!((published.safe, fault.decision), (0, Decision::Retry), "{fault}");
            assert!(begun.elapsed() < Duration::from_secs(4), "blocked for {:?}", begun.elapsed());
        }
        assert!(bridge.status().is_err());
        rig.start_server().await;
        let mut observer = rig.observe(&[amibus_contract::Kind::Event]).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while bridge.status().is_err() {
            assert!(Instant::now() < deadline, "never healed: {:?}", bridge.status());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let expected = if jetstream { 10 } else { 0 };
        let mut seen = 0;
        while observer.next(Duration::from_millis(700)).await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, expected, "what was refused is not sent later");
    }
}

/// A server dies while half of the window is in sockets and half still in async-nats's queue: the queued half must
/// not go out on the next connection before the lost half was offered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_broken_connection_is_not_sent_on_the_next() {
    let rig = NatsRig::jetstream().await;
    let bridge = open(&durable(rig.url()).with("max_in_flight_per_key", Value::Integer(64)));
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages = events(400, 30_000);
    offer(&mut *outlet, &messages[..1], 1).await;
    rig.with_server(|server| server.pause());
    let publishing = offer(&mut *outlet, &messages[1..], 512);
    let killing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.kill_server().await;
        rig.start_server().await;
    };
    tokio::join!(publishing, killing);
    let held = stream_holds(&rig.plain().await, EVENTS, &format!("{PREFIX}.event.>")).await;
    assert_exactly_once_in_order(&held, &messages);
}
