//! The consumer's and requester's side: readers that belong to no group and start at the end of all partitions that
//! there are (partitions that are added later are not seen).

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use amibus_contract::{
    BoxFuture, Bytes, Client, Decision, Delivery, Fault, FaultKind, Feed, Kind, Posted, Replies,
};
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{Consumer, ConsumerContext, StreamConsumer},
    message::{BorrowedMessage, Message, OwnedHeaders},
};

use crate::{
    clients, command, faults,
    front::unusable,
    health::{Health, Listener},
    hub::Hub,
    post::Letter,
    record, topics,
};

impl ConsumerContext for Listener {}

/// A client of the bus.
pub(crate) struct KafkaClient {
    hub: Arc<Hub>,
}

impl KafkaClient {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    async fn reader(&self, prefix: &str, kinds: &[Kind], server: Option<&str>) -> Result<KafkaFeed, Fault> {
        let names = kinds.iter().map(|kind| format!("{prefix}.{}", kind.as_str())).collect();
        self.reader_of(names, server).await
    }

    async fn reader_of(&self, names: Vec<String>, server: Option<&str>) -> Result<KafkaFeed, Fault> {
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        self.hub.ensure(&list).await?;
        let config = clients::reader(&self.hub.settings);
        let consumer: StreamConsumer<Listener> =
            StreamConsumer::from_config_and_context(&config, Listener(self.hub.health.clone()))
                .map_err(|error| unusable(&error))?;
        let (health, limit) = (self.hub.health.clone(), self.hub.settings.connect_timeout);
        let consumer = topics::blocking(move || {
            let ends = ends(&consumer, &health, limit, &names)?;
            consumer.assign(&ends).map_err(|error| faults::of(&error, "reading"))?;
            Ok::<_, Fault>(consumer)
        });
        let source = server.map(|server| format!("/asterisk/{server}"));
        Ok(KafkaFeed { consumer: Some(consumer.await??), source })
    }
}

/// The end of every partition, so that reading starts with what is stored from now on.
fn ends(
    consumer: &StreamConsumer<Listener>,
    health: &Health,
    limit: Duration,
    names: &[String],
) -> Result<TopicPartitionList, Fault> {
    let mut list = TopicPartitionList::new();
    for topic in names {
        for partition in topics::partitions(consumer.client(), health, limit, topic)? {
            let (_, end) =
                topics::ask(health, limit, topic, |time| consumer.fetch_watermarks(topic, partition, time))?;
            list.add_partition_offset(topic, partition, Offset::Offset(end))
                .map_err(|error| faults::of(&error, topic))?;
        }
    }
    Ok(list)
}

impl Client for KafkaClient {
    fn subscribe<'a>(
        &'a mut self,
        prefix: &'a str,
        kinds: &'a [Kind],
        server: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Feed>, Fault>> {
        Box::pin(async move {
            let feed: Box<dyn Feed> = Box::new(self.reader(prefix, kinds, server).await?);
            Ok(feed)
        })
    }

    fn request<'a>(
        &'a mut self,
        prefix: &'a str,
        server: &'a str,
        action: &'a str,
        id: &'a str,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let responses = self.reader(prefix, &[Kind::Response], Some(server)).await?;
            let topic = format!("{prefix}.{}", Kind::Command.as_str());
            self.hub.ensure(&[&topic]).await?;
            let headers = headers(prefix, action, id);
            let letter =
                Letter { topic: &topic, partition: None, key: Some(id.as_bytes()), body: &body, headers };
            let place = self.hub.post.store(letter).await?;
            // A command without a readable id goes by its place.
            let identity = command::identity(&topic, place.partition, place.offset);
            let answered = tokio::time::timeout(timeout, responses.response(&[id, &identity])).await;
            answered.unwrap_or_else(|_| {
                Err(Fault::new(FaultKind::TimedOut, format!("no response to {id} within {timeout:?}")))
            })
        })
    }

    /// The reader goes on where it was after an outage, so nothing is missed.
    fn replies<'a>(&'a mut self, prefix: &'a str) -> BoxFuture<'a, Result<Replies, Fault>> {
        Box::pin(async move {
            let address = reply_topic(prefix);
            let names = vec![address.clone(), format!("{prefix}.{}", Kind::Response.as_str())];
            let feed: Box<dyn Feed> = Box::new(self.reader_of(names, None).await?);
            Ok(Replies { address, feed })
        })
    }

    fn publish_command<'a>(&'a mut self, command: Posted<'a>) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let topic = format!("{}.{}", command.prefix, Kind::Command.as_str());
            self.hub.ensure(&[&topic]).await?;
            let headers = headers(command.prefix, command.action, command.id);
            let headers = record::with(headers, command::REPLY_TOPIC, command.reply_to);
            let headers = record::with(headers, command::CORRELATION, command.id);
            let (key, body) = (Some(command.key.as_bytes()), &*command.body);
            self.hub.post.store(Letter { topic: &topic, partition: None, key, body, headers }).await?;
            Ok(())
        })
    }
}

/// Where the responses to kept commands come in: a topic apart, so that a response that is asked for again is not
/// published for everybody again.
fn reply_topic(prefix: &str) -> String {
    format!("{prefix}.reply")
}

/// The headers of a CloudEvent in binary mode, whose data is the command.
fn headers(prefix: &str, action: &str, id: &str) -> OwnedHeaders {
    let kind = format!("{prefix}.command.{action}");
    // Unique on its own, since one command may be sent twice.
    let own = format!("{id}#{:016x}", RandomState::new().build_hasher().finish());
    [
        ("ce_specversion", "1.0"),
        ("ce_id", own.as_str()),
        ("ce_type", kind.as_str()),
        ("ce_source", "/amibus/client"),
        ("content-type", "application/json"),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |headers, (name, value)| record::with(headers, name, value))
}

/// A reader of some topics.
pub(crate) struct KafkaFeed {
    /// There until the feed is dropped.
    consumer: Option<StreamConsumer<Listener>>,
    /// The only source that is wanted.
    source: Option<String>,
}

impl KafkaFeed {
    async fn delivery(&self) -> Result<Option<Delivery>, Fault> {
        let Some(consumer) = &self.consumer else { return Ok(None) };
        loop {
            match consumer.recv().await {
                Ok(record) => {
                    let delivery = delivery(&record);
                    if self.wanted(&delivery) {
                        return Ok(Some(delivery));
                    }
                }
                Err(error) => {
                    let fault = faults::of(&error, "reading");
                    if fault.decision == Decision::Stop {
                        return Err(fault);
                    }
                    tracing::debug!(%error, "reading goes on");
                }
            }
        }
    }

    async fn response(&self, correlations: &[&str]) -> Result<Bytes, Fault> {
        loop {
            let Some(delivery) = self.delivery().await? else {
                return Err(Fault::new(FaultKind::Closed, "the reader was closed"));
            };
            let mut headers = delivery.headers.iter();
            if headers
                .any(|(name, value)| name == "ce_correlationid" && correlations.contains(&value.as_str()))
            {
                return Ok(delivery.body);
            }
        }
    }

    fn wanted(&self, delivery: &Delivery) -> bool {
        let source = |wanted: &String| {
            delivery.headers.iter().any(|(name, value)| name == "ce_source" && value == wanted)
        };
        self.source.as_ref().is_none_or(source)
    }
}

fn delivery(record: &BorrowedMessage<'_>) -> Delivery {
    let mut headers = Vec::new();
    if let Some(came) = record.headers() {
        record::each(came, |name, value| {
            headers.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        });
    }
    Delivery {
        topic: record.topic().into(),
        key: record.key().map(|key| String::from_utf8_lossy(key).into_owned().into()),
        headers,
        body: Bytes::copy_from_slice(record.payload().unwrap_or_default()),
    }
}

impl Feed for KafkaFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>, Fault>> {
        Box::pin(self.delivery())
    }
}

impl Drop for KafkaFeed {
    fn drop(&mut self) {
        // A consumer's end blocks.
        if let Some(consumer) = self.consumer.take() {
            std::thread::spawn(move || drop(consumer));
        }
    }
}
