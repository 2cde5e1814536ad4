//! Commands that mean harm, and servers that refuse what follows from them.

use std::time::Duration;

use amibus_contract::{
    Bridge, FaultKind, Inlet, Kind, Rejection, Request, Scope, Value, Values,
    conformance::{Rig, SEEN_WITHIN, message},
};
use amibus_services::{Nats, NatsOptions};
use async_nats::{HeaderMap, jetstream};

use crate::rig::{ACK_WAIT, COMMANDS, EVENTS, NatsRig, PREFIX, durable, length, open, stream_holds, text};

/// Longer than the line of a protocol command may be (`max_control_line`, 4096 bytes), prefix and all.
const TOO_LONG_FOR_A_LINE: usize = 5000;
/// It fits into the sender's line, and not into ours with `dead.` and a reply subject in it.
const HARDLY_FITS_A_LINE: usize = 4040;

async fn inlet(bridge: &dyn Bridge) -> Box<dyn Inlet> {
    let scope = Scope { prefix: PREFIX.to_owned(), servers: vec!["pbx1".to_owned()] };
    bridge.inlet(&scope).await.expect("an inlet").expect("commands are on")
}

async fn next(inlet: &mut dyn Inlet) -> Request {
    let next = tokio::time::timeout(SEEN_WITHIN, inlet.next());
    next.await.expect("in time").expect("the inlet works").expect("the inlet is open")
}

async fn nothing_more(inlet: &mut dyn Inlet) {
    if let Ok(more) = tokio::time::timeout(ACK_WAIT * 3, inlet.next()).await {
        panic!("one more than expected: {more:?}");
    }
}

fn malformed() -> Rejection {
    Rejection { code: "malformed".into(), message: "not JSON".into(), field: None }
}

/// Puts a command on the stream without waiting for an acknowledgement, whose subject would lengthen the line.
async fn put(client: &async_nats::Client, action: &str, body: &'static str) {
    client.publish(format!("{PREFIX}.command.pbx1.{action}"), body.into()).await.expect("sent");
    client.flush().await.expect("flushed");
}

/// The answer has nowhere to go, and our connection stands.
async fn answered_in_vain(mut request: Request) {
    let response = message(PREFIX, Kind::Response, "pbx1", 7, 1, 10);
    request.handle.reply(&response).await.expect("our connection stands");
    assert!(!request.reply_wanted, "{request:?}");
    request.handle.acknowledge().await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_subject_too_long_for_a_line_does_not_break_our_connection() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge).await;
    let plain = rig.plain().await;
    let mut headers = HeaderMap::new();
    headers.insert("reply-to", "r".repeat(TOO_LONG_FOR_A_LINE).as_str());
    let context = jetstream::new(plain.clone());
    let subject = format!("{PREFIX}.command.pbx1.Ping");
    context.publish_with_headers(subject, headers, "{}".into()).await.expect("sent").await.expect("stored");
    answered_in_vain(next(&mut *inlet).await).await;
    // A request's own reply subject: as long as the sender's line permits.
    let reply = "r".repeat(HARDLY_FITS_A_LINE);
    plain.publish_with_reply(format!("{PREFIX}.request.pbx1.Ping"), reply, "{}".into()).await.expect("sent");
    answered_in_vain(next(&mut *inlet).await).await;
    nothing_more(&mut *inlet).await;
    assert_eq!(length(&plain, COMMANDS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_too_long_for_a_line_is_set_aside_under_its_beginning() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge).await;
    let plain = rig.plain().await;
    put(&plain, &"A".repeat(HARDLY_FITS_A_LINE), "no JSON").await;
    let request = next(&mut *inlet).await;
    request.handle.dead_letter(malformed()).await.expect("set aside");
    let dead = format!("{PREFIX}.dead.command.pbx1.{}", "A".repeat(128));
    assert_eq!(stream_holds(&plain, EVENTS, &dead).await.len(), 1);
    nothing_more(&mut *inlet).await;
    assert_eq!(length(&plain, COMMANDS).await, 0);
}

fn login(values: Values, user: &str) -> Values {
    values.with("user", text(user)).with("password", Value::Secret("p".to_owned().into()))
}

/// Otherwise it would come again every `ack_wait`, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_command_that_may_not_be_set_aside_ends_all_the_same() {
    let config = r#"authorization { users: [
        { user: "all", password: "p" }
        { user: "tidy", password: "p", permissions: { publish: { deny: "test.ami.dead.>" } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { jetstream: true, config: config.to_owned() });
    let bridge = open(&login(durable(&server.url()), "tidy"));
    let mut inlet = inlet(&*bridge).await;
    let options = async_nats::ConnectOptions::with_user_and_password("all".into(), "p".into());
    let plain = options.connect(server.url()).await.expect("a plain client");
    put(&plain, "Ping", "no JSON").await;
    let request = next(&mut *inlet).await;
    request.handle.dead_letter(malformed()).await.expect("terminated");
    nothing_more(&mut *inlet).await;
    assert_eq!(length(&plain, COMMANDS).await, 0);
}

/// The server answers an acknowledgement that nobody takes with a status, which is no confirmation. For a moment after it
/// has said that a stream is deleted, the server still takes what is for its consumer, and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_no_consumer_took_is_none() {
    for _ in 0..5 {
        let fault = acknowledged_without_a_consumer().await;
        if fault.kind != FaultKind::TimedOut {
            return assert_eq!(fault.kind, FaultKind::Missing, "{fault}");
        }
    }
    panic!("the server never said that nobody takes it");
}

async fn acknowledged_without_a_consumer() -> amibus_contract::Fault {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge).await;
    rig.command("pbx1", "Ping", b"{}", false).await;
    let request = next(&mut *inlet).await;
    let context = jetstream::new(rig.plain().await);
    context.delete_stream(COMMANDS).await.expect("deleted");
    request.handle.acknowledge().await.expect_err("nobody took it")
}

/// What `close` answers is final: an outlet that somebody still holds publishes nothing behind its back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outlet_publishes_nothing_after_close() {
    for rig in [NatsRig::jetstream().await, NatsRig::core().await] {
        let bridge = rig.bridge();
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        let first = outlet.publish(&[crate::rig::event(0, "a", 10)]).await;
        assert_eq!((first.safe, first.fault), (1, None));
        assert_eq!(bridge.close(Duration::from_secs(1)).await, 0);
        let late = outlet.publish(&[crate::rig::event(1, "a", 10)]).await;
        assert_eq!((late.safe, late.fault.map(|fault| fault.kind)), (0, Some(FaultKind::Closed)));
        let cause = amibus_contract::Fault::new(FaultKind::TooLarge, "test");
        let fault = outlet.dead_letter(&crate::rig::event(1, "a", 10), &cause).await.expect_err("closed");
        assert_eq!(fault.kind, FaultKind::Closed, "{fault}");
    }
}
