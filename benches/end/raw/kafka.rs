//! rdkafka: an idempotent producer with amibus's settings, which reports by callbacks.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use amibus_contract::{Message, Topic};
use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext,
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer},
};

use super::Pace;
use crate::child::{say, told};

/// The wait for room in the producer's queue, and for the last reports.
const PAUSE: Duration = Duration::from_millis(1);

/// What amibus sets, in `bridges/kafka`.
const SETTINGS: [(&str, &str); 12] = [
    ("linger.ms", "1"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "262144"),
    ("partitioner", "murmur2_random"),
    ("allow.auto.create.topics", "false"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("max.in.flight.requests.per.connection", "1"),
    ("message.max.bytes", "1000000"),
    ("enable.gapless.guarantee", "true"),
    ("message.timeout.ms", "0"),
    ("statistics.interval.ms", "1000"),
];

struct Reports {
    stored: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.stored } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn run(address: &str, messages: Vec<Message>, pace: &mut Pace) -> io::Result<()> {
    let (stored, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    for (name, value) in SETTINGS {
        config.set(name, value);
    }
    let reports = Reports { stored: Arc::clone(&stored), failed: Arc::clone(&failed) };
    let producer = ThreadedProducer::from_config_and_context(&config, reports).map_err(io::Error::other)?;
    let count = messages.len() as u64;
    let messages: Vec<Ready> = messages.into_iter().map(Ready::new).collect();
    say("ready")?;
    told()?;
    for Ready { topic, key, body, headers } in messages {
        send(&producer, &topic, &key, &pace.due(body), headers)?;
    }
    while stored.load(Ordering::Relaxed) + failed.load(Ordering::Relaxed) < count {
        thread::sleep(PAUSE);
    }
    match failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(io::Error::other(format!("{failed} records were not stored"))),
    }
}

/// A record that is ready. The key is a place in the message's body, which goes apart from it.
struct Ready {
    topic: Topic,
    key: String,
    body: Bytes,
    headers: OwnedHeaders,
}

impl Ready {
    fn new(message: Message) -> Self {
        let (key, headers) = (message.key().to_owned(), headers(&message));
        Self { key, headers, topic: message.topic, body: message.body }
    }
}

fn send(
    producer: &ThreadedProducer<Reports>,
    topic: &Topic,
    key: &str,
    body: &[u8],
    headers: OwnedHeaders,
) -> io::Result<()> {
    let record = BaseRecord::to(topic.class()).key(key).payload(body).headers(headers);
    let mut result = producer.send(record);
    loop {
        match result {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                thread::sleep(PAUSE);
                result = producer.send(record);
            }
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    }
}

fn headers(message: &Message) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (name, value) in message.attributes().iter() {
        headers = headers.insert(Header { key: &format!("ce_{name}"), value: Some(value) });
    }
    headers.insert(Header { key: "content-type", value: Some("application/cloudevents+json") })
}
