//! What the tests of this bridge share.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

mod peer;
mod raw;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amibus_contract::{Attributes, Bridge, Context, Kind, Message, Outlet, Plug, Topic, Value, Values};
use amibus_zeromq::{Stats, ZeroMq};

pub(crate) use peer::{Peer, base64, bytes};
pub(crate) use raw::{ENORMOUS, GREETING, Raw};

/// How long anything may take that should happen at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Loopback, free ports, everything else as by default.
pub(crate) fn values() -> Values {
    let free = || Value::Text("tcp://127.0.0.1:*".to_owned());
    Values::default().with("publish", free()).with("commands", free())
}

pub(crate) fn open(values: &Values) -> Arc<ZeroMq> {
    let context = Context { prefix: "ami".to_owned(), instance: "test".to_owned(), ..Context::default() };
    for key in values.0.keys() {
        assert!(ZeroMq::KEYS.iter().any(|known| known.name == *key), "{key} is no key");
    }
    ZeroMq::open_concrete(values, &context).expect("a valid configuration")
}

/// A bridge that listens, and its outlet.
pub(crate) async fn publishing(values: &Values) -> (Arc<ZeroMq>, Box<dyn Outlet>, String) {
    let bridge = open(values);
    let outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let address = bridge.publish_address().expect("it listens");
    (bridge, outlet, address)
}

/// Message number `n` for `server`, of about `bytes`; the body begins with the number in ten digits.
pub(crate) fn message(server: &str, n: usize, bytes: usize) -> Message {
    let body = format!("{n:010}{}", "x".repeat(bytes.saturating_sub(10)));
    Message {
        topic: Topic::new("ami", Kind::Event, server, "Test").expect("a topic"),
        key: "call".into(),
        attributes: Attributes::default(),
        body: body.into(),
    }
}

/// Publishes all of `messages`, which must not take for ever.
pub(crate) async fn publish(outlet: &mut dyn Outlet, messages: &[Message]) {
    let published =
        tokio::time::timeout(3 * SOON, outlet.publish(messages)).await.expect("published in time");
    assert_eq!((published.safe, &published.fault), (messages.len(), &None));
}

/// Polls until `stats` are as wanted.
pub(crate) async fn until(bridge: &ZeroMq, what: &str, wanted: impl Fn(&Stats) -> bool) {
    let deadline = Instant::now() + SOON;
    while !wanted(&bridge.stats()) {
        assert!(Instant::now() < deadline, "{what}: still {:?}", bridge.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
