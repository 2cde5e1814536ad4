//! The contract's suite, with pyzmq as consumer and requester.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use amibus_contract::{
    BoxFuture, Bridge, Client, Fault, Inlet, Kind, Outlet, Reach, Scope, SharedBridge, Value,
    conformance::{self, Abilities, Asked, Observer, Rig, Seen},
};
use amibus_services::Ports;
use amibus_zeromq::ZeroMq;
use serde_json::json;
use tokio::sync::oneshot;

use crate::support::{self, Peer, SOON, base64, bytes};

const MAX_BODY_BYTES: usize = 64 << 10;

struct ZeroMqRig {
    publish: String,
    commands: String,
    /// Observers that wait to be subscribed.
    waiting: Waiting,
    _ports: Ports,
}

type Waiting = Arc<Mutex<Vec<oneshot::Receiver<()>>>>;

impl ZeroMqRig {
    fn new() -> Self {
        let ports = Ports::take();
        let address = |n| format!("tcp://127.0.0.1:{}", ports.port(n));
        Self { publish: address(0), commands: address(1), waiting: Waiting::default(), _ports: ports }
    }
}

impl Rig for ZeroMqRig {
    fn bridge(&self) -> SharedBridge {
        let values = support::values()
            .with("publish", Value::Text(self.publish.clone()))
            .with("commands", Value::Text(self.commands.clone()))
            .with("max_message_bytes", Value::Size(MAX_BODY_BYTES as u64));
        Arc::new(Patient { bridge: support::open(&values), waiting: Arc::clone(&self.waiting) })
    }

    fn prefix(&self) -> &str {
        "ami"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            reach: Reach::Sent,
            max_body_bytes: MAX_BODY_BYTES,
            durable_commands: false,
            redelivers_after: None,
            headers: false,
            drops_repeats: true,
        }
    }

    fn observe<'a>(&'a self, kinds: &'a [Kind]) -> BoxFuture<'a, Box<dyn Observer>> {
        let topics: Vec<String> = kinds.iter().map(|kind| format!("ami.{}.", kind.as_str())).collect();
        let options = json!({"address": self.publish, "topics": topics, "receive_queue": 0});
        let mut peer = Peer::start("observe", &options);
        let (subscribed, is_subscribed) = oneshot::channel();
        self.waiting.lock().expect("no panic").push(is_subscribed);
        let (sender, seen) = tokio::sync::mpsc::channel(100_000);
        tokio::spawn(async move {
            let mut subscribed = Some(subscribed);
            loop {
                let said = peer.said_within(Duration::from_secs(600)).await.expect("a line");
                if said["ready"] == true {
                    // It may reconnect, and then it is subscribed again.
                    let _ = subscribed.take().map(|s| s.send(()));
                    continue;
                }
                assert_eq!(said["frames"], 2);
                let topic = said["topic"].as_str().expect("a topic").to_owned();
                let one = Seen { topic, key: None, headers: Default::default(), body: bytes(&said["body"]) };
                if sender.send(one).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(async move { Box::new(PyObserver(seen)) as Box<dyn Observer> })
    }

    fn command<'a>(
        &'a self,
        _server: &'a str,
        _action: &'a str,
        body: &'a [u8],
        reply: bool,
    ) -> BoxFuture<'a, Box<dyn Asked>> {
        let (kind, frames) = if reply { ("REQ", vec![base64(body)]) } else { ("DEALER", vec![base64(body)]) };
        let options = json!({"address": self.commands, "kind": kind, "messages": [frames]});
        Box::pin(async move {
            let mut peer = Peer::start("ask", &options);
            assert_eq!(peer.said().await["sent"], true);
            Box::new(PyAsked(peer)) as Box<dyn Asked>
        })
    }

    fn kill_server(&self) -> BoxFuture<'_, ()> {
        unreachable!("ZeroMQ has no server")
    }

    fn start_server(&self) -> BoxFuture<'_, ()> {
        unreachable!("ZeroMQ has no server")
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// A bridge whose outlet is ready when every observer is subscribed: the suite's observers see all that is published
/// after they are there, and here they can only be once somebody listens.
struct Patient {
    bridge: Arc<ZeroMq>,
    waiting: Waiting,
}

impl Bridge for Patient {
    fn name(&self) -> &'static str {
        self.bridge.name()
    }
    fn reach(&self) -> Reach {
        self.bridge.reach()
    }
    fn promise(&self) -> String {
        self.bridge.promise()
    }
    fn status(&self) -> Result<(), String> {
        self.bridge.status()
    }
    fn outlet<'a>(&'a self, lane: &'a str) -> BoxFuture<'a, Result<Box<dyn Outlet>, Fault>> {
        Box::pin(async move {
            let outlet = self.bridge.outlet(lane).await?;
            let waiting: Vec<_> = std::mem::take(&mut *self.waiting.lock().expect("no panic"));
            for one in waiting {
                tokio::time::timeout(SOON, one).await.expect("subscribed in time").expect("still observing");
            }
            Ok(outlet)
        })
    }
    fn inlet<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Option<Box<dyn Inlet>>, Fault>> {
        self.bridge.inlet(scope)
    }
    fn client<'a>(&'a self) -> BoxFuture<'a, Result<Box<dyn Client>, Fault>> {
        self.bridge.client()
    }
    fn probe(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        self.bridge.probe()
    }
    fn close(&self, limit: Duration) -> BoxFuture<'_, u64> {
        self.bridge.close(limit)
    }
}

struct PyObserver(tokio::sync::mpsc::Receiver<Seen>);

impl Observer for PyObserver {
    fn next(&mut self, within: Duration) -> BoxFuture<'_, Option<Seen>> {
        Box::pin(async move { tokio::time::timeout(within, self.0.recv()).await.ok().flatten() })
    }
}

struct PyAsked(Peer);

impl Asked for PyAsked {
    fn reply(&mut self, within: Duration) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let said = self.0.said_within(within).await?;
            let frames = said["reply"].as_array().expect("a reply");
            Some(bytes(frames.last().expect("a frame")))
        })
    }
}

macro_rules! cases {
    ($($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            conformance::$case(&ZeroMqRig::new()).await;
        }
    )*};
}

// Left out: what needs a server that can be killed, and commands that a bus keeps.
cases! {
    order_within_a_key
    headers_keys_and_ids_arrive
    outlets_do_not_disturb_each_other
    what_is_on_its_way_is_waited_for
    oversized_first
    oversized_middle
    oversized_last
    oversized_twice
    close_delivers_what_it_accepted
    command_reaches_us_and_reply_goes_back
    late_acknowledge_is_kept
    unreadable_command_is_set_aside
    client_side_sees_and_asks
}
