//! The headers of a message: CloudEvents attributes as `ce-*` (CloudEvents NATS protocol binding), and the id as
//! JetStream wants it.

use amibus_contract::{Attributes, Message};
use async_nats::{
    HeaderMap,
    header::{HeaderName, IntoHeaderName, NATS_MESSAGE_ID},
};

pub(crate) const CONTENT_TYPE: &str = "content-type";
pub(crate) const CLOUD_EVENT: &str = "application/cloudevents+json";
/// Where a response to a command from a stream is to go: JetStream uses the reply subject for itself.
pub(crate) const REPLY_TO: &str = "reply-to";

/// The attributes, as they are spelled here.
static SPELLED: [(&str, HeaderName); 8] = [
    ("specversion", HeaderName::from_static("ce-specversion")),
    ("id", HeaderName::from_static("ce-id")),
    ("type", HeaderName::from_static("ce-type")),
    ("source", HeaderName::from_static("ce-source")),
    ("time", HeaderName::from_static("ce-time")),
    ("subject", HeaderName::from_static("ce-subject")),
    ("sequence", HeaderName::from_static("ce-sequence")),
    ("correlationid", HeaderName::from_static("ce-correlationid")),
];

/// The headers of `message`.
pub(crate) fn of(message: &Message) -> HeaderMap {
    let mut headers = of_attributes(&message.attributes);
    put(&mut headers, NATS_MESSAGE_ID, message.attributes.id());
    headers
}

/// The headers of a reply: it is not kept, and so needs no id of JetStream's.
pub(crate) fn of_attributes(attributes: &Attributes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(CONTENT_TYPE), CLOUD_EVENT);
    for (name, value) in attributes.iter() {
        let spelled = SPELLED.iter().find(|(plain, _)| *plain == name);
        if let Some((_, spelled)) = spelled {
            put(&mut headers, spelled.clone(), value);
        }
    }
    headers
}

/// Puts a value that may have come from a wire: what would end a header's line becomes a space.
pub(crate) fn put(headers: &mut HeaderMap, name: impl IntoHeaderName, value: &str) {
    if value.bytes().any(|byte| byte.is_ascii_control()) {
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
