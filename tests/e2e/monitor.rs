//! A plain AMI session of its own, which shares no code with amibus: what Asterisk really sent.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::stack::PATIENCE;

/// One message: its header lines in order.
pub(super) type Block = Vec<(String, String)>;

/// A logged-in session that keeps every message.
pub(super) struct Monitor {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Monitor {
    pub(super) fn login(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("Asterisk listens");
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, sink) = (stream.try_clone().expect("a second handle"), Arc::clone(&bytes));
        std::thread::spawn(move || {
            let mut chunk = [0; 65536];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                sink.lock().expect("unpoisoned").extend_from_slice(&chunk[..count]);
            }
        });
        let login = "Action: Login\r\nUsername: full\r\nSecret: full-pass\r\nEvents: on\r\n\r\n";
        stream.write_all(login.as_bytes()).expect("written");
        let monitor = Self { stream, bytes };
        monitor.wait(|block| value(block, "Message") == Some("Authentication accepted"));
        monitor
    }

    /// Has Asterisk send a `UserEvent` of this name to every session, and waits for it here.
    pub(super) fn mark(&mut self, name: &str) {
        let action = format!("Action: UserEvent\r\nUserEvent: {name}\r\nMark: here\r\n\r\n");
        self.stream.write_all(action.as_bytes()).expect("written");
        self.wait(|block| is_mark(block, name));
    }

    /// The events between two marks.
    pub(super) fn between(&self, start: &str, end: &str) -> Vec<Block> {
        let blocks = self.blocks();
        let place = |name: &str| blocks.iter().position(|b| is_mark(b, name)).expect("a mark");
        let (start, end) = (place(start), place(end));
        blocks[start + 1..end].iter().filter(|b| b[0].0 == "Event").cloned().collect()
    }

    /// Waits for a message.
    pub(super) fn wait(&self, fits: impl Fn(&Block) -> bool) -> Block {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.blocks().into_iter().find(|block| fits(block)) {
                return found;
            }
            assert!(Instant::now() < deadline, "Asterisk did not send what was waited for");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let bytes = self.bytes.lock().expect("unpoisoned").clone();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = &text[..text.rfind("\r\n\r\n").unwrap_or(0)];
        let lines = |block: &str| {
            block
                .split("\r\n")
                .filter_map(|l| l.split_once(": "))
                .map(|(n, v)| (n.into(), v.into()))
                .collect()
        };
        whole.split("\r\n\r\n").map(lines).filter(|block: &Block| !block.is_empty()).collect()
    }
}

/// The first value of a header.
pub(super) fn value<'a>(block: &'a Block, name: &str) -> Option<&'a str> {
    block.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn is_mark(block: &Block, name: &str) -> bool {
    value(block, "Event") == Some("UserEvent") && value(block, "UserEvent") == Some(name)
}
