//! A peer made of literal bytes; it shares no code with the bridge.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::SOON;

/// The greeting of ZMTP 3.1, NULL, as libzmq 4.3 sends it.
pub(crate) const GREETING: &[u8; 64] =
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const READY_SUB: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB";
const READY_DEALER: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";

/// The header of a frame of 2^40 bytes.
pub(crate) const ENORMOUS: &[u8] = b"\x02\0\0\x01\0\0\0\0\0";

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        let address = address.strip_prefix("tcp://").expect("a TCP address");
        Self { stream: TcpStream::connect(address).await.expect("it listens") }
    }

    /// A peer whose handshake is done; what the server said meanwhile has been read.
    pub(crate) async fn shaken(address: &str, socket: &str) -> Self {
        Self::shaken_by(address, if socket == "SUB" { READY_SUB } else { READY_DEALER }).await
    }

    /// The same with a READY command of its own.
    pub(crate) async fn shaken_by(address: &str, ready: &[u8]) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(GREETING).await;
        raw.send(ready).await;
        raw.read(64).await;
        let header = raw.read(2).await;
        assert_eq!(header[0], 4, "a short command");
        let ready = raw.read(usize::from(header[1])).await;
        assert!(ready.starts_with(b"\x05READY"), "{ready:?}");
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it still listens");
    }

    pub(crate) async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        let read = timeout(SOON, self.stream.read_exact(&mut got)).await;
        read.expect("an answer in time").expect("an answer");
        got
    }

    /// Waits until the server closes the connection, and answers after what time it did.
    pub(crate) async fn closed(&mut self) -> Duration {
        let start = Instant::now();
        let mut sink = [0; 4096];
        loop {
            match timeout(SOON, self.stream.read(&mut sink)).await.expect("the connection is closed in time")
            {
                Ok(0) => return start.elapsed(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return start.elapsed(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
