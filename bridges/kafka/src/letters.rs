//! Dead letters, both ways: `<topic>-dlt`, with the record as it was and headers that say why it is there. Where it
//! came from is told in the headers of Spring Kafka's `DeadLetterPublishingRecoverer` (`kafka_dlt-*`; numbers are
//! big-endian), so that its tools can send a mended record back.

use amibus_contract::{Fault, Message, Rejection};
use rdkafka::message::OwnedHeaders;

use crate::{hub::Hub, post::Letter, record};

/// What a topic's dead-letter topic is called.
pub(crate) fn topic_for(topic: &str) -> String {
    format!("{topic}-dlt")
}

/// Sets aside a message that the brokers refuse.
pub(crate) async fn refused_by_bus(hub: &Hub, message: &Message, cause: &Fault) -> Result<(), Fault> {
    let topic = topic_for(message.topic.class());
    hub.ensure(&[&topic]).await?;
    let headers = reason(record::headers(message), cause.kind.as_str(), &cause.message);
    let headers = record::with(headers, "kafka_dlt-original-topic", message.topic.class());
    let body = record::remains(message, cause);
    let key = Some(str::as_bytes(&message.key));
    hub.post.store(Letter { topic: &topic, partition: None, key, body: &body, headers }).await?;
    Ok(())
}

/// A record of the command topic, as it came.
pub(crate) struct Original {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) body: amibus_contract::Bytes,
    pub(crate) headers: OwnedHeaders,
}

/// Sets aside a command that cannot be read.
pub(crate) async fn refused_by_us(hub: &Hub, original: &Original, cause: &Rejection) -> Result<(), Fault> {
    let topic = topic_for(&original.topic);
    hub.ensure(&[&topic]).await?;
    let mut headers = reason(original.headers.clone(), &cause.code, &cause.message);
    if let Some(field) = &cause.field {
        headers = record::with(headers, "amibus_error_field", field);
    }
    headers = record::with(headers, "kafka_dlt-original-topic", &original.topic);
    headers = record::with(headers, "kafka_dlt-original-partition", &original.partition.to_be_bytes()[..]);
    headers = record::with(headers, "kafka_dlt-original-offset", &original.offset.to_be_bytes()[..]);
    headers = record::with(headers, "kafka_dlt-original-consumer-group", &hub.settings.group);
    if let Some(time) = original.timestamp_ms {
        headers = record::with(headers, "kafka_dlt-original-timestamp", &time.to_be_bytes()[..]);
    }
    let key = original.key.as_deref();
    hub.post.store(Letter { topic: &topic, partition: None, key, body: &original.body, headers }).await?;
    Ok(())
}

fn reason(headers: OwnedHeaders, code: &str, message: &str) -> OwnedHeaders {
    let headers = record::with(headers, "amibus_error_code", code);
    let headers = record::with(headers, "amibus_error_message", message);
    record::with(headers, "kafka_dlt-exception-message", message)
}
