//! A message as a Kafka record: CloudEvents 1.0 in structured JSON, with the attributes as headers (`ce_*`, as the
//! Kafka binding of CloudEvents names them) for consumers that do not want to read the body.

use amibus_contract::{Fault, Message};
use rdkafka::message::{Header, Headers, OwnedHeaders};

const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Attributes of a message, `content-type`, and room for a cause.
const HEADERS: usize = 16;

/// The headers of a message of ours.
pub(crate) fn headers(message: &Message) -> OwnedHeaders {
    let mut name = String::with_capacity(24);
    let mut headers = OwnedHeaders::new_with_capacity(HEADERS);
    for (attribute, value) in message.attributes().iter() {
        name.clear();
        name.push_str("ce_");
        name.push_str(attribute);
        headers = with(headers, &name, value);
    }
    with(headers, "content-type", CONTENT_TYPE)
}

/// The same headers and one more.
pub(crate) fn with<V: rdkafka::message::ToBytes + ?Sized>(
    headers: OwnedHeaders,
    key: &str,
    value: &V,
) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

/// Calls `with` for each header that came, in order.
///
/// rdkafka panics on a header whose name is not UTF-8, which any producer may send: such a header is passed over.
pub(crate) fn each<'a, H: Headers>(headers: &'a H, mut with: impl FnMut(&'a str, &'a [u8])) {
    for index in 0..headers.count() {
        let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| headers.try_get(index)));
        match got {
            Ok(Some(header)) => with(header.key, header.value.unwrap_or_default()),
            Ok(None) => {}
            Err(_) => tracing::warn!(index, "a record has a header whose name is not UTF-8"),
        }
    }
}

/// What of a refused message is kept: all of it, or the envelope without the data where it was too large.
pub(crate) fn remains(message: &Message, cause: &Fault) -> Vec<u8> {
    if cause.kind != amibus_contract::FaultKind::TooLarge {
        return message.body.to_vec();
    }
    let mut body = String::from("{");
    for (name, value) in message.attributes().iter() {
        body.push_str(&format!("\"{name}\":"));
        quote(value, &mut body);
        body.push(',');
    }
    body.push_str(&format!("\"amibuscutbytes\":{}}}", message.body.len()));
    body.into_bytes()
}

/// Appends a JSON string.
fn quote(text: &str, to: &mut String) {
    to.push('"');
    for character in text.chars() {
        match character {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            c if u32::from(c) < 0x20 => to.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => to.push(c),
        }
    }
    to.push('"');
}

#[cfg(test)]
mod tests {
    use amibus_contract::{Attribute, Attributes, FaultKind, Kind, Topic};

    use super::*;

    fn message() -> Message {
        Message {
            topic: Topic::new("ami", Kind::Event, "pbx1", "Hangup").expect("valid"),
            key: "call-1".into(),
            attributes: Attributes::of([
                (Attribute::Id, "a\"b\\c\n"),
                (Attribute::Type, "ami.event.Hangup"),
                (Attribute::Source, "/asterisk/pbx1"),
                (Attribute::Time, "2026-11-21T00:30:39.102274Z"),
            ]),
            body: "x".repeat(100).into(),
        }
    }

    fn all(headers: &impl Headers) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        each(headers, |name, value| all.push((name.to_owned(), value.to_vec())));
        all
    }

    #[test]
    fn headers_carry_the_attributes() {
        let headers = all(&headers(&message()));
        let text =
            |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| String::from_utf8_lossy(v));
        assert_eq!(text("ce_type").as_deref(), Some("ami.event.Hangup"));
        assert_eq!(text("ce_specversion").as_deref(), Some("1.0"));
        assert_eq!(text("content-type").as_deref(), Some(CONTENT_TYPE));
        assert_eq!(text("ce_subject"), None);
    }

    /// As rdkafka's own, where the second name is not UTF-8.
    struct Poisoned;

    impl Headers for Poisoned {
        fn count(&self) -> usize {
            3
        }

        fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
            assert!(index != 1, "not UTF-8");
            Some(Header { key: "k", value: Some(b"v") })
        }
    }

    #[test]
    fn a_header_that_panics_costs_only_itself() {
        assert_eq!(all(&Poisoned).len(), 2);
    }

    #[test]
    fn what_was_too_large_leaves_a_small_envelope() {
        let message = message();
        let cut = remains(&message, &Fault::new(FaultKind::TooLarge, "too large"));
        let expected = concat!(
            r#"{"specversion":"1.0","id":"a\"b\\c\u000a","type":"ami.event.Hangup","source":"/asterisk/pbx1","#,
            r#""time":"2026-11-21T00:30:39.102274Z","amibuscutbytes":100}"#
        );
        assert_eq!(String::from_utf8_lossy(&cut), expected);
        assert_eq!(remains(&message, &Fault::new(FaultKind::Refused, "no")), message.body);
    }
}
