//! Each way of logging in, once right and once wrong.

use std::{path::Path, time::Duration};

use amibus_contract::{Decision, Fault, FaultKind, Kind, Value, Values, conformance::message};
use amibus_services::{Certificates, KAFKA_PASSWORD, KAFKA_USER, Kafka, KafkaOptions};

use crate::{rig::fresh_prefix, values};

/// How soon a refusal must be told: waiting does not mend it.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// Publishes one message.
async fn try_it(values: &Values) -> Result<(), Fault> {
    let prefix = fresh_prefix();
    let bridge = values::open(values, &prefix);
    let result = async {
        let mut outlet = bridge.outlet("pbx1").await?;
        let published = outlet.publish(&[message(&prefix, Kind::Event, "pbx1", 1, 1, 10)]).await;
        published.fault.map_or(Ok(()), Err)
    };
    let result = result.await;
    assert_eq!(bridge.status().is_ok(), result.is_ok(), "{:?} {result:?}", bridge.status());
    result
}

async fn works(values: &Values) {
    try_it(values).await.unwrap_or_else(|fault| panic!("{fault}: {values:?}"));
}

async fn is_refused(values: &Values, kind: FaultKind) {
    let start = std::time::Instant::now();
    let fault = try_it(values).await.expect_err("let in");
    assert_eq!((fault.kind, fault.decision), (kind, Decision::Stop), "{fault}");
    assert!(start.elapsed() < TOLD_WITHIN, "told after {:?}", start.elapsed());
    assert!(!fault.message.contains("wrong-password"), "a secret in {fault}");
}

fn secret(value: &str) -> Value {
    Value::Secret(value.to_owned().into())
}

fn path(path: &Path) -> Value {
    values::text(&path.display().to_string())
}

fn broker() -> &'static Kafka {
    static BROKER: std::sync::OnceLock<Kafka> = std::sync::OnceLock::new();
    BROKER.get_or_init(|| {
        let properties = "listener.name.ssl.ssl.client.auth=required".to_owned();
        Kafka::start(&KafkaOptions { sasl: true, tls: true, properties })
    })
}

fn sasl(mechanism: &str, password: &str) -> Values {
    values::values(&broker().sasl_brokers())
        .with("security", values::text("sasl_plaintext"))
        .with("sasl.mechanism", values::text(mechanism))
        .with("sasl.username", values::text(KAFKA_USER))
        .with("sasl.password", secret(password))
}

async fn mechanism(name: &str) {
    works(&sasl(name, KAFKA_PASSWORD)).await;
    is_refused(&sasl(name, "wrong-password"), FaultKind::Unauthorized).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain() {
    mechanism("PLAIN").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_256() {
    mechanism("SCRAM-SHA-256").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_512() {
    mechanism("SCRAM-SHA-512").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sasl_over_tls_and_the_wrong_authority() {
    let other = tempfile::tempdir().expect("a directory");
    let other = Certificates::make(other.path());
    let values = sasl("SCRAM-SHA-512", KAFKA_PASSWORD)
        .with("brokers", values::text(&broker().sasl_tls_brokers()))
        .with("security", values::text("sasl_tls"));
    works(&values.clone().with("tls.ca", path(&broker().ca_file()))).await;
    is_refused(&values.with("tls.ca", path(&other.ca_file())), FaultKind::Unauthorized).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_and_none_and_a_strangers() {
    let (own, directory) = (broker().certificates(), tempfile::tempdir().expect("a directory"));
    let stranger = Certificates::make(directory.path());
    let values = values::values(&broker().tls_brokers())
        .with("security", values::text("tls"))
        .with("tls.ca", path(&own.ca_file()));
    let with = |certificates: &Certificates| {
        let values = values.clone().with("tls.cert", path(&certificates.client_file()));
        values.with("tls.key", path(&certificates.client_key_file()))
    };
    works(&with(own)).await;
    is_refused(&values, FaultKind::Unauthorized).await;
    is_refused(&with(&stranger), FaultKind::Unauthorized).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_permissions_is_told_which() {
    let properties = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                      super.users=User:ANONYMOUS"
        .to_owned();
    let kafka = Kafka::start(&KafkaOptions { sasl: true, properties, ..KafkaOptions::default() });
    let values = sasl("PLAIN", KAFKA_PASSWORD).with("brokers", values::text(&kafka.sasl_brokers()));
    let fault = try_it_quietly(&values).await.expect_err("permitted");
    assert_eq!((fault.kind, fault.decision), (FaultKind::Forbidden, Decision::Stop), "{fault}");
}

/// As [`try_it`], where the broker answers well and forbids.
async fn try_it_quietly(values: &Values) -> Result<(), Fault> {
    values::open(values, &fresh_prefix()).outlet("pbx1").await.map(drop)
}
