//! What is set aside for people to look at: a small JSON with the cause, and the beginning of what was refused.

use amibus_contract::{Fault, Message, Rejection};
use bytes::Bytes;
use serde_json::json;

/// How much of the refused message is kept, in bytes.
const MAX_HEAD_BYTES: usize = 1024;

/// Of a message that the bus refused.
pub(crate) fn message(message: &Message, cause: &Fault) -> Bytes {
    json!({
        "id": message.attributes().id(),
        "topic": message.topic.as_str(),
        "key": message.key(),
        "cause": { "code": cause.kind.as_str(), "message": cause.message },
        "size": message.body.len(),
        "head": head(&message.body),
    })
    .to_string()
    .into()
}

/// Of a command that could not be read.
pub(crate) fn command(subject: &str, identity: &str, body: &[u8], cause: &Rejection) -> Bytes {
    json!({
        "id": identity,
        "topic": subject,
        "cause": { "code": cause.code, "message": cause.message, "field": cause.field },
        "size": body.len(),
        "head": head(body),
    })
    .to_string()
    .into()
}

fn head(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..MAX_HEAD_BYTES).unwrap_or(body)).into_owned()
}
