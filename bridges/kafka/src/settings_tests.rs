//! Every problem is found, and all of them at once.

use std::collections::BTreeMap;

use amibus_contract::Value;

use super::*;

fn context() -> Context {
    Context { prefix: "ami".into(), instance: "amibus".into(), ..Context::default() }
}

fn values(brokers: &str) -> Values {
    Values::default().with("brokers", Value::Text(brokers.into()))
}

fn valid(values: &Values) -> Settings {
    Settings::new(values, &context()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn keys_of(values: &Values) -> Vec<&'static str> {
    Settings::new(values, &context()).err().unwrap_or_default().iter().map(|p| p.key).collect()
}

#[test]
fn addresses_are_checked_one_by_one() {
    for good in ["127.0.0.1:9092", "a:1, b:2", "kafka", "[::1]:9092", "[::1]"] {
        assert_eq!(keys_of(&values(good)), Vec::<&str>::new(), "{good}");
    }
    for bad in ["", "a:1,", "kafka://a:1", "a b:1", "a:0", "a:70000", "a:x"] {
        assert_eq!(keys_of(&values(bad)), ["brokers"], "{bad}");
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    let settings = valid(&values("a:1"));
    assert_eq!(settings.base.get("security.protocol"), Some("plaintext"));
    assert_eq!(settings.base.get("client.id"), Some("amibus"));
    assert_eq!((settings.partitions, settings.replication), (6, 1));
    assert_eq!(settings.publish_timeout, Duration::from_secs(30));
    assert_eq!(settings.max_message_bytes, 1_000_000);
    assert!(settings.create_topics && !settings.commands);
}

#[test]
fn a_login_goes_where_librdkafka_reads_it() {
    let login = values("a:1")
        .with("security", text("sasl_plaintext"))
        .with("sasl.username", text("me"))
        .with("sasl.password", Value::Secret("hush".to_owned().into()));
    let settings = valid(&login);
    assert_eq!(settings.base.get("security.protocol"), Some("sasl_plaintext"));
    assert_eq!(settings.base.get("sasl.mechanisms"), Some("SCRAM-SHA-512"));
    assert_eq!(settings.base.get("sasl.password"), Some("hush"));
    assert!(!format!("{:?}", settings.base).contains("hush"), "a secret is never printed");
}

#[test]
fn all_problems_are_told_at_once() {
    let wrong = values("a:x")
        .with("security", text("sasl_tls"))
        .with("tls.ca", text("/does/not/exist.pem"))
        .with("tls.cert", text("/does/not/exist.pem"))
        .with("publish_timeout", Value::Duration(Duration::ZERO))
        .with("max_message_bytes", Value::Size(1))
        .with("librdkafka", Value::Map(BTreeMap::from([("acks".to_owned(), "1".to_owned())])));
    let mut found = keys_of(&wrong);
    found.sort_unstable();
    let expected = [
        "brokers",
        "librdkafka",
        "max_message_bytes",
        "publish_timeout",
        "sasl.password",
        "sasl.username",
        "tls.ca",
        "tls.cert",
        "tls.key",
    ];
    assert_eq!(found, expected);
}

#[test]
fn protection_that_would_not_be_used_is_a_problem() {
    let wrong = values("a:1").with("tls.ca", text("x")).with("sasl.username", text("me"));
    assert_eq!(keys_of(&wrong), ["sasl.username", "tls.ca"]);
}
