//! Streams and consumers that were there before us, with settings that we did not choose.

use std::time::Duration;

use amibus_contract::{Decision, Fault, FaultKind, Inlet, Scope, SharedBridge, conformance::Rig};
use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{Config, RetentionPolicy, Source},
};

use crate::rig::{COMMANDS, EVENTS, NatsRig, PREFIX, durable, event, open, stored};

fn events() -> Config {
    let subjects = ["event", "link", "call", "response", "dead"].map(|word| format!("{PREFIX}.{word}.>"));
    Config { name: EVENTS.into(), subjects: subjects.to_vec(), ..Config::default() }
}

async fn without_streams() -> (NatsRig, Context) {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    context.delete_stream(EVENTS).await.expect("deleted");
    (rig, context)
}

async fn fault_of(rig: &NatsRig) -> Fault {
    let bridge = open(&stored(rig.url()));
    let probed = bridge.probe().await.expect_err("no stream to publish to");
    assert_eq!(probed.kind, FaultKind::Missing, "{probed}");
    let published = bridge.outlet("pbx1").await.expect("an outlet").publish(&[event(0, "a", 10)]).await;
    published.fault.expect("a fault")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_confirm_is_refused_with_its_remedy() {
    let (rig, context) = without_streams().await;
    context.create_stream(Config { no_ack: true, ..events() }).await.expect("made");
    let fault = fault_of(&rig).await;
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop));
    assert!(fault.message.contains("nats stream edit EVENTS --ack"), "{fault}");
    context.update_stream(Config { sealed: true, ..events() }).await.expect("sealed");
    let fault = fault_of(&rig).await;
    assert!(fault.message.contains("stream EVENTS is sealed"), "{fault}");
    context.delete_stream(EVENTS).await.expect("deleted");
    let origin = Config { name: "ORIGIN".into(), ..events() };
    context.create_stream(origin).await.expect("made");
    let source = Source { name: "ORIGIN".into(), ..Source::default() };
    let mirror = Config { mirror: Some(source), subjects: vec![], ..events() };
    context.create_stream(mirror).await.expect("made");
    let fault = fault_of(&rig).await;
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop));
    assert!(fault.message.contains("is a mirror") && fault.message.contains("ORIGIN"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_drops_what_it_acknowledged_is_warned_of() {
    for (retention, word) in
        [(RetentionPolicy::Interest, "interest"), (RetentionPolicy::WorkQueue, "workqueue")]
    {
        let (rig, context) = without_streams().await;
        context.create_stream(Config { retention, ..events() }).await.expect("made");
        let bridge = open(&stored(rig.url()));
        let lines = bridge.probe().await.expect("probed").join("\n");
        assert!(lines.contains(&format!("warning: stream EVENTS has retention {word}")), "{lines}");
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        assert_eq!(outlet.publish(&[event(0, "a", 10)]).await.safe, 1);
        assert!(bridge.promise().contains(&format!("retention {word}")), "{}", bridge.promise());
    }
}

/// A consumer of our name whose deliver policy we cannot change, and of these settings.
async fn inlet_beside(config: pull::Config) -> Result<(NatsRig, SharedBridge, Box<dyn Inlet>), Fault> {
    let (rig, context) = without_streams().await;
    let subjects = vec![format!("{PREFIX}.command.>")];
    let stream = Config { name: COMMANDS.into(), subjects, ..Config::default() };
    let stream = context.create_stream(stream).await.expect("made");
    let config = pull::Config {
        durable_name: Some("amibus-pbx1".into()),
        deliver_policy: DeliverPolicy::All,
        ..config
    };
    stream.create_consumer(config).await.expect("made");
    let bridge = open(&durable(rig.url()));
    let scope = Scope { prefix: PREFIX.to_owned(), servers: vec!["pbx1".to_owned()] };
    let inlet = bridge.inlet(&scope).await?;
    Ok((rig, bridge, inlet.expect("commands are on")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_there_serves_where_it_fits() {
    let filter_subject = format!("{PREFIX}.command.pbx1.*");
    let wrong = [
        pull::Config {
            filter_subject: filter_subject.clone(),
            ack_policy: AckPolicy::All,
            ..Default::default()
        },
        pull::Config {
            filter_subject: filter_subject.clone(),
            ack_policy: AckPolicy::None,
            ..Default::default()
        },
        pull::Config { filter_subject: format!("{PREFIX}.command.>"), ..Default::default() },
        pull::Config::default(),
    ];
    for config in wrong {
        let fault = inlet_beside(config.clone()).await.map(drop).expect_err("it does not fit");
        assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop), "{config:?}");
        assert!(fault.message.contains("nats consumer rm COMMANDS amibus-pbx1"), "{fault}");
    }
    let ack_wait = Duration::from_secs(12);
    let fits = pull::Config { filter_subject, ack_wait, ..Default::default() };
    let (rig, _bridge, mut inlet) = inlet_beside(fits).await.expect("it fits");
    rig.command("pbx1", "Ping", b"{}", false).await;
    let request = inlet.next().await.expect("works").expect("open");
    assert_eq!(request.handle.keep_every(), Some(ack_wait / 3), "by the consumer's own ack_wait");
}
