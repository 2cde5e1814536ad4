//! Connecting again, over TCP.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::script::{Server, Told, settings};
use crate::asterisk::{ServerSettings, run_events};

const PATIENCE: Duration = Duration::from_secs(10);

fn quick(port: u16) -> Arc<ServerSettings> {
    Arc::new(ServerSettings {
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(20),
        slow_retry: Duration::from_secs(3_600),
        connect_timeout: Duration::from_secs(2),
        snapshots: Vec::new(),
        ..settings(port)
    })
}

struct Running {
    told: Told,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn start(settings: Arc<ServerSettings>) -> Running {
    let (told, shutdown) = (Told::default(), CancellationToken::new());
    let task = tokio::spawn(run_events(settings, told.clone(), shutdown.clone()));
    Running { told, shutdown, task }
}

impl Running {
    async fn stop(self) -> Vec<String> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.told.lines()
    }

    /// Waits until so many lines were told.
    async fn lines(&self, count: usize) {
        let enough = async {
            while self.told.lines().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, enough).await.unwrap_or_else(|_| panic!("only {:?}", self.told.lines()));
    }
}

async fn accept(listener: &TcpListener) -> Server<TcpStream> {
    Server::new(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0)
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = start(quick(listener.local_addr().unwrap().port()));
    for name in ["First", "Second"] {
        let mut server = accept(&listener).await;
        server.logs_in().await;
        server.identifies("22").await;
        server.says(&format!("Event: {name}\n\n")).await;
    }
    // Closed before the login, twice: still down, for a reason that was told already.
    drop(accept(&listener).await);
    drop(accept(&listener).await);
    let mut server = accept(&listener).await;
    server.logs_in().await;
    server.answers("CoreSettings", "Response: Success\nActionID: {id}\nAsteriskVersion: 22\n\n").await;
    let restarted =
        "Response: Success\nActionID: {id}\nCoreStartupDate: 2026-11-21\nCoreStartupTime: 13:00:00\n\n";
    server.answers("CoreStatus", restarted).await;
    server.pongs().await;
    running.lines(7).await;
    assert_eq!(
        running.stop().await,
        [
            "up 22, boot 2026-11-21T12:00:00, resumed false",
            "event First",
            "down Asterisk closed the connection",
            "up 22, boot 2026-11-21T12:00:00, resumed true",
            "event Second",
            "down Asterisk closed the connection",
            "up 22, boot 2026-11-21T13:00:00, resumed false",
            "down amibus is stopping",
        ]
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_once() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let running = start(quick(port));
    running.lines(1).await;
    // Ten more tries, in which nothing new is to be said.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = running.stop().await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("down cannot connect: "), "{told:?}");
}

/// Takes down what the log says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_login_has_what_connecting_leaves_of_the_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = quick(listener.local_addr().unwrap().port());
    let running = start(Arc::new(ServerSettings {
        connect_timeout: Duration::from_millis(300),
        ..(*settings).clone()
    }));
    let mut server = accept(&listener).await;
    server.says("Asterisk Call Manager/11.0.0\n").await;
    let begun = Instant::now();
    running.lines(1).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(running.stop().await, ["down no answer to the login in time"]);
}

#[tokio::test]
async fn a_wrong_secret_is_not_tried_again_soon() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = start(quick(listener.local_addr().unwrap().port()));
    let mut server = accept(&listener).await;
    server.says("Asterisk Call Manager/11.0.0\n").await;
    server.answers("Login", "Response: Error\nActionID: {id}\nMessage: Authentication failed\n\n").await;
    running.lines(1).await;
    assert!(timeout(Duration::from_millis(300), listener.accept()).await.is_err(), "it came back at once");
    let told = running.stop().await;
    assert!(told[0].starts_with("down wrong username or secret"), "{told:?}");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("no error in {log}"));
    for part in [
        "Asterisk refused the login: check username and secret",
        "server=pbx",
        "session=events",
        "username=\"amibus\"",
    ] {
        assert!(line.contains(part), "{line}");
    }
    // The secret of `settings`.
    assert!(!log.contains("=secret") && !log.contains("\"secret\""), "{log}");
}

#[tokio::test]
async fn a_bad_server_disturbs_no_other() {
    let (silent, good) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let bad = start(quick(silent.local_addr().unwrap().port()));
    let running = start(quick(good.local_addr().unwrap().port()));
    let _held = accept(&silent).await;
    let mut server = accept(&good).await;
    server.logs_in().await;
    server.identifies("22").await;
    for _ in 0..100 {
        server.says("Event: Hangup\n\n").await;
    }
    running.lines(101).await;
    assert!(bad.stop().await.is_empty(), "it never was up");
    running.stop().await;
}
