//! Streams that are made, missing or of another shape; permissions; what `check` says.

use std::time::{Duration, Instant};

use amibus_contract::{Decision, Fault, FaultKind, Kind, Scope, Value, Values, conformance::Rig};
use amibus_services::{Nats, NatsOptions};
use async_nats::jetstream::{
    self,
    stream::{Config, StorageType},
};

use crate::rig::{COMMANDS, EVENTS, NatsRig, PREFIX, durable, event, offer, open, stored, text, values};

async fn fault_of(values: &Values) -> Fault {
    let bridge = open(values);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let begun = Instant::now();
    let published = outlet.publish(&[event(0, "a", 10)]).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "took {:?}", begun.elapsed());
    assert_eq!(published.safe, 0);
    assert!(
        bridge.status().is_err() || published.fault.as_ref().is_some_and(|f| f.kind == FaultKind::Forbidden)
    );
    published.fault.expect("a fault")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_stream_is_made_as_configured() {
    let server = Nats::jetstream();
    let values = stored(&server.url())
        .with("max_age", Value::Duration(Duration::from_secs(3600)))
        .with("max_bytes", Value::Size(1024 * 1024))
        .with("duplicate_window", Value::Duration(Duration::from_secs(30)));
    let bridge = open(&values);
    let lines = bridge.probe().await.expect("probed");
    assert!(lines.iter().any(|line| line.contains("does not exist yet")), "{lines:?}");
    offer(&mut *bridge.outlet("pbx1").await.expect("an outlet"), &[event(0, "a", 10)], 1).await;
    let client = async_nats::connect(server.url()).await.expect("connected");
    let config = jetstream::new(client).get_stream(EVENTS).await.expect("made").cached_info().config.clone();
    assert_eq!(config.subjects.len(), 5);
    assert!(config.subjects.contains(&format!("{PREFIX}.event.>")), "{:?}", config.subjects);
    assert_eq!((config.storage, config.num_replicas, config.max_bytes), (StorageType::File, 1, 1024 * 1024));
    assert_eq!((config.max_age.as_secs(), config.duplicate_window.as_secs()), (3600, 30));
    let promise = bridge.promise();
    assert!(
        promise.contains("EVENTS (file storage, one replica)") && promise.contains("sync_interval"),
        "{promise}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_missing_or_too_narrow_is_named_with_its_remedy() {
    let server = Nats::jetstream();
    let absent = stored(&server.url()).with("create", Value::Flag(false));
    let fault = fault_of(&absent).await;
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop));
    assert!(fault.message.contains("nats stream add EVENTS"), "{fault}");
    let client = async_nats::connect(server.url()).await.expect("connected");
    let context = jetstream::new(client);
    let narrow =
        Config { name: EVENTS.into(), subjects: vec![format!("{PREFIX}.event.>")], ..Config::default() };
    context.create_stream(narrow).await.expect("made");
    let fault = fault_of(&stored(&server.url())).await;
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop));
    assert!(
        fault.message.contains("nats stream edit EVENTS --subjects='test.ami.event.>,test.ami.link.>"),
        "{fault}"
    );
    assert!(open(&stored(&server.url())).probe().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_stream_is_made_again_without_loss() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    offer(&mut *outlet, &[event(0, "a", 10)], 1).await;
    let client = rig.plain().await;
    jetstream::new(client.clone()).delete_stream(EVENTS).await.expect("deleted");
    offer(&mut *outlet, &[event(1, "a", 10), event(2, "a", 10)], 2).await;
    let held = crate::rig::stream_holds(&client, EVENTS, ">").await;
    assert_eq!(
        held.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        ["pbx1:conformance:1", "pbx1:conformance:2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_is_told_so() {
    let server = Nats::start(&NatsOptions::default());
    let fault = fault_of(&stored(&server.url())).await;
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop));
    assert!(fault.message.contains("JetStream is not enabled"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_named_at_once() {
    let config = r#"authorization { users: [
        { user: "all", password: "p" }
        { user: "mute", password: "p", permissions: { publish: { deny: "test.ami.event.>" } } }
        { user: "deaf", password: "p", permissions: { subscribe: { deny: "test.ami.>" } } }
        { user: "apart", password: "p", permissions: { publish: { deny: "$JS.>" } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { jetstream: true, config: config.to_owned() });
    let login = |values: Values, user: &str| {
        values.with("user", text(user)).with("password", Value::Secret("p".to_owned().into()))
    };
    let all = open(&login(stored(&server.url()), "all"));
    // Another one than the others try: what the stream has is not sent again.
    offer(&mut *all.outlet("pbx1").await.expect("an outlet"), &[event(9, "a", 10)], 1).await;
    for values in [stored(&server.url()), values(&server.url())] {
        let fault = fault_of(&login(values, "mute")).await;
        assert_eq!((fault.kind, fault.decision), (FaultKind::Forbidden, Decision::Stop), "{fault}");
        assert!(fault.message.contains("test.ami.event.pbx1.Test"), "{fault}");
    }
    let fault = open(&login(stored(&server.url()), "mute")).probe().await.expect_err("may not publish");
    assert_eq!(fault.kind, FaultKind::Forbidden, "{fault}");
    let commands = login(values(&server.url()), "deaf").with("commands", Value::Flag(true));
    let scope = Scope { prefix: PREFIX.to_owned(), servers: vec!["pbx1".to_owned()] };
    let fault = open(&commands).inlet(&scope).await.map(|_| ()).expect_err("may not listen");
    assert_eq!(fault.kind, FaultKind::Forbidden, "{fault}");
    let mut client = open(&commands).client().await.expect("a client");
    let fault = client.subscribe(PREFIX, &[Kind::Event], None).await.map(|_| ()).expect_err("may not listen");
    assert_eq!(fault.kind, FaultKind::Forbidden, "{fault}");
    let fault = fault_of(&login(stored(&server.url()), "apart")).await;
    assert_eq!((fault.kind, fault.decision), (FaultKind::Forbidden, Decision::Stop), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_nats_works_without_the_permission_to_write_to_inboxes() {
    let config = r#"authorization { users: [
        { user: "u", password: "p", permissions: { publish: "test.ami.>", subscribe: "_INBOX.>" } }
    ] }"#;
    let server = Nats::start(&NatsOptions { jetstream: false, config: config.to_owned() });
    let values =
        values(&server.url()).with("user", text("u")).with("password", Value::Secret("p".to_owned().into()));
    let bridge = open(&values);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    for n in 0..3 {
        let published = outlet.publish(&[event(n, "a", 10), event(n + 10, "b", 10)]).await;
        assert_eq!((published.safe, published.fault), (2, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_says_what_is_there() {
    let rig = NatsRig::jetstream().await;
    let lines = open(&durable(rig.url())).probe().await.expect("probed").join("\n");
    for expected in [
        "connected to nats-server 2.",
        "without a login",
        "stream EVENTS: file storage, one replica",
        "ids are remembered for 120s",
        "sync_interval",
        "may publish to test.ami.event.>",
        "may publish to test.ami.dead.>",
        "micro service amibus on test.ami.request.>",
        &format!("commands: stream {COMMANDS} does not exist yet"),
    ] {
        assert!(lines.contains(expected), "{expected:?} is not in:\n{lines}");
    }
    let client = rig.plain().await;
    assert_eq!(crate::rig::length(&client, EVENTS).await, 0, "a check leaves nothing behind");
    let bridge = rig.bridge();
    let scope = Scope { prefix: PREFIX.to_owned(), servers: vec!["pbx1".to_owned()] };
    let inlet = bridge.inlet(&scope).await.expect("an inlet").expect("commands are on");
    let lines = bridge.probe().await.expect("probed").join("\n");
    assert!(lines.contains("consumer amibus-pbx1 on test.ami.command.pbx1.*: 0 waiting"), "{lines}");
    drop(inlet);
    let greedy = Config { name: "GREEDY".into(), subjects: vec!["test.ami.>".into()], ..Config::default() };
    let context = jetstream::new(rig.plain().await);
    context.delete_stream(EVENTS).await.expect("deleted");
    context.delete_stream(COMMANDS).await.expect("deleted");
    context.create_stream(greedy).await.expect("made");
    let lines =
        open(&stored(rig.url()).with("stream", text("GREEDY"))).probe().await.expect("probed").join("\n");
    assert!(lines.contains("warning: stream GREEDY keeps test.ami.request.> too"), "{lines}");
    rig.kill_server().await;
    let fault = open(&durable(rig.url())).probe().await.expect_err("no server");
    assert_eq!(fault.decision, Decision::Retry);
}
