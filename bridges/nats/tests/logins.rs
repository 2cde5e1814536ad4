//! Each way of logging in, once right and once wrong, against a server that demands it.

use std::{fs, path::Path};

use amibus_contract::{Context, Decision, FaultKind, Plug, Value, Values};
use amibus_nats::Nats as Bus;
use amibus_services::{Certificates, Nats, NatsOptions};
use nkeys::KeyPairType;

use crate::{
    jwt::{Operator, pair},
    rig::{PREFIX, event, open, text, values},
};

fn server(config: &str) -> Nats {
    Nats::start(&NatsOptions { jetstream: false, config: config.to_owned() })
}

fn secret(value: &str) -> Value {
    Value::Secret(value.to_owned().into())
}

async fn works(values: &Values) {
    let bridge = open(values);
    let published = bridge.outlet("pbx1").await.expect("an outlet").publish(&[event(0, "a", 10)]).await;
    assert_eq!((published.safe, published.fault), (1, None));
    assert_eq!(bridge.status(), Ok(()));
    bridge.client().await.map(|_| ()).expect("a client");
    bridge.probe().await.expect("probed");
}

async fn is_refused(values: &Values) {
    let bridge = open(values);
    let published = bridge.outlet("pbx1").await.expect("an outlet").publish(&[event(0, "a", 10)]).await;
    let fault = published.fault.expect("refused");
    assert_eq!(
        (published.safe, fault.kind, fault.decision),
        (0, FaultKind::Unauthorized, Decision::Stop),
        "{fault}"
    );
    assert!(!fault.message.contains("wrong"), "no secret in {fault}");
    assert!(bridge.status().is_err());
    let fault = bridge.client().await.map(|_| ()).expect_err("refused");
    assert_eq!(fault.kind, FaultKind::Unauthorized, "{fault}");
    let fault = bridge.probe().await.expect_err("refused");
    assert_eq!(fault.kind, FaultKind::Unauthorized, "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_password() {
    let server = server(r#"authorization { user: "amibus", password: "right" }"#);
    let login =
        |password| values(&server.url()).with("user", text("amibus")).with("password", secret(password));
    works(&login("right")).await;
    is_refused(&login("wrong")).await;
    is_refused(&values(&server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token() {
    let server = server(r#"authorization { token: "right" }"#);
    works(&values(&server.url()).with("token", secret("right"))).await;
    is_refused(&values(&server.url()).with("token", secret("wrong"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nkey() {
    let (known, stranger) = (pair(KeyPairType::User), pair(KeyPairType::User));
    let server = server(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", known.public_key()));
    let login = |seed: &str| values(&server.url()).with("nkey", secret(seed));
    works(&login(&known.seed().expect("a seed"))).await;
    is_refused(&login(&stranger.seed().expect("a seed"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_file() {
    let (ours, theirs) = (Operator::new(), Operator::new());
    let server = server(&ours.config);
    let directory = tempfile::tempdir().expect("a directory");
    let login = |name: &str, credentials: &str| {
        let path = directory.path().join(name);
        fs::write(&path, credentials).expect("written");
        values(&server.url()).with("credentials", text(path.to_str().expect("UTF-8")))
    };
    works(&login("right.creds", &ours.credentials())).await;
    is_refused(&login("other.creds", &theirs.credentials())).await;
}

fn tls(certificates: &Certificates, more: &str) -> String {
    let file = |path: &Path| path.display().to_string();
    format!(
        "tls {{ cert_file: \"{}\"\n key_file: \"{}\"\n ca_file: \"{}\"\n {more} }}",
        file(&certificates.server_file()),
        file(&certificates.server_key_file()),
        file(&certificates.ca_file()),
    )
}

fn path(path: &Path) -> Value {
    text(path.to_str().expect("UTF-8"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_authority_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let ours = Certificates::make(&directory.path().join("ours"));
    let theirs = Certificates::make(&directory.path().join("theirs"));
    for more in ["", "handshake_first: auto"] {
        let server = server(&tls(&ours, more));
        let first = Value::Flag(!more.is_empty());
        let login =
            |ca: &Path| values(&server.url()).with("tls.ca", path(ca)).with("tls.first", first.clone());
        works(&login(&ours.ca_file())).await;
        is_refused(&login(&theirs.ca_file())).await;
        let tls_url = server.url().replace("nats://", "tls://");
        works(&login(&ours.ca_file()).with("url", text(&tls_url))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_client_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let ours = Certificates::make(&directory.path().join("ours"));
    let theirs = Certificates::make(&directory.path().join("theirs"));
    let server = server(&tls(&ours, "verify: true"));
    let trusting = values(&server.url()).with("tls.ca", path(&ours.ca_file()));
    let as_client = |own: &Certificates| {
        trusting
            .clone()
            .with("tls.cert", path(&own.client_file()))
            .with("tls.key", path(&own.client_key_file()))
    };
    works(&as_client(&ours)).await;
    is_refused(&as_client(&theirs)).await;
    is_refused(&trusting).await;
}

/// A server that cannot do TLS is refused where TLS is demanded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_never_given_up_silently() {
    let server = server("");
    let bridge = open(&values(&server.url()).with("tls.required", Value::Flag(true)));
    let published = bridge.outlet("pbx1").await.expect("an outlet").publish(&[event(0, "a", 10)]).await;
    assert_eq!(published.safe, 0);
    assert!(published.fault.is_some());
}

#[test]
fn what_is_wrong_with_the_values_is_said_all_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "nothing").expect("written");
    let values = values("nats://user:secret@host, http://x, ")
        .with("stream", text("a.b"))
        .with("commands_stream", text("C"))
        .with("duplicate_window", Value::Duration(std::time::Duration::from_secs(9_000_000)))
        .with("ack_timeout", Value::Duration(std::time::Duration::ZERO))
        .with("user", text("u"))
        .with("token", secret("wrong"))
        .with("nkey", secret("wrong"))
        .with("tls.ca", path(&empty))
        .with("tls.cert", path(&directory.path().join("absent.pem")));
    let context = Context { prefix: PREFIX.into(), instance: "amibus".into(), ..Context::default() };
    let problems = Bus::open(&values, &context).map(|_| ()).expect_err("wrong");
    let mut keys: Vec<&str> = problems.iter().map(|problem| problem.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(
        keys,
        [
            "ack_timeout",
            "commands_stream",
            "duplicate_window",
            "password",
            "stream",
            "tls.ca",
            "tls.cert",
            "tls.key",
            "token",
            "url",
            "user",
        ],
        "{problems:#?}"
    );
    assert_eq!(problems.iter().filter(|problem| problem.key == "url").count(), 3, "{problems:#?}");
    let said = format!("{problems:?}") + &one_wrong_login(&directory.path().join("absent.creds"));
    assert!(!said.contains("secret") && !said.contains("wrong"), "{said}");
}

/// A seed that is none, and a credentials file that is not there, are found before anything is connected.
fn one_wrong_login(absent: &Path) -> String {
    let context = Context { prefix: PREFIX.into(), instance: "amibus".into(), ..Context::default() };
    let problems_of = |values: &Values| Bus::open(values, &context).map(|_| ()).expect_err("wrong");
    let nkey = problems_of(&values("nats://host").with("nkey", secret("wrong")));
    assert_eq!((nkey.len(), nkey.first().map(|problem| problem.key)), (1, Some("nkey")), "{nkey:?}");
    let file = problems_of(&values("nats://host").with("credentials", path(absent)));
    assert_eq!((file.len(), file.first().map(|problem| problem.key)), (1, Some("credentials")), "{file:?}");
    format!("{nkey:?}{file:?}")
}
