//! Health and metrics over HTTP: `/live`, `/ready`, `/metrics`, `/version`.
//!
//! | limit | constant |
//! |---|---|
//! | connections at once; more wait to be accepted | [`MAX_CONNECTIONS`] |
//! | a request's head, in bytes | [`MAX_HEAD_BYTES`] |
//! | from one request's end to the next one's head | [`HEAD_DEADLINE`] |
//! | a connection's whole life | [`MAX_CONNECTION_LIFE`] |
//!
//! Only GET and HEAD are answered, and no request's body is read.

mod routes;

use std::{sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{health::Health, metrics::Metrics};

/// The most connections at once; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 64;
/// The longest head of a request, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may be without the head of a next request.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// How long a connection may live.
pub const MAX_CONNECTION_LIFE: Duration = Duration::from_secs(3600);
/// The wait after a connection could not be accepted, as when no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers in the making may take once the process leaves.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// For `/ready`.
    pub health: Arc<Health>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
}

/// Answers requests until `stop`.
pub async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) {
    let router = routes::router(shown);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else { break };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, router, stop).await;
            drop(permit);
        });
    }
    connections.close();
    // Whoever still reads an answer then gets no more of it.
    let _ = timeout(LEAVE_LIMIT, connections.wait()).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, permit)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for health and metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: axum::Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = timeout(MAX_CONNECTION_LIFE, connection.as_mut()) => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(LEAVE_LIMIT, connection).await
        }
    };
    match ended {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for health and metrics broke"),
    }
}

#[cfg(test)]
mod tests;
