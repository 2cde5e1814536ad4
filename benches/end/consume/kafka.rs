//! A reader of all partitions of Kafka's topic.

use std::{io, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Headers as _,
};

use super::Sink;
use crate::{buses::PARTITIONS, child::say};

const POLL: Duration = Duration::from_secs(1);
/// After an outage it is back before amibus, or it would see a drain later and faster than it was.
const RECONNECT_MILLIS: &str = "50";

pub(crate) fn run(address: &str, prefix: &str, sink: &mut dyn Sink) -> io::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "counting")
        .set("enable.auto.commit", "false")
        .set("reconnect.backoff.ms", RECONNECT_MILLIS)
        .set("reconnect.backoff.max.ms", RECONNECT_MILLIS)
        .create()
        .map_err(io::Error::other)?;
    let mut places = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let topic = format!("{prefix}.event");
        places.add_partition_offset(&topic, partition, Offset::Beginning).map_err(io::Error::other)?;
    }
    consumer.assign(&places).map_err(io::Error::other)?;
    say("ready")?;
    loop {
        let Some(record) = consumer.poll(POLL) else { continue };
        let record = match record {
            Ok(record) => record,
            // A broker that is away comes back; what is missing then is found by counting.
            Err(KafkaError::MessageConsumption(_)) => continue,
            Err(error) => return Err(io::Error::other(error)),
        };
        let headers = record.headers().map_or(0, |headers| {
            headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
        });
        let body = record.payload().unwrap_or_default();
        let bytes = body.len() + record.key().map_or(0, <[u8]>::len) + headers;
        if sink.take(record.partition(), body, bytes) {
            return Ok(());
        }
    }
}
