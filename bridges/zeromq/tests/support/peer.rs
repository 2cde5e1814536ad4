//! A pyzmq process.

use std::{process::Stdio, time::Duration};

use amibus_services::python;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::SOON;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peer.py");

/// It ends with this value, and with this process.
pub(crate) struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Runs one of the functions of `peer.py`.
    pub(crate) fn start(what: &str, options: &Value) -> Self {
        let mut child = Command::new(python())
            .args([SCRIPT, what, &options.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// A subscriber that prints what it sees, and that is subscribed when this is ready.
    pub(crate) async fn observe(address: &str, topics: &[&str]) -> Self {
        let options = serde_json::json!({"address": address, "topics": topics});
        let mut peer = Self::start("observe", &options);
        peer.ready().await;
        peer
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&mut self) {
        assert_eq!(self.said().await["ready"], true);
    }

    /// The next thing that it says, which has to come soon.
    pub(crate) async fn said(&mut self) -> Value {
        self.said_within(SOON).await.expect("it says something in time")
    }

    /// The next thing that it says, if it comes in time.
    pub(crate) async fn said_within(&mut self, limit: Duration) -> Option<Value> {
        let line = timeout(limit, self.lines.next_line()).await.ok()?;
        let line = line.expect("a pipe").expect("the script goes on; see its error above");
        Some(serde_json::from_str(&line).expect("a line of JSON"))
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.expect("kill").success());
    }
}

/// Bytes in a script's answer.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    unbase64(value.as_str().expect("a text"))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as a script takes them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (n, b)| bits | u32::from(*b) << (16 - 8 * n));
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let value = |b: &u8| DIGITS.iter().position(|d| d == b).expect("a digit of base64") as u32;
        let bits = group.iter().enumerate().fold(0, |bits, (n, b)| bits | value(b) << (18 - 6 * n));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    out
}
