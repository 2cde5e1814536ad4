//! What `[bus.kafka]` can be configured with.

use amibus_contract::{Key, KeyKind};

/// The ways to log in.
pub(crate) const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
/// The ways to connect.
pub(crate) const SECURITY: &[&str] = &["plaintext", "tls", "sasl_plaintext", "sasl_tls"];

const MAX_PARTITIONS: i64 = 10_000;
const MAX_REPLICATION: i64 = 100;
const MAX_BATCH_MESSAGES: i64 = 50_000;

/// The table.
pub(crate) const KEYS: &[Key] = &[
    Key::required(
        "brokers",
        KeyKind::Text,
        "Addresses to find the cluster by, `host:port`, joined by commas.",
    ),
    Key::with_default("required", KeyKind::Flag, "true", "Whether `/ready` needs this bus."),
    Key::with_default(
        "commands",
        KeyKind::Flag,
        "false",
        "Whether commands are taken from the topic `<prefix>.command`.",
    ),
    Key::with_default(
        "group",
        KeyKind::Text,
        "amibus",
        "The consumer group that reads commands. All members share the topic's partitions, so they must serve the \
         same Asterisk servers.",
    ),
    Key::optional(
        "client_id",
        KeyKind::Text,
        "What the brokers' logs and quotas call us; the instance's name by default.",
    ),
    Key::with_default(
        "security",
        KeyKind::Choice(SECURITY),
        "plaintext",
        "How to connect: in the clear or by TLS, with or without a SASL login.",
    ),
    Key::optional("sasl.mechanism", KeyKind::Choice(MECHANISMS), "How to log in; SCRAM-SHA-512 by default."),
    Key::optional("sasl.username", KeyKind::Text, "Who logs in."),
    Key::optional("sasl.password", KeyKind::Secret, "The password."),
    Key::optional(
        "tls.ca",
        KeyKind::Text,
        "A PEM file with the authorities that the brokers' certificates are checked against; the system's by default.",
    ),
    Key::optional(
        "tls.cert",
        KeyKind::Text,
        "A PEM file with our certificate, where the brokers ask for one.",
    ),
    Key::optional("tls.key", KeyKind::Text, "A PEM file with the key of `tls.cert`."),
    Key::optional("tls.key_password", KeyKind::Secret, "The password of `tls.key`, where it has one."),
    Key::with_default(
        "tls.verify_hostname",
        KeyKind::Flag,
        "true",
        "Whether a broker's certificate must name the host that we connected to.",
    ),
    Key::with_default(
        "create_topics",
        KeyKind::Flag,
        "true",
        "Whether missing topics are made. Otherwise a missing topic is an error.",
    ),
    Key::with_default(
        "partitions",
        KeyKind::Integer { min: 1, max: MAX_PARTITIONS },
        "6",
        "Partitions of a topic that we make. Order is kept within a call, and a call keeps to one partition as long \
         as their number stays.",
    ),
    Key::with_default(
        "replication",
        KeyKind::Integer { min: 1, max: MAX_REPLICATION },
        "1",
        "Replicas of a topic that we make; 3 with `min.insync.replicas=2` survives the loss of a broker.",
    ),
    Key::with_default(
        "connect_timeout",
        KeyKind::Duration,
        "5s",
        "How long to wait for the cluster's first answer.",
    ),
    Key::with_default(
        "publish_timeout",
        KeyKind::Duration,
        "30s",
        "How long a batch may take until it is stored. After that its rest is taken back and offered again.",
    ),
    Key::with_default(
        "max_message_bytes",
        KeyKind::Size,
        "1000000",
        "The largest record, key and headers included. Not above the topics' `max.message.bytes`.",
    ),
    Key::with_default(
        "batch_messages",
        KeyKind::Integer { min: 1, max: MAX_BATCH_MESSAGES },
        "8192",
        "How many messages of a server are offered at once, those that are on their way included. They fall to the \
         topic's partitions, and each request holds those of one: few make small requests, which cost the most. \
         Where there are other buses, a server's lane that catches up (more than twice as many wait) offers at most \
         896, and twice as many each time that what waits does not shrink quickly.",
    ),
    Key::with_default("batch_bytes", KeyKind::Size, "8MiB", "How many bytes are offered at once, likewise."),
    Key::with_default(
        "total_bytes",
        KeyKind::Size,
        "16MiB",
        "How many bytes are offered at once for all servers together, beyond the 16 KiB that each may always have.",
    ),
    Key::optional(
        "librdkafka",
        KeyKind::TextMap,
        "Any other setting of librdkafka, e.g. `\"compression.type\" = \"zstd\"`. Those that amibus's promises \
         rest on are refused.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_twice_and_every_one_explained() {
        for (n, key) in KEYS.iter().enumerate() {
            assert!(key.doc.ends_with('.'), "{}", key.name);
            assert!(KEYS.iter().skip(n + 1).all(|other| other.name != key.name), "{}", key.name);
            assert!(!(key.required && key.default.is_some()), "{}", key.name);
        }
    }
}
