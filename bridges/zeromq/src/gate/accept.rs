//! Accepting peers.

use std::{io, os::unix::fs::FileTypeExt, path::Path, sync::Arc, time::Duration};

use amibus_contract::{Fault, FaultKind};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Shared, serve};
use crate::address::Address;

/// How long to wait after accepting failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After how long without traffic the kernel asks whether a peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// How long it waits for each answer.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// A bound socket.
pub(crate) enum Listener {
    Tcp(TcpListener, Address),
    Ipc(UnixListener, Address),
}

impl Listener {
    pub(crate) async fn bind(address: &Address) -> Result<Self, Fault> {
        let fault = |error: io::Error| {
            Fault::new(FaultKind::Unreachable, format!("cannot listen on {address}: {error}"))
        };
        match address {
            Address::Tcp { host, port } => {
                let listener = TcpListener::bind((host.bind_name(), *port)).await.map_err(fault)?;
                let bound = listener.local_addr().map_err(fault)?;
                Ok(Self::Tcp(listener, Address::Tcp { host: host.clone(), port: bound.port() }))
            }
            Address::Ipc(path) => Ok(Self::Ipc(bind_ipc(path).await.map_err(fault)?, address.clone())),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        match self {
            Self::Tcp(_, address) | Self::Ipc(_, address) => address,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Ipc(_, Address::Ipc(path)) = self {
            // Whoever removed it before us did it for us.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds to a path; a socket there that nobody listens on any more is what a killed process left, and is removed.
async fn bind_ipc(path: &Path) -> io::Result<UnixListener> {
    let error = match UnixListener::bind(path) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if error.kind() != io::ErrorKind::AddrInUse || !is_socket || UnixStream::connect(path).await.is_ok() {
        return Err(error);
    }
    std::fs::remove_file(path)?;
    UnixListener::bind(path)
}

/// Accepts until the gate closes. Dropping the listener closes the port.
pub(crate) async fn run(listener: Listener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.closing.cancelled() => return,
            accepted = accept(&listener) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(address = %listener.address(), %error, "cannot accept a ZeroMQ peer");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() else {
            shared.stats.turned_away();
            tracing::debug!(address = %listener.address(), "a ZeroMQ peer was turned away: max_peers are connected");
            continue;
        };
        let shared_by_peer = Arc::clone(&shared);
        shared.tracker.spawn(async move {
            let _slot = slot;
            match stream {
                Stream::Tcp(stream, label) => {
                    let (reader, writer) = stream.into_split();
                    serve::serve(shared_by_peer, reader, writer, label).await;
                }
                Stream::Ipc(stream) => {
                    let (reader, writer) = stream.into_split();
                    serve::serve(shared_by_peer, reader, writer, "ipc".to_owned()).await;
                }
            }
        });
    }
}

enum Stream {
    Tcp(TcpStream, String),
    Ipc(UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Listener::Tcp(listener, _) => {
            let (stream, from) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(Stream::Tcp(stream, from.to_string()))
        }
        Listener::Ipc(listener, _) => Ok(Stream::Ipc(listener.accept().await?.0)),
    }
}
