//! From a target to a connection: TCP, and TLS on top.

use std::{io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::settings::{Target, TlsSettings};

/// A connection, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// There is no connection. What is wrong with a file or a name needs a person; the rest may pass.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nothing answered in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// TCP failed: no such name, nobody listening, no way there.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed: an unknown authority, another name, not TLS at all.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// A PEM file cannot be used.
    #[error("{path}: {text}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// The system has no certificate authorities, and no file of them is configured.
    #[error("no certificate authorities on this system; name a CA file")]
    NoAuthorities,
    /// The name to check the certificate against is none.
    #[error("{0:?} is not a name or an address that a certificate can be for")]
    ServerName(String),
    /// The certificate and the key to appear with do not go together.
    #[error("the client certificate cannot be used: {0}")]
    Client(#[source] rustls::Error),
}

impl DialError {
    /// Whether it is the configuration that is wrong.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Timeout(_) | Self::Connect(_) | Self::Tls(_))
    }
}

/// Connects within `limit`.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(target: &Target, limit: Duration) -> Result<Box<dyn Stream>, DialError> {
    timeout(limit, connect(target)).await.unwrap_or(Err(DialError::Timeout(limit)))
}

async fn connect(target: &Target) -> Result<Box<dyn Stream>, DialError> {
    match target {
        Target::Ami { host, port } => Ok(Box::new(tcp(host, *port).await?)),
        Target::Amis { host, port, tls } => {
            let name = server_name(tls, host)?;
            let settings = tls.clone();
            // The system's authorities and the PEM files are read from disk.
            let config = tokio::task::spawn_blocking(move || client_config(&settings)).await;
            let config = config.map_err(|error| DialError::Tls(io::Error::other(error)))??;
            let stream = tcp(host, *port).await?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            Ok(Box::new(stream.map_err(DialError::Tls)?))
        }
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let stream = TcpStream::connect((host, port)).await.map_err(DialError::Connect)?;
    // Actions are small, and each is waited for.
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    // What a session that was given up on has left unsent must not reach Asterisk later: the kernel would go on trying for
    // minutes, and a call that was found nowhere would be dialled after all.
    stream.set_zero_linger().map_err(DialError::Connect)?;
    Ok(stream)
}

fn server_name(tls: &TlsSettings, host: &str) -> Result<ServerName<'static>, DialError> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| DialError::ServerName(name.to_owned()))
}

/// Reads what the settings name. To be called once at the start as well, so that a mistake is found then.
///
/// # Errors
/// See [`DialError`].
pub fn client_config(tls: &TlsSettings) -> Result<ClientConfig, DialError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(DialError::NoAuthorities);
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(DialError::Client)?
        .with_root_certificates(roots);
    match &tls.client {
        None => Ok(builder.with_no_client_auth()),
        Some(client) => {
            let key = PrivateKeyDer::from_pem_file(&client.key_file)
                .map_err(|error| unusable(&client.key_file, error))?;
            let chain = certificates(&client.certificate_file)?;
            builder.with_client_auth_cert(chain, key).map_err(DialError::Client)
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| unusable(path, error))?;
    match found.is_empty() {
        true => Err(unusable(path, "there is no certificate in it")),
        false => Ok(found),
    }
}

fn unusable(path: &Path, error: impl ToString) -> DialError {
    DialError::File { path: path.to_owned(), text: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// After which neither side has room for more.
    const NO_ROOM_FOR: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn what_was_not_sent_dies_with_the_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let stream = tcp("127.0.0.1", port).await.expect("connects");
        let (mut other, _) = listener.accept().expect("accepts");
        let mut written = 0;
        // Asterisk reads nothing. While there is no room for a moment alone, what was written may still go over.
        while timeout(NO_ROOM_FOR, stream.writable()).await.is_ok() {
            while let Ok(count) = stream.try_write(&[b'x'; 64 * 1024]) {
                written += count;
            }
        }
        drop(stream);
        let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
        let end = loop {
            match other.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => seen += count,
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
        assert!(seen < written, "all {written} bytes arrived");
    }
}
