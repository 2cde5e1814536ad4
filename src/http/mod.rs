//! Health and metrics over HTTP: `/live`, `/ready`, `/metrics`, `/version`.
//!
//! | limit | constant |
//! |---|---|
//! | connections at once; one more closes the oldest | [`MAX_CONNECTIONS`] |
//! | a request's head, in bytes | [`MAX_HEAD_BYTES`] |
//! | a connection's first head, whole | [`FIRST_HEAD_DEADLINE`] |
//! | from one request's end to the next one's head | [`HEAD_DEADLINE`] |
//! | a connection's whole life | [`MAX_CONNECTION_LIFE`] |
//!
//! Only GET and HEAD are answered, and no request's body is read.

mod routes;

use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};

use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{health::Health, metrics::Metrics};

/// The most connections at once; one more closes the oldest.
pub const MAX_CONNECTIONS: usize = 64;
/// The longest head of a request, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may be without the head of a next request.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// How long a connection may take for its first head.
pub const FIRST_HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection may live.
pub const MAX_CONNECTION_LIFE: Duration = Duration::from_secs(3600);
/// The wait after a connection could not be accepted, as when no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers in the making may take once the process leaves, or the connection must make room.
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
pub async fn serve(listener: Arc<TcpListener>, shown: Shown, stop: CancellationToken) {
    let router = routes::router(shown);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    // Oldest first.
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            stream = accept(&listener) => stream,
        };
        open.retain(|one| !one.task.is_finished());
        if permits.available_permits() == 0
            && let Some(oldest) = open.pop_front()
        {
            oldest.close.cancel();
        }
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let (router, close) = (router.clone(), stop.child_token());
        let told = close.clone();
        let task = connections.spawn(async move {
            connection(stream, router, told).await;
            drop(permit);
        });
        open.push_back(Open { close, task });
    }
    connections.close();
    // Whoever still reads an answer then gets no more of it.
    let _ = timeout(LEAVE_LIMIT, connections.wait()).await;
}

/// A connection at work.
struct Open {
    close: CancellationToken,
    task: JoinHandle<()>,
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for health and metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: axum::Router, stop: CancellationToken) {
    let asked = CancellationToken::new();
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        asked.cancel();
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = timeout(MAX_CONNECTION_LIFE, connection.as_mut()) => ended,
        () = unasked(&asked) => return,
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

/// Ends when no first request came in time.
async fn unasked(asked: &CancellationToken) {
    if timeout(FIRST_HEAD_DEADLINE, asked.cancelled()).await.is_ok() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
