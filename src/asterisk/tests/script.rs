//! A server that does what a test says, and a sink that writes down what it is told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use amibus_ami::{ActionIds, EventMask, Frame, LoginMethod, OwnedFrame, Session};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::asterisk::{
    DownReason, EventSink, ServerSettings, Target, Up,
    wire::{Wire, now},
};

pub(in crate::asterisk) fn settings(port: u16) -> ServerSettings {
    let target = Target::Ami { host: "127.0.0.1".to_owned(), port };
    let settings = ServerSettings::new("pbx", target, "amibus", "secret".into(), ActionIds::new([5; 16]));
    ServerSettings { login: LoginMethod::Plain, ..settings }
}

/// The client's and the server's end of a connection that holds `bytes` in each direction.
pub(in crate::asterisk) fn pipe(
    settings: &ServerSettings,
    bytes: usize,
) -> (Wire, Server<tokio::io::DuplexStream>) {
    let (client, server) = tokio::io::duplex(bytes);
    let session = Session::new(settings.session(EventMask::On, settings.connect_timeout), now()).unwrap();
    (Wire::new(Box::new(client), session), Server::new(server))
}

/// The server's end.
pub(in crate::asterisk) struct Server<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Server<S> {
    pub(in crate::asterisk) fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(in crate::asterisk) async fn says(&mut self, text: &str) {
        self.stream.write_all(text.replace('\n', "\r\n").as_bytes()).await.unwrap();
    }

    /// The next action: its text, and its ActionID.
    pub(in crate::asterisk) async fn hears(&mut self, name: &str) -> (String, String) {
        let text = self.message().await.unwrap_or_else(|| panic!("the client has gone before {name}"));
        let id = text.lines().find_map(|line| line.strip_prefix("ActionID: ")).unwrap().to_owned();
        assert!(text.starts_with(&format!("Action: {name}\r\n")), "{name} expected: {text}");
        (text, id)
    }

    /// The next message, or nothing if the client has gone.
    pub(in crate::asterisk) async fn message(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let message: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8(message).unwrap());
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }

    pub(in crate::asterisk) async fn answers(&mut self, name: &str, answer: &str) {
        let (_, id) = self.hears(name).await;
        self.says(&answer.replace("{id}", &id)).await;
    }

    pub(in crate::asterisk) async fn logs_in(&mut self) {
        self.says("Asterisk Call Manager/11.0.0\n").await;
        self.answers("Login", "Response: Success\nActionID: {id}\nMessage: Authentication accepted\n\n")
            .await;
    }

    /// Says who it is: Asterisk `version`, started at noon.
    pub(in crate::asterisk) async fn identifies(&mut self, version: &str) {
        let settings = format!("Response: Success\nActionID: {{id}}\nAsteriskVersion: {version}\n\n");
        self.answers("CoreSettings", &settings).await;
        let status =
            "Response: Success\nActionID: {id}\nCoreStartupDate: 2026-11-21\nCoreStartupTime: 12:00:00\n\n";
        self.answers("CoreStatus", status).await;
        self.pongs().await;
    }

    /// Says that it is noon.
    pub(in crate::asterisk) async fn pongs(&mut self) {
        let pong = "Response: Success\nActionID: {id}\nPing: Pong\nTimestamp: 1795262400.000001\n\n";
        self.answers("Ping", pong).await;
    }

    pub(in crate::asterisk) async fn denies(&mut self, name: &str) {
        self.answers(name, "Response: Error\nActionID: {id}\nMessage: Permission denied\n\n").await;
    }

    pub(in crate::asterisk) async fn denies_snapshots(&mut self) {
        for list in ["CoreShowChannels", "BridgeList", "QueueStatus"] {
            self.denies(list).await;
        }
    }
}

/// What a sink was told, a line each.
#[derive(Clone, Default)]
pub(in crate::asterisk) struct Told {
    lines: Arc<Mutex<Vec<String>>>,
    /// How often it is still to answer that it is behind.
    pub(in crate::asterisk) behind: Arc<AtomicU64>,
}

impl Told {
    pub(in crate::asterisk) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn line(&mut self, line: String) {
        self.lines.lock().unwrap().push(line);
    }
}

impl EventSink for Told {
    fn up(&mut self, up: Up) {
        self.line(format!(
            "up {}, boot {}, resumed {}",
            up.version,
            up.boot.as_deref().unwrap_or("?"),
            up.resumed
        ));
    }

    fn event(&mut self, frame: Frame<'_>, _: SystemTime) {
        self.line(format!("event {}", String::from_utf8_lossy(frame.name())));
    }

    fn other(&mut self, frame: Frame<'_>, _: SystemTime) {
        self.line(format!("other {}", String::from_utf8_lossy(frame.raw())));
    }

    fn snapshot(&mut self, list: &str, items: Vec<OwnedFrame>) {
        self.line(format!("snapshot {list}, {} items", items.len()));
    }

    fn down(&mut self, reason: &DownReason) {
        self.line(format!("down {reason}"));
    }

    fn is_behind(&self) -> bool {
        self.behind.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
