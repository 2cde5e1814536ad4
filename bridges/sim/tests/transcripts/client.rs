//! A client that knows no more of AMI than lines and empty lines.

use std::time::Duration;

use amibus_sim::{Sim, SimOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Anything that takes longer has gone wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

pub(crate) async fn start(options: SimOptions) -> Sim {
    Sim::start(options).await.expect("a free port")
}

/// A session that is logged in as the default user, past FullyBooted and its own SuccessfulAuth, if it gets them.
pub(crate) async fn logged_in(sim: &Sim, events: &str) -> Client {
    let mut client = Client::connect(sim).await;
    client
        .send(&format!("Action: Login\nUsername: amibus\nSecret: amibus\nEvents: {events}\nActionID: in\n\n"))
        .await;
    let accepted = client.message().await;
    assert_eq!(accepted, "Response: Success\nActionID: in\nMessage: Authentication accepted\n");
    if events == "on" {
        assert!(client.message().await.starts_with("Event: FullyBooted\n"));
        assert!(client.message().await.starts_with("Event: SuccessfulAuth\n"));
    }
    client
}

impl Client {
    /// Connects and takes the banner away.
    pub(crate) async fn connect(sim: &Sim) -> Self {
        let mut client = Self::silent(sim).await;
        assert_eq!(client.until("\r\n").await, "Asterisk Call Manager/11.0.0\n");
        client
    }

    /// Connects and waits for nothing.
    pub(crate) async fn silent(sim: &Sim) -> Self {
        let stream = TcpStream::connect(sim.addr()).await.expect("the port is open");
        Self { stream, bytes: Vec::new() }
    }

    /// Writes text, LF becoming CRLF.
    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.replace('\n', "\r\n").as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection is up");
    }

    /// The next message, CRLF shown as LF, without the empty line that ends it.
    pub(crate) async fn message(&mut self) -> String {
        let block = self.until("\r\n\r\n").await;
        block.strip_suffix('\n').expect("it ends with an empty line").to_owned()
    }

    /// The next `count` messages.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.message().await);
        }
        messages
    }

    /// The messages up to and with the first that holds `part`.
    pub(crate) async fn through(&mut self, part: &str) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.message().await);
            if messages.last().is_some_and(|message| message.contains(part)) {
                return messages;
            }
        }
    }

    /// Sends an action and returns the next message.
    pub(crate) async fn ask(&mut self, action: &str) -> String {
        self.send(&format!("{action}\n\n")).await;
        self.message().await
    }

    /// Everything up to the end of file; the connection must end within the tests' patience.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.bytes);
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        // A connection reset is an end too.
        let _ = read.expect("the server closes the connection");
        rest
    }

    /// Whether nothing comes for this long.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        self.bytes.is_empty() && timeout(time, self.fill()).await.is_err()
    }

    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.bytes.windows(end.len()).position(|window| window == end.as_bytes()) {
                let block: Vec<u8> = self.bytes.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&block).replace("\r\n", "\n");
            }
            let so_far = self.bytes.len();
            let filled = timeout(PATIENCE, self.fill()).await;
            let count = filled.unwrap_or_else(|_| panic!("nothing more after {so_far} bytes"));
            assert!(count > 0, "end of file after {so_far} bytes");
        }
    }

    async fn fill(&mut self) -> usize {
        self.stream.read_buf(&mut self.bytes).await.expect("a readable socket")
    }
}

/// The value of a message's first header of this name.
pub(crate) fn header<'message>(message: &'message str, name: &str) -> &'message str {
    let found = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// The names of events, in order; what is no event is shown as its first line.
pub(crate) fn names(messages: &[String]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.lines().next().unwrap_or_default())
        .map(|l| l.trim_start_matches("Event: "))
        .collect()
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, so: impl Fn() -> bool) {
    let waited = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what} did not come about"));
}
