//! The configurations of our librdkafka clients, made of one common base.

use std::time::Duration;

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::{health::STATISTICS_EVERY_MS, settings::Settings};

/// How many records may wait in one client that produces.
pub(crate) const QUEUED_RECORDS: u32 = 100_000;
/// How many KiB of records may wait in one client that produces.
const QUEUED_KIB: u32 = 256 * 1024;
/// How long a producer waits for more records before it sends, in milliseconds. Batches come whole, so hardly.
const LINGER_MS: u32 = 1;
/// How many requests with records one client has on their way to one broker.
///
/// With more, events were lost that had been reported as stored, on real Kafka 4: a broker takes any first sequence
/// number of a producer that it does not know in a partition. So when the first request is turned away (a partition
/// that is just coming up) and the second is not, the second is stored, and librdkafka takes that for a sign that the
/// first was, too (`rd_kafka_dr_implicit_ack`). A request holds a whole batch of one partition, so little is lost.
const IN_FLIGHT_REQUESTS: u32 = 1;
/// The longest pause between two attempts to connect, in milliseconds.
const RECONNECT_MAX_MS: u32 = 2_000;
/// How long an attempt to connect may take, TLS and login included, in milliseconds: where packets vanish, the kernel asks ever more seldom, so
/// that a new attempt finds a network that is there again sooner than the old one.
const CONNECT_MS: u32 = 10_000;
/// How long a reply waits for its topic to come into being, in milliseconds.
const UNKNOWN_TOPIC_MS: u32 = 5_000;
/// How long the cluster waits for a sign of a consumer before it gives its partitions to another, in milliseconds.
const SESSION_MS: u32 = 10_000;

/// What all clients have. What the user passes through comes first, so that it cannot undo what follows.
pub(crate) fn common(settings: &Settings) -> ClientConfig {
    let mut config = settings.base.clone();
    defaults(
        &mut config,
        &[("reconnect.backoff.max.ms", RECONNECT_MAX_MS), ("socket.connection.setup.timeout.ms", CONNECT_MS)],
    );
    config.set("statistics.interval.ms", STATISTICS_EVERY_MS.to_string());
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

fn defaults(config: &mut ClientConfig, pairs: &[(&str, u32)]) {
    for (name, value) in pairs {
        if config.get(name).is_none() {
            config.set(*name, value.to_string());
        }
    }
}

fn producer(settings: &Settings) -> ClientConfig {
    let mut config = common(settings);
    defaults(
        &mut config,
        &[
            ("linger.ms", LINGER_MS),
            ("queue.buffering.max.messages", QUEUED_RECORDS),
            ("queue.buffering.max.kbytes", QUEUED_KIB),
        ],
    );
    // Java's partitioner, so that services in any language agree on the partition of a call.
    if config.get("partitioner").is_none() {
        config.set("partitioner", "murmur2_random");
    }
    if config.get("allow.auto.create.topics").is_none() {
        config.set("allow.auto.create.topics", "false");
    }
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("max.in.flight.requests.per.connection", IN_FLIGHT_REQUESTS.to_string());
    config.set("message.max.bytes", settings.max_message_bytes.to_string());
    config
}

/// For events. Records never time out one by one, since that would leave gaps: the outlet takes the rest of a batch
/// back as a whole. A record that the broker refuses ends the producer, for the same reason. With `single`, each
/// request holds one record, so that a refusal names the right one.
pub(crate) fn front(settings: &Settings, single: bool) -> ClientConfig {
    let mut config = producer(settings);
    config.set("enable.gapless.guarantee", "true");
    config.set("message.timeout.ms", "0");
    if single {
        config.set("batch.num.messages", "1");
    }
    config
}

/// For single records that nobody's order depends on: replies, dead letters, commands of our client.
pub(crate) fn post(settings: &Settings) -> ClientConfig {
    let mut config = producer(settings);
    defaults(&mut config, &[("topic.metadata.propagation.max.ms", UNKNOWN_TOPIC_MS)]);
    config.set("message.timeout.ms", millis(settings.publish_timeout));
    config
}

fn consumer(settings: &Settings, group: &str) -> ClientConfig {
    let mut config = common(settings);
    config.set("group.id", group);
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config
}

/// A member of the group that reads commands.
pub(crate) fn member(settings: &Settings) -> ClientConfig {
    let mut config = consumer(settings, &settings.group);
    defaults(&mut config, &[("session.timeout.ms", SESSION_MS)]);
    if config.get("partition.assignment.strategy").is_none() {
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    config.set("auto.offset.reset", "earliest");
    config
}

/// A reader that belongs to no group: it is told its partitions and commits nothing. librdkafka wants a name anyway.
pub(crate) fn reader(settings: &Settings) -> ClientConfig {
    let mut config = consumer(settings, &format!("{}-reader", settings.group));
    config.set("auto.offset.reset", "earliest");
    config
}

fn millis(time: Duration) -> String {
    time.as_millis().max(1).to_string()
}
