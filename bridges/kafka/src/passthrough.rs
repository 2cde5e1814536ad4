//! Which settings of librdkafka a user may give, and which would break a promise.

use std::collections::BTreeMap;

use amibus_contract::Problem;
use rdkafka::ClientConfig;

/// Settings that have a key of their own, and that key.
const HAVE_A_KEY: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("client.id", "client_id"),
    ("delivery.timeout.ms", "publish_timeout"),
    ("group.id", "group"),
    ("message.max.bytes", "max_message_bytes"),
    ("message.timeout.ms", "publish_timeout"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.password", "sasl.password"),
    ("sasl.username", "sasl.username"),
    ("security.protocol", "security"),
    ("ssl.ca.location", "tls.ca"),
    ("ssl.certificate.location", "tls.cert"),
    ("ssl.endpoint.identification.algorithm", "tls.verify_hostname"),
    ("ssl.key.location", "tls.key"),
    ("ssl.key.password", "tls.key_password"),
];

/// Settings that a promise rests on, and the reason.
const PROMISED: &[(&str, &str)] = &[
    ("acks", "a message counts as stored once all in-sync replicas have it"),
    ("request.required.acks", "a message counts as stored once all in-sync replicas have it"),
    ("auto.commit.enable", "a command is committed after its outcome is recorded, not before"),
    ("auto.commit.interval.ms", "a command is committed after its outcome is recorded, not by the clock"),
    ("auto.offset.reset", "a new group starts with the oldest command, so that none is passed over"),
    ("enable.auto.commit", "a command is committed after its outcome is recorded, not before"),
    ("enable.auto.offset.store", "a command is committed after its outcome is recorded, not before"),
    ("enable.gapless.guarantee", "a message must not be stored where an earlier one of the same call failed"),
    ("enable.idempotence", "a retry inside the client must neither repeat nor reorder messages"),
    (
        "max.in.flight",
        "requests to a broker follow one another, so that a refused one is not taken for stored",
    ),
    (
        "max.in.flight.requests.per.connection",
        "requests to a broker follow one another, so that a refused one is not taken for stored",
    ),
    ("message.send.max.retries", "publish_timeout alone bounds the retries"),
    ("plugin.library.paths", "it would load code into this process"),
    ("sasl.kerberos.kinit.cmd", "it would run a command as this process"),
    ("ssl.engine.location", "it would load code into this process"),
    ("ssl.providers", "it would load code into this process"),
    ("queuing.strategy", "messages leave in the order in which they were offered"),
    ("retries", "publish_timeout alone bounds the retries"),
    ("ssl.key.pem", "a private key belongs into a file: use tls.key"),
    ("statistics.interval.ms", "the state of the bus is told from these statistics"),
    ("enable.ssl.certificate.verification", "a connection that checks nothing is not protected: use tls.ca"),
    ("transactional.id", "messages are not published in transactions"),
];

/// Parts of the names of settings whose values are never shown.
const SECRET: &[&str] = &["password", "passphrase", "secret", "oauthbearer", ".pem", ".jaas"];

/// Partitioners that do not keep a key's messages in one partition.
const SCATTERING: &[&str] = &["random"];

/// Adds `extra` to `config`, or says what is wrong with it.
pub(crate) fn apply(extra: &BTreeMap<String, String>, config: &mut ClientConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in extra {
        match refusal(name, value).or_else(|| unknown(name, value)) {
            Some(message) => problems.push(Problem::new("librdkafka", message)),
            None => {
                config.set(name, value);
            }
        }
    }
    problems
}

fn refusal(name: &str, value: &str) -> Option<String> {
    let find = |table: &[(&str, &'static str)]| table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    if let Some(key) = find(HAVE_A_KEY) {
        return Some(format!("{name} has a key of its own: {key}"));
    }
    if let Some(reason) = find(PROMISED) {
        return Some(format!("{name} cannot be set: {reason}"));
    }
    let scatters = name == "partitioner" && SCATTERING.contains(&value);
    scatters.then(|| format!("partitioner cannot be {value}: the messages of one call stay in one partition"))
}

/// Whether the value of a setting is, or may hold, a secret. A mistyped name is no reason to show it.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// What librdkafka itself says of a setting that it does not know or whose value it does not take, without the value
/// where that is a secret.
fn unknown(name: &str, value: &str) -> Option<String> {
    let mut alone = ClientConfig::new();
    alone.set(name, value);
    let error = alone.create_native_config().err()?;
    let words = match error {
        rdkafka::error::KafkaError::ClientConfig(_, words, ..) => words,
        other => other.to_string(),
    };
    let hidden = is_secret(name) && !value.is_empty() && words.contains(value);
    Some(if hidden { format!("{name}: librdkafka does not take its value") } else { words })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, value: &str) -> Vec<Problem> {
        apply(&BTreeMap::from([(name.to_owned(), value.to_owned())]), &mut ClientConfig::new())
    }

    #[test]
    fn what_breaks_a_promise_is_refused_with_its_reason() {
        let (names, _): (Vec<_>, Vec<_>) = HAVE_A_KEY.iter().chain(PROMISED).copied().unzip();
        for name in names {
            let found = problems(name, "1");
            assert_eq!(found.len(), 1, "{name}");
            assert!(found.iter().all(|p| p.message.starts_with(name)), "{found:?}");
        }
        assert!(problems("partitioner", "random").iter().any(|p| p.message.contains("one partition")));
    }

    #[test]
    fn librdkafka_itself_checks_the_rest() {
        assert!(problems("compression.type", "zstd").is_empty());
        assert!(problems("partitioner", "consistent").is_empty());
        assert!(problems("linger.ms", "20").is_empty());
        assert!(problems("compresion.type", "zstd").iter().any(|p| p.message.contains("compresion.type")));
        assert!(
            problems("socket.timeout.ms", "often").iter().any(|p| p.message.contains("socket.timeout.ms"))
        );
    }

    #[test]
    fn no_problem_shows_a_secret() {
        let names = [
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.method",
            "sasl.password",
            "ssl.ca.pem",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.Password",
            "ssl.keystore.password",
        ];
        let mut config = ClientConfig::new();
        for name in names {
            let found = apply(&BTreeMap::from([(name.to_owned(), "hush".to_owned())]), &mut config);
            assert!(!format!("{found:?}").contains("hush"), "{name}: {found:?}");
        }
        let base = crate::settings::Base(config);
        assert!(base.get("sasl.oauthbearer.config").is_some(), "taken");
        assert!(!format!("{base:?}").contains("hush"), "{base:?}");
        let refused = rdkafka::error::KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "not taken".into(),
            "ssl.keystore.password".into(),
            "hush".into(),
        );
        let fault = crate::front::unusable(&refused);
        assert!(
            !fault.message.contains("hush") && fault.message.contains("ssl.keystore.password"),
            "{fault}"
        );
    }

    #[test]
    fn every_refused_name_is_one_that_librdkafka_knows() {
        for (name, _) in HAVE_A_KEY.iter().chain(PROMISED) {
            let words = unknown(name, "1").unwrap_or_default();
            assert!(!words.contains("No such configuration property"), "{name}: {words}");
        }
    }
}
