//! The client's own certificate, asked for by a TLS server that says what Asterisk would.

use std::{sync::Arc, time::Duration};

use amibus_services::Certificates;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::script::{Server, Told, settings};
use crate::asterisk::{
    ClientCertificate, ServerSettings, Target, TlsSettings, dial::client_config, run_events,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn acceptor(files: &Certificates) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.ca_file()).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(files.server_file()).unwrap()];
    let key = PrivateKeyDer::from_pem_file(files.server_key_file()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    Arc::new(config).into()
}

/// Connects once, with or without a client certificate, and gives the first line that is told.
async fn first_line(files: &Certificates, client: Option<ClientCertificate>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = TlsSettings { ca_file: Some(files.ca_file()), client, server_name: None };
    let target = Target::Amis { host: "127.0.0.1".to_owned(), port, tls };
    let (told, shutdown) = (Told::default(), CancellationToken::new());
    let settings = ServerSettings { target, backoff_min: PATIENCE, ..settings(0) };
    let task = tokio::spawn(run_events(Arc::new(settings), told.clone(), shutdown.clone()));
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    if let Ok(stream) = acceptor(files).accept(stream).await {
        let mut server = Server::new(stream);
        server.logs_in().await;
        server.identifies("22").await;
    }
    let line = async {
        while told.lines().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        told.lines().remove(0)
    };
    let line = timeout(PATIENCE, line).await.unwrap();
    shutdown.cancel();
    task.await.unwrap();
    line
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let files = Certificates::make(directory.path());
    let client =
        ClientCertificate { certificate_file: files.client_file(), key_file: files.client_key_file() };
    assert!(first_line(&files, Some(client)).await.starts_with("up 22"));
    let refused = first_line(&files, None).await;
    assert!(refused.starts_with("down ") && refused.to_lowercase().contains("certificate"), "{refused}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let files = Certificates::make(directory.path());
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let settings = |ca, client| TlsSettings { ca_file: Some(ca), client, server_name: None };
    let error = client_config(&settings(empty.clone(), None)).unwrap_err();
    assert!(error.is_configuration() && error.to_string().contains("empty.pem"), "{error}");
    let pair = |certificate_file, key_file| Some(ClientCertificate { certificate_file, key_file });
    let error = client_config(&settings(files.ca_file(), pair(files.client_file(), empty))).unwrap_err();
    assert!(error.to_string().contains("empty.pem"), "{error}");
    let crossed = pair(files.client_file(), files.server_key_file());
    let error = client_config(&settings(files.ca_file(), crossed)).unwrap_err();
    assert!(error.to_string().starts_with("the client certificate cannot be used"), "{error}");
    assert!(client_config(&TlsSettings { ca_file: Some(files.ca_file()), ..TlsSettings::default() }).is_ok());
}
