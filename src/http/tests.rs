//! The real server on a loopback port, asked by hand-written requests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{FIRST_HEAD_DEADLINE, MAX_CONNECTIONS, Shown, serve};
use crate::health::{Health, ServerState};

struct Running {
    at: SocketAddr,
    shown: Shown,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("bound");
    let shown = Shown { health: Arc::new(Health::new(["pbx1"], [])), metrics: Arc::default() };
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(Arc::new(listener), shown.clone(), stop.clone()));
    Running { at, shown, stop, task }
}

async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A server that closes with bytes of ours unread resets the connection; what it said before that counts.
    let _ =
        timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an answer in time");
    String::from_utf8(answer).expect("text")
}

async fn get(at: SocketAddr, path: &str) -> String {
    ask(at, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn each_path_answers() {
    let running = start().await;
    assert!(get(running.at, "/live").await.starts_with("HTTP/1.1 200 OK"));
    let version = get(running.at, "/version").await;
    assert!(version.contains(concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"")), "{version}");
    running.shown.metrics.server("pbx1").bytes_read.inc_by(5);
    let metrics = get(running.at, "/metrics").await;
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.contains("amibus_read_bytes_total{server=\"pbx1\"} 5"), "{metrics}");
    assert!(get(running.at, "/nothing").await.starts_with("HTTP/1.1 404"));
    let post = "POST /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert!(ask(running.at, post).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn ready_follows_the_servers_and_the_drain() {
    let running = start().await;
    let before = get(running.at, "/ready").await;
    assert!(before.starts_with("HTTP/1.1 503"), "{before}");
    assert!(before.contains("\"pbx1\":{\"state\":\"down\",\"reason\":\"not connected yet\"}"), "{before}");
    running.shown.health.set_server("pbx1", ServerState::Up { asterisk: Some("22.1.0".into()) });
    assert!(get(running.at, "/ready").await.starts_with("HTTP/1.1 200"));
    running.shown.health.drain();
    assert!(get(running.at, "/ready").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let running = start().await;
    let long = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(super::MAX_HEAD_BYTES));
    assert!(ask(running.at, &long).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn silent_connections_make_room() {
    let running = start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(running.at).await.expect("connects"));
    }
    let asked = get(running.at, "/live");
    let answer = timeout(FIRST_HEAD_DEADLINE / 2, asked).await.expect("the oldest makes room");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed_and_one_that_asked_stays() {
    let running = start().await;
    let mut asked = TcpStream::connect(running.at).await.expect("connects");
    let mut silent = TcpStream::connect(running.at).await.expect("connects");
    let request = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut answer = [0; 12];
    asked.write_all(request).await.expect("sent");
    asked.read_exact(&mut answer).await.expect("an answer");
    // A head that comes in pieces is no head.
    silent.write_all(b"GET /li").await.expect("sent");
    let mut nothing = Vec::new();
    let closed = timeout(2 * FIRST_HEAD_DEADLINE, silent.read_to_end(&mut nothing)).await;
    assert_eq!(closed.expect("closed in time").unwrap_or_default(), 0);
    asked.write_all(request).await.expect("still open");
    asked.read_exact(&mut answer).await.expect("another answer");
}

#[tokio::test]
async fn it_leaves_when_told_although_somebody_is_connected() {
    let running = start().await;
    let _idle = TcpStream::connect(running.at).await.expect("connects");
    running.stop.cancel();
    timeout(Duration::from_secs(5), running.task).await.expect("in time").expect("no panic");
}
