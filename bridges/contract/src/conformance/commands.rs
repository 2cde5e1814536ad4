//! Commands from the bus: read, answered, acknowledged late, delivered again.

use std::time::{Duration, Instant};

use super::{QUIET_FOR, Rig, SEEN_WITHIN, faults::join, message, publish_all};
use crate::{Bytes, Inlet, Kind, Rejection, Request, Scope, SharedBridge};

const BODY: &[u8] = br#"{"id":"order-1","server":"pbx1","action":"Ping","fields":{"N":"\u00e9 7"}}"#;

async fn inlet(rig: &dyn Rig, bridge: &SharedBridge) -> Box<dyn Inlet> {
    let scope = Scope { prefix: rig.prefix().to_owned(), servers: vec!["pbx1".into(), "pbx2".into()] };
    bridge.inlet(&scope).await.expect("an inlet").expect("commands are configured")
}

async fn next(inlet: &mut dyn Inlet) -> Request {
    inlet.next().await.expect("the inlet works").expect("the inlet is open")
}

/// A command's bytes arrive as they were sent, and the reply reaches who asked.
pub async fn command_reaches_us_and_reply_goes_back(rig: &dyn Rig) {
    let bridge = rig.bridge();
    let mut inlet = inlet(rig, &bridge).await;
    let mut asked = rig.command("pbx1", "Ping", BODY, true).await;
    let mut request = next(&mut *inlet).await;
    assert_eq!(request.body, BODY, "the body changed on its way");
    assert!(request.reply_wanted, "the sender waits: {request:?}");
    assert_eq!(request.durable, request.identity.is_some(), "a kept message has an identity: {request:?}");
    if let Some(server) = &request.server {
        assert_eq!(server, "pbx1");
    }
    if let Some(action) = &request.action {
        assert_eq!(action, "Ping");
    }
    let response = message(rig.prefix(), Kind::Response, "pbx1", 1, 1, 100);
    request.handle.reply(&response).await.expect("the reply goes out");
    request.handle.acknowledge().await.expect("the acknowledge goes out");
    let reply = asked.reply(SEEN_WITHIN).await.expect("the sender gets the reply");
    assert_eq!(reply, response.body);
    assert!(asked.reply(QUIET_FOR).await.is_none(), "one reply, not two");
}

/// A command that is worked on for long, and kept, is not delivered a second time, though the bus would have done
/// so twice by then; others come meanwhile.
pub async fn late_acknowledge_is_kept(rig: &dyn Rig) {
    let bridge = rig.bridge();
    let mut inlet = inlet(rig, &bridge).await;
    let mut first_asked = rig.command("pbx1", "Ping", BODY, true).await;
    let mut first = next(&mut *inlet).await;
    let _second_asked = rig.command("pbx2", "Ping", BODY, true).await;
    let second = next(&mut *inlet).await;
    second.handle.acknowledge().await.expect("acknowledged");
    let every = first.handle.keep_every().unwrap_or(Duration::from_millis(200));
    let (begun, redelivered) = (Instant::now(), rig.abilities().redelivers_after.unwrap_or_default());
    let mut kept = 0;
    while kept < 6 || begun.elapsed() < redelivered * 2 {
        rig.sleep(every).await;
        first.handle.keep().await.expect("kept");
        kept += 1;
    }
    let response = message(rig.prefix(), Kind::Response, "pbx1", 1, 1, 10);
    first.handle.reply(&response).await.expect("the reply goes out");
    first.handle.acknowledge().await.expect("acknowledged");
    assert!(first_asked.reply(SEEN_WITHIN).await.is_some(), "the late reply arrives");
    assert_nothing_more(rig, &mut *inlet).await;
}

/// A durable command that was not acknowledged comes again to the next process with the same identity; once
/// acknowledged it does not.
pub async fn unacknowledged_command_comes_again(rig: &dyn Rig) {
    assert!(rig.abilities().durable_commands, "only for buses that keep commands");
    let identity = {
        let bridge = rig.bridge();
        let mut inlet = inlet(rig, &bridge).await;
        let _asked = rig.command("pbx1", "Ping", BODY, false).await;
        let request = next(&mut *inlet).await;
        let identity = request.identity.clone();
        drop(request);
        drop(inlet);
        bridge.close(Duration::from_secs(5)).await;
        identity
    };
    assert!(identity.is_some(), "a durable message has an identity");
    let bridge = rig.bridge();
    let mut inlet = inlet(rig, &bridge).await;
    let again = next(&mut *inlet).await;
    assert_eq!(again.identity, identity);
    again.handle.acknowledge().await.expect("acknowledged");
    drop(inlet);
    bridge.close(Duration::from_secs(5)).await;
    let bridge = rig.bridge();
    let mut inlet = self::inlet(rig, &bridge).await;
    assert_nothing_more(rig, &mut *inlet).await;
}

/// A command that cannot be read is set aside and does not come again.
pub async fn unreadable_command_is_set_aside(rig: &dyn Rig) {
    let bridge = rig.bridge();
    let mut inlet = inlet(rig, &bridge).await;
    let _asked = rig.command("pbx1", "Ping", b"\xff{ not json", false).await;
    let request = next(&mut *inlet).await;
    assert_eq!(&request.body[..], b"\xff{ not json");
    let cause = Rejection { code: "malformed".into(), message: "not JSON".into(), field: None };
    request.handle.dead_letter(cause).await.expect("set aside");
    let _asked = rig.command("pbx1", "Ping", BODY, false).await;
    let after = next(&mut *inlet).await;
    assert_eq!(after.body, BODY, "the next command comes after the unreadable one");
    after.handle.acknowledge().await.expect("acknowledged");
}

/// The bridge's own client sees what is published and gets the response to what it asks.
pub async fn client_side_sees_and_asks(rig: &dyn Rig) {
    let bridge = rig.bridge();
    let other = rig.bridge();
    let mut inlet = inlet(rig, &bridge).await;
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let mut client = other.client().await.expect("a client");
    let mut feed = client.subscribe(rig.prefix(), &[Kind::Event], Some("pbx1")).await.expect("a feed");
    let other_server = message(rig.prefix(), Kind::Event, "pbx2", 0, 1, 10);
    let event = message(rig.prefix(), Kind::Event, "pbx1", 1, 1, 10);
    publish_all(rig, &mut *outlet, &[other_server, event.clone()], 2).await;
    let seen = feed.next().await.expect("the feed works").expect("the feed is open");
    assert_eq!(seen.body, event.body, "only the server asked for");
    let response = message(rig.prefix(), Kind::Response, "pbx1", 1, 1, 10);
    let answer = async {
        let mut request = next(&mut *inlet).await;
        request.handle.reply(&response).await.expect("the reply goes out");
        request.handle.acknowledge().await.expect("acknowledged");
        // A durable bus without replies of its own: the root also publishes the response.
        publish_all(rig, &mut *outlet, std::slice::from_ref(&response), 1).await;
    };
    let body = Bytes::from_static(BODY);
    let ask = client.request(rig.prefix(), "pbx1", "Ping", "order-1", body, SEEN_WITHIN);
    let (got, ()) = join(ask, answer).await;
    assert_eq!(got.expect("a response"), response.body);
}

async fn assert_nothing_more(rig: &dyn Rig, inlet: &mut dyn Inlet) {
    let redelivered = rig.abilities().redelivers_after.unwrap_or_default();
    let quiet = async {
        rig.sleep(Duration::from_secs(3).max(redelivered * 2)).await;
    };
    quiet_first(inlet.next(), quiet).await;
}

/// Panics when `request` is ready before `quiet`.
async fn quiet_first<T: std::fmt::Debug>(request: impl Future<Output = T>, quiet: impl Future<Output = ()>) {
    let (mut request, mut quiet) = (Box::pin(request), Box::pin(quiet));
    std::future::poll_fn(|context| {
        use std::task::Poll;
        if let Poll::Ready(got) = request.as_mut().poll(context) {
            panic!("nothing more was expected, got {got:?}");
        }
        quiet.as_mut().poll(context)
    })
    .await;
}
