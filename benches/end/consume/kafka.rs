//! A reader of all partitions of Kafka's topic.

use std::{io, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
};

use crate::{buses::PARTITIONS, child::say, tally::Tally};

const POLL: Duration = Duration::from_secs(1);

pub(crate) fn run(address: &str, prefix: &str, tally: &mut Tally) -> io::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "counting")
        .set("enable.auto.commit", "false")
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
        let record = record.map_err(io::Error::other)?;
        let headers = record.headers().map_or(0, |headers| {
            headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
        });
        let body = record.payload().unwrap_or_default();
        let bytes = body.len() + record.key().map_or(0, <[u8]>::len) + headers;
        if tally.take(record.partition(), body, bytes) {
            return Ok(());
        }
    }
}
