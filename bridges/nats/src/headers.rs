//! The headers of a message: CloudEvents attributes as `ce-*` (CloudEvents NATS protocol binding), and the id as
//! JetStream wants it.

use amibus_contract::{Attributes, Message};
use async_nats::{
    HeaderMap,
    header::{IntoHeaderName, NATS_MESSAGE_ID},
};

pub(crate) const CONTENT_TYPE: &str = "content-type";
pub(crate) const CLOUD_EVENT: &str = "application/cloudevents+json";
/// Where a response to a command from a stream is to go: JetStream uses the reply subject for itself.
pub(crate) const REPLY_TO: &str = "reply-to";

/// The headers of `message`.
pub(crate) fn of(message: &Message) -> HeaderMap {
    let mut headers = of_attributes(&message.attributes);
    put(&mut headers, NATS_MESSAGE_ID, &message.attributes.id);
    headers
}

/// The headers of a reply: it is not kept, and so needs no id of JetStream's.
pub(crate) fn of_attributes(attributes: &Attributes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, CLOUD_EVENT);
    for (name, value) in attributes.iter() {
        let spelled = match name {
            "specversion" => "ce-specversion",
            "id" => "ce-id",
            "type" => "ce-type",
            "source" => "ce-source",
            "time" => "ce-time",
            "subject" => "ce-subject",
            "sequence" => "ce-sequence",
            "correlationid" => "ce-correlationid",
            _ => continue,
        };
        put(&mut headers, spelled, value);
    }
    headers
}

/// Puts a value that may have come from a wire: what would end a header's line becomes a space.
pub(crate) fn put(headers: &mut HeaderMap, name: impl IntoHeaderName, value: &str) {
    if value.bytes().any(|b| b.is_ascii_control()) {
        headers.insert(name, value.replace(|c: char| c.is_ascii_control(), " "));
    } else {
        headers.insert(name, value);
    }
}

/// A header by its name in any case: other clients spell it as they like.
pub(crate) fn find<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    let found = headers?.iter().find(|(key, _)| AsRef::<str>::as_ref(*key).eq_ignore_ascii_case(name))?;
    found.1.first().map(|value| value.as_str())
}
