//! The headers of a message: CloudEvents attributes as `ce-*` (CloudEvents NATS protocol binding), and the id as
//! JetStream wants it.

use std::sync::LazyLock;

use amibus_contract::{Attribute, Message, Shown};
use async_nats::{
    HeaderMap,
    header::{HeaderName, HeaderValue, IntoHeaderName, NATS_MESSAGE_ID},
};

pub(crate) const CONTENT_TYPE: &str = "content-type";
pub(crate) const CLOUD_EVENT: &str = "application/cloudevents+json";
/// Where a response to a command from a stream is to go: JetStream uses the reply subject for itself.
pub(crate) const REPLY_TO: &str = "reply-to";

/// The attributes, as they are spelled here.
static SPELLED: [(Attribute, HeaderName); 7] = [
    (Attribute::Id, HeaderName::from_static("ce-id")),
    (Attribute::Type, HeaderName::from_static("ce-type")),
    (Attribute::Source, HeaderName::from_static("ce-source")),
    (Attribute::Time, HeaderName::from_static("ce-time")),
    (Attribute::Subject, HeaderName::from_static("ce-subject")),
    (Attribute::Sequence, HeaderName::from_static("ce-sequence")),
    (Attribute::Correlation, HeaderName::from_static("ce-correlationid")),
];
/// Those that a message of a log always has.
const ALWAYS: [Attribute; 5] =
    [Attribute::Id, Attribute::Type, Attribute::Source, Attribute::Time, Attribute::Sequence];

/// The headers that a message of a log always has, to be copied and filled in: a map that grows costs twice as much.
static FORM: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut form = constant();
    for (_, name) in SPELLED.iter().filter(|(attribute, _)| ALWAYS.contains(attribute)) {
        form.insert(name.clone(), HeaderValue::new());
    }
    form.insert(NATS_MESSAGE_ID, HeaderValue::new());
    form
});

/// The headers of `message`.
pub(crate) fn of(message: &Message) -> HeaderMap {
    let attributes = message.attributes();
    let has_all = ALWAYS.iter().all(|attribute| attributes.get(*attribute).is_some());
    let mut headers = if has_all { FORM.clone() } else { constant() };
    fill(&mut headers, attributes);
    put(&mut headers, NATS_MESSAGE_ID, attributes.id());
    headers
}

/// The headers of a reply: it is not kept, and so needs no id of JetStream's.
pub(crate) fn of_attributes(attributes: Shown<'_>) -> HeaderMap {
    let mut headers = constant();
    fill(&mut headers, attributes);
    headers
}

fn constant() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(CONTENT_TYPE), CLOUD_EVENT);
    headers.insert(HeaderName::from_static("ce-specversion"), "1.0");
    headers
}

fn fill(headers: &mut HeaderMap, attributes: Shown<'_>) {
    for (attribute, name) in &SPELLED {
        if let Some(value) = attributes.get(*attribute) {
            put(headers, name.clone(), value);
        }
    }
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

#[cfg(test)]
mod tests {
    use amibus_contract::{Attributes, Kind, conformance};

    use super::*;

    /// Sorted, as they go over the wire.
    fn lines(message: &Message) -> Vec<String> {
        let line = |(name, values): (&HeaderName, &Vec<HeaderValue>)| {
            let values: Vec<&str> = values.iter().map(HeaderValue::as_str).collect();
            format!("{}: {}", AsRef::<str>::as_ref(name), values.join("|"))
        };
        let mut lines: Vec<String> = of(message).iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn each_attribute_that_is_there_has_its_line_and_no_other() {
        let mut message = conformance::message("ami", Kind::Event, "pbx1", 7, 1, 10);
        let given = Attribute::ALL.map(|attribute| (attribute, attribute.as_str()));
        let constant = ["ce-specversion: 1.0", "content-type: application/cloudevents+json"];
        for without in [&[][..], &[Attribute::Subject], &[Attribute::Correlation], &[Attribute::Sequence]] {
            let there = given.iter().filter(|(attribute, _)| !without.contains(attribute));
            message.attributes = Attributes::of(there.clone().copied());
            let mut expected: Vec<String> = there
                .map(|(_, name)| format!("ce-{name}: {name}"))
                .chain(constant.map(str::to_owned))
                .collect();
            expected.push("Nats-Msg-Id: id".to_owned());
            expected.sort();
            assert_eq!(lines(&message), expected, "without {without:?}");
        }
    }

    #[test]
    fn no_value_ends_its_line() {
        let mut message = conformance::message("ami", Kind::Event, "pbx1", 7, 1, 10);
        message.attributes = Attributes::of([(Attribute::Subject, "a\r\nb: c")]);
        assert!(lines(&message).contains(&"ce-subject: a  b: c".to_owned()));
    }
}
