//! Real brokers, and ways to them that do not use the bridge.

use std::{
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use amibus_contract::{
    BoxFuture, Kind, Reach, SharedBridge, Values,
    conformance::{Abilities, Asked, Observer, Rig, Seen},
};
use amibus_services::Kafka;
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{Consumer, StreamConsumer},
    error::KafkaError,
    message::{Header, Headers, OwnedHeaders},
    metadata::MetadataTopic,
    producer::{FutureProducer, FutureRecord},
};

use crate::values;

/// The broker that all tests share that neither stop it nor want it otherwise.
pub(crate) fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(Kafka::plain)
}

/// A prefix that no other test has.
pub(crate) fn fresh_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}.ami", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A broker, its address and a prefix.
pub(crate) struct KafkaRig {
    own: Option<Mutex<Kafka>>,
    pub(crate) brokers: String,
    pub(crate) prefix: String,
    pub(crate) values: Values,
}

impl KafkaRig {
    /// Over the shared broker.
    pub(crate) fn shared() -> Self {
        Self::over(None, shared().brokers())
    }

    /// Over a broker of its own, which can be killed.
    pub(crate) fn own() -> Self {
        Self::owning(Kafka::plain())
    }

    /// Over this broker.
    pub(crate) fn owning(kafka: Kafka) -> Self {
        let brokers = kafka.brokers();
        Self::over(Some(Mutex::new(kafka)), brokers)
    }

    fn over(own: Option<Mutex<Kafka>>, brokers: String) -> Self {
        let prefix = fresh_prefix();
        let group = values::text(&format!("{prefix}.group"));
        let values = values::values(&brokers).with("group", group);
        Self { own, brokers, prefix, values }
    }

    /// Does something to the broker of its own, on a thread that may block.
    pub(crate) fn with_server<T>(&self, work: impl FnOnce(&mut Kafka) -> T) -> T {
        let own = self.own.as_ref().expect("a broker of its own");
        tokio::task::block_in_place(|| work(&mut own.lock().expect("the broker")))
    }

    pub(crate) fn topic(&self, word: &str) -> String {
        format!("{}.{word}", self.prefix)
    }

    pub(crate) async fn make_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            config(&self.brokers).create().expect("an admin client");
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let made = admin.create_topics([&new], &AdminOptions::new()).await.expect("an answer");
        for one in made {
            one.expect("a new topic");
        }
        // The broker that leads it hears of it later than the controller that made it.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let seen = || {
            let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let led = |found: &MetadataTopic| {
                found.partitions().len() == partitions as usize
                    && found.partitions().iter().all(|partition| partition.leader() >= 0)
            };
            metadata.topics().iter().find(|found| found.name() == topic).map(led)
        };
        while tokio::task::block_in_place(seen) != Some(true) {
            assert!(std::time::Instant::now() < deadline, "{topic} was made and is not there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes a topic, and waits until its broker has put its logs away: until then it takes records for it still, which
    /// are lost (the controller answers before the broker hears of it).
    pub(crate) async fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> =
            config(&self.brokers).create().expect("an admin client");
        for one in admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer") {
            one.expect("deleted");
        }
        let data = match &self.own {
            Some(own) => own.lock().expect("the broker").directory().join("data"),
            None => shared().directory().join("data"),
        };
        let is_log = |name: &str| {
            name.rsplit_once('-')
                .is_some_and(|(of, partition)| of == topic && partition.parse::<u32>().is_ok())
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while std::fs::read_dir(&data)
            .expect("the logs")
            .any(|entry| is_log(&entry.expect("a log").file_name().to_string_lossy()))
        {
            assert!(std::time::Instant::now() < deadline, "{topic} was deleted and is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything in a topic, now and later.
    pub(crate) fn watch(&self, topics: &[&str]) -> Watcher {
        Watcher::new(&self.brokers, topics)
    }

    /// Sends a record with headers.
    pub(crate) async fn send(
        &self,
        topic: &str,
        key: &[u8],
        body: &[u8],
        headers: &[(&str, &[u8])],
    ) -> (i32, i64) {
        self.try_send(topic, key, body, headers).await.expect("stored")
    }

    /// Sends a record that only the broker may refuse.
    pub(crate) async fn try_send(
        &self,
        topic: &str,
        key: &[u8],
        body: &[u8],
        headers: &[(&str, &[u8])],
    ) -> Result<(i32, i64), KafkaError> {
        let mut config = config(&self.brokers);
        let producer: FutureProducer =
            config.set("message.max.bytes", "10000000").create().expect("a producer");
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        let record = FutureRecord::to(topic).key(key).payload(body).headers(headers);
        let sent = producer.send(record, Duration::from_secs(20)).await;
        let stored = sent.map_err(|(error, _)| error)?;
        Ok((stored.partition, stored.offset))
    }
}

pub(crate) fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// A record as a consumer of its own got it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.header(name).map(|value| std::str::from_utf8(value).expect("text"))
    }
}

/// A consumer of its own.
pub(crate) struct Watcher(StreamConsumer);

impl Watcher {
    fn new(brokers: &str, topics: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut config = config(brokers);
        config.set("group.id", format!("watcher-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        // The bridge may make the topics later.
        config.set("topic.metadata.refresh.interval.ms", "300").set("reconnect.backoff.max.ms", "500");
        let consumer: StreamConsumer = config.create().expect("a consumer");
        consumer.subscribe(topics).expect("subscribed");
        Self(consumer)
    }

    /// The next record; `None` when none came in time.
    pub(crate) async fn next(&mut self, within: Duration) -> Option<Got> {
        let next = async {
            loop {
                if let Ok(record) = self.0.recv().await {
                    return got(&record);
                }
            }
        };
        tokio::time::timeout(within, next).await.ok()
    }
}

fn got(record: &impl Message) -> Got {
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    Got {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        key: record.key().map(<[u8]>::to_vec),
        headers: headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect(),
        body: record.payload().unwrap_or_default().to_vec(),
    }
}

impl Observer for Watcher {
    fn next(&mut self, within: Duration) -> BoxFuture<'_, Option<Seen>> {
        Box::pin(async move {
            let got = Self::next(self, within).await?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Some(Seen {
                topic: got.topic,
                key: got.key.as_deref().map(text),
                headers: got.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
                body: got.body,
            })
        })
    }
}

/// Waits for one reply.
struct Waiting(Option<(Watcher, Vec<u8>)>);

impl Asked for Waiting {
    fn reply(&mut self, within: Duration) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let (watcher, correlation) = self.0.as_mut()?;
            let deadline = tokio::time::Instant::now() + within;
            loop {
                let rest = deadline.saturating_duration_since(tokio::time::Instant::now());
                let got = watcher.next(rest).await?;
                if got.header("kafka_correlationId") == Some(correlation) {
                    return Some(got.body);
                }
            }
        })
    }
}

impl Rig for KafkaRig {
    fn bridge(&self) -> SharedBridge {
        values::open(&self.values, &self.prefix)
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            reach: Reach::Stored,
            max_body_bytes: 1_000_000,
            durable_commands: true,
            redelivers_after: None,
            headers: true,
            drops_repeats: false,
        }
    }

    fn observe<'a>(&'a self, kinds: &'a [Kind]) -> BoxFuture<'a, Box<dyn Observer>> {
        Box::pin(async move {
            let topics: Vec<String> = kinds.iter().map(|kind| self.topic(kind.as_str())).collect();
            let watcher = self.watch(&topics.iter().map(String::as_str).collect::<Vec<_>>());
            let watcher: Box<dyn Observer> = Box::new(watcher);
            watcher
        })
    }

    fn command<'a>(
        &'a self,
        server: &'a str,
        _action: &'a str,
        body: &'a [u8],
        reply: bool,
    ) -> BoxFuture<'a, Box<dyn Asked>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Box::pin(async move {
            let (n, topic) = (NEXT.fetch_add(1, Ordering::Relaxed), self.topic("command"));
            let replies = self.topic(&format!("replies-{n}"));
            // Not text, since nobody says that it is.
            let correlation = [&[0xff, 0x00][..], &n.to_be_bytes()].concat();
            if reply {
                self.make_topic(&replies, 1, &[]).await;
            }
            let headers: &[(&str, &[u8])] =
                &[("kafka_replyTopic", replies.as_bytes()), ("kafka_correlationId", &correlation)];
            self.send(&topic, server.as_bytes(), body, if reply { headers } else { &[] }).await;
            let asked: Box<dyn Asked> =
                Box::new(Waiting(reply.then(|| (self.watch(&[&replies]), correlation.clone()))));
            asked
        })
    }

    fn kill_server(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.with_server(|kafka| kafka.kill()) })
    }

    fn start_server(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.with_server(Kafka::restart) })
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}
