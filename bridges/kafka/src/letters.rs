//! Dead letters, both ways: `<topic>-dlt`, with the record as it was and headers that say why it is there. Where it
//! came from is told in the headers of Spring Kafka's `DeadLetterPublishingRecoverer` (`kafka_dlt-*`; numbers are
//! big-endian), so that its tools can send a mended record back.

use std::sync::atomic::Ordering;

use amibus_contract::{Decision, Fault, FaultKind, Message, Rejection};
use rdkafka::message::OwnedHeaders;

use crate::{hub::Hub, post::Letter, record};

/// What a cut letter keeps of the key, of all headers together and of each text, in bytes.
const CUT_BYTES: usize = 512;
/// What a header takes besides its name and value at most, in bytes.
const HEADER_BYTES: usize = 10;

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
    let key = Some(str::as_bytes(message.key()));
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

/// Sets aside a command that cannot be read: whole, or cut where that is refused. Where neither can be stored for good
/// (no such topic, no permission), the command is given up, since it would come again and again otherwise.
///
/// # Errors
/// What waiting mends: the command is to come again.
pub(crate) async fn refused_by_us(hub: &Hub, original: &Original, cause: &Rejection) -> Result<(), Fault> {
    let Err(fault) = store(hub, original, cause, false).await else { return Ok(()) };
    if !is_for_good(&fault) {
        return Err(fault);
    }
    let again = if fault.kind != FaultKind::Missing {
        tracing::warn!(%fault, bytes = original.body.len(), "a dead letter is cut, since it was refused as a whole");
        store(hub, original, cause, true).await
    } else if hub.settings.create_topics {
        // It may have been deleted since it was seen last, and a producer is slow to see it again.
        hub.topics.forget_all();
        hub.post.renew();
        store(hub, original, cause, false).await
    } else {
        Err(fault)
    };
    let Err(fault) = again else { return Ok(()) };
    if !is_for_good(&fault) {
        return Err(fault);
    }
    tracing::warn!(
        topic = original.topic,
        partition = original.partition,
        offset = original.offset,
        code = cause.code,
        lost_in_all = hub.lost_letters.fetch_add(1, Ordering::Relaxed) + 1,
        %fault,
        "a command that cannot be read could not be set aside either and is passed over"
    );
    Ok(())
}

/// Whether a dead letter is refused until a person mends something. Without a login or a connection no command can be
/// committed either.
fn is_for_good(fault: &Fault) -> bool {
    let no_bus = matches!(fault.kind, FaultKind::Closed | FaultKind::Unauthorized);
    fault.decision != Decision::Retry && !no_bus
}

async fn store(hub: &Hub, original: &Original, cause: &Rejection, cut: bool) -> Result<(), Fault> {
    let topic = topic_for(&original.topic);
    hub.ensure(&[&topic]).await?;
    let (headers, message) = if cut {
        (few(&original.headers), start(&cause.message))
    } else {
        (original.headers.clone(), cause.message.as_str())
    };
    let mut headers = reason(headers, &cause.code, message);
    if let Some(field) = &cause.field {
        headers = record::with(headers, "amibus_error_field", if cut { start(field) } else { field });
    }
    headers = record::with(headers, "kafka_dlt-original-topic", &original.topic);
    headers = record::with(headers, "kafka_dlt-original-partition", &original.partition.to_be_bytes()[..]);
    headers = record::with(headers, "kafka_dlt-original-offset", &original.offset.to_be_bytes()[..]);
    headers = record::with(headers, "kafka_dlt-original-consumer-group", &hub.settings.group);
    if let Some(time) = original.timestamp_ms {
        headers = record::with(headers, "kafka_dlt-original-timestamp", &time.to_be_bytes()[..]);
    }
    let key = original.key.as_deref().filter(|key| !cut || key.len() <= CUT_BYTES);
    let told = format!("{{\"amibuscutbytes\":{}}}", original.body.len());
    let body = if cut { told.as_bytes() } else { &original.body };
    hub.post.store(Letter { topic: &topic, partition: None, key, body, headers }).await?;
    Ok(())
}

/// The headers that fit into a cut letter.
fn few(headers: &OwnedHeaders) -> OwnedHeaders {
    let (mut few, mut room) = (OwnedHeaders::new(), CUT_BYTES);
    record::each(headers, |name, value| {
        let bytes = name.len() + value.len() + HEADER_BYTES;
        if let Some(rest) = room.checked_sub(bytes) {
            room = rest;
            few = record::with(std::mem::take(&mut few), name, value);
        }
    });
    few
}

/// The start of a text that fits into a cut letter.
fn start(text: &str) -> &str {
    let end = (0..=CUT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn reason(headers: OwnedHeaders, code: &str, message: &str) -> OwnedHeaders {
    let headers = record::with(headers, "amibus_error_code", code);
    let headers = record::with(headers, "amibus_error_message", message);
    record::with(headers, "kafka_dlt-exception-message", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_ends_between_characters() {
        assert_eq!(start("short"), "short");
        assert_eq!(start(&"x".repeat(CUT_BYTES + 9)).len(), CUT_BYTES);
        assert_eq!(start(&format!("x{}", "ä".repeat(CUT_BYTES))).len(), CUT_BYTES - 1);
    }

    #[test]
    fn only_what_waiting_does_not_mend_ends_a_command() {
        for kind in [FaultKind::Forbidden, FaultKind::Missing, FaultKind::TooLarge, FaultKind::Refused] {
            assert!(is_for_good(&Fault::new(kind, "")), "{kind:?}");
        }
        let not = [FaultKind::Unreachable, FaultKind::TimedOut, FaultKind::Closed, FaultKind::Unauthorized];
        assert!(not.into_iter().all(|kind| !is_for_good(&Fault::new(kind, ""))));
    }
}
