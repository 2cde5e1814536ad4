//! A server, bridges to it, and a plain client.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use amibus_contract::{
    BoxFuture, Context, Key, KeyKind, Kind, Message, Outlet, Plug, Reach, SharedBridge, Value, Values,
    conformance::{Abilities, Asked, Observer, Rig, Seen},
};
use amibus_nats::Nats as Bus;
use amibus_services::{Nats, NatsOptions};
use async_nats::{
    HeaderMap, Subscriber,
    jetstream::{self, consumer::pull::OrderedConfig},
};
use futures_util::{StreamExt, stream::SelectAll};

pub(crate) const PREFIX: &str = "test.ami";
pub(crate) const EVENTS: &str = "EVENTS";
pub(crate) const COMMANDS: &str = "COMMANDS";
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(1);

/// The values that a file with nothing but a URL gives: defaults filled in.
pub(crate) fn values(url: &str) -> Values {
    let mut values = Values::default();
    for key in Bus::KEYS {
        if let Some(value) = default(key) {
            values.0.insert(key.name, value);
        }
    }
    values
        .with("url", Value::Text(url.to_owned()))
        .with("connect_timeout", Value::Duration(Duration::from_secs(2)))
}

fn default(key: &Key) -> Option<Value> {
    let text = key.default?;
    Some(match key.kind {
        KeyKind::Flag => Value::Flag(text.parse().expect("a flag")),
        KeyKind::Integer { .. } => Value::Integer(text.parse().expect("a number")),
        KeyKind::Duration => Value::Duration(duration(text)),
        KeyKind::Size => Value::Size(size(text)),
        _ => Value::Text(text.to_owned()),
    })
}

fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let seconds = match text.trim_start_matches(char::is_numeric) {
        "s" => 1,
        "min" => 60,
        "d" => 24 * 3600,
        other => panic!("a unit: {other}"),
    };
    Duration::from_secs(digits.parse::<u64>().expect("a number") * seconds)
}

fn size(text: &str) -> u64 {
    text.strip_suffix("MiB").and_then(|n| n.parse::<u64>().ok()).expect("MiB") * 1024 * 1024
}

pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub(crate) fn open(values: &Values) -> SharedBridge {
    let context = Context { prefix: PREFIX.to_owned(), instance: "amibus".to_owned(), ..Context::default() };
    Bus::open(values, &context).expect("valid values")
}

/// With events to [`EVENTS`].
pub(crate) fn stored(url: &str) -> Values {
    values(url).with("stream", text(EVENTS))
}

/// With commands from [`COMMANDS`] too.
pub(crate) fn durable(url: &str) -> Values {
    stored(url)
        .with("commands", Value::Flag(true))
        .with("commands_stream", text(COMMANDS))
        .with("ack_wait", Value::Duration(ACK_WAIT))
}

/// An event of a call.
pub(crate) fn event(n: usize, key: &str, pad: usize) -> Message {
    let mut message = amibus_contract::conformance::message(PREFIX, Kind::Event, "pbx1", n, 1, pad);
    message.key = key.into();
    message
}

/// What a stream holds, in its order: ids and bodies.
pub(crate) async fn stream_holds(
    client: &async_nats::Client,
    stream: &str,
    filter: &str,
) -> Vec<(String, String)> {
    let context = jetstream::new(client.clone());
    let config = OrderedConfig { filter_subject: filter.to_owned(), ..OrderedConfig::default() };
    // A cluster that lost its leader takes a while to answer: up to 30 s were seen.
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let consumer = loop {
        let made = match context.get_stream(stream).await {
            Ok(stream) => stream.create_consumer(config.clone()).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match made {
            Ok(consumer) => break consumer,
            Err(error) => assert!(std::time::Instant::now() < deadline, "a consumer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut pending = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.expect("messages");
    let mut all = Vec::new();
    while pending > 0 {
        let next = tokio::time::timeout(Duration::from_secs(10), messages.next());
        let message = next.await.expect("in time").expect("open").expect("a message");
        let id = message.headers.as_ref().and_then(|h| h.get("Nats-Msg-Id")).map(|v| v.as_str().to_owned());
        all.push((id.unwrap_or_default(), String::from_utf8_lossy(&message.payload).into_owned()));
        pending -= 1;
    }
    all
}

/// How many messages a stream holds; also of a work queue, which has no second consumer.
pub(crate) async fn length(client: &async_nats::Client, stream: &str) -> u64 {
    let stream = jetstream::new(client.clone()).get_stream(stream).await.expect("the stream");
    stream.cached_info().state.messages
}

/// Offers `messages` until all are safe; panics on a fault that is not to be retried.
pub(crate) async fn offer(outlet: &mut dyn Outlet, messages: &[Message], batch: usize) {
    let begun = std::time::Instant::now();
    let mut at = 0;
    while at < messages.len() {
        let end = messages.len().min(at + batch);
        let published = outlet.publish(&messages[at..end]).await;
        at += published.safe;
        if let Some(fault) = published.fault {
            assert_eq!(fault.decision, amibus_contract::Decision::Retry, "{fault}");
            assert!(begun.elapsed() < Duration::from_secs(60), "still {fault}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A server and bridges to it, with or without JetStream.
pub(crate) struct NatsRig {
    server: Mutex<Nats>,
    url: String,
    jetstream: bool,
    inboxes: AtomicU32,
}

impl NatsRig {
    pub(crate) async fn core() -> Self {
        Self::start(false).await
    }

    pub(crate) async fn jetstream() -> Self {
        Self::start(true).await
    }

    async fn start(jetstream: bool) -> Self {
        let server = Nats::start(&NatsOptions { jetstream, ..NatsOptions::default() });
        let url = server.url();
        let rig = Self { server: Mutex::new(server), url, jetstream, inboxes: AtomicU32::new(0) };
        if jetstream {
            // An empty batch makes the stream, so that an observer finds it.
            let bridge = rig.bridge();
            let published = bridge.outlet("pbx1").await.expect("an outlet").publish(&[]).await;
            assert_eq!(published.fault, None);
            bridge.close(Duration::from_secs(1)).await;
        }
        rig
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn plain(&self) -> async_nats::Client {
        async_nats::connect(&self.url).await.expect("a plain client")
    }

    pub(crate) fn with_server<T>(&self, work: impl FnOnce(&mut Nats) -> T) -> T {
        tokio::task::block_in_place(|| work(&mut self.server.lock().expect("not poisoned")))
    }
}

impl Rig for NatsRig {
    fn bridge(&self) -> SharedBridge {
        if self.jetstream {
            open(&durable(&self.url))
        } else {
            open(&values(&self.url).with("commands", Value::Flag(true)))
        }
    }

    fn prefix(&self) -> &str {
        PREFIX
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            reach: if self.jetstream { Reach::Stored } else { Reach::Sent },
            max_body_bytes: 1024 * 1024,
            durable_commands: self.jetstream,
            redelivers_after: self.jetstream.then_some(ACK_WAIT),
            headers: true,
            drops_repeats: self.jetstream,
        }
    }

    fn observe<'a>(&'a self, kinds: &'a [Kind]) -> BoxFuture<'a, Box<dyn Observer>> {
        Box::pin(async move {
            let client = self.plain().await;
            let subjects: Vec<String> = kinds.iter().map(|k| format!("{PREFIX}.{}.>", k.as_str())).collect();
            if self.jetstream {
                let stream = jetstream::new(client).get_stream(EVENTS).await.expect("the stream");
                let config = OrderedConfig { filter_subjects: subjects, ..OrderedConfig::default() };
                let consumer = stream.create_consumer(config).await.expect("a consumer");
                let messages = consumer.messages().await.expect("messages");
                return Box::new(Kept(Box::pin(messages.map(|m| m.expect("a message").message))))
                    as Box<dyn Observer>;
            }
            let mut all = SelectAll::new();
            for subject in subjects {
                all.push(client.subscribe(subject).await.expect("a subscription"));
            }
            round_trip(&client).await;
            Box::new(Kept(Box::pin(all)))
        })
    }

    fn command<'a>(
        &'a self,
        server: &'a str,
        action: &'a str,
        body: &'a [u8],
        reply: bool,
    ) -> BoxFuture<'a, Box<dyn Asked>> {
        Box::pin(async move {
            let client = self.plain().await;
            let inbox = format!("_INBOX.test.{}", self.inboxes.fetch_add(1, Ordering::Relaxed));
            let replies = client.subscribe(inbox.clone()).await.expect("a subscription");
            let subject = format!("{PREFIX}.command.{server}.{action}");
            let body = body.to_vec().into();
            if self.jetstream {
                let mut headers = HeaderMap::new();
                if reply {
                    headers.insert("Reply-To", inbox.as_str());
                }
                let context = jetstream::new(client);
                let ack = context.publish_with_headers(subject, headers, body).await.expect("sent");
                assert_eq!(ack.await.expect("stored").stream, COMMANDS);
            } else if reply {
                client.publish_with_reply(subject, inbox, body).await.expect("sent");
            } else {
                client.publish(subject, body).await.expect("sent");
            }
            Box::new(Waiting(replies)) as Box<dyn Asked>
        })
    }

    fn kill_server(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.with_server(|server| server.kill()) })
    }

    fn start_server(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.with_server(Nats::restart) })
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Ready when the server has read all that `client` sent.
pub(crate) async fn round_trip(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut echoes = client.subscribe(inbox.clone()).await.expect("a subscription");
    client.publish(inbox, "".into()).await.expect("sent");
    tokio::time::timeout(Duration::from_secs(5), echoes.next()).await.expect("in time").expect("an echo");
}

struct Kept(futures_util::stream::BoxStream<'static, async_nats::Message>);

impl Observer for Kept {
    fn next(&mut self, within: Duration) -> BoxFuture<'_, Option<Seen>> {
        Box::pin(async move {
            let message = tokio::time::timeout(within, self.0.next()).await.ok()??;
            let headers: BTreeMap<String, String> = message
                .headers
                .iter()
                .flat_map(HeaderMap::iter)
                .filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned())))
                .collect();
            let topic = message.subject.to_string();
            Some(Seen { topic, key: None, headers, body: message.payload.to_vec() })
        })
    }
}

struct Waiting(Subscriber);

impl Asked for Waiting {
    fn reply(&mut self, within: Duration) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let message = tokio::time::timeout(within, self.0.next()).await.ok()??;
            Some(message.payload.to_vec())
        })
    }
}
